package conformance

import (
	"context"
	"net/http"
	"slices"
	"testing"
	"time"

	"meshbridge/testdata/conformance/harness"
)

func TestRestartedBridgeMakesOldWatchersReload(t *testing.T) {
	t.Parallel()
	s := newScenario(t, demo)
	before := s.bridge.MustRange(t)

	s.bridge.Kill()
	again := harness.StartBridge(t, binaries.Meshbridge, "grpc://"+s.istiod.GRPC, "--listen="+s.bridge.Etcd)
	// As APISIX does: the watch is resumed where it stopped.
	watch := again.Watch(t, before.Revision+1)
	canceled := watch.Next(t)
	if !canceled.Canceled || canceled.CompactRevision <= before.Revision {
		t.Fatalf("frame after created: %+v, want canceled with a compact_revision above %d", canceled, before.Revision)
	}
	if canceled.Revision != 0 {
		t.Errorf("the canceled frame has header revision %d; etcd's has none", canceled.Revision)
	}
	after := again.MustRange(t)
	wantUnchanged(t, before, after)
	for key, object := range after.Objects {
		if object.ModRevision <= before.Revision {
			t.Errorf("%s has revision %d, which belongs to the time before the restart (up to %d)", key, object.ModRevision, before.Revision)
		}
	}
	// And a watch from the reloaded revision lives.
	s.bridge = again
	wantNoEvents(t, s.eventsSoFar(t, again.Watch(t, after.Revision+1)))
}

func TestNobodySeesAnEmptyWorldBeforeIstiodAnswers(t *testing.T) {
	t.Parallel()
	manifests := harness.CopyManifests(t, demo)
	// An istiod that has an address and is not running yet.
	istiod := harness.StartIstiod(t, binaries.Istiod, manifests.Dir)
	istiod.Stop()
	bridge := harness.StartBridge(t, binaries.Meshbridge, "grpc://"+istiod.GRPC)

	if err := bridge.HoldsRange(t.Context(), time.Second); err != nil {
		t.Error(err)
	}
	if bridge.Ready(t.Context()) {
		t.Error("ready without ever having seen istiod")
	}
	if response, err := http.Get("http://" + bridge.Etcd + "/version"); err != nil || response.StatusCode != http.StatusOK {
		t.Errorf("GET /version: %v, %v", response, err)
	} else {
		_ = response.Body.Close()
	}

	// A reader that came too early is answered with everything.
	type answer struct {
		snapshot harness.Snapshot
		err      error
	}
	early := make(chan answer, 1)
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	go func() {
		snapshot, err := bridge.Range(ctx)
		early <- answer{snapshot, err}
	}()
	istiod.Start(t)
	got := <-early
	if got.err != nil {
		t.Fatal(got.err)
	}
	bridge.WaitReady(t)
	if len(got.snapshot.Routes()) == 0 {
		t.Error("the early reader saw no routes")
	}
	wantUnchanged(t, got.snapshot, bridge.MustRange(t))
}

func TestBridgeStopsWhenAsked(t *testing.T) {
	t.Parallel()
	s := newScenario(t, demo)
	watch := s.bridge.Watch(t, 0)
	s.bridge.Stop()
	if code := s.bridge.ExitCode(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	watch.Close()
	levels := []string{"ERROR", "WARN"}
	for _, entry := range s.bridge.Log() {
		if slices.Contains(levels, entry.Text("level")) && entry.Text("msg") != "" && entry.Text("code") == "" {
			t.Errorf("a clean life logged %v", entry)
		}
	}
}
