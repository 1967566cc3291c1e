package translate

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"

	"meshbridge/translate/apisix"
)

// actionCase is what a route's action is compiled from in a test.
type actionCase struct {
	profile  Profile
	chain    *Chain
	config   *routepb.RouteConfiguration
	vhost    *routepb.VirtualHost
	route    *routepb.Route
	clusters map[string]*clusterpb.Cluster
}

// compile returns the branches, and the diagnostics on one line each.
func (c actionCase) compile(tb testing.TB) (branches []branch, diagnostics []string) {
	tb.Helper()
	if c.profile == nil {
		c.profile = Mesh()
	}
	if c.chain == nil {
		c.chain = &Chain{Key: "80", filters: []string{filterFault, filterCORS, "envoy.filters.http.lua", filterStatefulSession}}
	}
	rx := &routeContext{
		options:    &Options{Profile: c.profile},
		chain:      c.chain,
		config:     c.config,
		vhost:      c.vhost,
		route:      c.route,
		facts:      func(cluster string) clusterFacts { return factsOf(c.clusters[cluster]) },
		upstreamID: upstreamRef.id,
		report:     collect(tb, &diagnostics),
	}
	path, _ := compilePath(c.route.GetMatch(), rx.report)
	rx.pathPrefix, rx.pathExact = path.literal, path.kind == pathExact
	branches = compileAction(rx)
	if len(branches) == 0 {
		tb.Fatal("an action must have a branch")
	}
	for _, b := range branches {
		checkBranch(tb, b)
	}
	return branches, diagnostics
}

// collect returns a reporter that appends to diagnostics, and fails the test where the message of a
// code and its arguments do not fit.
func collect(tb testing.TB, diagnostics *[]string) reporter {
	tb.Helper()
	known := newCatalogue()
	return func(code Code, field string, args ...any) {
		tb.Helper()
		d := known.diagnostic(code, args...)
		if d.Severity == "" || strings.Contains(d.Message, "%!") {
			tb.Errorf("code %q with %v makes %q", code, args, d.Message)
		}
		d.Resource, d.Field = "it", field
		if line := d.String(); !slices.Contains(*diagnostics, line) {
			*diagnostics = append(*diagnostics, line)
		}
	}
}

// checkBranch makes a route of a branch and has it checked as APISIX would.
func checkBranch(tb testing.TB, b branch) {
	tb.Helper()
	r := &apisix.Route{
		ID: "r.test", URI: "/*", Vars: b.vars, Plugins: b.plugins, Timeout: b.timeout, EnableWebsocket: b.websocket,
	}
	if b.upstream != nil {
		r.UpstreamID = b.upstream.id()
	}
	checkObject(tb, apisix.KindRoute, r.ID, r)
}

func checkUpstream(tb testing.TB, u *apisix.Upstream) {
	tb.Helper()
	u.ID = "u.test"
	checkObject(tb, apisix.KindUpstream, u.ID, u)
	u.ID = ""
}

func checkObject(tb testing.TB, kind apisix.Kind, id string, v any) {
	tb.Helper()
	o, err := apisix.Marshal(kind, id, v)
	if err != nil {
		tb.Fatal(err)
	}
	checkAccepted(tb, o)
}

// TestActionCases runs the hand-written cases: a route and what it refers to in, branches and
// diagnostics out.
func TestActionCases(t *testing.T) {
	runCases(t, "action-", func(t *testing.T, files map[string][]byte) any {
		t.Helper()
		c := actionCase{config: &routepb.RouteConfiguration{}, vhost: &routepb.VirtualHost{}, route: &routepb.Route{}}
		decodeYAML(t, files["config"], c.config)
		decodeYAML(t, files["vhost"], c.vhost)
		decodeYAML(t, files["route"], c.route)
		c.profile = profileNamed(t, files["profile"])
		c.clusters = map[string]*clusterpb.Cluster{}
		for _, raw := range decodeList(t, files["clusters"]) {
			cluster := &clusterpb.Cluster{}
			decodeYAML(t, raw, cluster)
			c.clusters[cluster.GetName()] = cluster
		}
		type shownBranch struct {
			Suffix    string          `json:"suffix,omitempty"`
			Vars      apisix.Vars     `json:"vars,omitempty"`
			Plugins   apisix.Plugins  `json:"plugins,omitempty"`
			Upstream  string          `json:"upstream,omitempty"`
			Extra     []string        `json:"extra,omitempty"`
			Timeout   *apisix.Timeout `json:"timeout,omitempty"`
			Websocket bool            `json:"websocket,omitempty"`
		}
		var shown struct {
			Branches    []shownBranch `json:"branches"`
			Diagnostics []string      `json:"diagnostics,omitempty"`
		}
		branches, diagnostics := c.compile(t)
		shown.Diagnostics = diagnostics
		for _, b := range branches {
			s := shownBranch{Suffix: b.suffix, Vars: b.vars, Plugins: b.plugins, Timeout: b.timeout, Websocket: b.websocket}
			if b.upstream != nil {
				s.Upstream = b.upstream.cluster + b.upstream.variant.suffix()
			}
			for _, ref := range b.extra {
				s.Extra = append(s.Extra, ref.cluster+ref.variant.suffix())
			}
			shown.Branches = append(shown.Branches, s)
		}
		return shown
	})
}

// TestClusterCases runs the hand-written cases: a cluster with its endpoints in, an upstream and
// diagnostics out.
func TestClusterCases(t *testing.T) {
	runCases(t, "cluster-", func(t *testing.T, files map[string][]byte) any {
		t.Helper()
		cx := &clusterContext{
			options: &Options{Profile: profileNamed(t, files["profile"]), InstanceIPs: []netip.Addr{
				netip.MustParseAddr("fd00::9"), netip.MustParseAddr("10.9.0.9"),
			}},
			inputs:  &Inputs{},
			cluster: &clusterpb.Cluster{},
		}
		decodeYAML(t, files["cluster"], cx.cluster)
		cx.name = cx.cluster.GetName()
		if raw, ok := files["load"]; ok {
			cx.load = &endpointpb.ClusterLoadAssignment{}
			decodeYAML(t, raw, cx.load)
		}
		if raw, ok := files["dns"]; ok {
			if err := yaml.Unmarshal(raw, &cx.inputs.DNS); err != nil {
				t.Fatal(err)
			}
		}
		if raw, ok := files["dns_errors"]; ok {
			if err := yaml.Unmarshal(raw, &cx.inputs.DNSErrors); err != nil {
				t.Fatal(err)
			}
		}
		if raw, ok := files["locality"]; ok { // region/zone/subzone
			parts := append(strings.Split(strings.TrimSpace(string(raw)), "/"), "", "")
			cx.options.Locality = Locality{Region: parts[0], Zone: parts[1], SubZone: parts[2]}
		}
		if raw, ok := files["ramps"]; ok {
			if err := yaml.Unmarshal(raw, &cx.inputs.Ramps); err != nil {
				t.Fatal(err)
			}
		}
		var v variant
		if raw, ok := files["variant"]; ok {
			var given struct {
				Retries    int
				GRPC       bool
				Hash, Host string
			}
			if err := yaml.Unmarshal(raw, &given); err != nil {
				t.Fatal(err)
			}
			v = variant{retries: given.Retries, grpc: given.GRPC, hash: given.Hash, host: given.Host}
		}
		var shown struct {
			Upstream    *apisix.Upstream `json:"upstream"`
			Diagnostics []string         `json:"diagnostics,omitempty"`
		}
		cx.report = collect(t, &shown.Diagnostics)
		reportCluster(cx)
		cx.report = func(code Code, field string, _ ...any) {
			t.Errorf("an upstream reports nothing of its own, but did %s at %s", code, field)
		}
		shown.Upstream = compileUpstream(cx, v)
		checkUpstream(t, shown.Upstream)
		return shown
	})
}

// runCases runs the cases whose names begin with prefix. Each is an archive of inputs and want.yaml,
// which is rewritten with -update.
func runCases(t *testing.T, prefix string, run func(t *testing.T, files map[string][]byte) any) {
	t.Helper()
	paths, err := filepath.Glob("../testdata/cases/" + prefix + "*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".txtar")
		t.Run(name, func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			files := map[string][]byte{}
			for _, f := range archive.Files {
				files[strings.TrimSuffix(f.Name, ".yaml")] = f.Data
			}
			got := encodeYAML(t, run(t, files))
			want := files["want"]
			if bytes.Equal(got, want) {
				return
			}
			if !*update {
				t.Errorf("-want +got:\n%s", cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got), "\n")))
				return
			}
			archive.Files = slices.DeleteFunc(archive.Files, func(f txtar.File) bool { return f.Name == "want.yaml" })
			archive.Files = append(archive.Files, txtar.File{Name: "want.yaml", Data: got})
			if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func profileNamed(t *testing.T, raw []byte) Profile {
	t.Helper()
	name := strings.TrimSpace(string(raw))
	if name == "" {
		return Mesh()
	}
	p, err := ParseProfile(name, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func decodeYAML(t *testing.T, raw []byte, m proto.Message) {
	t.Helper()
	if len(raw) == 0 {
		return
	}
	asJSON, err := yaml.YAMLToJSON(raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := protojson.Unmarshal(asJSON, m); err != nil {
		t.Fatal(err)
	}
}

func decodeList(t *testing.T, raw []byte) [][]byte {
	t.Helper()
	var list []json.RawMessage
	if err := yaml.Unmarshal(raw, &list); err != nil {
		t.Fatal(err)
	}
	out := make([][]byte, len(list))
	for i, item := range list {
		out[i] = item
	}
	return out
}

// encodeYAML goes through JSON, as the objects do, and does not escape for HTML.
func encodeYAML(tb testing.TB, v any) []byte {
	tb.Helper()
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		tb.Fatal(err)
	}
	out, err := yaml.JSONToYAML(b.Bytes())
	if err != nil {
		tb.Fatal(err)
	}
	return out
}
