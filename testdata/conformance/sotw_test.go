package conformance

import (
	"strings"
	"testing"

	"meshbridge/testdata/conformance/harness"
)

// Both variants of the protocol give the same world and follow edits alike.
func TestStateOfTheWorldGivesTheSameAsDelta(t *testing.T) {
	t.Parallel()
	s := newScenario(t, demo)
	other := harness.StartBridge(t, binaries.Meshbridge, "grpc://"+s.istiod.GRPC, "--xds-mode=sotw")
	other.WaitReady(t)
	wantUnchanged(t, s.bridge.MustRange(t), other.MustRange(t))

	watches := []*harness.Watch{s.bridge.Watch(t, 0), other.Watch(t, 0)}
	s.manifests.Replace(t, "reviews-routing.yaml", "exact: jason", "exact: jason-mraz")
	for _, watch := range watches {
		watch.Until(t, "the new match", func(e harness.Event) bool { return strings.Contains(e.Value, "jason-mraz") })
	}
	s.manifests.Replace(t, "ratings.yaml", "- addresses: [127.0.1.20]", "- addresses: [127.0.1.21]")
	for _, watch := range watches {
		watch.Until(t, "the new endpoint", func(e harness.Event) bool { return strings.Contains(e.Value, "127.0.1.21") })
	}
	wantUnchanged(t, s.bridge.MustRange(t), other.MustRange(t))
}
