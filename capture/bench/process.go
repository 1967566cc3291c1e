package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is what is measured.
type process struct {
	name    string
	address string
	cmd     *exec.Cmd // nil for the direct connection
	dir     string    // of its files, removed at the end
	tls     bool
}

func (p *process) scheme() string {
	if p.tls {
		return "https://"
	}
	return "http://"
}

// startRole starts this program in a role.
func startRole(ctx context.Context, role, to, certificate string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	address, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, "-role", role, "-listen", address, "-to", to, "-certificate", certificate)
	return (&process{name: role, address: address, cmd: cmd, tls: certificate != ""}).start(ctx)
}

// startHAProxy starts HAProxy in TCP mode, with a thread for each core, terminating TLS if there is a
// certificate.
func startHAProxy(ctx context.Context, to, certificate string) (*process, error) {
	path, err := exec.LookPath("haproxy")
	if err != nil {
		return nil, err
	}
	address, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	bind := address
	if certificate != "" {
		bind += " ssl crt " + certificate
	}
	config := fmt.Sprintf(`global
  nbthread %d
  maxconn 4000
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen bench
  bind %s
  server backend %s
`, runtime.NumCPU(), bind, to)
	file := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, path, "-q", "-db", "-f", file)
	return (&process{name: "haproxy", address: address, cmd: cmd, dir: dir, tls: certificate != ""}).start(ctx)
}

// start starts the process and waits until it accepts connections.
func (p *process) start(ctx context.Context) (*process, error) {
	p.cmd.Stderr = os.Stderr
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	deadline, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := new(net.Dialer).DialContext(deadline, "tcp", p.address)
		if err == nil {
			return p, conn.Close()
		}
		select {
		case <-tick.C:
		case <-deadline.Done():
			p.stop()
			return nil, fmt.Errorf("%s does not listen: %w", p.name, err)
		}
	}
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	_ = p.cmd.Wait()
	if p.dir != "" {
		_ = os.RemoveAll(p.dir)
	}
}

// cpu returns what the process has used so far.
func (p *process) cpu() (time.Duration, error) {
	if p.cmd == nil {
		return 0, nil
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	// The fields after the name, which may have spaces, begin with the third.
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	const user, system, tick = 14 - 3, 15 - 3, 10 * time.Millisecond
	u, err := strconv.Atoi(fields[user])
	if err != nil {
		return 0, err
	}
	s, err := strconv.Atoi(fields[system])
	return time.Duration(u+s) * tick, err
}

func freeAddress(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
