package harness

import (
	"bufio"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Patience is how long the tests wait for what must happen. It bounds a
// failure and asserts no speed.
const Patience = 60 * time.Second

// Process is a running program whose output lines are kept.
type Process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended and its output is read

	mu      sync.Mutex
	lines   []string
	changed chan struct{} // closed and replaced at every new line
}

// Start runs a program until the test ends. A failed test shows its output.
func Start(t testing.TB, path string, args ...string) *Process {
	t.Helper()
	p := &Process{
		name:    path[strings.LastIndexByte(path, '/')+1:],
		cmd:     exec.Command(path, args...),
		done:    make(chan struct{}),
		changed: make(chan struct{}),
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	var readers sync.WaitGroup
	for _, output := range []io.Reader{stdout, stderr} {
		readers.Go(func() { p.read(output) })
	}
	go func() {
		defer close(p.done)
		readers.Wait()
		_ = p.cmd.Wait() // how it ended is each test's business
	}()
	t.Cleanup(func() {
		p.Stop()
		if t.Failed() {
			t.Logf("output of %s %s:\n%s", path, strings.Join(args, " "), strings.Join(p.Lines(), "\n"))
		}
	})
	return p
}

func (p *Process) read(r io.Reader) {
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		p.mu.Lock()
		p.lines = append(p.lines, scanner.Text())
		close(p.changed)
		p.changed = make(chan struct{})
		p.mu.Unlock()
	}
}

// Lines returns what the program has written so far, on both its outputs.
func (p *Process) Lines() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clip(p.lines)
}

// WaitLine returns the first line, among those written already and those to
// come, that match accepts. The test fails when there is none.
func (p *Process) WaitLine(t testing.TB, what string, match func(line string) bool) string {
	t.Helper()
	line, ok := p.FindLine(t, what, match)
	if !ok {
		t.Fatalf("%s ended without %s", p.name, what)
	}
	return line
}

// FindLine is WaitLine for a program that may end without such a line, which is no failure: ok is false then.
func (p *Process) FindLine(t testing.TB, what string, match func(line string) bool) (line string, ok bool) {
	t.Helper()
	timeout := time.NewTimer(Patience)
	defer timeout.Stop()
	ended := false
	for seen := 0; ; {
		p.mu.Lock()
		lines, changed := p.lines, p.changed
		p.mu.Unlock()
		for ; seen < len(lines); seen++ {
			if match(lines[seen]) {
				return lines[seen], true
			}
		}
		if ended {
			return "", false
		}
		select {
		case <-changed:
		case <-p.done:
			ended = true
		case <-timeout.C:
			t.Fatalf("%s: no %s within %v", p.name, what, Patience)
		}
	}
}

// Stop asks the program to end and waits until it has.
func (p *Process) Stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	timeout := time.NewTimer(20 * time.Second)
	defer timeout.Stop()
	select {
	case <-p.done:
	case <-timeout.C:
		p.Kill()
	}
}

// Kill ends the program without letting it say goodbye.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Ended is closed when the program has ended.
func (p *Process) Ended() <-chan struct{} { return p.done }

// ExitCode is the exit status of a program that has ended; -1 for a signal.
func (p *Process) ExitCode() int { return p.cmd.ProcessState.ExitCode() }

// String names the process in messages.
func (p *Process) String() string { return fmt.Sprintf("%s (pid %d)", p.name, p.cmd.Process.Pid) }
