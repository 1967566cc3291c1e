package xds_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	http_connection_managerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"meshbridge/xds"
	"meshbridge/xds/xdstest"
)

const recorded = "../testdata/istiod"

// clusterJSON is a discovery response with clusters of these names.
func clusterJSON(names ...string) string {
	var resources []string
	for _, name := range names {
		resources = append(resources, `{"@type": "`+xds.ClusterType+`", "name": "`+name+`", "type": "STATIC"}`)
	}
	return `{"version_info": "1", "type_url": "` + xds.ClusterType + `", "resources": [` + strings.Join(resources, ",\n") + `]}`
}

func load(tb testing.TB, path string) xds.Update {
	tb.Helper()
	s, rejected, err := xds.LoadFiles(path)
	if err != nil {
		tb.Fatal(err)
	}
	return xds.Update{Snapshot: s, Rejected: rejected}
}

func loadText(tb testing.TB, name, content string) xds.Update {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), name)
	write(tb, path, content)
	return load(tb, path)
}

func TestRecordedScenariosLoadCompletely(t *testing.T) {
	scenarios, err := filepath.Glob(recorded + "/*/xds")
	if err != nil || len(scenarios) == 0 {
		t.Fatal(scenarios, err)
	}
	for _, dir := range scenarios {
		t.Run(filepath.Base(filepath.Dir(dir)), func(t *testing.T) {
			u := load(t, dir)
			if len(u.Rejected) > 0 {
				t.Errorf("rejected: %v", u.Rejected)
			}
			files, err := filepath.Glob(dir + "/*.json")
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]int{}
			for _, file := range files {
				content, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				var response struct {
					TypeURL   string            `json:"type_url"`
					Resources []json.RawMessage `json:"resources"`
				}
				if err := json.Unmarshal(content, &response); err != nil {
					t.Fatal(err)
				}
				want[response.TypeURL] += len(response.Resources)
			}
			for typeURL, n := range want {
				if got := u.Snapshot.Len(typeURL); got != n {
					t.Errorf("%s: %d, want %d", xds.ShortType(typeURL), got, n)
				}
			}
		})
	}
}

// A protocol variant is a way to transport, not another configuration.
func TestBothRecordedVariantsHoldTheSame(t *testing.T) {
	delta, world := load(t, recorded+"/bookinfo-client/xds"), load(t, recorded+"/bookinfo-client-sotw/xds")
	if diff := difference(delta.Snapshot, world.Snapshot); len(diff) > 0 {
		t.Errorf("differ: %v", diff)
	}
}

func TestTheFormatsOfAFile(t *testing.T) {
	cluster := `{"@type": "` + xds.ClusterType + `", "name": "a", "type": "STATIC"}`
	for name, test := range map[string]struct{ file, content string }{
		"response":          {"x.json", clusterJSON("a")},
		"camel case":        {"x.json", `{"versionInfo": "1", "typeUrl": "` + xds.ClusterType + `", "resources": [` + cluster + `]}`},
		"delta response":    {"x.json", `{"resources": [{"name": "a", "version": "3", "resource": ` + cluster + `}]}`},
		"resource":          {"x.json", cluster},
		"list of resources": {"x.json", `[` + cluster + `]`},
		"list of responses": {"x.json", `[` + clusterJSON("a") + `, {"resources": []}, {"versionInfo": "empty"}]`},
		"several values":    {"x.json", clusterJSON() + "\n" + clusterJSON("a")},
		"YAML":              {"x.yaml", "resources:\n- '@type': " + xds.ClusterType + "\n  name: a\n  type: STATIC\n"},
		"YAML documents":    {"x.yml", "---\n# first\n---\nresources: []\n---\n'@type': " + xds.ClusterType + "\nname: a\ntype: STATIC\n"},
		"config dump of Envoy": {"x.json", `{"configs": [
			{"@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump", "bootstrap": {"static_resources": {"clusters": [{"name": "b"}]}}},
			{"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump", "version_info": "1",
			 "dynamic_active_clusters": [{"version_info": "1", "cluster": ` + cluster + `, "last_updated": "2026-01-01T00:00:00Z"}],
			 "dynamic_warming_clusters": [{"cluster": ` + strings.Replace(cluster, `"a"`, `"warming"`, 1) + `}]}]}`},
		"config dump of istiod": {"x.json", `{"configs": [{"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump", "dynamicActiveClusters": [{"cluster": ` + cluster + `}]}]}`},
	} {
		t.Run(name, func(t *testing.T) {
			u := loadText(t, test.file, test.content)
			if got := names(u.Snapshot, xds.ClusterType); !slices.Equal(got, []string{"a"}) || len(u.Rejected) > 0 {
				t.Errorf("clusters %q, rejected %v", got, u.Rejected)
			}
		})
	}
}

func TestAConfigDumpHoldsWhatIsInEffect(t *testing.T) {
	listener := func(name string) string { return `{"@type": "` + xds.ListenerType + `", "name": "` + name + `"}` }
	u := loadText(t, "dump.json", `{"configs": [
		{"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump", "dynamic_listeners": [
			{"name": "a", "active_state": {"listener": `+listener("a")+`}, "draining_state": {"listener": `+listener("draining")+`}},
			{"name": "b", "error_state": {"failed_configuration": `+listener("refused")+`}}],
		 "static_listeners": [{"listener": `+listener("static")+`}]},
		{"@type": "type.googleapis.com/envoy.admin.v3.RoutesConfigDump", "dynamic_route_configs": [{"route_config": {"@type": "`+xds.RouteType+`", "name": "80"}}]},
		{"@type": "type.googleapis.com/envoy.admin.v3.EndpointsConfigDump", "dynamic_endpoint_configs": [{"endpoint_config": {"@type": "`+xds.EndpointType+`", "cluster_name": "c"}}]}]}`)
	for typeURL, want := range map[string]string{xds.ListenerType: "a static", xds.RouteType: "80", xds.EndpointType: "c"} {
		if got := strings.Join(names(u.Snapshot, typeURL), " "); got != want {
			t.Errorf("%s: %q, want %q", xds.ShortType(typeURL), got, want)
		}
	}
	if len(u.Rejected) > 0 {
		t.Error(u.Rejected)
	}
}

func TestAnUnknownTypeInsideAResourceKeepsItsURL(t *testing.T) {
	u := loadText(t, "lds.json", `{"@type": "`+xds.ListenerType+`", "name": "a", "filter_chains": [{"filters": [
		{"name": "unknown", "typed_config": {"@type": "type.googleapis.com/other.World", "some": {"thing": [1]}}},
		{"name": "hcm", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
			"stat_prefix": "x", "rds": {"route_config_name": "r", "config_source": {"ads": {}}}}}]}]}`)
	listener := message[*listenerpb.Listener](t, u, xds.ListenerType, "a")
	filters := listener.GetFilterChains()[0].GetFilters()
	if got := filters[0].GetTypedConfig(); got.GetTypeUrl() != "type.googleapis.com/other.World" || len(got.GetValue()) > 0 {
		t.Errorf("unknown filter: %v", got)
	}
	manager := &http_connection_managerpb.HttpConnectionManager{}
	if err := filters[1].GetTypedConfig().UnmarshalTo(manager); err != nil || manager.GetRds().GetRouteConfigName() != "r" {
		t.Errorf("known filter: %v, %v", manager, err)
	}
}

func TestWhatIsWrongInAFileIsNamed(t *testing.T) {
	for name, test := range map[string]struct{ file, content, want string }{
		"truncated":     {"x.json", "{\n\"resources\": [\n{", `^file .*/x.json: line 3 column 1: ends in the middle of a value`},
		"syntax":        {"x.json", "{\n  \"resources\": [}\n]}", `^file .*/x.json: line 2 column 17: invalid character '}'`},
		"YAML syntax":   {"x.yaml", "---\nresources: []\n---\nresources:\n- a: [\n", `^file .*/x.yaml: document 2: .*line 5`},
		"empty":         {"x.json", " ", `^file .*/x.json: is empty`},
		"empty YAML":    {"x.yaml", "---\n# nothing\n", `^file .*/x.yaml: is empty`},
		"null":          {"x.json", "null", `^file .*/x.json: line 1 column 1: is neither`},
		"another thing": {"x.json", `{"kind": "Service"}`, `^file .*/x.json: line 1 column 1: is no discovery response`},
		"text":          {"x.yaml", `hello`, `^file .*/x.yaml: document 1: .*neither an object nor a list`},
		"no list":       {"x.json", `{"resources": 1}`, `resources is not a list`},
		"unknown field": {"x.json", strings.Replace(clusterJSON("a"), `"type":`, `"tpye":`, 1), `^Cluster a: .*unknown field "tpye"`},
		"invalid":       {"x.json", strings.Replace(clusterJSON("a"), `"type": "STATIC"`, `"connect_timeout": "-1s"`, 1), `^Cluster a: .*ConnectTimeout`},
		"another type":  {"x.json", strings.Replace(clusterJSON("a"), xds.ClusterType, xds.RouteType, 1), `^RouteConfiguration a: .*is a .*Cluster`},
		"no name":       {"x.json", clusterJSON(""), `^Cluster : has no name`},
		"no type":       {"x.json", `{"resources": [{"name": "a"}]}`, `.`},
	} {
		t.Run(name, func(t *testing.T) {
			u := loadText(t, test.file, test.content)
			if len(u.Rejected) != 1 {
				t.Fatalf("rejected %v", u.Rejected)
			}
			if got := u.Rejected[0].String(); !regexp.MustCompile(test.want).MatchString(got) {
				t.Errorf("got %q, want %s", got, test.want)
			}
		})
	}
}

func TestLoadFilesTellsWhenThereIsNothingToRead(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "README.md"), "not JSON")
	for _, path := range []string{dir, filepath.Join(dir, "absent")} {
		if _, _, err := xds.LoadFiles(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestTheFirstOfTwoFilesWithTheSameResourceCounts(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "1.json"), clusterJSON("a"))
	write(t, filepath.Join(dir, "2.json"), strings.Replace(clusterJSON("a", "b"), "STATIC", "STRICT_DNS", 1))
	u := load(t, dir)
	if got := message[*clusterpb.Cluster](t, u, xds.ClusterType, "a").GetType(); got != clusterpb.Cluster_STATIC {
		t.Errorf("a is %s", got)
	}
	if len(u.Rejected) != 1 || !strings.Contains(u.Rejected[0].String(), "2.json") || u.Snapshot.Len(xds.ClusterType) != 2 {
		t.Error(describe(u))
	}
}

// follow runs a file source on the path.
func follow(tb testing.TB, path string) *observer {
	tb.Helper()
	source, err := xds.NewFileSource(xds.FileConfig{Path: path, Debounce: 5 * time.Millisecond})
	if err != nil {
		tb.Fatal(err)
	}
	return observe(tb, source)
}

func clusters(want string) func(xds.Update) bool {
	return func(u xds.Update) bool { return strings.Join(names(u.Snapshot, xds.ClusterType), " ") == want }
}

func TestFilesAreFollowed(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.json"), clusterJSON("a"))
	write(t, filepath.Join(dir, "notes.txt"), "no resources")
	o := follow(t, dir)
	u := o.wait("first load", clusters("a"))
	if !u.Complete() || len(u.Pending) > 0 {
		t.Error(describe(u))
	}
	write(t, filepath.Join(dir, "b.yaml"), clusterJSON("b"))
	o.wait("new file", clusters("a b"))
	write(t, filepath.Join(dir, "a.json"), clusterJSON("a", "c"))
	o.wait("changed file", clusters("a b c"))
	if err := os.Remove(filepath.Join(dir, "b.yaml")); err != nil {
		t.Fatal(err)
	}
	o.wait("removed file", clusters("a c"))
}

func TestABadFileKeepsItsLastGoodContent(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a.json"), filepath.Join(dir, "b.json")
	write(t, a, clusterJSON("a"))
	write(t, b, clusterJSON("b"))
	o := follow(t, dir)
	o.wait("first load", clusters("a b"))

	write(t, a, clusterJSON("a", "c")[:40])
	u := o.wait("rejection", func(u xds.Update) bool { return len(u.Rejected) == 1 })
	if !clusters("a b")(u) || u.Rejected[0].Name != a {
		t.Error(describe(u))
	}
	write(t, b, clusterJSON("b", "d"))
	o.wait("change of another file", clusters("a b d"))
	write(t, a, strings.Replace(clusterJSON("a", "c"), `"STATIC"`, `"NONE"`, 1))
	u = o.wait("rejection of one resource", clusters("a b c d"))
	if len(u.Rejected) != 1 || u.Rejected[0].Key != (xds.Key{Type: xds.ClusterType, Name: "a"}) {
		t.Error(describe(u))
	}
	write(t, a, clusterJSON("a", "c"))
	o.wait("recovery", func(u xds.Update) bool { return len(u.Rejected) == 0 })
}

func TestAFileThatWasNeverReadableKeepsTheWorldFromBeingComplete(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.json"), clusterJSON("a"))
	write(t, filepath.Join(dir, "b.json"), "{")
	o := follow(t, dir)
	u := o.wait("first load", clusters("a"))
	if u.Complete() {
		t.Error("half a world is complete")
	}
	write(t, filepath.Join(dir, "b.json"), clusterJSON("b"))
	o.wait("complete", func(u xds.Update) bool { return u.Complete() && clusters("a b")(u) })
	// Later ones do not stop what is being served.
	write(t, filepath.Join(dir, "c.json"), "{")
	if u := o.wait("rejection", func(u xds.Update) bool { return len(u.Rejected) == 1 }); !u.Complete() {
		t.Error("a world that was complete is not any more")
	}
}

// The kubelet writes a new directory and swaps the link ..data, to which the links of the files go.
func TestASymlinkSwapIsFollowed(t *testing.T) {
	dir := t.TempDir()
	publish := func(version, content string) {
		if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, version, "x.json"), content)
		if err := os.Symlink(version, filepath.Join(dir, "..data_tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	publish("..1", clusterJSON("a"))
	if err := os.Symlink(filepath.Join("..data", "x.json"), filepath.Join(dir, "x.json")); err != nil {
		t.Fatal(err)
	}
	whole, single := follow(t, dir), follow(t, filepath.Join(dir, "x.json"))
	whole.wait("directory", clusters("a"))
	single.wait("file", clusters("a"))
	for _, version := range []string{"..2", "..3"} {
		publish(version, clusterJSON("a", version))
		whole.wait("directory after the swap", clusters(version+" a"))
		single.wait("file after the swap", clusters(version+" a"))
	}
}

func TestAPathThatVanishesKeepsItsContentAndIsFollowedWhenItReturns(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "xds")
	for name, other := range map[string]string{"one": "a", "two": "b"} {
		if err := os.Mkdir(filepath.Join(parent, name), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(parent, name, "x.json"), clusterJSON(other))
	}
	link := func(to string) {
		if err := os.Symlink(to, dir); err != nil {
			t.Fatal(err)
		}
	}
	link("one")
	o := follow(t, dir)
	o.wait("first load", clusters("a"))
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	u := o.wait("rejection", func(u xds.Update) bool { return len(u.Rejected) == 1 })
	if !clusters("a")(u) {
		t.Error(describe(u))
	}
	link("two")
	o.wait("return", func(u xds.Update) bool { return clusters("b")(u) && len(u.Rejected) == 0 })
	write(t, filepath.Join(parent, "two", "x.json"), clusterJSON("c"))
	o.wait("change after the return", clusters("c"))
}

func TestNewFileSourceNamesAPathThatDoesNotExist(t *testing.T) {
	if _, err := xds.NewFileSource(xds.FileConfig{Path: "/does/not/exist"}); err == nil || !strings.Contains(err.Error(), "/does/not/exist") {
		t.Error(err)
	}
}

// What a file says is what the wire says: a mesh gives the same Snapshot either way.
func TestAFileGivesTheSameBytesAsTheWire(t *testing.T) {
	srv := xdstest.NewServer(t)
	mesh := xdstest.Mesh(4, 2)
	srv.Set(mesh.Resources()...)
	_, o := connect(t, srv, false)
	wire := o.wait("first sync", everything)

	dir := t.TempDir()
	for i, r := range mesh.Resources() {
		text, err := protojson.Marshal(xdstest.Any(r))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, strings.Repeat("x", i+1)+".json"), string(text))
	}
	if diff := difference(wire.Snapshot, load(t, dir).Snapshot); len(diff) > 0 {
		t.Errorf("differ: %v", diff)
	}
}

func FuzzParseFile(f *testing.F) {
	// Small seeds, because the fuzzer minimises what it finds before it goes on.
	content, err := os.ReadFile(recorded + "/tcp-mysql/xds/ecds.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(content, false)
	f.Add([]byte(clusterJSON("a")), false)
	f.Add([]byte(`{"configs": [{"@type": 1, "x": {"@type": "/x"}}]}`), false)
	f.Add([]byte("---\nresources:\n- {'@type': a/b, name: x}\n---\n"), true)
	f.Add([]byte(`[[{"resources":[{"resource":{"@type":"x/y.TypedStruct","value":{"@type":"z"}}}]}]]`), false)
	f.Fuzz(func(t *testing.T, content []byte, asYAML bool) {
		name := map[bool]string{false: "x.json", true: "x.yaml"}[asYAML]
		path := filepath.Join(t.TempDir(), name)
		write(t, path, string(content))
		s, rejected, err := xds.LoadFiles(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rejected {
			if r.Err == nil || r.String() == "" {
				t.Errorf("a rejection without a reason: %v", r.Key)
			}
		}
		for _, typeURL := range s.Types() {
			for r := range s.All(typeURL) {
				if r.Body.GetTypeUrl() != typeURL {
					t.Errorf("%s is a %s", r.Key, r.Body.GetTypeUrl())
				}
			}
		}
	})
}
