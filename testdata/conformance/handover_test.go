package conformance

import (
	"context"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"meshbridge/testdata/conformance/harness"
)

func handsOver(t *testing.T) (flag string) {
	t.Helper()
	return "--handover=" + filepath.Join(t.TempDir(), "socket")
}

func waitEnd(t *testing.T, b *harness.Bridge) {
	t.Helper()
	harness.Eventually(t, "the end of the predecessor", func(context.Context) error {
		select {
		case <-b.Ended():
			return nil
		default:
			return syscall.EBUSY
		}
	})
	if code := b.ExitCode(); code != 0 {
		t.Errorf("exit status %d", code)
	}
}

func TestAnUpgradeOnOneHostIsNotNoticed(t *testing.T) {
	t.Parallel()
	flags := []string{handsOver(t), "--state-dir=" + t.TempDir()}
	s := newScenario(t, demo, flags...)
	before := s.bridge.MustRange(t)
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		// Each on a connection of its own.
		for ctx.Err() == nil {
			if _, err := s.bridge.Range(context.WithoutCancel(ctx)); err != nil {
				failed <- err
				return
			}
		}
		failed <- nil
	}()

	first := s.bridge
	for range 2 {
		last := s.bridge
		next := harness.StartBridge(t, binaries.Meshbridge, "grpc://"+s.istiod.GRPC, flags...)
		next.WaitReady(t)
		waitEnd(t, last)
		if next.Etcd != first.Etcd || next.Status != first.Status || next.Admin != first.Admin {
			t.Errorf("addresses %s, %s, %s became %s, %s, %s", first.Etcd, first.Status, first.Admin, next.Etcd, next.Status, next.Admin)
		}
		s.bridge = next
	}
	cancel()
	if err := <-failed; err != nil {
		t.Errorf("a request meanwhile: %v", err)
	}
	after := s.bridge.MustRange(t)
	wantUnchanged(t, before, after)
	if after.Revision != before.Revision {
		t.Errorf("revision %d became %d, with the same world", before.Revision, after.Revision)
	}
	// A watcher of the first process resumes where it was.
	watch := s.bridge.Watch(t, before.Revision+1)
	s.manifests.Replace(t, "reviews-routing.yaml", "exact: jason", "exact: jason-mraz")
	if events := s.eventsSoFar(t, watch); !strings.Contains(harness.Describe(events), "jason-mraz") {
		t.Errorf("the edit did not arrive:\n%s", harness.Describe(events))
	}
}

// The sockets outlive the process that opened them.
func TestAPredecessorThatDiesLeavesNoRefusedConnection(t *testing.T) {
	t.Parallel()
	flag := handsOver(t)
	s := newScenario(t, demo, flag)
	before := s.bridge.MustRange(t)
	s.istiod.Kill()
	next := harness.StartBridge(t, binaries.Meshbridge, "grpc://"+s.istiod.GRPC, flag)
	next.WaitLog(t, "taking over", func(harness.LogEntry) bool { return true })
	// It serves nothing yet; the one before does.
	wantUnchanged(t, before, s.bridge.MustRange(t))

	s.bridge.Kill()
	type answer struct {
		snapshot harness.Snapshot
		err      error
	}
	waiting := make(chan answer, 1)
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	go func() {
		snapshot, err := next.Range(ctx)
		waiting <- answer{snapshot, err}
	}()
	s.istiod.Start(t)
	got := <-waiting
	if got.err != nil {
		t.Fatalf("a request that came when nobody served: %v", got.err)
	}
	wantUnchanged(t, before, got.snapshot)
	if got.snapshot.Revision <= before.Revision {
		t.Errorf("revision %d after %d", got.snapshot.Revision, before.Revision)
	}
}

func TestASuccessorThatDiesIsNotNoticed(t *testing.T) {
	t.Parallel()
	flag := handsOver(t)
	s := newScenario(t, demo, flag)
	before := s.bridge.MustRange(t)
	watch := s.bridge.Watch(t, before.Revision+1)
	s.istiod.Kill()
	next := harness.StartBridge(t, binaries.Meshbridge, "grpc://"+s.istiod.GRPC, flag)
	third := harness.Start(t, binaries.Meshbridge, "run", "--xds=grpc://"+s.istiod.GRPC, "--node-id="+harness.ClientNode, flag)
	third.WaitLine(t, "refusal", func(line string) bool { return strings.Contains(line, "is taking over already") })
	next.Kill()
	s.istiod.Start(t)
	s.manifests.Replace(t, "reviews-routing.yaml", "exact: jason", "exact: jason-mraz")
	if events := s.eventsSoFar(t, watch); !strings.Contains(harness.Describe(events), "jason-mraz") {
		t.Errorf("the edit did not arrive:\n%s", harness.Describe(events))
	}
}
