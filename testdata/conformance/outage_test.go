package conformance

import (
	"context"
	"errors"
	"strings"
	"testing"

	"meshbridge/testdata/conformance/harness"
)

// After a lost connection apisix-mesh-agent served 1,000 of 1,000 services
// without endpoints, and Amesh opened thousands of streams.
func TestIstiodRestartIsSilent(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*harness.Istiod){
		"stopped": func(i *harness.Istiod) { i.Stop() },
		"killed":  func(i *harness.Istiod) { i.Kill() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScenario(t, demo)
			before := s.bridge.MustRange(t)
			watch := s.bridge.Watch(t, before.Revision+1)

			end(s.istiod)
			s.istiod.Start(t)
			s.istiod.WaitSynced(t)

			wantNoEvents(t, s.eventsSoFar(t, watch))
			wantUnchanged(t, before, s.bridge.MustRange(t))
		})
	}
}

func TestWithoutIstiodTheLastWorldIsServed(t *testing.T) {
	t.Parallel()
	s := newScenario(t, demo)
	before := s.bridge.MustRange(t)
	watch := s.bridge.Watch(t, before.Revision+1)

	s.istiod.Kill()
	// A refused attempt to reconnect proves that the bridge knows.
	s.bridge.WaitLine(t, "report of a lost istiod", func(line string) bool {
		return strings.Contains(line, "connection refused") && strings.Contains(line, s.istiod.GRPC)
	})
	if !s.bridge.Ready(t.Context()) {
		t.Error("not ready any more")
	}
	wantUnchanged(t, before, s.bridge.MustRange(t))

	// What changed meanwhile arrives once istiod is back, and only that.
	s.manifests.Replace(t, "reviews-routing.yaml", "exact: jason", "exact: jason-mraz")
	s.istiod.Start(t)
	events := s.eventsSoFar(t, watch)
	if len(events) == 0 || !strings.Contains(harness.Describe(events), "jason-mraz") {
		t.Errorf("the edit did not arrive:\n%s", harness.Describe(events))
	}
	for _, e := range events {
		if !strings.Contains(e.Key, "reviews") {
			t.Errorf("%s changed without need", e.Key)
		}
	}
}

// A service that goes while istiod is away must not stay for ever: on the new
// stream istiod names what it no longer has.
func TestServiceRemovedDuringAnOutageGoes(t *testing.T) {
	t.Parallel()
	s := newScenario(t, demo)
	watch := s.bridge.Watch(t, 0)

	s.istiod.Stop()
	s.manifests.Remove(t, "details.yaml")
	s.istiod.Start(t)
	watch.Until(t, "removal of the route of details", func(e harness.Event) bool {
		return e.Deleted && strings.HasPrefix(e.Key, harness.Prefix+"routes/") && strings.Contains(e.Key, "details")
	})
}

// apisix-mesh-agent never reconnected after a stream that ended without an
// error, and spun; Amesh reconnected without end.
func TestStreamEndedByIstiodIsReopenedInSilence(t *testing.T) {
	t.Parallel()
	s := newScenario(t, demo)
	before := s.bridge.MustRange(t)
	watch := s.bridge.Watch(t, before.Revision+1)
	seen := map[string]bool{}
	for range 3 {
		current, err := s.istiod.Connection(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		seen[current] = true
		s.istiod.Disconnect(t)
		harness.Eventually(t, "new stream", func(ctx context.Context) error {
			id, err := s.istiod.Connection(ctx)
			if err == nil && seen[id] {
				err = errors.New("still connected as " + id)
			}
			return err
		})
		s.istiod.WaitSynced(t)
	}
	wantNoEvents(t, s.eventsSoFar(t, watch))
	wantUnchanged(t, before, s.bridge.MustRange(t))
}
