package translate

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/structpb"

	"meshbridge/translate/apisix"
	"meshbridge/xds"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const scenarios = "../testdata/istiod"

// scenario is one recording of what a real istiod sent to a node.
type scenario struct {
	name     string
	snapshot *xds.Snapshot
	options  Options
	router   bool
}

func loadScenarios(tb testing.TB) []scenario {
	tb.Helper()
	return loadScenariosIn(tb, scenarios)
}

func loadScenariosIn(tb testing.TB, dir string) []scenario {
	tb.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		tb.Fatal(err)
	}
	var out []scenario
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		dir := filepath.Join(dir, e.Name())
		var node struct {
			ID       string         `json:"id"`
			Metadata map[string]any `json:"metadata"`
		}
		raw, err := os.ReadFile(filepath.Join(dir, "node.json"))
		if err != nil {
			tb.Fatal(err)
		}
		if err := json.Unmarshal(raw, &node); err != nil {
			tb.Fatalf("%s: %v", dir, err)
		}
		snap, rejected, err := xds.LoadFiles(filepath.Join(dir, "xds"))
		if err != nil || len(rejected) > 0 {
			tb.Fatalf("%s: %v, rejected %v", dir, err, rejected)
		}
		s := scenario{name: e.Name(), snapshot: snap, router: strings.HasPrefix(node.ID, "router~")}
		s.options.NodeID = node.ID
		if s.options.Metadata, err = structpb.NewStruct(node.Metadata); err != nil {
			tb.Fatal(err)
		}
		if s.name == "access-logs" { // the bridge writes those where it is told of requests
			s.options.Internal = netip.MustParseAddrPort("127.0.0.1:15099")
		}
		if ips, ok := node.Metadata["INSTANCE_IPS"].(string); ok {
			for ip := range strings.SplitSeq(ips, ",") {
				s.options.InstanceIPs = append(s.options.InstanceIPs, netip.MustParseAddr(ip))
			}
		}
		out = append(out, s)
	}
	return out
}

// profiles returns the profiles that make sense for the scenario's node.
func (s scenario) profiles() []Profile {
	if s.router {
		return []Profile{Mesh(), Gateway()}
	}
	return []Profile{Mesh(), Direct(0, 0)}
}

func (s scenario) with(p Profile) Options {
	opts := s.options
	opts.Profile = p
	return opts
}

func translated(tb testing.TB, opts Options, snap *xds.Snapshot) *State {
	tb.Helper()
	return translatedWith(tb, opts, snap, Inputs{})
}

func translatedWith(tb testing.TB, opts Options, snap *xds.Snapshot, in Inputs) *State {
	tb.Helper()
	s, _, err := Translate(opts, snap, in)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// captured translates with numbers for capture, in profiles that have it.
func captured(tb testing.TB, opts Options, snap *xds.Snapshot) *State {
	tb.Helper()
	s, _, err := Translate(opts, snap, Inputs{Allocations: newTestAllocations()})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// TestScenariosGiveTheirGoldenObjects compares all objects and diagnostics of the recordings.
func TestScenariosGiveTheirGoldenObjects(t *testing.T) {
	wanted := map[string]bool{}
	for _, sc := range loadScenarios(t) {
		for _, p := range sc.profiles() {
			golden := filepath.Join(scenarios, sc.name, p.Name()+".yaml")
			capture := filepath.Join(scenarios, sc.name, p.Name()+".capture.yaml")
			wanted[golden] = true
			wanted[capture] = p.Captures()
			t.Run(sc.name+"/"+p.Name(), func(t *testing.T) {
				s := captured(t, sc.with(p), sc.snapshot)
				compareGolden(t, golden, render(t, s))
				if p.Captures() {
					compareGolden(t, capture, renderCapture(t, s))
				}
			})
		}
	}
	goldens, err := filepath.Glob(filepath.Join(scenarios, "*", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range goldens {
		switch {
		case wanted[path]:
		case *update:
			if err := os.Remove(path); err != nil {
				t.Error(err)
			}
		default:
			t.Errorf("%s belongs to no scenario; run with -update", path)
		}
	}
}

func compareGolden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; run with -update", err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got), "\n")); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// render is a State as people review it.
func render(tb testing.TB, s *State) []byte {
	tb.Helper()
	doc := struct {
		Objects     map[string]map[string]json.RawMessage `json:"objects,omitempty"`
		Diagnostics []string                              `json:"diagnostics,omitempty"`
		Chains      []string                              `json:"chains,omitempty"`
	}{Objects: map[string]map[string]json.RawMessage{}}
	for o := range s.Objects() {
		if doc.Objects[string(o.Kind)] == nil {
			doc.Objects[string(o.Kind)] = map[string]json.RawMessage{}
		}
		doc.Objects[string(o.Kind)][o.ID] = firstLines(tb, o.Redacted())
	}
	for _, d := range s.Diagnostics() {
		doc.Diagnostics = append(doc.Diagnostics, d.String())
	}
	for _, c := range s.Chains() {
		state := "is served"
		switch {
		case c.NotServed != "":
			state = "is not served: " + c.NotServed
		case len(c.Denied) > 0:
			state = fmt.Sprintf("answers 403: %s", c.Denied)
		}
		line := []string{c.Key + " " + state}
		for _, log := range c.AccessLogs {
			line = append(line, log.String())
		}
		doc.Chains = append(doc.Chains, strings.Join(line, "; "))
	}
	return encodeYAML(tb, doc)
}

// firstLines shortens the programs of global rules to the line with what they are about.
func firstLines(tb testing.TB, o apisix.Object) json.RawMessage {
	tb.Helper()
	if o.Kind != apisix.KindGlobalRule {
		return o.Value
	}
	rule := new(apisix.GlobalRule)
	decodeJSON(tb, o.Value, rule)
	if f, ok := rule.Plugins[pluginServerlessPre].(map[string]any); ok {
		functions := f["functions"].([]any)
		functions[0], _, _ = strings.Cut(functions[0].(string), "\n")
	}
	out, err := json.Marshal(rule)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

// TestEveryObjectOfTheScenariosIsAccepted checks the objects with our own rules, with the evaluator,
// which refuses what APISIX would, and where it is at hand with APISIX's schema.
func TestEveryObjectOfTheScenariosIsAccepted(t *testing.T) {
	for _, sc := range loadScenarios(t) {
		for _, p := range sc.profiles() {
			s := captured(t, sc.with(p), sc.snapshot)
			for o := range s.Objects() {
				checkAccepted(t, o)
			}
			e, err := apisix.NewEvaluator(s.Objects(), apisix.Options{})
			if err != nil {
				t.Fatal(err)
			}
			for _, err := range e.Refused() {
				t.Errorf("%s/%s: %v", sc.name, p.Name(), err)
			}
			if i := slices.IndexFunc(s.Diagnostics(), func(d Diagnostic) bool { return d.Code == "invalid_object" || d.Code == "id_collision" }); i >= 0 {
				t.Errorf("%s/%s: %v", sc.name, p.Name(), s.Diagnostics()[i])
			}
		}
	}
}
