package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Patience with processes. It bounds a failure and asserts no speed.
const (
	patience  = 60 * time.Second
	stopLimit = 30 * time.Second
	pollEvery = 20 * time.Millisecond
)

// process is a program that is started again and again. It belongs to one goroutine at a time.
type process struct {
	name, path  string
	args        []string
	environment []string
	output      string // file

	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// start runs the program, which must not be running.
func (p *process) start() error {
	out, err := os.OpenFile(p.output, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	fmt.Fprintf(out, "--- started at %s\n", time.Now().Format(time.StampMilli))
	p.cmd = exec.Command(p.path, p.args...)
	p.cmd.Env = append(os.Environ(), p.environment...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	if err := p.cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	p.done = done
	go func(cmd *exec.Cmd) {
		defer close(done)
		_ = cmd.Wait() // ended tells how
	}(p.cmd)
	return nil
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// kill ends it without a goodbye.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.done
}

// terminate asks it to end, and tells what is wrong with how it did.
func (p *process) terminate() error {
	p.signal(syscall.SIGTERM)
	timer := time.NewTimer(stopLimit)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		p.kill()
		return fmt.Errorf("%s has not ended %v after SIGTERM", p.name, stopLimit)
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("%s ended with %v after SIGTERM", p.name, p.cmd.ProcessState)
	}
	return nil
}

// tail returns the end of what it has written.
func (p *process) tail() string {
	const limit = 4 << 10
	text, err := os.ReadFile(p.output)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-limit):])
}

// usage is what a process holds.
type usage struct {
	resident    int // KiB
	descriptors int
	goroutines  int // -1 where it does not tell
}

func (u usage) String() string {
	return fmt.Sprintf("%d KiB, %d descriptors, %d goroutines", u.resident, u.descriptors, u.goroutines)
}

// usage asks the kernel, and the admin port where there is one.
func (p *process) usage(ctx context.Context, admin string) (usage, error) {
	u := usage{goroutines: -1}
	proc := filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid))
	descriptors, err := os.ReadDir(filepath.Join(proc, "fd"))
	if err != nil {
		return u, err
	}
	u.descriptors = len(descriptors)
	status, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			if _, err := fmt.Sscan(rest, &u.resident); err != nil {
				return u, err
			}
		}
	}
	if admin == "" {
		return u, nil
	}
	text, err := get(ctx, "http://"+admin+"/debug/pprof/goroutine?debug=1")
	if err != nil {
		return u, err
	}
	_, err = fmt.Sscanf(text, "goroutine profile: total %d", &u.goroutines)
	return u, err
}

// get returns the body of a page. Each has a connection of its own, so that none is left in the process.
func get(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, response.Status, body)
	}
	return string(body), err
}

// permanent is an error that waiting does not mend.
type permanent struct{ error }

// eventually calls check until it returns nil, and returns its last error where it does not.
func eventually(ctx context.Context, limit time.Duration, check func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	last := errors.New("no time")
	for {
		err := check(limited)
		if err == nil {
			return nil
		}
		if limited.Err() == nil {
			last = err
		}
		if errors.As(err, new(permanent)) {
			return err
		}
		select {
		case <-tick.C:
		case <-limited.Done():
			return fmt.Errorf("not within %v: %w", limit, last)
		}
	}
}
