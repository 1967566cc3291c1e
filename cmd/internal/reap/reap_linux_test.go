package reap

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// asReaper, in the environment, makes this program one that inherits orphans.
const asReaper = "REAP_TEST_CHILDREN"

func TestMain(m *testing.M) {
	if rounds, err := strconv.Atoi(os.Getenv(asReaper)); err == nil {
		if err := inherit(rounds); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// The test runs in a process of its own, so that no other test's children are its own.
func TestOrphansAreBuriedAndChildrenAreLeftToWait(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), asReaper+"=100")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// inherit starts children that leave grandchildren behind, which then are its own: all must be gone in the
// end, and each child's exit status must have reached its Wait.
func inherit(rounds int) error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r := New(slog.New(slog.DiscardHandler))
	life, end := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- r.Run(life) }()

	var children sync.WaitGroup
	var mu sync.Mutex
	var orphans []string
	var errs []error
	for i := range rounds {
		children.Go(func() {
			pids, err := child(ctx, r, i%7)
			mu.Lock()
			defer mu.Unlock()
			orphans, errs = append(orphans, pids...), append(errs, err)
		})
	}
	children.Wait()
	for _, pid := range orphans {
		for {
			if _, err := os.Stat("/proc/" + pid); errors.Is(err, os.ErrNotExist) {
				break
			}
			if ctx.Err() != nil {
				state, _ := os.ReadFile("/proc/" + pid + "/stat")
				errs = append(errs, fmt.Errorf("orphan %s is still there: %s", pid, state))
				break
			}
			runtime.Gosched()
		}
	}
	if len(orphans) != 2*rounds {
		errs = append(errs, fmt.Errorf("%d orphans", len(orphans)))
	}
	end()
	return errors.Join(append(errs, <-ended)...)
}

// child starts one that leaves two grandchildren, one of which dies at once, and ends with a status.
func child(ctx context.Context, r *Reaper, status int) (orphans []string, err error) {
	cmd := exec.CommandContext(ctx, "sh", "-c", "sh -c 'echo $$; exec >&-; exit 3' & sh -c 'echo $$; exec >&-; exec sleep 0.2' & exit "+strconv.Itoa(status))
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := r.Start(cmd); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(io.LimitReader(out, 100))
	for lines.Scan() {
		orphans = append(orphans, strings.TrimSpace(lines.Text()))
	}
	err = r.Wait(cmd)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = nil
		if exit.ExitCode() != status {
			err = fmt.Errorf("exit status %d, want %d", exit.ExitCode(), status)
		}
	} else if status != 0 {
		err = fmt.Errorf("exit status %d: %w", status, err)
	}
	return orphans, err
}
