package translate_test

import (
	"testing"
	"time"

	accesslogpb "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	filelogpb "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	grpcwebpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_web/v3"
	localratelimitpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	statefulpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	http_connection_managerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	sessioncookiepb "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/cookie/v3"
	sessionheaderpb "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/header/v3"
	httppb "github.com/envoyproxy/go-control-plane/envoy/type/http/v3"
	matcherpb "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typepb "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"meshbridge/translate"
)

// Names of filters to which random routes speak.
const (
	filterSession   = "envoy.filters.http.stateful_session"
	filterRateLimit = "envoy.filters.http.local_ratelimit"
)

// generated is a random configuration: one listener with its routes and the clusters that they name.
type generated struct {
	profile  translate.Profile
	manager  *http_connection_managerpb.HttpConnectionManager
	config   *routepb.RouteConfiguration
	clusters []*clusterpb.Cluster
}

func (g *generator) world() *generated {
	return &generated{
		profile: pick(g, translate.Mesh(), translate.Mesh(), translate.Gateway(), translate.Direct(0, 0)),
		manager: g.manager(), config: g.config(), clusters: g.clusters(),
	}
}

// manager has the filters that istiod configures always, and at random those that it can be asked for.
func (g *generator) manager() *http_connection_managerpb.HttpConnectionManager {
	m := newManager(g.tb, "80")
	add := func(percent int, name string, config proto.Message) {
		if g.chance(percent) {
			m.HttpFilters = append([]*http_connection_managerpb.HttpFilter{httpFilter(g.tb, name, config)}, m.GetHttpFilters()...)
		}
	}
	add(50, filterSession, &statefulpb.StatefulSession{})
	add(25, filterRateLimit, g.rateLimit(50))
	add(35, "envoy.filters.http.grpc_web", &grpcwebpb.GrpcWeb{})
	m.GenerateRequestId = wrapperspb.Bool(g.chance(50))
	m.PreserveExternalRequestId, m.AlwaysSetRequestIdInResponse = g.chance(20), g.chance(10)
	m.UseRemoteAddress, m.MergeSlashes = wrapperspb.Bool(g.chance(30)), g.chance(50)
	m.PathWithEscapedSlashesAction = pick(g,
		http_connection_managerpb.HttpConnectionManager_KEEP_UNCHANGED, http_connection_managerpb.HttpConnectionManager_KEEP_UNCHANGED,
		http_connection_managerpb.HttpConnectionManager_UNESCAPE_AND_FORWARD,
	)
	if g.chance(50) {
		m.UpgradeConfigs = []*http_connection_managerpb.HttpConnectionManager_UpgradeConfig{{UpgradeType: "websocket"}}
	}
	if g.chance(20) {
		m.StreamIdleTimeout = g.duration()
	}
	if g.chance(30) {
		m.AccessLog = append(m.AccessLog, g.accessLog())
	}
	return m
}

func (g *generator) accessLog() *accesslogpb.AccessLog {
	log := &accesslogpb.AccessLog{Name: "envoy.access_loggers.file", ConfigType: &accesslogpb.AccessLog_TypedConfig{
		TypedConfig: pack(g.tb, &filelogpb.FileAccessLog{Path: "/dev/stdout", AccessLogFormat: &filelogpb.FileAccessLog_LogFormat{
			LogFormat: &corepb.SubstitutionFormatString{Format: &corepb.SubstitutionFormatString_TextFormatSource{
				TextFormatSource: &corepb.DataSource{Specifier: &corepb.DataSource_InlineString{InlineString: pick(g,
					"%START_TIME% %REQ(:PATH)% %RESPONSE_CODE%\n", "%REQ(X-A?X-B)% %ROUTE_NAME%\n", "nothing\n")}},
			}},
		}}),
	}}
	if g.chance(40) {
		log.Filter = &accesslogpb.AccessLogFilter{FilterSpecifier: &accesslogpb.AccessLogFilter_StatusCodeFilter{
			StatusCodeFilter: &accesslogpb.StatusCodeFilter{Comparison: &accesslogpb.ComparisonFilter{
				Op: pick(g, accesslogpb.ComparisonFilter_GE, accesslogpb.ComparisonFilter_EQ, accesslogpb.ComparisonFilter_LE), Value: &corepb.RuntimeUInt32{DefaultValue: 400, RuntimeKey: "k"},
			}},
		}}
	}
	return log
}

// rateLimit has a bucket in so many percent of the cases: one that is never empty.
func (g *generator) rateLimit(percent int) *localratelimitpb.LocalRateLimit {
	l := &localratelimitpb.LocalRateLimit{StatPrefix: "limit"}
	if g.chance(percent) {
		always := &corepb.RuntimeFractionalPercent{DefaultValue: &typepb.FractionalPercent{Numerator: 100}}
		l.TokenBucket = &typepb.TokenBucket{MaxTokens: 1_000_000, TokensPerFill: wrapperspb.UInt32(1_000_000), FillInterval: durationpb.New(time.Second)}
		l.FilterEnabled, l.FilterEnforced = always, always
	}
	return l
}

// clusters are those of generated routes, with settings that are not about routing.
func (g *generator) clusters() []*clusterpb.Cluster {
	var out []*clusterpb.Cluster
	for _, name := range clusterNames() {
		if name == "missing" {
			continue
		}
		c := newCluster(name)
		switch {
		case name == "hash":
			c.LbPolicy = pick(g, clusterpb.Cluster_RING_HASH, clusterpb.Cluster_MAGLEV)
		case g.chance(30):
			c.LbPolicy = pick(g, clusterpb.Cluster_LEAST_REQUEST, clusterpb.Cluster_RANDOM)
		}
		if g.chance(20) {
			c.HealthChecks = []*corepb.HealthCheck{g.healthCheck()}
		}
		if g.chance(20) {
			c.OutlierDetection = &clusterpb.OutlierDetection{Consecutive_5Xx: wrapperspb.UInt32(uint32(1 + g.IntN(9)))}
		}
		out = append(out, c)
	}
	return out
}

func (g *generator) healthCheck() *corepb.HealthCheck {
	h := &corepb.HealthCheck{
		Timeout: durationpb.New(time.Second), Interval: durationpb.New(pick(g, time.Second, 1500*time.Millisecond, time.Minute)),
		HealthyThreshold: wrapperspb.UInt32(uint32(1 + g.IntN(4))), UnhealthyThreshold: wrapperspb.UInt32(uint32(1 + g.IntN(4))),
	}
	switch g.IntN(3) {
	case 0:
		h.HealthChecker = &corepb.HealthCheck_TcpHealthCheck_{TcpHealthCheck: &corepb.HealthCheck_TcpHealthCheck{}}
	case 1:
		h.HealthChecker = &corepb.HealthCheck_GrpcHealthCheck_{GrpcHealthCheck: &corepb.HealthCheck_GrpcHealthCheck{}}
	default:
		h.HealthChecker = &corepb.HealthCheck_HttpHealthCheck_{HttpHealthCheck: &corepb.HealthCheck_HttpHealthCheck{
			Host: pick(g, "", "health.example"), Path: pick(g, "/healthz", "/h?x=y"),
		}}
	}
	return h
}

// session is what a route says to the filter of persistent sessions.
func (g *generator) session() *statefulpb.StatefulSessionPerRoute {
	if g.chance(15) {
		return &statefulpb.StatefulSessionPerRoute{Override: &statefulpb.StatefulSessionPerRoute_Disabled{Disabled: true}}
	}
	var state proto.Message = &sessionheaderpb.HeaderBasedSessionState{Name: pick(g, "x-session", "X-Session-2")}
	if g.chance(50) {
		state = &sessioncookiepb.CookieBasedSessionState{Cookie: &httppb.Cookie{Name: pick(g, "session", "s-1"), Path: pick(g, "", "/")}}
		if g.chance(50) {
			state.(*sessioncookiepb.CookieBasedSessionState).Cookie.Ttl = durationpb.New(time.Minute) //nolint:forcetypeassert // it is one
		}
	}
	return &statefulpb.StatefulSessionPerRoute{Override: &statefulpb.StatefulSessionPerRoute_StatefulSession{
		StatefulSession: &statefulpb.StatefulSession{SessionState: g.extension(state), Strict: g.chance(20)},
	}}
}

func (g *generator) hashPolicies() []*routepb.RouteAction_HashPolicy {
	var out []*routepb.RouteAction_HashPolicy
	for range 1 + g.IntN(2) {
		p := &routepb.RouteAction_HashPolicy{Terminal: g.chance(20)}
		switch g.IntN(4) {
		case 0:
			p.PolicySpecifier = &routepb.RouteAction_HashPolicy_Header_{Header: &routepb.RouteAction_HashPolicy_Header{HeaderName: pick(g, "x-a", "X-User")}}
		case 1:
			p.PolicySpecifier = &routepb.RouteAction_HashPolicy_QueryParameter_{QueryParameter: &routepb.RouteAction_HashPolicy_QueryParameter{Name: "q"}}
		case 2:
			p.PolicySpecifier = &routepb.RouteAction_HashPolicy_ConnectionProperties_{ConnectionProperties: &routepb.RouteAction_HashPolicy_ConnectionProperties{SourceIp: true}}
		default:
			c := &routepb.RouteAction_HashPolicy_Cookie{Name: pick(g, "user", "sid"), Path: pick(g, "", "/", "/a")}
			if g.chance(70) {
				c.Ttl = durationpb.New(pick(g, 0, time.Hour))
			}
			p.PolicySpecifier = &routepb.RouteAction_HashPolicy_Cookie_{Cookie: c}
		}
		out = append(out, p)
	}
	return out
}

func (g *generator) cookie() *routepb.CookieMatcher {
	c := &routepb.CookieMatcher{Name: pick(g, "user", "sid", "session"), StringMatch: g.text(), InvertMatch: g.chance(25)}
	if _, empty := c.GetStringMatch().GetMatchPattern().(*matcherpb.StringMatcher_Prefix); empty {
		c.StringMatch = &matcherpb.StringMatcher{MatchPattern: &matcherpb.StringMatcher_Exact{Exact: "a"}}
	}
	return c
}

// more adds to an action what does not decide where it goes.
func (g *generator) more(a *routepb.RouteAction) {
	if g.chance(30) {
		a.HashPolicy = g.hashPolicies()
	}
	if g.chance(8) {
		a.IdleTimeout = g.duration()
	}
	if g.chance(8) {
		a.MaxStreamDuration = &routepb.RouteAction_MaxStreamDuration{MaxStreamDuration: g.duration(), GrpcTimeoutHeaderMax: g.duration()}
	}
	if g.chance(10) {
		a.UpgradeConfigs = []*routepb.RouteAction_UpgradeConfig{{UpgradeType: "websocket", Enabled: wrapperspb.Bool(g.chance(50))}}
	}
	if g.chance(10) {
		a.RequestMirrorPolicies = []*routepb.RouteAction_RequestMirrorPolicy{{
			Cluster: pick(g, clusterNames()...), RuntimeFraction: &corepb.RuntimeFractionalPercent{DefaultValue: g.fraction()},
		}}
	}
}

func httpFilter(tb testing.TB, name string, m proto.Message) *http_connection_managerpb.HttpFilter {
	tb.Helper()
	return &http_connection_managerpb.HttpFilter{Name: name, ConfigType: &http_connection_managerpb.HttpFilter_TypedConfig{TypedConfig: pack(tb, m)}}
}
