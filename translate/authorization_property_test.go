package translate

import (
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacpb "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	rbacfilterpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	routerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	originaldstpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	http_connection_managerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	uritemplatepb "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherpb "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typepb "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"meshbridge/translate/apisix"
	"meshbridge/translate/envoytest"
	"meshbridge/xds"
)

var (
	accessPairs = flag.Int("access_pairs", 20000, "how many requests are given to random rules of access")
	accessSeed  = flag.Uint64("access_seed", 1, "the seed of these rules and requests")
)

// TestAccessIsNeverMoreOpen gives random requests, ordinary and hostile ones, to random RBAC filters.
// What Envoy refuses, APISIX refuses too. Where no diagnostic says that rules are stricter, and the
// request is of the kind for which they are exact, APISIX refuses nothing else.
func TestAccessIsNeverMoreOpen(t *testing.T) {
	const requests = 40 // per configuration
	var refused, passed, compared, stricter, unknown int
	for n := range uint64(max(1, *accessPairs/requests)) {
		g := accessGenerator{rand.New(rand.NewPCG(*accessSeed, n)), n%2 == 0}
		w := g.world(t)
		for range requests {
			r := g.request(w)
			envoy, ours := w.envoy.Evaluate(r), w.apisix.Evaluate(w.request(r))
			denied := ours.Status == 400 || ours.Status == 404 || ours.Status == 403 && ours.AnsweredBy == "fault-injection"
			switch envoy.Outcome {
			case envoytest.Denied:
				refused++
				if !denied {
					t.Fatalf("seed %d, %d: APISIX lets pass what Envoy refuses\n%s", *accessSeed, n, w.describe(r, ours))
				}
			case envoytest.Unknown, envoytest.Rejected, envoytest.Closed:
				unknown++
			default:
				passed++
				switch {
				case w.exact && isOrdinary(w, r):
					compared++
					if denied {
						t.Fatalf("seed %d, %d: APISIX refuses what Envoy lets pass\n%s", *accessSeed, n, w.describe(r, ours))
					}
				case denied:
					stricter++
				}
			}
		}
	}
	t.Logf("Envoy refuses %d and lets pass %d, of which %d are compared and %d of the others are refused; not evaluated: %d", refused, passed, compared, stricter, unknown)
}

// accessWorld is a configuration as both sides have it.
type accessWorld struct {
	profile    Profile
	chain      *Chain
	envoy      *envoytest.Evaluator
	apisix     *apisix.Evaluator
	connection envoytest.Connection
	rules      []*rbacpb.RBAC
	// exact tells that nothing is reported to be stricter. hops is how many addresses must follow
	// the client's in X-Forwarded-For, -1 where the header does not count.
	exact bool
	hops  int
}

func (w *accessWorld) describe(r envoytest.Request, d apisix.Decision) string {
	var rules []string
	for _, rule := range w.rules {
		rules = append(rules, rule.String())
	}
	return fmt.Sprintf("%s\n%+v\n%s\nAPISIX: %d by %s, route %s %v", w.profile.Name(), r, strings.Join(rules, "\n"), d.Status, d.AnsweredBy, d.RouteID, d.Notes)
}

// request is the request as APISIX gets it.
func (w *accessWorld) request(r envoytest.Request) apisix.Request {
	vars, err := RequestVars(w.profile, w.chain, Connection{
		Address: r.Connection.Destination.Addr(), Port: int(r.Connection.Destination.Port()), ServerName: r.Connection.ServerName,
	})
	if err != nil {
		panic(err)
	}
	if r.Connection.Certificate != nil {
		vars[w.profile.PeerIdentity()] = r.Connection.Certificate.URIs[0]
	}
	vars["request_id"] = strings.Repeat("0", 32)
	out := apisix.Request{Method: r.Method, Host: r.Host, URI: r.Target, RemoteAddr: r.Connection.Source.Addr().String(), Vars: vars, Headers: map[string][]string{}}
	for _, h := range r.Headers {
		out.Headers[h.Name] = append(out.Headers[h.Name], h.Value)
	}
	return out
}

// isOrdinary tells whether rules are exact for a request: its path reads the same in all forms, its
// server name is in lower case, and its header lines are no lists.
func isOrdinary(w *accessWorld, r envoytest.Request) bool {
	path, _, _ := strings.Cut(r.Target, "?")
	if !regexp.MustCompile(`\A(?:/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*/?\z`).MatchString(path) || len(path) > 5000 ||
		r.Connection.ServerName != strings.ToLower(r.Connection.ServerName) {
		return false
	}
	seen := map[string]bool{}
	for _, h := range r.Headers {
		if h.Name == "x-forwarded-for" && w.hops >= 0 {
			list := strings.Split(h.Value, ",")
			if a, err := netip.ParseAddr(strings.TrimSpace(list[max(0, len(list)-1-w.hops)])); err != nil || !a.Is4() || len(list) <= w.hops {
				return false
			}
		}
		if seen[h.Name] || h.Name != "x-forwarded-for" && strings.ContainsFunc(h.Value, func(c rune) bool { return c == ',' || c > '~' }) {
			return false
		}
		seen[h.Name] = true
	}
	return true
}

// accessGenerator makes rules and requests. With plain, the rules are of kinds that are exact for
// ordinary requests, and most requests are ordinary.
type accessGenerator struct {
	*rand.Rand
	plain bool
}

// of picks one.
func of[T any](g accessGenerator, list ...T) T { return list[g.IntN(len(list))] }

func (g accessGenerator) chance(percent int) bool { return g.IntN(100) < percent }

func (g accessGenerator) several(most int) int { return 1 + g.IntN(most) }

func packed(m proto.Message) *anypb.Any {
	out, err := anypb.New(m)
	if err != nil {
		panic(err)
	}
	return out
}

// world makes a chain with rules, and routes of several kinds.
func (g accessGenerator) world(t *testing.T) *accessWorld {
	t.Helper()
	w := &accessWorld{profile: of(g, Mesh(), Mesh(), Direct(0, 0), Gateway())}
	listener := w.listener(g.manager(w), w.profile.Name() == "mesh" && g.chance(60))
	snap := new(xds.Snapshot).With([]*xds.Resource{
		newResource(t, "listener", listener),
		newResource(t, "c", &clusterpb.Cluster{Name: "c", ClusterDiscoveryType: &clusterpb.Cluster_Type{Type: clusterpb.Cluster_STATIC}}),
	}, nil)
	state, _, err := Translate(Options{Profile: w.profile}, snap, Inputs{})
	if err != nil {
		t.Fatal(err)
	}
	if w.apisix, err = apisix.NewEvaluator(state.Objects(), apisix.Options{}); err != nil {
		t.Fatal(err)
	}
	if refused := w.apisix.Refused(); len(refused) > 0 {
		t.Fatal(refused)
	}
	if w.envoy, err = envoytest.New(snap); err != nil {
		t.Fatal(err)
	}
	for _, c := range state.Chains() {
		if c.NotServed == "" {
			w.chain = c
		}
	}
	// A literal with escapes or repeated slashes stands for its plain form as well.
	literal := regexp.MustCompile(`(?:exact|prefix|suffix|contains): *"[^"]*(?:%|//)`)
	w.exact = !literal.MatchString(fmt.Sprint(w.rules)) && !slices.ContainsFunc(state.Diagnostics(), func(d Diagnostic) bool {
		if d.Code == "invalid_object" {
			t.Fatal(d, w.rules)
		}
		return d.Code == "authorization_unknown" || strings.HasPrefix(string(d.Code), "unenforced_")
	})
	return w
}

// manager makes a connection manager with rules.
func (g accessGenerator) manager(w *accessWorld) *http_connection_managerpb.HttpConnectionManager {
	hcm := &http_connection_managerpb.HttpConnectionManager{
		StatPrefix: "http", NormalizePath: wrapperspb.Bool(g.chance(85)), MergeSlashes: g.chance(20),
		UseRemoteAddress: wrapperspb.Bool(g.chance(50)), XffNumTrustedHops: uint32(of(g, 0, 0, 0, 1, 2)),
		PathWithEscapedSlashesAction: of(g, http_connection_managerpb.HttpConnectionManager_KEEP_UNCHANGED,
			http_connection_managerpb.HttpConnectionManager_KEEP_UNCHANGED, http_connection_managerpb.HttpConnectionManager_UNESCAPE_AND_FORWARD),
		RouteSpecifier: &http_connection_managerpb.HttpConnectionManager_RouteConfig{RouteConfig: accessRoutes()},
	}
	w.hops = int(hcm.GetXffNumTrustedHops())
	if hcm.GetUseRemoteAddress().GetValue() {
		w.hops--
	}
	for range g.several(2) {
		rules := g.rules()
		w.rules = append(w.rules, rules)
		hcm.HttpFilters = append(hcm.HttpFilters, &http_connection_managerpb.HttpFilter{
			Name:       "envoy.filters.http.rbac",
			ConfigType: &http_connection_managerpb.HttpFilter_TypedConfig{TypedConfig: packed(&rbacfilterpb.RBAC{Rules: rules})},
		})
	}
	hcm.HttpFilters = append(hcm.HttpFilters, &http_connection_managerpb.HttpFilter{
		Name: "envoy.filters.http.router", ConfigType: &http_connection_managerpb.HttpFilter_TypedConfig{TypedConfig: packed(&routerpb.Router{})},
	})
	return hcm
}

// listener puts the connection manager where the profile receives its connections.
func (w *accessWorld) listener(hcm *http_connection_managerpb.HttpConnectionManager, meshTLS bool) *listenerpb.Listener {
	chain := &listenerpb.FilterChain{Name: "chain", Filters: []*listenerpb.Filter{{
		Name: "hcm", ConfigType: &listenerpb.Filter_TypedConfig{TypedConfig: packed(hcm)},
	}}}
	w.connection.Source = netip.MustParseAddrPort("10.0.0.1:1024")
	if w.profile.Name() == "gateway" {
		w.connection.Direction, w.connection.Destination = envoytest.Edge, netip.MustParseAddrPort("10.1.0.1:8080")
		return &listenerpb.Listener{Name: "listener", Address: socket("0.0.0.0", 8080), FilterChains: []*listenerpb.FilterChain{chain}}
	}
	w.connection.Direction, w.connection.Destination = envoytest.Inbound, netip.MustParseAddrPort("10.1.0.1:9080")
	chain.FilterChainMatch = &listenerpb.FilterChainMatch{DestinationPort: wrapperspb.UInt32(9080)}
	if meshTLS {
		w.connection.TLS = true
		chain.TransportSocket = &corepb.TransportSocket{Name: "tls", ConfigType: &corepb.TransportSocket_TypedConfig{TypedConfig: packed(&tlspb.DownstreamTlsContext{
			RequireClientCertificate: wrapperspb.Bool(true),
			CommonTlsContext:         &tlspb.CommonTlsContext{TlsCertificateSdsSecretConfigs: []*tlspb.SdsSecretConfig{{Name: "default"}}},
		})}}
	}
	return &listenerpb.Listener{
		Name: "listener", Address: socket("0.0.0.0", 15006), TrafficDirection: corepb.TrafficDirection_INBOUND,
		UseOriginalDst: wrapperspb.Bool(true), FilterChains: []*listenerpb.FilterChain{chain},
		ListenerFilters: []*listenerpb.ListenerFilter{{
			Name: "original_dst", ConfigType: &listenerpb.ListenerFilter_TypedConfig{TypedConfig: packed(&originaldstpb.OriginalDst{})},
		}},
	}
}

func socket(address string, port uint32) *corepb.Address {
	return &corepb.Address{Address: &corepb.Address_SocketAddress{SocketAddress: &corepb.SocketAddress{
		Address: address, PortSpecifier: &corepb.SocketAddress_PortValue{PortValue: port},
	}}}
}

func accessRoutes() *routepb.RouteConfiguration {
	prefix := func(p string) *routepb.RouteMatch {
		return &routepb.RouteMatch{PathSpecifier: &routepb.RouteMatch_Prefix{Prefix: p}}
	}
	return &routepb.RouteConfiguration{Name: "rc", VirtualHosts: []*routepb.VirtualHost{{
		Name: "v", Domains: []string{"*"},
		Routes: []*routepb.Route{
			{Name: "direct", Match: prefix("/a"), Action: &routepb.Route_DirectResponse{DirectResponse: &routepb.DirectResponseAction{Status: 200}}},
			{Name: "redirect", Match: prefix("/x"), Action: &routepb.Route_Redirect{Redirect: &routepb.RedirectAction{
				PathRewriteSpecifier: &routepb.RedirectAction_PathRedirect{PathRedirect: "/new"},
			}}},
			{Name: "forward", Match: prefix("/"), Action: &routepb.Route_Route{Route: &routepb.RouteAction{
				ClusterSpecifier: &routepb.RouteAction_Cluster{Cluster: "c"},
			}}},
		},
	}}}
}

func (g accessGenerator) rules() *rbacpb.RBAC {
	r := &rbacpb.RBAC{Action: of(g, rbacpb.RBAC_ALLOW, rbacpb.RBAC_ALLOW, rbacpb.RBAC_DENY, rbacpb.RBAC_DENY, rbacpb.RBAC_DENY), Policies: map[string]*rbacpb.Policy{}}
	if g.chance(5) {
		r.Action = rbacpb.RBAC_LOG
	}
	for n := range g.IntN(4) {
		p := &rbacpb.Policy{}
		for range g.several(2) {
			p.Permissions = append(p.Permissions, g.permission(2))
		}
		for range g.several(2) {
			p.Principals = append(p.Principals, g.principal(2))
		}
		r.Policies[fmt.Sprint("p", n)] = p
	}
	return r
}

func (g accessGenerator) permission(depth int) *rbacpb.Permission {
	kind := g.IntN(14)
	if depth == 0 {
		kind = 3 + g.IntN(11)
	}
	set := func() *rbacpb.Permission_Set {
		out := &rbacpb.Permission_Set{}
		for range g.several(3) {
			out.Rules = append(out.Rules, g.permission(depth-1))
		}
		return out
	}
	switch kind {
	case 0:
		return &rbacpb.Permission{Rule: &rbacpb.Permission_AndRules{AndRules: set()}}
	case 1:
		return &rbacpb.Permission{Rule: &rbacpb.Permission_OrRules{OrRules: set()}}
	case 2:
		return &rbacpb.Permission{Rule: &rbacpb.Permission_NotRule{NotRule: g.permission(depth - 1)}}
	case 3:
		return &rbacpb.Permission{Rule: &rbacpb.Permission_Any{Any: true}}
	case 4, 5, 6:
		return &rbacpb.Permission{Rule: &rbacpb.Permission_UrlPath{UrlPath: &matcherpb.PathMatcher{
			Rule: &matcherpb.PathMatcher_Path{Path: g.text(g.paths(), g.expressions([]string{"/a.*", "/.+/b", "/x/[0-9]+/y", "/[^/]*"}, "/(a|b)*c", "/a/?$", ".*a.*b"))},
		}}}
	case 7:
		return &rbacpb.Permission{Rule: &rbacpb.Permission_UriTemplate{UriTemplate: &corepb.TypedExtensionConfig{
			Name: "t", TypedConfig: packed(&uritemplatepb.UriTemplateMatchConfig{PathTemplate: of(g, "/x/*/y", "/a/**", "/*", "/**/b", "/{name}/b")}),
		}}}
	case 8:
		return &rbacpb.Permission{Rule: &rbacpb.Permission_DestinationIp{DestinationIp: g.cidr()}}
	case 9:
		return &rbacpb.Permission{Rule: &rbacpb.Permission_DestinationPort{DestinationPort: of[uint32](g, 9080, 8080, 80)}}
	case 10:
		return &rbacpb.Permission{Rule: &rbacpb.Permission_DestinationPortRange{DestinationPortRange: &typepb.Int32Range{Start: of[int32](g, 80, 9080), End: of[int32](g, 9080, 9081)}}}
	case 11:
		return &rbacpb.Permission{Rule: &rbacpb.Permission_RequestedServerName{RequestedServerName: g.text([]string{"outbound_.80_._.a", "a.example.com", "A.b"}, []string{"out.*", ".*"})}}
	}
	return &rbacpb.Permission{Rule: &rbacpb.Permission_Header{Header: g.header()}}
}

func (g accessGenerator) principal(depth int) *rbacpb.Principal {
	kind := g.IntN(12)
	if depth == 0 {
		kind = 3 + g.IntN(9)
	}
	set := func() *rbacpb.Principal_Set {
		out := &rbacpb.Principal_Set{}
		for range g.several(3) {
			out.Ids = append(out.Ids, g.principal(depth-1))
		}
		return out
	}
	switch kind {
	case 0:
		return &rbacpb.Principal{Identifier: &rbacpb.Principal_AndIds{AndIds: set()}}
	case 1:
		return &rbacpb.Principal{Identifier: &rbacpb.Principal_OrIds{OrIds: set()}}
	case 2:
		return &rbacpb.Principal{Identifier: &rbacpb.Principal_NotId{NotId: g.principal(depth - 1)}}
	case 3, 4:
		return &rbacpb.Principal{Identifier: &rbacpb.Principal_Any{Any: true}}
	case 5, 6:
		a := &rbacpb.Principal_Authenticated{}
		if !g.chance(10) {
			a.PrincipalName = g.text(accessIdentities, []string{".*/ns/foo/.*", "spiffe://.+/ns/foo/(.+/|)sa/a(/.+)?", ".*"})
		}
		return &rbacpb.Principal{Identifier: &rbacpb.Principal_Authenticated_{Authenticated: a}}
	case 7:
		return &rbacpb.Principal{Identifier: &rbacpb.Principal_DirectRemoteIp{DirectRemoteIp: g.cidr()}}
	case 8:
		return &rbacpb.Principal{Identifier: &rbacpb.Principal_RemoteIp{RemoteIp: g.cidr()}}
	case 9:
		if !g.plain && g.chance(30) {
			return &rbacpb.Principal{Identifier: &rbacpb.Principal_FilterState{FilterState: &matcherpb.FilterStateMatcher{
				Key: "k", Matcher: &matcherpb.FilterStateMatcher_StringMatch{StringMatch: g.text([]string{"v"}, nil)},
			}}}
		}
	}
	return &rbacpb.Principal{Identifier: &rbacpb.Principal_Header{Header: g.header()}}
}

var (
	accessPaths      = []string{"/a", "/A", "/a/", "/a/b", "/x/1/y", "/a%20b", "/a%2Fb", "/x//y", "b", "/b", "2Fb", ".png", "/é", "/"}
	accessIdentities = []string{"spiffe://cluster.local/ns/foo/sa/a", "spiffe://cluster.local/ns/bar/sa/a", "spiffe://td/ns/foo/sa/ab"}
	accessValues     = []string{"a", "b", "ab", "a,b", "a, b", "", " a", "A", "é"}
	accessHosts      = []string{"reviews", "reviews:9080", "REVIEWS", "a.example.com", "A.Example.com:80", "example.com"}
)

// text is a matcher of one of the values, of a part of it, or of one of the expressions.
func (g accessGenerator) text(values, expressions []string) *matcherpb.StringMatcher {
	m := &matcherpb.StringMatcher{IgnoreCase: g.chance(25)}
	value := of(g, values...)
	kind := g.IntN(5)
	if kind == 4 && len(expressions) > 0 {
		m.MatchPattern = &matcherpb.StringMatcher_SafeRegex{SafeRegex: &matcherpb.RegexMatcher{Regex: of(g, expressions...)}}
		return m
	}
	part := cmp.Or(value, "a")
	switch kind {
	case 0:
		m.MatchPattern = &matcherpb.StringMatcher_Prefix{Prefix: part}
	case 1:
		m.MatchPattern = &matcherpb.StringMatcher_Suffix{Suffix: part}
	case 2:
		m.MatchPattern = &matcherpb.StringMatcher_Contains{Contains: part}
	default:
		m.MatchPattern = &matcherpb.StringMatcher_Exact{Exact: value}
	}
	return m
}

func (g accessGenerator) paths() []string {
	if g.plain {
		return []string{"/a", "/A", "/a/", "/a/b", "/x/1/y", "b", "/b", ".png", "/"}
	}
	return accessPaths
}

func (g accessGenerator) values() []string {
	if g.plain && g.chance(90) {
		return []string{"a", "b", "ab", "", "A"}
	}
	return accessValues
}

// expressions adds those that PCRE may give up on, or that are not translated.
func (g accessGenerator) expressions(safe []string, others ...string) []string {
	if g.plain {
		return safe
	}
	return append(safe, others...)
}

func (g accessGenerator) header() *routepb.HeaderMatcher {
	h := &routepb.HeaderMatcher{Name: of(g, ":method", ":authority", "x-a", "x-b", "X-A"), InvertMatch: g.chance(20), TreatMissingHeaderAsEmpty: g.chance(20)}
	values, expressions := g.values(), g.expressions([]string{"a+", ".*", "a.?b"}, "(a|b)+")
	switch h.GetName() {
	case ":method":
		values, expressions = []string{"GET", "POST", "get"}, nil
	case ":authority":
		values, expressions = accessHosts, []string{"[a-z.]+", "reviews.*"}
	}
	if g.chance(20) {
		h.HeaderMatchSpecifier = &routepb.HeaderMatcher_PresentMatch{PresentMatch: g.chance(70)}
		return h
	}
	h.HeaderMatchSpecifier = &routepb.HeaderMatcher_StringMatch{StringMatch: g.text(values, expressions)}
	return h
}

func (g accessGenerator) cidr() *corepb.CidrRange {
	r := &corepb.CidrRange{AddressPrefix: of(g, "10.0.0.0", "10.0.0.1", "10.1.0.0", "1.2.3.200", "2001:db8::1")}
	if !g.chance(5) {
		r.PrefixLen = wrapperspb.UInt32(of[uint32](g, 0, 7, 8, 15, 16, 25, 31, 32))
	}
	return r
}

func (g accessGenerator) request(w *accessWorld) envoytest.Request {
	r := envoytest.Request{
		Connection: w.connection, Method: of(g, "GET", "GET", "POST", "OPTIONS"),
		Host: of(g, accessHosts...), Target: g.target(),
	}
	r.Connection.Source = netip.AddrPortFrom(netip.MustParseAddr(of(g, "10.0.0.1", "10.1.2.3", "1.2.3.201", "2001:db8::1")), 1024)
	if r.Connection.TLS {
		r.Connection.ServerName = of(g, "", "outbound_.80_._.a", "A.Example.com", "a.b")
		r.Connection.Certificate = &envoytest.Certificate{URIs: []string{of(g, accessIdentities...)}, Validated: true}
	}
	for _, name := range []string{"x-a", "x-b"} {
		lines := of(g, 0, 1, 1, 2)
		if g.plain && g.chance(80) {
			lines = min(lines, 1)
		}
		for range lines {
			// As sent: white space around values is no part of them.
			r.Headers = append(r.Headers, envoytest.Header{Name: name, Value: strings.TrimSpace(of(g, g.values()...))})
		}
	}
	if g.plain && g.chance(30) {
		r.Headers = append(r.Headers, envoytest.Header{Name: "x-forwarded-for", Value: of(g, "10.0.0.1,1.2.3.201 ,10.1.2.3", "1.2.3.201,10.0.0.1, 10.0.0.2")})
	} else if !g.plain && g.chance(40) {
		r.Headers = append(r.Headers, envoytest.Header{Name: "x-forwarded-for", Value: of(g, "10.0.0.1", "1.2.3.201, 10.1.2.3", "10.0.0.1,1.2.3.201 ,10.1.2.3",
			"", "unknown", "10.0.0.1:80", "2001:db8::1", "010.0.0.1", "10.0.0.256", "1.2.3.201,")})
	}
	return r
}

// target is a path of the vocabulary, often written in another way.
func (g accessGenerator) target() string {
	path := of(g, g.paths()...)
	if !strings.HasPrefix(path, "/") {
		path = "/a" + path
	}
	if g.chance(40) && (!g.plain || g.chance(30)) {
		i := g.IntN(len(path) + 1)
		path = path[:i] + of(g, "%61", "%2F", "%2f..%2f", "/../", "/./", "//", `\`, "%5C", "%2e%2e", "%20", "é", "..", "b", ".png", ";", "|", "%41b", "/%2e/",
			strings.Repeat("/a", 3000), strings.Repeat("b", 7000)) + path[i:]
	}
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	if g.chance(20) {
		path += of(g, "?", "?a=/a", "?/x/1/y", "?a=%2F..", "?b.png")
	}
	return path
}
