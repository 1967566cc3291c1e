package extend_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"meshbridge/cmd/internal/allocate"
	"meshbridge/cmd/internal/apisixconfig"
	"meshbridge/cmd/internal/extend"
	"meshbridge/translate"
	"meshbridge/translate/apisix"
	"meshbridge/xds"
)

var schemasFile = flag.String("schemas", "", "write the built-in schemas from this /v1/schema")

// config is that of a default APISIX.
func config() extend.Config {
	return extend.Config{
		Loaded: apisixconfig.Plugins(apisix.Version{}, nil), StreamLoaded: apisixconfig.StreamPlugins(apisix.Version{}),
		Labels: map[string]string{"app": "client"},
	}
}

func load(tb testing.TB, c extend.Config, previous *extend.Set, files ...string) *extend.Set {
	tb.Helper()
	var list []extend.File
	for i, text := range files {
		list = append(list, extend.File{Name: fmt.Sprintf("%d.yaml", i), Data: []byte(text)})
	}
	set, err := extend.Load(c, list, previous)
	if err != nil {
		tb.Fatal(err)
	}
	return set
}

// recording is what a real istiod sent.
func recording(tb testing.TB, name string) *xds.Snapshot {
	tb.Helper()
	snapshot, rejected, err := xds.LoadFiles(filepath.Join("..", "..", "..", "testdata", "istiod", name, "xds"))
	if err != nil || len(rejected) > 0 {
		tb.Fatal(err, rejected)
	}
	return snapshot
}

func options(tb testing.TB, profile string) translate.Options {
	tb.Helper()
	o := translate.Options{NodeID: "sidecar~10.9.0.1~client.default~default.svc.cluster.local"}
	var err error
	if o.Profile, err = translate.ParseProfile(profile, o); err != nil {
		tb.Fatal(err)
	}
	return o
}

// world is a translation.
type world struct {
	state   *translate.State
	objects map[string]map[string]any
}

func newWorld(tb testing.TB, profile string, snapshot *xds.Snapshot, set *extend.Set) *world {
	tb.Helper()
	in := translate.Inputs{}
	if set != nil {
		in.Extensions = set
	}
	numbers, err := allocate.Open(allocate.Config{FirstPort: 16000, LastPort: 16511, Overlay: overlay})
	if err != nil {
		tb.Fatal(err)
	}
	in.Allocations = numbers
	state, _, err := translate.Translate(options(tb, profile), snapshot, in)
	if err != nil {
		tb.Fatal(err)
	}
	return &world{state, objectsOf(tb, state)}
}

func objectsOf(tb testing.TB, state *translate.State) map[string]map[string]any {
	tb.Helper()
	objects := map[string]map[string]any{}
	for o := range state.Objects() {
		var value map[string]any
		if err := json.Unmarshal(o.Value, &value); err != nil {
			tb.Fatal(err)
		}
		objects[o.Key()] = value
	}
	return objects
}

// route returns the only route of that name, which is CHAIN|VIRTUAL HOST|ROUTE.
func (w *world) route(tb testing.TB, name string) map[string]any {
	tb.Helper()
	var found map[string]any
	for key, o := range w.objects {
		if strings.HasPrefix(key, "routes/") && o["name"] == name {
			if found != nil {
				tb.Fatalf("two routes %q", name)
			}
			found = o
		}
	}
	if found == nil {
		tb.Fatalf("no route %q", name)
	}
	return found
}

// extended lists the routes that a document extends.
func (w *world) extended(document string) (names []string) {
	for _, o := range w.objects {
		labels, _ := o["labels"].(map[string]any)
		by, _ := labels[translate.LabelExtensions].(string)
		if slices.Contains(strings.Split(by, ","), document) {
			names = append(names, o["name"].(string))
		}
	}
	slices.Sort(names)
	return names
}

// codes lists the diagnostics about extensions.
func (w *world) codes() (all []string) {
	for _, d := range w.state.Diagnostics() {
		if strings.Contains(string(d.Code), "extension") {
			all = append(all, string(d.Code)+": "+d.Resource+": "+d.Message)
		}
	}
	slices.Sort(all)
	return all
}

func (w *world) reports(tb testing.TB, parts ...string) {
	tb.Helper()
	if !slices.ContainsFunc(w.codes(), func(s string) bool {
		return !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(s, part) })
	}) {
		tb.Errorf("no diagnostic with %q in:\n%s", parts, strings.Join(w.codes(), "\n"))
	}
}

func plugins(route map[string]any) map[string]any {
	p, _ := route["plugins"].(map[string]any)
	return p
}

func plugin(tb testing.TB, route map[string]any, name string) map[string]any {
	tb.Helper()
	p, ok := plugins(route)[name].(map[string]any)
	if !ok {
		tb.Fatalf("%v has no plugin %s, but %v", route["name"], name, slices.Sorted(maps.Keys(plugins(route))))
	}
	return p
}

// equal compares with YAML.
func equal(tb testing.TB, got any, want string) {
	tb.Helper()
	var value any
	if err := yaml.Unmarshal([]byte(want), &value); err != nil {
		tb.Fatal(err)
	}
	a, _ := json.Marshal(got)
	b, _ := json.Marshal(value)
	if string(a) != string(b) {
		tb.Errorf("got\n%s\nwant\n%s", a, b)
	}
}

func readDoc(tb testing.TB, name string) string {
	tb.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", name))
	if err != nil {
		tb.Fatal(err)
	}
	return string(data)
}
