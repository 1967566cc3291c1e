package extend_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"pgregory.net/rapid"

	"meshbridge/cmd/internal/extend"
	"meshbridge/translate"
	"meshbridge/xds"
)

// What random documents are made of: hosts and routes that are there and others, plugins that fit and others.
var (
	somePlugins = []string{
		`key-auth: {}`, `key-auth: {header: x-other, _meta: {priority: 20000}}`, `gzip: {}`,
		`proxy-rewrite: {headers: {set: {x-user: admin}}}`, `proxy-rewrite: {headers: {remove: [x-forwarded-client-cert]}}`,
		`proxy-rewrite: {headers: {set: {x-forwarded-client-cert: forged}}}`, `proxy-rewrite: {uri: /public}`,
		`fault-injection: {}`, `fault-injection: {abort: {http_status: 200}}`, `fault-injection: {delay: {duration: 1}, _meta: {disable: true}}`,
		`forward-auth: {uri: "http://a.example"}`, `redirect: {uri: /elsewhere}`, `traffic-split: {rules: []}`,
		`real-ip: {source: http_x_real_ip}`, `real-ip: {source: http_x_real_ip, _meta: {priority: 10999}}`,
		`ext-plugin-pre-req: {conf: []}`, `serverless-pre-function: {phase: rewrite, functions: ["return function() end"]}`,
		`serverless-pre-function: {phase: rewrite, functions: ["return function() end"], _meta: {priority: 12000}}`,
		`request-id: {header_name: x-user}`, `request-id: {}`, `gzip: {_meta: {pre_function: "return function() end", priority: 30000}}`,
		`limit-conn: {conn: 1, burst: 0, default_conn_delay: 0.1, key: remote_addr}`, `unknown-plugin: {}`, `response-rewrite: {headers: {set: {a: b}}}`,
	}
	someSelectors = []string{
		`{}`, `{hosts: ["*"]}`, `{hosts: [reviews]}`, `{hosts: ["*.default.svc.cluster.local"]}`, `{hosts: [ratings, nowhere.example]}`, `{paths: [/a, "/b*"]}`,
		`{chains: [{direction: inbound}]}`, `{chains: [{direction: outbound, port: 9080}]}`, `{clusters: ["*reviews*"]}`, `{routes: [default]}`, `{host: typo}`,
	}
	someScenarios = []string{"authorization", "security-ratings-permissive", "bookinfo-client"}
)

func randomDocuments(t *rapid.T) string {
	var b strings.Builder
	for i := range rapid.IntRange(0, 4).Draw(t, "documents") {
		fmt.Fprintf(&b, "---\nkind: %s\nname: d%d\npriority: %d\nmerge: %s\nselector: %s\nplugins:\n", "Plugins", i,
			rapid.IntRange(0, 2).Draw(t, "priority"), rapid.SampledFrom([]string{"add", "merge", "replace"}).Draw(t, "merge"),
			rapid.SampledFrom(someSelectors).Draw(t, "selector"))
		seen := map[string]bool{}
		for _, p := range rapid.SliceOfN(rapid.SampledFrom(somePlugins), 1, 3).Draw(t, "plugins") {
			if name, _, _ := strings.Cut(p, ":"); !seen[name] {
				seen[name] = true
				b.WriteString("  " + p + "\n")
			}
		}
	}
	return b.String()
}

// enforcement is what keeps requests away from a route: answers of fault-injection, its own or its plugin_config's.
func enforcement(o map[string]any, objects map[string]map[string]any) string {
	own := plugins(o)["fault-injection"]
	if own == nil {
		if id, ok := o["plugin_config_id"].(string); ok {
			own = plugins(objects["plugin_configs/"+id])["fault-injection"]
		}
	}
	text, _ := json.Marshal(own)
	return string(text)
}

// assertNotMoreOpen compares with a world without extensions: each route matches the same requests, in the same
// order, goes to the same upstream, and what refuses requests refuses them still, before plugins that could
// change the requests.
func assertNotMoreOpen(t *rapid.T, without, with map[string]map[string]any) {
	for key, base := range without {
		o := with[key]
		if o == nil {
			t.Fatalf("%s is gone", key)
		}
		if !strings.HasPrefix(key, "routes/") {
			continue
		}
		for _, field := range []string{"hosts", "uri", "uris", "vars", "priority", "upstream_id", "timeout"} {
			a, _ := json.Marshal(base[field])
			b, _ := json.Marshal(o[field])
			if string(a) != string(b) {
				t.Fatalf("%s: %s was %s and is %s", key, field, a, b)
			}
		}
		was, is := enforcement(base, without), enforcement(o, with)
		closed := is == `{"abort":{"body":"","http_status":403}}` && o["plugin_config_id"] == nil
		if was != is && !closed && was != "null" {
			t.Fatalf("%s: refused %s, refuses %s", key, was, is)
		}
		if removed, ok := headersOf(base)["remove"].([]any); ok && !closed {
			for _, header := range removed {
				now, _ := headersOf(o)["remove"].([]any)
				if !slices.Contains(now, header) {
					t.Fatalf("%s: no longer removes %s", key, header)
				}
			}
		}
		for name := range plugins(o) {
			p := plugins(o)[name].(map[string]any)
			meta, _ := p["_meta"].(map[string]any)
			priority, _ := meta["priority"].(float64)
			changes := slices.Contains([]string{"real-ip", "ext-plugin-pre-req", "serverless-pre-function", "proxy-rewrite"}, name) || meta["pre_function"] != nil || p["header_name"] == "x-user"
			early := priority >= 11000 || priority == 0 && slices.Contains([]string{"real-ip", "ext-plugin-pre-req", "request-id"}, name)
			if changes && early && plugins(base)[name] == nil {
				t.Fatalf("%s: %s runs before rules of access: %v", key, name, p)
			}
		}
	}
}

func headersOf(o map[string]any) map[string]any {
	rewrite, _ := plugins(o)["proxy-rewrite"].(map[string]any)
	headers, _ := rewrite["headers"].(map[string]any)
	return headers
}

// Incremental translation with extensions equals translation from scratch, whatever is added and removed, and
// access is never more open than without any.
func TestExtensionsByStepsEqualThoseAtOnceAndOpenNothing(t *testing.T) {
	snapshots := map[string]*xds.Snapshot{}
	for _, name := range someScenarios {
		snapshots[name] = recording(t, name)
	}
	rapid.Check(t, func(r *rapid.T) {
		name := rapid.SampledFrom(someScenarios).Draw(r, "scenario")
		snapshot := snapshots[name]
		o := options(t, rapid.SampledFrom([]string{"direct", "mesh"}).Draw(r, "profile"))
		state, _, err := translate.Translate(o, snapshot, translate.Inputs{})
		if err != nil {
			r.Fatal(err)
		}
		mirror := bytesOf(state)
		var set *extend.Set
		var in translate.Inputs
		for range rapid.IntRange(1, 4).Draw(r, "steps") {
			step := translate.Input{Snapshot: snapshot}
			if rapid.Bool().Draw(r, "edit") {
				snapshot, step.Changed = editedRoutes(r, snapshot)
				step.Snapshot = snapshot
			}
			if rapid.Bool().Draw(r, "load") {
				set = loadRandom(r, set)
				in.Extensions = set
			}
			step.Inputs = in
			result := state.Apply(step)
			for _, put := range result.Put {
				mirror[put.Key()] = string(put.Value)
			}
			for _, key := range result.Delete {
				delete(mirror, key)
			}
		}
		fresh, _, err := translate.Translate(o, snapshot, in)
		if err != nil {
			r.Fatal(err)
		}
		if !maps.Equal(bytesOf(fresh), bytesOf(state)) || !maps.Equal(bytesOf(state), mirror) {
			r.Fatalf("by steps %d objects, at once %d, results %d", len(bytesOf(state)), len(bytesOf(fresh)), len(mirror))
		}
		if !slices.Equal(fresh.Diagnostics(), state.Diagnostics()) {
			r.Fatalf("by steps %v\nat once %v", state.Diagnostics(), fresh.Diagnostics())
		}
		plain, _, err := translate.Translate(o, snapshot, translate.Inputs{})
		if err != nil {
			r.Fatal(err)
		}
		assertNotMoreOpen(r, objectsOf(t, plain), objectsOf(t, state))
	})
}

func loadRandom(t *rapid.T, previous *extend.Set) *extend.Set {
	set, err := extend.Load(config(), []extend.File{{Name: "a.yaml", Data: []byte(randomDocuments(t))}}, previous)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func bytesOf(state *translate.State) map[string]string {
	out := map[string]string{}
	for o := range state.Objects() {
		out[o.Key()] = string(o.Value)
	}
	return out
}

// editedRoutes removes a route of a random virtual host, or gives it another path.
func editedRoutes(t *rapid.T, snapshot *xds.Snapshot) (*xds.Snapshot, []xds.Key) {
	var all []*xds.Resource
	for r := range snapshot.All(xds.RouteType) {
		all = append(all, r)
	}
	if len(all) == 0 {
		return snapshot, nil
	}
	slices.SortFunc(all, func(a, b *xds.Resource) int { return strings.Compare(a.Name, b.Name) })
	r := rapid.SampledFrom(all).Draw(t, "configuration")
	config, err := xds.Decode[*routepb.RouteConfiguration](r)
	if err != nil {
		t.Fatal(err)
	}
	config = proto.CloneOf(config)
	hosts := config.GetVirtualHosts()
	host := hosts[rapid.IntRange(0, len(hosts)-1).Draw(t, "host")]
	if len(host.GetRoutes()) > 1 && rapid.Bool().Draw(t, "remove") {
		host.Routes = host.GetRoutes()[1:]
	} else if len(host.GetRoutes()) > 0 {
		host.GetRoutes()[0].GetMatch().PathSpecifier = &routepb.RouteMatch_Prefix{Prefix: rapid.SampledFrom([]string{"/", "/a", "/b/c"}).Draw(t, "path")}
	}
	body, err := anypb.New(config)
	if err != nil {
		t.Fatal(err)
	}
	changed := &xds.Resource{Key: r.Key, Body: body}
	return snapshot.With([]*xds.Resource{changed}, nil), []xds.Key{r.Key}
}
