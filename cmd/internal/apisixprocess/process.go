// Package apisixprocess runs APISIX as a child process: never before there is something to serve, in the
// foreground, in a process group of its own, and never a second time.
package apisixprocess

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Config configures New.
type Config struct {
	// Home is APISIX's directory, with conf and logs; such as /usr/local/apisix.
	Home string
	// APISIX is APISIX's command line program, OpenResty the server that it prepares.
	APISIX, OpenResty string
	// Configuration is the content of conf/config.yaml.
	Configuration []byte
	// Status is the URL that answers 200 once all workers have their configuration.
	Status string
	// StopTime is how long requests in flight have once APISIX is told to stop; then it is killed.
	StopTime time.Duration
	// Stdout and Stderr receive what APISIX writes; default: nowhere.
	Stdout, Stderr io.Writer
	Logger         *slog.Logger
}

// Process is APISIX.
type Process struct {
	config Config
	tail   *tail
	client *http.Client
}

// New checks that the programs are there, so that a wrong path is reported before anything runs.
func New(c Config) (*Process, error) {
	for _, program := range []*string{&c.APISIX, &c.OpenResty} {
		path, err := exec.LookPath(*program)
		if err != nil {
			return nil, fmt.Errorf("apisix: %w", err)
		}
		*program = path
	}
	conf := filepath.Join(c.Home, "conf")
	if info, err := os.Stat(conf); err != nil || !info.IsDir() {
		return nil, errors.Join(fmt.Errorf("apisix: %s is no directory: is --apisix-home right?", conf), err)
	}
	if c.Stdout == nil {
		c.Stdout = io.Discard
	}
	if c.Stderr == nil {
		c.Stderr = io.Discard
	}
	return &Process{config: c, tail: &tail{}, client: &http.Client{Timeout: time.Second}}, nil
}

// Run starts APISIX once start is closed, and returns when it has ended: nil after ctx, which stops it
// gracefully; otherwise an error with its last lines, for APISIX is not to end by itself.
func (p *Process) Run(ctx context.Context, start <-chan struct{}) error {
	select {
	case <-ctx.Done():
		return nil
	case <-start:
	}
	if err := p.prepare(ctx); err != nil {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // that it was stopped is why it failed
		}
		return err
	}
	c := p.config
	cmd := p.command(ctx, c.OpenResty, "-p", c.Home, "-c", filepath.Join(c.Home, "conf", "nginx.conf"), "-g", "daemon off;")
	// nginx finishes what is in flight.
	cmd.Cancel = func() error { return quit(cmd.Process) }
	cmd.WaitDelay = c.StopTime
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("apisix: start: %w", err)
	}
	c.Logger.InfoContext(ctx, "APISIX is running", slog.Int("pid", cmd.Process.Pid))
	err := cmd.Wait()
	killGroup(cmd.Process) // workers that outlived it
	if ctx.Err() == nil {
		return fmt.Errorf("apisix: ended by itself: %w\n%s", errorOrExit(err), p.tail)
	}
	switch {
	case errors.Is(err, exec.ErrWaitDelay) || isKilled(err):
		c.Logger.WarnContext(ctx, "APISIX was killed", slog.Duration("stop_time", c.StopTime))
	default:
		c.Logger.InfoContext(ctx, "APISIX has stopped")
	}
	return nil
}

// prepare writes the configuration and has APISIX render nginx's from it. Sockets that an APISIX left behind
// which was killed would keep the next one from starting.
func (p *Process) prepare(ctx context.Context) error {
	stale, err := filepath.Glob(filepath.Join(p.config.Home, "logs", "*.sock"))
	if err != nil {
		return fmt.Errorf("apisix: %w", err)
	}
	for _, socket := range stale {
		if err := os.Remove(socket); err != nil {
			return fmt.Errorf("apisix: %w", err)
		}
	}
	path := filepath.Join(p.config.Home, "conf", "config.yaml")
	next := path + ".next"
	// Workers, which may be another user than the master, read it as well. It holds no secrets.
	if err := os.WriteFile(next, p.config.Configuration, 0o644); err != nil { //nolint:gosec // see above
		return fmt.Errorf("apisix: configuration: %w", err)
	}
	if err := os.Rename(next, path); err != nil {
		return fmt.Errorf("apisix: configuration: %w", err)
	}
	cmd := p.command(ctx, p.config.APISIX, "init")
	cmd.WaitDelay = p.config.StopTime
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("apisix: %s init: %w\n%s", p.config.APISIX, err, p.tail)
	}
	return nil
}

func (p *Process) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = p.config.Home
	cmd.Stdout = io.MultiWriter(p.config.Stdout, p.tail)
	cmd.Stderr = io.MultiWriter(p.config.Stderr, p.tail)
	// Signals of a terminal are for the bridge, which tells APISIX when it is time.
	ownGroup(cmd)
	return cmd
}

// Ready tells whether all of APISIX's workers have their configuration, or why not.
func (p *Process) Ready(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.config.Status, nil)
	if err != nil {
		return fmt.Errorf("apisix: %w", err)
	}
	response, err := p.client.Do(request)
	if err != nil {
		return fmt.Errorf("apisix: status: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, 200))
	if err != nil || response.StatusCode != http.StatusOK {
		return errors.Join(fmt.Errorf("apisix: status: HTTP %d %s", response.StatusCode, strings.TrimSpace(string(body))), err)
	}
	return nil
}

// errorOrExit is what to say of a process that ended with status 0, too.
func errorOrExit(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}
