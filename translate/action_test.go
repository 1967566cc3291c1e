package translate

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"pgregory.net/rapid"

	"meshbridge/translate/apisix"
)

func prefixRoute(prefix string) *routepb.Route {
	return &routepb.Route{Match: &routepb.RouteMatch{PathSpecifier: &routepb.RouteMatch_Prefix{Prefix: prefix}}}
}

// routeTo forwards without any timeout.
func routeTo(action *routepb.RouteAction) *routepb.Route {
	action.Timeout = &durationpb.Duration{}
	r := prefixRoute("/")
	r.Action = &routepb.Route_Route{Route: action}
	return r
}

func toCluster(name string) *routepb.RouteAction {
	return &routepb.RouteAction{ClusterSpecifier: &routepb.RouteAction_Cluster{Cluster: name}}
}

func toWeighted(weights map[string]uint32) *routepb.RouteAction {
	weighted := &routepb.WeightedCluster{}
	for name, weight := range weights {
		weighted.Clusters = append(weighted.Clusters, &routepb.WeightedCluster_ClusterWeight{
			Name: name, Weight: wrapperspb.UInt32(weight),
		})
	}
	slices.SortFunc(weighted.GetClusters(), func(a, b *routepb.WeightedCluster_ClusterWeight) int {
		return strings.Compare(a.GetName(), b.GetName())
	})
	return &routepb.RouteAction{ClusterSpecifier: &routepb.RouteAction_WeightedClusters{WeightedClusters: weighted}}
}

// Amesh and apisix-mesh-agent dropped weighted clusters whose destinations had header operations.
func TestWeightedClustersWithHeadersKeepAllDestinations(t *testing.T) {
	action := toWeighted(map[string]uint32{"v1": 90, "v2": 10})
	for _, c := range action.GetWeightedClusters().GetClusters() {
		c.RequestHeadersToAdd = []*corepb.HeaderValueOption{{Header: &corepb.HeaderValue{Key: "x-version", Value: c.GetName()}}}
	}
	branches, _ := actionCase{route: routeTo(action)}.compile(t)
	var got []string
	for _, b := range branches {
		p, _ := b.plugins[pluginProxyRewrite].(*proxyRewrite)
		got = append(got, b.upstream.cluster+" with "+p.Headers.Add["x-version"])
	}
	if diff := cmp.Diff([]string{"v1 with v1", "v2 with v2"}, got); diff != "" {
		t.Error(diff)
	}
	if len(branches[0].vars) == 0 || len(branches[1].vars) != 0 {
		t.Errorf("the last destination must take what the others leave: %v, %v", branches[0].vars, branches[1].vars)
	}
}

// Amesh skipped routes that redirect or answer, and with them what they shadowed was reachable.
func TestRedirectsAndDirectResponsesAreRoutes(t *testing.T) {
	redirecting, answering := prefixRoute("/"), prefixRoute("/")
	redirecting.Action = &routepb.Route_Redirect{Redirect: &routepb.RedirectAction{HostRedirect: "r.example"}}
	answering.Action = &routepb.Route_DirectResponse{DirectResponse: &routepb.DirectResponseAction{Status: 451}}
	for plugin, route := range map[string]*routepb.Route{pluginRedirect: redirecting, pluginFaultInjection: answering} {
		branches, diagnostics := actionCase{route: route}.compile(t)
		if len(branches) != 1 || branches[0].plugins[plugin] == nil || branches[0].upstream != nil {
			t.Errorf("%s: got %+v", plugin, branches)
		}
		if len(diagnostics) > 0 {
			t.Errorf("%s: %v", plugin, diagnostics)
		}
	}
}

func TestMoreDestinationsThanAPISIXSplitsGetRoutesOfTheirOwn(t *testing.T) {
	for _, n := range []int{maxSplit, maxSplit + 1} {
		weights := map[string]uint32{}
		for i := range n {
			weights["c"+strconv.Itoa(100+i)] = 1
		}
		branches, _ := actionCase{route: routeTo(toWeighted(weights))}.compile(t)
		want := n
		if n <= maxSplit {
			want = 1
		}
		if len(branches) != want {
			t.Errorf("%d destinations: got %d branches, want %d", n, len(branches), want)
		}
	}
}

// The hexadecimal digits of a request decide like Envoy's random number: each destination gets its
// share, and every request one destination.
func TestSlicesGiveEachDestinationItsShare(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.Uint32Range(1, 100), 2, 6).Draw(t, "weights")
		var total float64
		for _, w := range weights {
			total += float64(w)
		}
		const digits = 256 // the first two of six: as many samples, evenly spread
		got := make([]float64, len(weights))
		for sample := range digits {
			id := strconv.FormatInt(int64(0x100+sample), 16)[1:] + "800000000000000000000000000000"
			for i, slice := range apisix.WeightSlices(weights) {
				matched := i == len(weights)-1 || regexp.MustCompile(slice).MatchString(id)
				if matched {
					got[i]++
					break
				}
			}
		}
		for i, w := range weights {
			if want := float64(w) / total * digits; got[i] < want-1.5 || got[i] > want+1.5 {
				t.Errorf("destination %d of %v: %v of %d requests, want %v", i, weights, got[i], digits, want)
			}
		}
	})
}

func TestIstiosDefaultsAreSilent(t *testing.T) {
	action := toCluster("a")
	action.RetryPolicy = &routepb.RetryPolicy{
		RetryOn:    "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
		NumRetries: wrapperspb.UInt32(2),
		RetryHostPredicate: []*routepb.RetryPolicy_RetryHostPredicate{
			{Name: "envoy.retry_host_predicates.previous_hosts"},
		},
		HostSelectionRetryMaxAttempts: 5,
	}
	action.MaxGrpcTimeout = &durationpb.Duration{} //nolint:staticcheck // istiod sets it on every route
	route := routeTo(action)
	route.Decorator = &routepb.Decorator{Operation: "a:80/*"}
	_, diagnostics := actionCase{
		vhost:    &routepb.VirtualHost{IncludeRequestAttemptCount: true},
		route:    route,
		clusters: map[string]*clusterpb.Cluster{"a": {Name: "a"}},
	}.compile(t)
	if len(diagnostics) > 0 {
		t.Errorf("every Istio user would see %q", diagnostics)
	}
}

// An upstream's id depends on every part of its variant: two routes that need different upstreams
// must not share one.
func TestVariantsHaveDifferentIDs(t *testing.T) {
	seen := map[string]variant{}
	for _, v := range []variant{
		{}, {retries: 2}, {retryTimeout: 3e9}, {grpc: true}, {hash: "header:a"}, {host: nodeHost}, {host: "a_b"},
	} {
		id := upstreamRef{cluster: "outbound|80||a.default.svc.cluster.local", variant: v}.id()
		if other, ok := seen[id]; ok {
			t.Errorf("%+v and %+v are both %s", v, other, id)
		}
		seen[id] = v
	}
}

// envoyHeaders executes header operations as Envoy's HeaderParser does.
func envoyHeaders(headers map[string][]string, level headerLevel) {
	for _, name := range level.remove {
		delete(headers, name)
	}
	present := map[string]bool{}
	for name := range headers {
		present[name] = true
	}
	for _, overwriting := range []bool{true, false} {
		for _, o := range level.add {
			name, value := o.GetHeader().GetKey(), o.GetHeader().GetValue()
			switch o.GetAppendAction() {
			case corepb.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD:
				if overwriting {
					headers[name] = []string{value}
				}
			case corepb.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD:
				if !overwriting {
					headers[name] = append(headers[name], value)
				}
			case corepb.HeaderValueOption_ADD_IF_ABSENT:
				if !overwriting && !present[name] && len(headers[name]) == 0 {
					headers[name] = []string{value}
				}
			case corepb.HeaderValueOption_OVERWRITE_IF_EXISTS:
			}
		}
	}
}

// apisixHeaders executes them as the proxy-rewrite plugin does: add, set, remove.
func apisixHeaders(headers map[string][]string, changes *headerChanges) {
	if changes == nil {
		return
	}
	before := map[string]string{}
	for name, values := range headers {
		before[name] = strings.Join(values, ", ")
	}
	resolve := func(template string) string {
		name, fallback, ok := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(template, "${http_"), "}"), " ?? ")
		if !ok || !strings.HasPrefix(template, "${http_") {
			return template
		}
		name = strings.ReplaceAll(name, "_", "-")
		if v, ok := before[name]; ok {
			return v
		}
		return fallback
	}
	for name, value := range changes.Add {
		headers[name] = append(headers[name], resolve(value))
	}
	for name, value := range changes.Set {
		parts := strings.SplitN(value, "}", 2)
		if len(parts) == 2 {
			value = resolve(parts[0]+"}") + parts[1]
		}
		headers[name] = []string{value}
	}
	for _, name := range changes.Remove {
		delete(headers, name)
	}
}

// APISIX adds, sets and then removes, where Envoy removes, overwrites and adds, level by level. All
// of it must come out the same.
func TestHeaderOperationsHaveEnvoysOutcome(t *testing.T) {
	names := rapid.SampledFrom([]string{"x-a", "x-b", "x-c"})
	value := rapid.SampledFrom([]string{"1", "2", "3"})
	option := rapid.Custom(func(t *rapid.T) *corepb.HeaderValueOption {
		return &corepb.HeaderValueOption{
			Header: &corepb.HeaderValue{Key: names.Draw(t, "name"), Value: value.Draw(t, "value")},
			AppendAction: rapid.SampledFrom([]corepb.HeaderValueOption_HeaderAppendAction{
				corepb.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD,
				corepb.HeaderValueOption_ADD_IF_ABSENT,
				corepb.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
			}).Draw(t, "action"),
		}
	})
	level := rapid.Custom(func(t *rapid.T) headerLevel {
		l := headerLevel{remove: rapid.SliceOfN(names, 0, 2).Draw(t, "remove")}
		// ADD_IF_ABSENT together with another operation on the header in one level is left to
		// configuration that nobody writes: Envoy looks for the header before that operation.
		l.add = rapid.SliceOfNDistinct(option, 0, 3, func(o *corepb.HeaderValueOption) string { return o.GetHeader().GetKey() }).Draw(t, "add")
		return l
	})
	rapid.Check(t, func(rt *rapid.T) {
		levels := rapid.SliceOfN(level, 3, 3).Draw(rt, "levels")
		wins := rapid.Bool().Draw(rt, "most specific wins")
		sent := rapid.MapOfN(names, rapid.SliceOfN(value, 1, 2), 0, 3).Draw(rt, "request")
		c := actionCase{
			route:  routeTo(toCluster("a")),
			vhost:  &routepb.VirtualHost{RequestHeadersToAdd: levels[1].add, RequestHeadersToRemove: levels[1].remove},
			config: &routepb.RouteConfiguration{RequestHeadersToAdd: levels[2].add, RequestHeadersToRemove: levels[2].remove, MostSpecificHeaderMutationsWins: wins},
		}
		c.route.RequestHeadersToAdd, c.route.RequestHeadersToRemove = levels[0].add, levels[0].remove
		branches, diagnostics := c.compile(t)
		if len(diagnostics) > 1 { // that there is no cluster
			rt.Fatalf("%v", diagnostics)
		}
		if wins {
			slices.Reverse(levels)
		}
		want, got := map[string][]string{}, map[string][]string{}
		for name, values := range sent {
			want[name], got[name] = slices.Clone(values), slices.Clone(values)
		}
		for _, l := range levels {
			envoyHeaders(want, l)
		}
		if p, ok := branches[0].plugins[pluginProxyRewrite].(*proxyRewrite); ok {
			apisixHeaders(got, p.Headers)
		}
		if diff := cmp.Diff(joinAll(want), joinAll(got)); diff != "" {
			rt.Errorf("(-Envoy +APISIX):\n%s", diff)
		}
	})
}

func joinAll(headers map[string][]string) map[string]string {
	out := map[string]string{}
	for name, values := range headers {
		out[name] = strings.Join(values, ", ")
	}
	return out
}

// FuzzHeaderValue looks for values that break the template: a value without Envoy's operators comes
// out of APISIX as it went in.
func FuzzHeaderValue(f *testing.F) {
	for _, seed := range []string{"plain", "$host", `\$1`, "100%%", "%PROTOCOL%", "%REQ(x?y):3%", "${a ?? b}", "%"} {
		f.Add(seed)
	}
	rx := &routeContext{options: &Options{Profile: Mesh()}, route: &routepb.Route{}}
	f.Fuzz(func(t *testing.T, value string) {
		template, unknown := requestScope().expand(rx, value)
		if unknown != "" && !strings.Contains(value, unknown) {
			t.Errorf("%q is not in %q", unknown, value)
		}
		if !strings.Contains(value, "%") && template != apisix.EscapeTemplate(value) {
			t.Errorf("%q became %q", value, template)
		}
	})
}
