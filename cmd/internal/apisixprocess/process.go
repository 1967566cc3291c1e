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
	"sync"
	"time"
)

// Config configures New.
type Config struct {
	// Home is APISIX's directory, with conf and logs; such as /usr/local/apisix.
	Home string
	// WorkDir is where a copy of Home is made if that cannot be written; empty makes that an error.
	WorkDir string
	// APISIX is APISIX's command line program, OpenResty the server that it prepares.
	APISIX, OpenResty string
	// Configuration is the content of conf/config.yaml.
	Configuration []byte
	// Status is the URL that answers 200 once all workers have their configuration.
	Status string
	// StopTime is how long requests in flight have once APISIX is told to finish; then it is killed.
	StopTime time.Duration
	// Ports are those of the traffic, for Connections.
	Ports []uint16
	// Children start and wait for processes; default: os/exec alone.
	Children Children
	// Stdout and Stderr receive what APISIX writes; default: nowhere.
	Stdout, Stderr io.Writer
	Logger         *slog.Logger
}

// Children start processes and wait for them, such as a program does that has inherited others.
type Children interface {
	Start(cmd *exec.Cmd) error
	Wait(cmd *exec.Cmd) error
}

type ownChildren struct{}

func (ownChildren) Start(cmd *exec.Cmd) error { return cmd.Start() }
func (ownChildren) Wait(cmd *exec.Cmd) error  { return cmd.Wait() }

// killAfter is how long APISIX has to end at once before it is killed.
const killAfter = time.Second

// Process is APISIX.
type Process struct {
	config Config
	tail   *tail
	client *http.Client

	finishing chan struct{} // closed by Finish
	finish    sync.Once
	ended     chan struct{} // closed by Run
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
	home, err := writableHome(c.Home, c.WorkDir)
	if err != nil {
		return nil, err
	}
	c.Home = home
	if c.Stdout == nil {
		c.Stdout = io.Discard
	}
	if c.Stderr == nil {
		c.Stderr = io.Discard
	}
	if c.Children == nil {
		c.Children = ownChildren{}
	}
	return &Process{
		config: c, tail: &tail{}, finishing: make(chan struct{}), ended: make(chan struct{}),
		// Connections that are kept would count among those that APISIX serves.
		client: &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}},
	}, nil
}

// Run starts APISIX once start is closed, and returns when it has ended: nil after ctx, which ends it at
// once, or after Finish; otherwise an error with its last lines, for APISIX is not to end by itself. It is
// called once.
func (p *Process) Run(ctx context.Context, start <-chan struct{}) error {
	defer close(p.ended)
	select {
	case <-ctx.Done():
		return nil
	case <-p.finishing:
		return nil
	case <-start:
	}
	if err := p.prepare(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	if isClosed(p.finishing) {
		return nil
	}
	return p.serve(ctx)
}

// Finish lets APISIX finish what is in flight, and returns when it has ended, at the latest when StopTime is
// over or ctx has ended, which kills it.
func (p *Process) Finish(ctx context.Context) {
	p.finish.Do(func() { close(p.finishing) })
	select {
	case <-p.ended:
	case <-ctx.Done():
	}
}

// serve runs the server in the foreground.
func (p *Process) serve(ctx context.Context) error {
	c := p.config
	ending, end := context.WithCancel(ctx)
	defer end()
	cmd := p.command(ending, c.OpenResty, "-p", c.Home, "-c", filepath.Join(c.Home, "conf", "nginx.conf"), "-g", "daemon off;")
	cmd.Cancel = func() error { return terminate(cmd.Process) }
	cmd.WaitDelay = killAfter
	if err := c.Children.Start(cmd); err != nil {
		return fmt.Errorf("apisix: start: %w", err)
	}
	c.Logger.InfoContext(ctx, "APISIX is running", slog.Int("pid", cmd.Process.Pid))
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		p.finishWhenAsked(ending, cmd.Process)
	}()
	err := c.Children.Wait(cmd)
	asked := ctx.Err() != nil || isClosed(p.finishing)
	end()
	<-finished
	killGroup(cmd.Process) // workers that outlived it
	switch {
	case !asked:
		return fmt.Errorf("apisix: ended by itself: %w\n%s", errorOrExit(err), p.tail)
	case errors.Is(err, exec.ErrWaitDelay) || isKilled(err):
		c.Logger.WarnContext(ctx, "APISIX was killed: it had not ended in the time that it had")
	default:
		c.Logger.InfoContext(ctx, "APISIX has stopped")
	}
	return nil
}

// finishWhenAsked passes Finish on. It returns when ctx ends, which it does at the latest with the process.
func (p *Process) finishWhenAsked(ctx context.Context, process *os.Process) {
	select {
	case <-ctx.Done():
		return
	case <-p.finishing:
	}
	if err := quit(process); err != nil {
		return // it has ended
	}
	timer := time.NewTimer(p.config.StopTime)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
		killGroup(process)
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
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
	cmd.WaitDelay = killAfter
	err = p.config.Children.Start(cmd)
	if err == nil {
		err = p.config.Children.Wait(cmd)
	}
	if err != nil {
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
