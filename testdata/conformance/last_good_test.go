package conformance

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"meshbridge/testdata/conformance/harness"
)

// keepsWorld are the flags of a bridge that keeps its last good state, and where.
func keepsWorld(t *testing.T) (flags []string, path string) {
	t.Helper()
	dir := t.TempDir()
	return []string{"--state-dir=" + dir, "--last-good-state=world", "--last-good-after=100ms"}, filepath.Join(dir, "world")
}

func waitFile(t *testing.T, path string) {
	t.Helper()
	harness.Eventually(t, path, func(context.Context) error {
		_, err := os.Stat(path)
		return err
	})
}

func readiness(t *testing.T, b *harness.Bridge) string {
	t.Helper()
	return text(t, "http://"+b.Status+"/healthz/ready")
}

func text(t *testing.T, url string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	var b strings.Builder
	if err := response.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Both are killed; the bridge comes back first. What it serves is what it served, and what istiod says
// once it is back is exactly the difference.
func TestABridgeThatComesBackBeforeIstiodServesWhatItHad(t *testing.T) {
	t.Parallel()
	flags, path := keepsWorld(t)
	s := newScenario(t, demo, flags...)
	before := s.bridge.MustRange(t)
	waitFile(t, path)
	s.bridge.Kill()
	s.istiod.Kill()

	s.bridge = harness.StartBridge(t, binaries.Meshbridge, "grpc://"+s.istiod.GRPC, flags...)
	s.bridge.WaitReady(t)
	after := s.bridge.MustRange(t)
	wantUnchanged(t, before, after)
	for key, object := range after.Objects {
		if object.ModRevision <= before.Revision {
			t.Errorf("%s has revision %d, which belongs to the process before (up to %d)", key, object.ModRevision, before.Revision)
		}
	}
	if got := readiness(t, s.bridge); !strings.Contains(got, "200 OK") || !strings.Contains(got, "last good state") {
		t.Errorf("readiness: %s", got)
	}
	if got := text(t, "http://"+s.bridge.Admin+"/diagnostics"); !strings.Contains(got, "last_good_state") {
		t.Errorf("diagnostics: %s", got)
	}

	watch := s.bridge.Watch(t, after.Revision+1)
	s.manifests.Replace(t, "reviews-routing.yaml", "exact: jason", "exact: jason-mraz")
	s.istiod.Start(t)
	s.istiod.WaitSynced(t)
	events := s.eventsSoFar(t, watch)
	if len(events) == 0 || !strings.Contains(harness.Describe(events), "jason-mraz") {
		t.Errorf("the edit did not arrive:\n%s", harness.Describe(events))
	}
	for _, e := range events {
		if !strings.Contains(e.Key, "reviews") {
			t.Errorf("%s changed without need", e.Key)
		}
	}
	if got := readiness(t, s.bridge); strings.Contains(got, "last good state") {
		t.Errorf("readiness, with istiod: %s", got)
	}
	if got := text(t, "http://"+s.bridge.Admin+"/diagnostics"); strings.Contains(got, "last_good_state") {
		t.Errorf("diagnostics, with istiod: %s", got)
	}
}

func TestADamagedLastGoodStateIsNoObstacle(t *testing.T) {
	t.Parallel()
	flags, path := keepsWorld(t)
	s := newScenario(t, demo, flags...)
	before := s.bridge.MustRange(t)
	waitFile(t, path)
	s.bridge.Kill()
	s.istiod.Kill()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, info.Size()/2); err != nil {
		t.Fatal(err)
	}

	s.bridge = harness.StartBridge(t, binaries.Meshbridge, "grpc://"+s.istiod.GRPC, flags...)
	s.bridge.WaitLog(t, "last good state is not served", func(e harness.LogEntry) bool { return strings.Contains(e.Text("error"), "damaged") })
	if s.bridge.Ready(t.Context()) {
		t.Error("ready, with nothing to serve")
	}
	s.istiod.Start(t)
	s.bridge.WaitReady(t)
	wantUnchanged(t, before, s.bridge.MustRange(t))
}

// A disk without space costs a warning, and nothing else.
func TestAFullDiskCostsNoMoreThanTheLastGoodState(t *testing.T) {
	t.Parallel()
	flags, path := keepsWorld(t)
	if err := os.Symlink("/dev/full", path+".new"); err != nil {
		t.Fatal(err)
	}
	s := newScenario(t, demo, flags...)
	s.bridge.WaitLog(t, "last good state is not written, the one of before stays", func(e harness.LogEntry) bool {
		return strings.Contains(e.Text("error"), "no space left")
	})
	s.eventsSoFar(t, s.bridge.Watch(t, 0)) // a change arrives, as ever
}
