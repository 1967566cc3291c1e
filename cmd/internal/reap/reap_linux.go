package reap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Reaper waits for processes that this one has inherited. Its methods are safe for concurrent use.
type Reaper struct {
	log *slog.Logger
	// waited has room for one: a child of our own was waited for, which may have hidden others.
	waited chan struct{}

	// mu is held while a child is started and its number noted, and while an orphan is buried, so that no
	// child is taken for an orphan in between.
	mu  sync.Mutex
	own map[int]bool // children of our own that are not waited for yet; guarded by mu
}

// New returns a Reaper. Children must be started and waited for by it from now on.
func New(log *slog.Logger) *Reaper {
	return &Reaper{log: log, waited: make(chan struct{}, 1), own: map[int]bool{}}
}

// Start starts a command; Wait must follow.
func (r *Reaper) Start(cmd *exec.Cmd) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	r.own[cmd.Process.Pid] = true
	return nil
}

// Wait waits for a command that Start has started.
func (r *Reaper) Wait(cmd *exec.Cmd) error {
	err := cmd.Wait()
	r.mu.Lock()
	delete(r.own, cmd.Process.Pid)
	r.mu.Unlock()
	select {
	case r.waited <- struct{}{}:
	default:
	}
	return err
}

// Run buries orphans until ctx ends.
func (r *Reaper) Run(ctx context.Context) error {
	died := make(chan os.Signal, 1)
	signal.Notify(died, syscall.SIGCHLD)
	defer signal.Stop(died)
	for {
		for {
			buried, err := r.bury(ctx)
			if err != nil {
				return fmt.Errorf("reap: %w", err)
			}
			if !buried {
				break
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-died:
		case <-r.waited:
		}
	}
}

// bury waits for an orphan that has died, and tells whether there was one.
func (r *Reaper) bury(ctx context.Context) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := dead()
	if err != nil || pid == 0 || r.own[pid] {
		// Behind a child of our own there may be others: Wait gets to it soon, and says so.
		return false, err
	}
	var status syscall.WaitStatus
	_, err = ignoringInterrupts(func() (int, error) { return syscall.Wait4(pid, &status, syscall.WNOHANG, nil) })
	if err != nil {
		return false, err
	}
	r.log.DebugContext(ctx, "an orphan has ended", slog.Int("pid", pid), slog.Int("exit_status", status.ExitStatus()))
	return true, nil
}

// siginfo is what waitid fills in: after three numbers there is a union, aligned like a pointer, that begins
// with the process number.
type siginfo struct {
	_     [3]int32
	union struct {
		_   [0]uintptr
		pid int32
		_   [108]byte
	}
}

// dead returns a child that has died and leaves it as it is; 0 where there is none.
func dead() (int, error) {
	return ignoringInterrupts(func() (int, error) {
		var info siginfo
		err := unix.Waitid(unix.P_ALL, 0, (*unix.Siginfo)(unsafe.Pointer(&info)), unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if errors.Is(err, unix.ECHILD) {
			return 0, nil
		}
		return int(info.union.pid), err
	})
}

func ignoringInterrupts(call func() (int, error)) (n int, err error) {
	for {
		if n, err = call(); !errors.Is(err, syscall.EINTR) {
			return n, err
		}
	}
}
