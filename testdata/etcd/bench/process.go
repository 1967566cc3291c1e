package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a server under measurement.
type process struct {
	name    string
	address string
	cmd     *exec.Cmd
	lines   chan string // of its stderr, until it ends; dropped when nobody reads
	read    sync.WaitGroup
}

const startTimeout = 60 * time.Second

func goBuild(ctx context.Context, module, pkg, to string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", to, pkg)
	cmd.Dir = module
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, output)
	}
	return nil
}

// spawn starts a program.
func spawn(name, path string, args ...string) (*process, error) {
	p := &process{name: name, cmd: exec.Command(path, args...), lines: make(chan string, 1000)}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p.read.Go(func() {
		defer close(p.lines)
		scanner := bufio.NewScanner(stderr)
		scanner.Buffer(nil, 1<<20)
		for scanner.Scan() {
			select {
			case p.lines <- scanner.Text():
			default:
			}
		}
		_, _ = io.Copy(io.Discard, stderr)
	})
	return p, nil
}

// waitLine returns the first line that contains text.
func (p *process) waitLine(ctx context.Context, text string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var last string
	for {
		select {
		case line, open := <-p.lines:
			if !open {
				return "", fmt.Errorf("%s ended; its last words: %s", p.name, last)
			}
			if last = line; strings.Contains(line, text) {
				return line, nil
			}
		case <-ctx.Done():
			return "", fmt.Errorf("%s: no line with %q: %w", p.name, text, ctx.Err())
		}
	}
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(10*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	p.read.Wait()
	_ = p.cmd.Wait()
}

// startEtcd runs an etcd with empty data in memory-like conditions.
func (o *options) startEtcd(ctx context.Context, dir string) (*process, error) {
	data, err := os.MkdirTemp(dir, "etcd-data")
	if err != nil {
		return nil, err
	}
	client, peer, err := twoFreeAddresses()
	if err != nil {
		return nil, err
	}
	p, err := spawn("etcd "+etcdVersion, o.etcd, "--data-dir", data, "--unsafe-no-fsync", "--log-level", "error",
		"--listen-client-urls", "http://"+client, "--advertise-client-urls", "http://"+client,
		"--listen-peer-urls", "http://"+peer, "--initial-advertise-peer-urls", "http://"+peer,
		"--initial-cluster", "default=http://"+peer)
	if err != nil {
		return nil, err
	}
	p.address = client
	return p, p.waitServing(ctx)
}

// etcdVersion is the version that this module requires.
const etcdVersion = "3.7.3"

// startStore runs the plain store.
func (o *options) startStore(ctx context.Context, _ string) (*process, error) {
	p, err := spawn("meshbridge", o.meshbridge, "etcd", "--listen", "127.0.0.1:0", "--log-format", "json")
	if err != nil {
		return nil, err
	}
	if err := p.findAddress(ctx, "serving etcd"); err != nil {
		return nil, errors.Join(err, p.cmd.Process.Kill())
	}
	return p, p.waitServing(ctx)
}

// startNoop runs this command's server that does nothing.
func (o *options) startNoop(ctx context.Context, _ string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p, err := spawn("no-op gRPC server", self, "-serve-noop")
	if err != nil {
		return nil, err
	}
	return p, p.findAddress(ctx, "serving noop")
}

// findAddress reads the address from a JSON log line.
func (p *process) findAddress(ctx context.Context, message string) error {
	line, err := p.waitLine(ctx, message)
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(line, `"address":"`)
	address, _, ok := strings.Cut(rest, `"`)
	if !ok {
		return fmt.Errorf("%s: no address in %s", p.name, line)
	}
	p.address = address
	return nil
}

// waitServing waits until the server answers a read.
func (p *process) waitServing(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := rangeHTTP(ctx, p.address, "/absent"); err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer at %s: %w", p.name, p.address, ctx.Err())
		}
	}
}

func twoFreeAddresses() (a, b string, err error) {
	first, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", err
	}
	second, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", errors.Join(err, first.Close())
	}
	return first.Addr().String(), second.Addr().String(), errors.Join(first.Close(), second.Close())
}

// cpu is the processor time that the process has used, in user and kernel
// mode: the sum over its threads, to the nanosecond, where /proc/PID/stat
// counts in steps of 10 ms. Go does not end threads in ordinary operation.
func (p *process) cpu() (time.Duration, error) {
	threads, err := filepath.Glob(p.proc("task/*/schedstat"))
	if err != nil {
		return 0, err
	}
	if len(threads) == 0 {
		return 0, fmt.Errorf("%s has ended, or the kernel has no schedstat", p.name)
	}
	var total time.Duration
	for _, thread := range threads {
		text, err := os.ReadFile(thread)
		if err != nil {
			return 0, err
		}
		running, _, _ := strings.Cut(string(text), " ")
		ns, err := strconv.ParseInt(running, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", thread, err)
		}
		total += time.Duration(ns)
	}
	return total, nil
}

// memory is what a process has of it, in bytes.
type memory struct {
	resident, peak int64
	// program is the part of resident that is pages of the program's file, which processes share.
	program int64
}

func (p *process) memory() (m memory, err error) {
	text, err := os.ReadFile(p.proc("status"))
	if err != nil {
		return m, err
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		var to *int64
		switch name {
		case "VmRSS":
			to = &m.resident
		case "VmHWM":
			to = &m.peak
		case "RssFile":
			to = &m.program
		default:
			continue
		}
		kilobytes, convErr := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		*to, err = kilobytes<<10, errors.Join(err, convErr)
	}
	return m, err
}

func (p *process) proc(file string) string {
	return filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), file)
}

func machine() string {
	return fmt.Sprintf("%d cores, %s/%s, %s, %s", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version(),
		time.Now().UTC().Format(time.DateOnly))
}
