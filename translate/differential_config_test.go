package translate_test

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	commonfaultpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	corspb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	faultpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	uritemplatepb "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"
	uritemplaterewritepb "github.com/envoyproxy/go-control-plane/envoy/extensions/path/rewrite/uri_template/v3"
	matcherpb "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typepb "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"meshbridge/translate"
	"meshbridge/translate/difftest"
	"meshbridge/xds"
)

// TestRandomRoutesDoWhatEnvoyDoes compares random route configurations, of everything that istiod
// emits, with Envoy. A failure is shown with the smallest part of the configuration that has it.
func TestRandomRoutesDoWhatEnvoyDoes(t *testing.T) {
	const requests, aimed = 24, 3 // for each route
	report := difftest.NewReport()
	for i := uint64(0); report.Pairs < *pairs/3; i++ {
		random := newRandom(ofGenerated, i)
		configuration := (&generator{Rand: random, tb: t}).world()
		w := generatedWorld(t, configuration)
		before := len(report.Failures)
		w.Run(random, requests, report)
		w.RunRoutes(random, aimed, report)
		if len(report.Failures) > before {
			failure := shrink(t, report.Failures[before], configuration)
			t.Log(report)
			t.Fatalf("configuration %d, profile %s: %s\n%s%s", i, configuration.profile.Name(), failure,
				prototext.Format(configuration.manager), prototext.Format(configuration.config))
		}
	}
	check(t, report)
}

// clusterNames are those that random routes name. One of them does not exist.
func clusterNames() []string { return []string{"c0", "c1", "c2", "h2", "hash", "empty", "missing"} }

func generatedWorld(tb testing.TB, c *generated) *difftest.World {
	tb.Helper()
	w, err := difftest.NewWorld("generated", generatedSnapshot(tb, c), translate.Options{Profile: c.profile})
	if err != nil {
		tb.Fatalf("%v\n%s", err, prototext.Format(c.config))
	}
	return w
}

func generatedSnapshot(tb testing.TB, c *generated) *xds.Snapshot {
	tb.Helper()
	resources := []*xds.Resource{
		newListener(tb, c.manager, c.profile.Name() == translate.Gateway().Name()), translate.NewResource(tb, c.config.GetName(), c.config),
	}
	for _, cluster := range c.clusters {
		resources = append(resources, translate.NewResource(tb, cluster.GetName(), cluster))
	}
	return new(xds.Snapshot).With(resources, nil)
}

// newCluster has one endpoint, unless it is the empty one.
func newCluster(name string) *clusterpb.Cluster {
	c := &clusterpb.Cluster{
		Name: name, ConnectTimeout: durationpb.New(10 * time.Second), ClusterDiscoveryType: &clusterpb.Cluster_Type{Type: clusterpb.Cluster_STATIC},
		LoadAssignment: &endpointpb.ClusterLoadAssignment{ClusterName: name},
	}
	if name != "empty" {
		c.LoadAssignment.Endpoints = []*endpointpb.LocalityLbEndpoints{{LbEndpoints: []*endpointpb.LbEndpoint{{
			HostIdentifier: &endpointpb.LbEndpoint_Endpoint{Endpoint: &endpointpb.Endpoint{Address: &corepb.Address{
				Address: &corepb.Address_SocketAddress{SocketAddress: &corepb.SocketAddress{
					Address: "10.1.2.3", PortSpecifier: &corepb.SocketAddress_PortValue{PortValue: 8080},
				}},
			}}},
		}}}}
	}
	if name == "h2" {
		c.Http2ProtocolOptions = &corepb.Http2ProtocolOptions{} //nolint:staticcheck // shorter than the extension
	}
	return c
}

// shrink removes what the failure does not need.
func shrink(t *testing.T, f difftest.Failure, c *generated) difftest.Failure {
	t.Helper()
	config := c.config
	// try reports whether the failure is still there after an edit, which is undone otherwise.
	try := func(edit func()) bool {
		savedConfig, savedManager := proto.CloneOf(config), proto.CloneOf(c.manager)
		edit()
		report := difftest.NewReport()
		generatedWorld(t, c).Repeat(f, report)
		if len(report.Failures) == 0 {
			proto.Reset(config)
			proto.Merge(config, savedConfig)
			c.manager = savedManager
			return false
		}
		f = report.Failures[0]
		return true
	}
	for i := range slices.Backward(c.manager.GetHttpFilters()) {
		try(func() { c.manager.HttpFilters = slices.Delete(c.manager.GetHttpFilters(), i, i+1) })
	}
	try(func() { c.manager.AccessLog = nil })
	for i := range slices.Backward(config.GetVirtualHosts()) {
		if try(func() { config.VirtualHosts = slices.Delete(config.GetVirtualHosts(), i, i+1) }) {
			continue
		}
		for j := range slices.Backward(config.GetVirtualHosts()[i].GetRoutes()) {
			v := func() *routepb.VirtualHost { return config.GetVirtualHosts()[i] }
			if try(func() { v().Routes = slices.Delete(v().GetRoutes(), j, j+1) }) {
				continue
			}
			for _, edit := range []func(*routepb.Route){
				func(r *routepb.Route) { r.TypedPerFilterConfig = nil },
				func(r *routepb.Route) { r.RequestHeadersToAdd, r.RequestHeadersToRemove = nil, nil },
				func(r *routepb.Route) { r.ResponseHeadersToAdd, r.ResponseHeadersToRemove = nil, nil },
				func(r *routepb.Route) { r.Match.Headers, r.Match.Cookies = nil, nil },
				func(r *routepb.Route) {
					if a := r.GetRoute(); a != nil {
						a.HashPolicy, a.RequestMirrorPolicies = nil, nil
					}
				},
				func(r *routepb.Route) { r.Match.QueryParameters = nil },
				func(r *routepb.Route) { r.Match.RuntimeFraction = nil },
			} {
				try(func() { edit(v().GetRoutes()[j]) })
			}
		}
	}
	return f
}

// generator makes configurations.
type generator struct {
	*rand.Rand
	tb testing.TB
}

func pick[T any](g *generator, of ...T) T { return of[g.IntN(len(of))] }

func (g *generator) chance(percent int) bool { return g.IntN(100) < percent }

func (g *generator) config() *routepb.RouteConfiguration {
	config := &routepb.RouteConfiguration{
		Name: "80", IgnorePortInHostMatching: true, MostSpecificHeaderMutationsWins: g.chance(20),
	}
	domains := []string{"a.com", "A.org", "b.a.com", "*.a.com", "*.b.a.com", "10.1.2.3", "[fd00::1]", "svc", "svc.ns", "svc.ns.svc.cluster.local", "x.*"}
	g.Shuffle(len(domains), func(i, j int) { domains[i], domains[j] = domains[j], domains[i] })
	route := 0
	for v := range 1 + g.IntN(4) {
		n := 1 + g.IntN(2)
		vhost := &routepb.VirtualHost{Name: "v" + strconv.Itoa(v), Domains: domains[:n]}
		domains = domains[n:]
		if v == 0 && g.chance(60) {
			vhost.Domains = []string{"*"}
		}
		for range g.IntN(6) {
			vhost.Routes = append(vhost.Routes, g.route("r"+strconv.Itoa(route)))
			route++
		}
		if g.chance(6) {
			vhost.RequireTls = routepb.VirtualHost_ALL
		}
		vhost.IncludeRequestAttemptCount = g.chance(30)
		vhost.RequestHeadersToAdd, vhost.RequestHeadersToRemove = g.mutations(10)
		vhost.ResponseHeadersToAdd, vhost.ResponseHeadersToRemove = g.mutations(10)
		if g.chance(10) {
			vhost.RetryPolicy = g.retries()
		}
		config.VirtualHosts = append(config.VirtualHosts, vhost)
	}
	config.RequestHeadersToAdd, config.RequestHeadersToRemove = g.mutations(6)
	config.ResponseHeadersToAdd, config.ResponseHeadersToRemove = g.mutations(6)
	return config
}

func (g *generator) route(name string) *routepb.Route {
	r := &routepb.Route{Name: name, Match: g.match()}
	switch g.IntN(10) {
	case 0:
		r.Action = &routepb.Route_Redirect{Redirect: g.redirect()}
	case 1:
		r.Action = &routepb.Route_DirectResponse{DirectResponse: g.directResponse()}
	default:
		action := g.action()
		if r.GetMatch().GetPathMatchPolicy() != nil && g.chance(50) {
			action.PrefixRewrite, action.RegexRewrite, action.PathRewrite = "", nil, ""
			action.PathRewritePolicy = g.extension(&uritemplaterewritepb.UriTemplateRewriteConfig{PathTemplateRewrite: pick(g, "/new/{x}", "/{x}", "/$1/{x}.{x}", "/{y}/z")})
		}
		r.Action = &routepb.Route_Route{Route: action}
	}
	r.RequestHeadersToAdd, r.RequestHeadersToRemove = g.mutations(25)
	r.ResponseHeadersToAdd, r.ResponseHeadersToRemove = g.mutations(25)
	r.TypedPerFilterConfig = map[string]*anypb.Any{}
	if g.chance(12) {
		r.TypedPerFilterConfig["envoy.filters.http.fault"] = pack(g.tb, g.fault())
	}
	if g.chance(12) {
		r.TypedPerFilterConfig["envoy.filters.http.cors"] = pack(g.tb, g.cors())
	}
	if g.chance(12) {
		r.TypedPerFilterConfig[filterSession] = pack(g.tb, g.session())
	}
	if g.chance(5) {
		r.TypedPerFilterConfig[filterRateLimit] = pack(g.tb, g.rateLimit(70))
	}
	return r
}

func (g *generator) extension(config proto.Message) *corepb.TypedExtensionConfig {
	return &corepb.TypedExtensionConfig{Name: "extension", TypedConfig: pack(g.tb, config)}
}

func (g *generator) match() *routepb.RouteMatch {
	m := &routepb.RouteMatch{}
	literal := pick(g, "/", "/a", "/a/", "/a/b", "/ab", "/A", "/api/v1", "/api", "/status.html", "/x-y_z~", "/a+b", "/p(q)", "/50%25", "/a%20b", "/é")
	switch g.IntN(10) {
	case 9:
		m.PathSpecifier = &routepb.RouteMatch_PathMatchPolicy{PathMatchPolicy: g.extension(&uritemplatepb.UriTemplateMatchConfig{
			PathTemplate: pick(g, "/a/{x}", "/{x}/b", "/{x}/{y}", "/api/{x=**}", "/{y=a/*}", "/**", "/{x}.html", "/api/{y=v1}", "/a/*"),
		})}
	case 0, 1:
		m.PathSpecifier = &routepb.RouteMatch_Path{Path: literal}
	case 2, 3, 4:
		m.PathSpecifier = &routepb.RouteMatch_Prefix{Prefix: literal}
	case 5:
		if literal == "/" || literal == "/a/" {
			literal = "/a"
		}
		m.PathSpecifier = &routepb.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: literal}
	case 6:
		m.PathSpecifier = &routepb.RouteMatch_Prefix{Prefix: "/"}
	default:
		re := pick(g, "/a.*", "/a/b", "/(a|ab)(/.*)?", "/api/v[0-9]+", "/[^/]+/b?", "(?i)/A.*", `/status\.(html|txt)`, ".*", "/a{1,2}b?/?", `/\w+`, "/a/$", `/p\(q\)`)
		m.PathSpecifier = &routepb.RouteMatch_SafeRegex{SafeRegex: &matcherpb.RegexMatcher{Regex: re}}
	}
	if m.GetSafeRegex() == nil && g.chance(12) {
		m.CaseSensitive = wrapperspb.Bool(false)
	}
	for range g.IntN(4) / 2 {
		m.Headers = append(m.Headers, g.header())
	}
	if g.chance(15) {
		m.QueryParameters = append(m.QueryParameters, g.query())
	}
	if g.chance(5) {
		m.Cookies = append(m.Cookies, g.cookie())
	}
	if g.chance(6) {
		m.RuntimeFraction = &corepb.RuntimeFractionalPercent{DefaultValue: g.fraction()}
	}
	if g.chance(4) {
		m.Grpc = &routepb.RouteMatch_GrpcRouteMatchOptions{}
	}
	return m
}

func (g *generator) text() *matcherpb.StringMatcher {
	m := &matcherpb.StringMatcher{IgnoreCase: g.chance(20)}
	v := pick(g, "a", "ab", "A-b", "x y", "1", "a.b", "(x)", "https://a.example", "ä", "k=v")
	switch g.IntN(6) {
	case 0, 1:
		m.MatchPattern = &matcherpb.StringMatcher_Exact{Exact: v}
	case 2:
		m.MatchPattern = &matcherpb.StringMatcher_Prefix{Prefix: v}
	case 3:
		m.MatchPattern = &matcherpb.StringMatcher_Suffix{Suffix: v}
	case 4:
		m.MatchPattern = &matcherpb.StringMatcher_Contains{Contains: v}
	default:
		re := pick(g, "a.*", "a|b", "[a-c]+", "(?i)AB?", "^a$", ".*", `v\d+`, "", `^(.*?;)?(user=jason)(;.*)?$`)
		m.MatchPattern = &matcherpb.StringMatcher_SafeRegex{SafeRegex: &matcherpb.RegexMatcher{Regex: re}}
		m.IgnoreCase = false
	}
	return m
}

func (g *generator) header() *routepb.HeaderMatcher {
	h := &routepb.HeaderMatcher{Name: pick(g, "x-a", "x-b", "user-agent", ":method", ":authority", "cookie", "x-c-d"), InvertMatch: g.chance(25), TreatMissingHeaderAsEmpty: g.chance(30)}
	switch {
	case h.GetName() == ":method":
		h.HeaderMatchSpecifier = &routepb.HeaderMatcher_StringMatch{StringMatch: &matcherpb.StringMatcher{
			MatchPattern: &matcherpb.StringMatcher_Exact{Exact: pick(g, "GET", "POST", "OPTIONS", "DELETE")},
		}}
	case g.chance(20):
		h.HeaderMatchSpecifier = &routepb.HeaderMatcher_PresentMatch{PresentMatch: g.chance(70)}
	case g.chance(10):
		h.HeaderMatchSpecifier = &routepb.HeaderMatcher_RangeMatch{RangeMatch: &typepb.Int64Range{Start: int64(g.IntN(3) - 1), End: int64(2 + g.IntN(9))}}
	default:
		h.HeaderMatchSpecifier = &routepb.HeaderMatcher_StringMatch{StringMatch: g.text()}
	}
	return h
}

func (g *generator) query() *routepb.QueryParameterMatcher {
	q := &routepb.QueryParameterMatcher{Name: pick(g, "q", "v", "x_y")}
	if g.chance(70) {
		q.QueryParameterMatchSpecifier = &routepb.QueryParameterMatcher_StringMatch{StringMatch: g.text()}
	} else {
		q.QueryParameterMatchSpecifier = &routepb.QueryParameterMatcher_PresentMatch{PresentMatch: g.chance(80)}
	}
	return q
}

func (g *generator) fraction() *typepb.FractionalPercent {
	return &typepb.FractionalPercent{
		Numerator:   uint32(pick(g, 0, 1, 10, 50, 99, 100, 1000)),
		Denominator: pick(g, typepb.FractionalPercent_HUNDRED, typepb.FractionalPercent_TEN_THOUSAND, typepb.FractionalPercent_MILLION),
	}
}

func (g *generator) duration() *durationpb.Duration {
	return durationpb.New(pick(g, 0, time.Millisecond, 250*time.Millisecond, time.Second, 15*time.Second, time.Minute))
}

func (g *generator) action() *routepb.RouteAction {
	a := &routepb.RouteAction{Timeout: g.duration()}
	if g.chance(75) {
		a.ClusterSpecifier = &routepb.RouteAction_Cluster{Cluster: pick(g, clusterNames()...)}
	} else {
		weighted := &routepb.WeightedCluster{}
		names := clusterNames()[:5]
		g.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		own := g.chance(40)
		for i := range 2 + g.IntN(2) {
			w := &routepb.WeightedCluster_ClusterWeight{Name: names[i], Weight: wrapperspb.UInt32(uint32(pick(g, 0, 1, 10, 25, 50, 80)))}
			if i == 0 {
				w.Weight.Value = 30
			}
			if own {
				w.RequestHeadersToAdd, w.RequestHeadersToRemove = g.mutations(40)
				w.ResponseHeadersToAdd, w.ResponseHeadersToRemove = g.mutations(40)
				if g.chance(30) {
					w.HostRewriteSpecifier = &routepb.WeightedCluster_ClusterWeight_HostRewriteLiteral{HostRewriteLiteral: pick(g, "w.example", "w_1.example:80")}
				}
			}
			weighted.Clusters = append(weighted.Clusters, w)
		}
		a.ClusterSpecifier = &routepb.RouteAction_WeightedClusters{WeightedClusters: weighted}
	}
	a.ClusterNotFoundResponseCode = pick(g, routepb.RouteAction_SERVICE_UNAVAILABLE, routepb.RouteAction_SERVICE_UNAVAILABLE, routepb.RouteAction_INTERNAL_SERVER_ERROR, routepb.RouteAction_NOT_FOUND)
	switch g.IntN(8) {
	case 0:
		a.PrefixRewrite = pick(g, "/", "/new", "/new/", "/n$1")
	case 1:
		a.RegexRewrite = g.rewrite()
	case 2:
		a.PathRewrite = pick(g, "/new%REQ(end-user)%", "/%PROTOCOL%/x", "/$1", "/%START_TIME(%s)%", "/of/%REQ(:METHOD)%")
	}
	switch g.IntN(10) {
	case 0:
		a.HostRewriteSpecifier = &routepb.RouteAction_HostRewriteLiteral{HostRewriteLiteral: pick(g, "h.example", "h_1.example", "h.example:8080")}
	case 1:
		a.HostRewriteSpecifier = &routepb.RouteAction_AutoHostRewrite{AutoHostRewrite: wrapperspb.Bool(true)}
	}
	if g.chance(30) {
		a.RetryPolicy = g.retries()
	}
	g.more(a)
	return a
}

func (g *generator) rewrite() *matcherpb.RegexMatchAndSubstitute {
	pattern, substitution := "^/([^/]*)(.*)$", `\2/\1`
	switch g.IntN(6) {
	case 0:
		pattern, substitution = "^/a", "/z"
	case 1:
		pattern, substitution = `[0-9]+`, "N"
	case 2:
		pattern, substitution = ".*", "/all"
	case 3:
		pattern, substitution = "(?i)/API(/.*)?", `/v2\1`
	case 4:
		pattern, substitution = "/$", "/index$1"
	}
	return &matcherpb.RegexMatchAndSubstitute{Pattern: &matcherpb.RegexMatcher{Regex: pattern}, Substitution: substitution}
}

func (g *generator) retries() *routepb.RetryPolicy {
	p := &routepb.RetryPolicy{RetryOn: pick(g, "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes", "5xx", "connect-failure", "gateway-error,reset", "unavailable", "")}
	if g.chance(80) {
		p.NumRetries = wrapperspb.UInt32(uint32(g.IntN(4)))
	}
	if g.chance(40) {
		p.PerTryTimeout = g.duration()
	}
	return p
}

// mutations are header operations, in so many percent of the cases.
func (g *generator) mutations(percent int) (add []*corepb.HeaderValueOption, remove []string) {
	if !g.chance(percent) {
		return nil, nil
	}
	names := []string{"x-add", "X-Set", "x-a", "server", "x-del", "x-multi"}
	for range 1 + g.IntN(3) {
		add = append(add, &corepb.HeaderValueOption{
			Header: &corepb.HeaderValue{
				Key: pick(g, names...), Value: pick(g, "v", "v1,v2", "a: b", "$x ${y}", `\$z`, "%REQ(x-b)%", "p-%PROTOCOL%", "100%%", "", "ü", "end/"),
			},
			AppendAction: pick(g, corepb.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD, corepb.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
				corepb.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD, corepb.HeaderValueOption_ADD_IF_ABSENT, corepb.HeaderValueOption_OVERWRITE_IF_EXISTS),
			KeepEmptyValue: g.chance(10),
		})
	}
	if g.chance(40) {
		remove = append(remove, pick(g, names...))
	}
	return add, remove
}

func (g *generator) redirect() *routepb.RedirectAction {
	r := &routepb.RedirectAction{StripQuery: g.chance(15), ResponseCode: routepb.RedirectAction_RedirectResponseCode(g.IntN(5))}
	switch g.IntN(5) {
	case 0:
		r.SchemeRewriteSpecifier = &routepb.RedirectAction_HttpsRedirect{HttpsRedirect: true}
	case 1:
		r.SchemeRewriteSpecifier = &routepb.RedirectAction_SchemeRedirect{SchemeRedirect: pick(g, "https", "http")}
	}
	if g.chance(50) {
		r.HostRedirect = pick(g, "r.example", "R.example")
	}
	if g.chance(25) {
		r.PortRedirect = uint32(pick(g, 80, 443, 8443))
	}
	switch g.IntN(6) {
	case 0, 1:
		r.PathRewriteSpecifier = &routepb.RedirectAction_PathRedirect{PathRedirect: pick(g, "/to", "/to?x=y", "/", "to", "/$1")}
	case 2:
		r.PathRewriteSpecifier = &routepb.RedirectAction_PrefixRewrite{PrefixRewrite: pick(g, "/to", "/to/", "/", "to")}
	case 3:
		r.PathRewriteSpecifier = &routepb.RedirectAction_RegexRewrite{RegexRewrite: g.rewrite()}
	}
	return r
}

func (g *generator) directResponse() *routepb.DirectResponseAction {
	r := &routepb.DirectResponseAction{Status: uint32(pick(g, 200, 204, 404, 418, 503))}
	if g.chance(60) && r.GetStatus() != 204 {
		r.Body = &corepb.DataSource{Specifier: &corepb.DataSource_InlineString{InlineString: pick(g, "body", "$uri ${x}", `{"a": "b\\n"}`, "ü")}}
	}
	return r
}

func (g *generator) fault() *faultpb.HTTPFault {
	f := &faultpb.HTTPFault{}
	if g.chance(60) {
		f.Delay = &commonfaultpb.FaultDelay{
			FaultDelaySecifier: &commonfaultpb.FaultDelay_FixedDelay{FixedDelay: durationpb.New(pick(g, time.Millisecond, 1500*time.Millisecond, 5*time.Second))},
			Percentage:         g.fraction(),
		}
	}
	if g.chance(60) {
		f.Abort = &faultpb.FaultAbort{Percentage: g.fraction()}
		if g.chance(70) {
			f.Abort.ErrorType = &faultpb.FaultAbort_HttpStatus{HttpStatus: uint32(pick(g, 400, 500, 503, 555))}
		} else {
			f.Abort.ErrorType = &faultpb.FaultAbort_GrpcStatus{GrpcStatus: 14}
		}
	}
	return f
}

func (g *generator) cors() *corspb.CorsPolicy {
	p := &corspb.CorsPolicy{
		AllowMethods: pick(g, "", "GET,POST", "*"), AllowHeaders: pick(g, "", "x-a,x-b", "*"),
		ExposeHeaders: pick(g, "", "x-c"), MaxAge: pick(g, "", "86400"),
	}
	for range g.IntN(3) {
		p.AllowOriginStringMatch = append(p.AllowOriginStringMatch, pick(g,
			&matcherpb.StringMatcher{MatchPattern: &matcherpb.StringMatcher_Exact{Exact: "https://a.example"}},
			&matcherpb.StringMatcher{MatchPattern: &matcherpb.StringMatcher_Exact{Exact: "*"}},
			&matcherpb.StringMatcher{MatchPattern: &matcherpb.StringMatcher_SafeRegex{SafeRegex: &matcherpb.RegexMatcher{Regex: `https://.*\.example`}}},
			&matcherpb.StringMatcher{MatchPattern: &matcherpb.StringMatcher_Prefix{Prefix: "https://"}},
		))
	}
	if g.chance(40) {
		p.AllowCredentials = wrapperspb.Bool(g.chance(70))
	}
	if g.chance(40) {
		p.ForwardNotMatchingPreflights = wrapperspb.Bool(g.chance(50))
	}
	return p
}
