package authn

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"testing"
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacpb "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	corspb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	jwtpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	rbacfilterpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	routerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	originaldstpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	http_connection_managerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherpb "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"meshbridge/translate"
	"meshbridge/translate/difftest"
	"meshbridge/translate/envoytest"
	"meshbridge/xds"
)

var seed = flag.Uint64("seed", 1, "seed of random configurations and requests; 0 is another one each time")

// Envoy's model verifies tokens by its own code: what it refuses, APISIX refuses with the bridge's
// answers, and what it forwards, APISIX forwards with the same headers, but for what is reported.
func TestTokensAndRulesAreEnvoys(t *testing.T) {
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	g := generator{Rand: rand.New(rand.NewPCG(*seed, 0)), signers: newSigners(t), strangers: newSigners(t), t: t}
	total := difftest.NewReport()
	for n := range 80 {
		report := difftest.NewReport()
		w, chain, connection := g.world(fmt.Sprintf("seed %d, world %d", *seed, n))
		for range 60 {
			w.Repeat(difftest.Failure{Chain: chain, Request: g.request(connection)}, report)
		}
		for _, f := range report.Shortest() {
			t.Error(f)
		}
		total.Add(report)
		if t.Failed() {
			break
		}
	}
	t.Log(total)
	for _, o := range []envoytest.Outcome{envoytest.Forward, envoytest.Denied, envoytest.Redirect, envoytest.Preflight} {
		if total.Outcomes[o] < 20 {
			t.Errorf("%d requests are %q: too few to say anything", total.Outcomes[o], o)
		}
	}
}

// generator makes configurations and requests.
type generator struct {
	*rand.Rand
	signers, strangers map[string]signer
	t                  *testing.T
}

func of[T any](g generator, list ...T) T { return list[g.IntN(len(list))] }

func (g generator) chance(percent int) bool { return g.IntN(100) < percent }

func (g generator) packed(m proto.Message) *anypb.Any {
	out, err := anypb.New(m)
	if err != nil {
		g.t.Fatal(err)
	}
	return out
}

// world makes a chain with a filter for tokens, and rules behind it.
func (g generator) world(name string) (w *difftest.World, chain string, c envoytest.Connection) {
	profile := of(g, translate.Mesh(), translate.Direct(0, 0), translate.Gateway())
	listener := g.listener(profile, &c)
	snap := new(xds.Snapshot).With([]*xds.Resource{
		g.resource("listener", listener),
		g.resource("c", &clusterpb.Cluster{Name: "c", ClusterDiscoveryType: &clusterpb.Cluster_Type{Type: clusterpb.Cluster_STATIC}, LoadAssignment: oneEndpoint()}),
	}, nil)
	options := translate.Options{Profile: profile, Internal: netip.MustParseAddrPort("127.0.0.1:15099")}
	w, err := difftest.NewWorldWith(name, snap, options, func(list []*translate.Authentication) difftest.Asked {
		if len(list) != 1 {
			g.t.Fatalf("%s: tokens are not verified: %v", name, listener)
		}
		return newAsked(list...).Ask
	})
	if err != nil {
		g.t.Fatal(err)
	}
	state, _, err := translate.Translate(options, snap, translate.Inputs{})
	if err != nil {
		g.t.Fatal(err)
	}
	for _, served := range state.Chains() {
		if served.NotServed == "" {
			chain = served.Key
		}
	}
	return w, chain, c
}

func (g generator) resource(name string, m proto.Message) *xds.Resource {
	body := g.packed(m)
	return &xds.Resource{Key: xds.Key{Type: body.GetTypeUrl(), Name: name}, Body: body}
}

func oneEndpoint() *endpointpb.ClusterLoadAssignment {
	return &endpointpb.ClusterLoadAssignment{ClusterName: "c", Endpoints: []*endpointpb.LocalityLbEndpoints{{LbEndpoints: []*endpointpb.LbEndpoint{{
		HostIdentifier: &endpointpb.LbEndpoint_Endpoint{Endpoint: &endpointpb.Endpoint{Address: socket("10.2.0.1", 80)}},
	}}}}}
}

func socket(address string, port uint32) *corepb.Address {
	return &corepb.Address{Address: &corepb.Address_SocketAddress{SocketAddress: &corepb.SocketAddress{
		Address: address, PortSpecifier: &corepb.SocketAddress_PortValue{PortValue: port},
	}}}
}

func (g generator) listener(p translate.Profile, c *envoytest.Connection) *listenerpb.Listener {
	chain := &listenerpb.FilterChain{Name: "chain", Filters: []*listenerpb.Filter{{
		Name: "hcm", ConfigType: &listenerpb.Filter_TypedConfig{TypedConfig: g.packed(g.manager())},
	}}}
	c.Source = netip.MustParseAddrPort("10.0.0.1:1024")
	if p.Name() == "gateway" {
		c.Direction, c.Destination = envoytest.Edge, netip.MustParseAddrPort("10.1.0.1:8080")
		return &listenerpb.Listener{Name: "listener", Address: socket("0.0.0.0", 8080), FilterChains: []*listenerpb.FilterChain{chain}}
	}
	c.Direction, c.Destination = envoytest.Inbound, netip.MustParseAddrPort("10.1.0.1:9080")
	chain.FilterChainMatch = &listenerpb.FilterChainMatch{DestinationPort: wrapperspb.UInt32(9080)}
	return &listenerpb.Listener{
		Name: "listener", Address: socket("0.0.0.0", 15006), TrafficDirection: corepb.TrafficDirection_INBOUND,
		UseOriginalDst: wrapperspb.Bool(true), FilterChains: []*listenerpb.FilterChain{chain},
		ListenerFilters: []*listenerpb.ListenerFilter{{
			Name: "original_dst", ConfigType: &listenerpb.ListenerFilter_TypedConfig{TypedConfig: g.packed(&originaldstpb.OriginalDst{})},
		}},
	}
}

func (g generator) manager() *http_connection_managerpb.HttpConnectionManager {
	hcm := &http_connection_managerpb.HttpConnectionManager{
		StatPrefix: "http", NormalizePath: wrapperspb.Bool(true),
		PathWithEscapedSlashesAction: http_connection_managerpb.HttpConnectionManager_KEEP_UNCHANGED,
		RouteSpecifier:               &http_connection_managerpb.HttpConnectionManager_RouteConfig{RouteConfig: g.routes()},
	}
	add := func(name string, m proto.Message) {
		hcm.HttpFilters = append(hcm.HttpFilters, &http_connection_managerpb.HttpFilter{
			Name: name, ConfigType: &http_connection_managerpb.HttpFilter_TypedConfig{TypedConfig: g.packed(m)},
		})
	}
	add("envoy.filters.http.jwt_authn", g.filter())
	for range g.IntN(3) {
		add("envoy.filters.http.rbac", &rbacfilterpb.RBAC{Rules: g.rules()})
	}
	add("envoy.filters.http.cors", &corspb.Cors{})
	add("envoy.filters.http.router", &routerpb.Router{})
	return hcm
}

const (
	first  = "https://first"
	second = "https://second"
)

// filter makes providers with different places for tokens, and requirements of all kinds.
func (g generator) filter() *jwtpb.JwtAuthentication {
	c := &jwtpb.JwtAuthentication{Providers: map[string]*jwtpb.JwtProvider{}, BypassCorsPreflight: true}
	for _, name := range []string{"a", "b"} {
		p := &jwtpb.JwtProvider{
			Issuer: of(g, first, second, first, second, ""), Forward: g.chance(50), PayloadInMetadata: "payload",
			NormalizePayloadInMetadata: &jwtpb.JwtProvider_NormalizePayload{SpaceDelimitedClaims: []string{"scope"}},
			JwksSourceSpecifier: &jwtpb.JwtProvider_LocalJwks{LocalJwks: &corepb.DataSource{Specifier: &corepb.DataSource_InlineString{
				InlineString: jwks(g.t, g.signers["rsa"], g.signers[of(g, "ec", "hmac")]),
			}}},
		}
		if g.chance(40) {
			p.Audiences = []string{of(g, "aud", "https://aud/", "other")}
		}
		if g.chance(40) {
			p.FromHeaders = []*jwtpb.JwtHeader{{Name: of(g, "x-jwt", "X-Token"), ValuePrefix: of(g, "", "Bearer ", "jwt=")}}
		}
		if g.chance(25) {
			p.FromParams = []string{of(g, "tok", "access_token")}
		}
		if g.chance(25) {
			p.FromCookies = []string{"ck"}
		}
		if g.chance(50) {
			p.ForwardPayloadHeader = of(g, "x-payload", "X-Payload-2")
		}
		if g.chance(50) {
			p.ClaimToHeaders = []*jwtpb.JwtClaimToHeader{{HeaderName: of(g, "x-sub", "x-payload"), ClaimName: of(g, "sub", "a.b", "none")}}
		}
		if g.chance(20) {
			p.Subjects = &matcherpb.StringMatcher{MatchPattern: &matcherpb.StringMatcher_Prefix{Prefix: "m"}}
		}
		c.Providers[name] = p
	}
	c.Rules = []*jwtpb.RequirementRule{{
		Match:           &routepb.RouteMatch{PathSpecifier: &routepb.RouteMatch_Prefix{Prefix: "/"}},
		RequirementType: &jwtpb.RequirementRule_Requires{Requires: g.requirement(2)},
	}}
	return c
}

func (g generator) requirement(depth int) *jwtpb.JwtRequirement {
	provider := of(g, "a", "b")
	missing := &jwtpb.JwtRequirement{RequiresType: &jwtpb.JwtRequirement_AllowMissing{AllowMissing: &emptypb.Empty{}}}
	kind := g.IntN(6)
	if depth == 0 {
		kind %= 3
	}
	switch kind {
	case 0:
		return &jwtpb.JwtRequirement{RequiresType: &jwtpb.JwtRequirement_ProviderName{ProviderName: provider}}
	case 1:
		return &jwtpb.JwtRequirement{RequiresType: &jwtpb.JwtRequirement_ProviderAndAudiences{
			ProviderAndAudiences: &jwtpb.ProviderWithAudiences{ProviderName: provider, Audiences: []string{"aud"}},
		}}
	case 2:
		return of(g, missing, &jwtpb.JwtRequirement{RequiresType: &jwtpb.JwtRequirement_AllowMissingOrFailed{AllowMissingOrFailed: &emptypb.Empty{}}})
	case 3:
		return &jwtpb.JwtRequirement{RequiresType: &jwtpb.JwtRequirement_RequiresAll{RequiresAll: &jwtpb.JwtRequirementAndList{
			Requirements: []*jwtpb.JwtRequirement{g.requirement(depth - 1), g.requirement(depth - 1)},
		}}}
	}
	list := []*jwtpb.JwtRequirement{g.requirement(depth - 1), g.requirement(depth - 1)}
	if g.chance(70) {
		list = append(list, missing)
	}
	return &jwtpb.JwtRequirement{RequiresType: &jwtpb.JwtRequirement_RequiresAny{RequiresAny: &jwtpb.JwtRequirementOrList{Requirements: list}}}
}

// rules are of claims, methods and headers.
func (g generator) rules() *rbacpb.RBAC {
	out := &rbacpb.RBAC{Action: of(g, rbacpb.RBAC_ALLOW, rbacpb.RBAC_DENY), Policies: map[string]*rbacpb.Policy{}}
	for i := range 1 + g.IntN(2) {
		principals := []*rbacpb.Principal{g.principal(), g.principal()}
		policy := &rbacpb.Policy{Principals: principals, Permissions: []*rbacpb.Permission{{Rule: &rbacpb.Permission_Any{Any: true}}}}
		if g.chance(40) {
			policy.Permissions = []*rbacpb.Permission{{Rule: &rbacpb.Permission_Header{Header: header(":method", "GET")}}}
		}
		if g.chance(30) {
			policy.Permissions = append(policy.Permissions, &rbacpb.Permission{Rule: &rbacpb.Permission_Metadata{Metadata: g.claim()}}) //nolint:staticcheck // as Istio does
		}
		if g.chance(50) {
			policy.Principals = []*rbacpb.Principal{{Identifier: &rbacpb.Principal_AndIds{AndIds: &rbacpb.Principal_Set{Ids: principals}}}}
		}
		out.Policies[fmt.Sprint("p", i)] = policy
	}
	return out
}

func header(name, value string) *routepb.HeaderMatcher {
	return &routepb.HeaderMatcher{Name: name, HeaderMatchSpecifier: &routepb.HeaderMatcher_StringMatch{StringMatch: exact(value)}}
}

func exact(s string) *matcherpb.StringMatcher {
	return &matcherpb.StringMatcher{MatchPattern: &matcherpb.StringMatcher_Exact{Exact: s}}
}

func (g generator) principal() *rbacpb.Principal {
	switch g.IntN(6) {
	case 0:
		return &rbacpb.Principal{Identifier: &rbacpb.Principal_NotId{NotId: g.principal()}}
	case 1:
		return &rbacpb.Principal{Identifier: &rbacpb.Principal_Header{Header: header(of(g, "x-a", "x-a", "x-a", "x-sub"), "1")}}
	}
	return &rbacpb.Principal{Identifier: &rbacpb.Principal_Metadata{Metadata: g.claim()}} //nolint:staticcheck // as Istio does
}

// claim is a condition as Istio makes them, or one that it could make.
func (g generator) claim() *matcherpb.MetadataMatcher {
	m := &matcherpb.MetadataMatcher{Filter: "envoy.filters.http.jwt_authn", Invert: g.chance(10)}
	for _, key := range of(g, []string{"payload", "iss"}, []string{"payload", "sub"}, []string{"payload", "aud"}, []string{"payload", "scope"}, []string{"payload", "a", "b"}, []string{"payload", "none"}) {
		m.Path = append(m.Path, &matcherpb.MetadataMatcher_PathSegment{Segment: &matcherpb.MetadataMatcher_PathSegment_Key{Key: key}})
	}
	text := &matcherpb.ValueMatcher{MatchPattern: &matcherpb.ValueMatcher_StringMatch{StringMatch: of(g, exact(first), exact("me"), exact("aud"), exact("read"),
		&matcherpb.StringMatcher{MatchPattern: &matcherpb.StringMatcher_SafeRegex{SafeRegex: &matcherpb.RegexMatcher{Regex: ".+"}}},
		&matcherpb.StringMatcher{MatchPattern: &matcherpb.StringMatcher_Prefix{Prefix: "https://"}})}}
	list := &matcherpb.ValueMatcher{MatchPattern: &matcherpb.ValueMatcher_ListMatch{ListMatch: &matcherpb.ListMatcher{
		MatchPattern: &matcherpb.ListMatcher_OneOf{OneOf: text},
	}}}
	m.Value = of(g, text, list, &matcherpb.ValueMatcher{MatchPattern: &matcherpb.ValueMatcher_OrMatch{OrMatch: &matcherpb.OrMatcher{
		ValueMatchers: []*matcherpb.ValueMatcher{list, text},
	}}}, &matcherpb.ValueMatcher{MatchPattern: &matcherpb.ValueMatcher_PresentMatch{PresentMatch: true}})
	return m
}

// routes are of all kinds of actions; one has headers of its own.
func (g generator) routes() *routepb.RouteConfiguration {
	to := &routepb.Route_Route{Route: &routepb.RouteAction{ClusterSpecifier: &routepb.RouteAction_Cluster{Cluster: "c"}}}
	prefix := func(p string) *routepb.RouteMatch {
		return &routepb.RouteMatch{PathSpecifier: &routepb.RouteMatch_Prefix{Prefix: p}}
	}
	return &routepb.RouteConfiguration{Name: "rc", VirtualHosts: []*routepb.VirtualHost{{Name: "v", Domains: []string{"*"}, Routes: []*routepb.Route{
		{Name: "redirect", Match: prefix("/redirect"), Action: &routepb.Route_Redirect{Redirect: &routepb.RedirectAction{HostRedirect: "b.com"}}},
		{Name: "https", Match: prefix("/https"), Action: &routepb.Route_Redirect{Redirect: &routepb.RedirectAction{
			SchemeRewriteSpecifier: &routepb.RedirectAction_HttpsRedirect{HttpsRedirect: true},
		}}},
		{Name: "direct", Match: prefix("/direct"), Action: &routepb.Route_DirectResponse{DirectResponse: &routepb.DirectResponseAction{Status: 200, Body: &corepb.DataSource{
			Specifier: &corepb.DataSource_InlineString{InlineString: "secret"},
		}}}},
		{Name: "gone", Match: prefix("/gone"), Action: &routepb.Route_DirectResponse{DirectResponse: &routepb.DirectResponseAction{Status: 410}}},
		{Name: "cors", Match: prefix("/cors"), Action: to, TypedPerFilterConfig: map[string]*anypb.Any{"envoy.filters.http.cors": g.packed(&corspb.CorsPolicy{
			AllowOriginStringMatch: []*matcherpb.StringMatcher{exact("http://o")}, AllowMethods: "GET",
		})}},
		{Name: "headers", Match: prefix("/headers"), Action: to, RequestHeadersToRemove: []string{of(g, "x-a", "authorization", "x-sub")}},
		{Name: "rules", Match: prefix("/rules"), Action: to, TypedPerFilterConfig: map[string]*anypb.Any{
			"envoy.filters.http.rbac": g.packed(&rbacfilterpb.RBACPerRoute{Rbac: of(g, nil, &rbacfilterpb.RBAC{Rules: g.rules()})}),
		}},
		{Name: "all", Match: prefix("/all"), Action: to},
	}}}}
}

func (g generator) request(c envoytest.Connection) envoytest.Request {
	r := envoytest.Request{
		Connection: c, Method: of(g, "GET", "GET", "GET", "POST", "OPTIONS"), Host: "a.com",
		Target: of(g, "/all", "/all", "/all/a", "/redirect", "/https/a", "/direct", "/gone", "/cors", "/cors", "/headers", "/rules", "/none"),
	}
	add := func(name, value string) { r.Headers = append(r.Headers, envoytest.Header{Name: name, Value: value}) }
	if r.Method == http.MethodOptions && g.chance(80) {
		add("origin", of(g, "http://o", "http://x"))
		add("access-control-request-method", "GET")
	}
	for _, name := range []string{"x-a", "x-sub", "x-payload"} {
		if g.chance(30) {
			add(name, of(g, "1", "forged"))
		}
	}
	if g.chance(20) {
		add("te", of(g, "trailers", "1111", "11111111"))
	}
	query := url.Values{}
	for range g.IntN(3) {
		token := g.token()
		switch name := of(g, "authorization", "authorization", "authorization", "x-jwt", "x-token", "tok", "access_token", "cookie"); name {
		case "tok", "access_token":
			query.Set(name, token)
		case "cookie":
			add(name, of(g, "", "a=b; ")+"ck="+of(g, token, `"`+token+`"`))
		default:
			// A header without a value is none to APISIX.
			value := of(g, "Bearer ", "Bearer ", "", "jwt=", "Bearer  ") + token
			if value != "" && !slices.ContainsFunc(r.Headers, func(h envoytest.Header) bool { return h.Name == name }) {
				add(name, value)
			}
		}
	}
	if len(query) > 0 {
		r.Target += "?" + query.Encode()
	}
	return r
}

// token is one that is valid, or nearly.
func (g generator) token() string {
	signers := g.signers
	if g.chance(10) {
		signers = g.strangers
	}
	now := time.Now().Unix()
	claims := map[string]any{
		"iss": of(g, first, first, second, second, "https://none"), "sub": of(g, "me", "you"), "exp": now + of[int64](g, 1000, 1000, 1000, -1000),
	}
	if g.chance(70) {
		claims["aud"] = of[any](g, "aud", []string{"x", "aud"}, "https://other/")
	}
	if g.chance(50) {
		claims["scope"] = of(g, "read write", "write", "")
	}
	if g.chance(50) {
		claims["a"] = map[string]any{"b": of[any](g, "me", []string{"me", "you"}, 7, true)}
	}
	if g.chance(5) {
		return of(g, "a.b.c", "x", "")
	}
	return signers[of(g, "rsa", "ec", "hmac")].sign(g.t, claims)
}
