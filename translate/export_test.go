package translate

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"

	"meshbridge/translate/apisix"
	"meshbridge/xds"
)

// What tests need that import packages which import this one.

// Recording is what a real istiod sent, with the options of the profiles that it is for.
type Recording struct {
	Name     string
	Snapshot *xds.Snapshot
	Options  []Options
}

// Recordings returns the recorded scenarios.
func Recordings(tb testing.TB) []Recording {
	tb.Helper()
	return RecordingsIn(tb, scenarios)
}

// RecordingsIn returns those in another directory.
func RecordingsIn(tb testing.TB, dir string) []Recording {
	tb.Helper()
	var out []Recording
	for _, sc := range loadScenariosIn(tb, dir) {
		r := Recording{Name: sc.name, Snapshot: sc.snapshot}
		for _, p := range sc.profiles() {
			r.Options = append(r.Options, sc.with(p))
		}
		out = append(out, r)
	}
	return out
}

// CaseOptions returns the options of a hand-written case.
func CaseOptions(tb testing.TB, raw []byte) Options {
	tb.Helper()
	var options caseOptions
	if err := yaml.Unmarshal(raw, &options); err != nil {
		tb.Fatal(err)
	}
	return options.options(tb)
}

// LoadYAML returns a snapshot of a list of resources.
func LoadYAML(tb testing.TB, resources string) *xds.Snapshot {
	tb.Helper()
	return loadYAML(tb, resources)
}

// DecodeYAML reads a message, if there is one.
func DecodeYAML(t *testing.T, raw []byte, m proto.Message) {
	t.Helper()
	decodeYAML(t, raw, m)
}

// DecodeList reads a list of messages.
func DecodeList(t *testing.T, raw []byte) [][]byte {
	t.Helper()
	return decodeList(t, raw)
}

// NewResource packs a message.
func NewResource(tb testing.TB, name string, m proto.Message) *xds.Resource {
	tb.Helper()
	return newResource(tb, name, m)
}

// CheckAccepted fails for an object that APISIX would refuse.
func CheckAccepted(tb testing.TB, o apisix.Object) {
	tb.Helper()
	checkAccepted(tb, o)
}
