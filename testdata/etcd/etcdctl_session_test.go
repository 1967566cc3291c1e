package etcd

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// session is an etcdctl that runs until it is told to stop.
type session struct {
	t     *testing.T
	name  string
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines chan string // closed when it has ended
}

func (s server) session(t *testing.T, args ...string) *session {
	t.Helper()
	cmd := exec.Command(programs.etcdctl, append([]string{"--endpoints", s.address}, args...)...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// Nothing here prints as many lines.
	run := &session{t: t, name: s.name + ": etcdctl " + strings.Join(args, " "), cmd: cmd, stdin: stdin, lines: make(chan string, 1000)}
	var reader sync.WaitGroup
	reader.Go(func() {
		for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
			run.lines <- scanner.Text()
		}
		close(run.lines)
	})
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		reader.Wait()
		_ = cmd.Wait()
	})
	return run
}

// next waits for the next lines and joins them.
func (s *session) next(n int) string {
	s.t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	var lines []string
	for range n {
		select {
		case line, ok := <-s.lines:
			if !ok {
				s.t.Fatalf("%s ended after %q", s.name, lines)
			}
			lines = append(lines, line)
		case <-timer.C:
			s.t.Fatalf("%s says nothing after %q", s.name, lines)
		}
	}
	return strings.Join(lines, "\n")
}

// write gives the session a line of input.
func (s *session) write(line string) {
	s.t.Helper()
	if _, err := io.WriteString(s.stdin, line+"\n"); err != nil {
		s.t.Fatalf("%s: %v", s.name, err)
	}
}

// quiet fails if the session has said anything.
func (s *session) quiet() {
	s.t.Helper()
	select {
	case line := <-s.lines:
		s.t.Errorf("%s says %q too early", s.name, line)
	default:
	}
}

// interrupt ends the session like a user who presses control-C.
func (s *session) interrupt() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(os.Interrupt); err != nil {
		s.t.Fatalf("%s: %v", s.name, err)
	}
}

// onBoth runs the same with both servers, at the same time.
func onBoth(t *testing.T, test func(t *testing.T, s server) string) {
	t.Helper()
	t.Parallel()
	etcd, meshbridge := startBoth(t)
	if diff := cmp.Diff(test(t, etcd), test(t, meshbridge)); diff != "" {
		t.Errorf("(-etcd +meshbridge):\n%s", diff)
	}
}

// catchUp is what differs in the response to a watch that catches up; see
// headerOfCatchUp.
var catchUp = regexp.MustCompile(`"Header":\{[^}]*\}|ETCD_WATCH_REVISION=\d+`)

func TestEtcdctlWatchInEveryForm(t *testing.T) {
	onBoth(t, func(t *testing.T, s server) string {
		var lease string
		put := func(args string) { s.etcdctl(t, step{args: "put " + args}, &lease) }
		put("a 1")  // 2
		put("b 2")  // 3
		put("a3 3") // 4
		history := s.session(t, "watch", "--rev", "2", "--prefix", "a")
		ranged := s.session(t, "watch", "--rev", "2", "--prev-kv", "a", "b")
		executed := s.session(t, "watch", "b", "--rev", "1", "--", "sh", "-c", "env | grep ETCD_WATCH_[EKV] | sort; cat")
		compacted := s.session(t, "watch", "a", "--rev", "1", "-w", "json")
		interactive := s.session(t, "watch", "-i")
		interactive.write("watch --rev 3 b")
		said := []string{
			history.next(6), ranged.next(6), executed.next(6), interactive.next(3), catchUp.ReplaceAllString(compacted.next(1), ""),
		}
		interactive.write("watch a --prefix --rev 4")
		said = append(said, interactive.next(3))
		put("a 4")
		said = append(said, history.next(3), ranged.next(5), interactive.next(3))
		s.etcdctl(t, step{args: "del b"}, &lease)
		said = append(said, executed.next(3), interactive.next(3))
		s.etcdctl(t, step{args: "compaction 6"}, &lease)
		old := s.session(t, "watch", "a", "--rev", "2")
		if line, ok := <-old.lines; ok {
			t.Errorf("%s: %q from before the compaction", s.name, line)
		}
		return strings.Join(said, "\n--\n")
	})
}

// Of two that want the lock the second gets it when the first lets go.
func TestEtcdctlLock(t *testing.T) {
	onBoth(t, func(t *testing.T, s server) string {
		first := s.session(t, "lock", "l")
		key := first.next(1)
		second := s.session(t, "lock", "l", "echo", "got it")
		var lease string
		for !strings.Contains(s.etcdctl(t, step{args: "get l/ --prefix --count-only", format: "fields"}, &lease), `"Count" : 2`) {
			if t.Context().Err() != nil {
				return ""
			}
		}
		second.quiet()
		first.interrupt()
		said := second.next(1)
		if line, ok := <-second.lines; ok {
			t.Errorf("%s: %q after the command's end", s.name, line)
		}
		left := s.etcdctl(t, step{args: "get l/ --prefix", format: "simple"}, &lease)
		return strings.Split(key, "/")[0] + "\n" + said + "\n" + left
	})
}

// A candidate waits for the leader to go, and a listener hears of both.
func TestEtcdctlElect(t *testing.T) {
	onBoth(t, func(t *testing.T, s server) string {
		listener := s.session(t, "elect", "-l", "e")
		first := s.session(t, "elect", "e", "one")
		keyOf := func(lines string) string { return strings.Split(lines, "/")[0] + lines[strings.Index(lines, "\n"):] }
		said := []string{keyOf(first.next(2)), keyOf(listener.next(2))}
		second := s.session(t, "elect", "e", "two")
		var lease string
		for !strings.Contains(s.etcdctl(t, step{args: "get e/ --prefix --count-only", format: "fields"}, &lease), `"Count" : 2`) {
			if t.Context().Err() != nil {
				return ""
			}
		}
		second.quiet()
		first.interrupt()
		said = append(said, keyOf(second.next(2)), keyOf(listener.next(2)))
		return strings.Join(said, "\n")
	})
}

// A lease that is kept alive outlives its time to live, and ends after that.
func TestEtcdctlKeepsALeaseAlive(t *testing.T) {
	onBoth(t, func(t *testing.T, s server) string {
		var lease string
		s.etcdctl(t, step{args: "lease grant 2"}, &lease)
		s.etcdctl(t, step{args: "put leased x --lease {lease}"}, &lease)
		watch := s.session(t, "watch", "leased", "--rev", "2")
		said := []string{watch.next(3)}
		keeper := s.session(t, "lease", "keep-alive", lease)
		said = append(said, keeper.next(4)) // two thirds of a second apart
		watch.quiet()
		keeper.interrupt()
		said = append(said, watch.next(3))
		return strings.ReplaceAll(strings.Join(said, "\n"), lease, "LEASE")
	})
}

// endpoint status prints every column that it prints for etcd.
func TestEtcdctlEndpointStatus(t *testing.T) {
	onBoth(t, func(t *testing.T, s server) string {
		var lease string
		s.etcdctl(t, step{args: "put a b"}, &lease)
		table := s.etcdctl(t, step{args: "endpoint status", format: "table"}, &lease)
		members := s.etcdctl(t, step{args: "member list", format: "table"}, &lease)
		heads := func(table string) string { return strings.Join(strings.Fields(strings.Split(table, "\n")[2]), " ") }
		status := s.etcdctl(t, step{args: "endpoint status"}, &lease)
		for _, field := range []string{
			`"version": "3.6.16"`, `"storageVersion": "3.6.0"`, `"dbSize":`, `"dbSizeInUse":`, `"leader":`, `"raftIndex":`, `"raftAppliedIndex":`, `"raftTerm":`,
		} {
			if !strings.Contains(status, field) {
				t.Errorf("%s: no %s in %s", s.name, field, status)
			}
		}
		return heads(table) + "\n" + heads(members)
	})
}
