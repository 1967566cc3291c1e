package translate

import (
	"strings"

	udpapb "github.com/cncf/xds/go/udpa/type/v1"
	xdstypepb "github.com/cncf/xds/go/xds/type/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	faultpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	http_connection_managerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Message names of filters that restrict access.
const (
	typeRBAC            = "envoy.extensions.filters.http.rbac.v3.RBAC"
	typeRBACPerRoute    = "envoy.extensions.filters.http.rbac.v3.RBACPerRoute"
	typeJWT             = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"
	typeJWTPerRoute     = "envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig"
	typeExtAuthz        = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"
	typeExtAuthzRoute   = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute"
	typeOAuth2          = "envoy.extensions.filters.http.oauth2.v3.OAuth2"
	typeOAuth2PerRoute  = "envoy.extensions.filters.http.oauth2.v3.OAuth2PerRoute"
	typeBasicAuth       = "envoy.extensions.filters.http.basic_auth.v3.BasicAuth"
	typeBasicAuthRoute  = "envoy.extensions.filters.http.basic_auth.v3.BasicAuthPerRoute"
	typeAPIKeyAuth      = "envoy.extensions.filters.http.api_key_auth.v3.ApiKeyAuth"
	typeAPIKeyAuthRoute = "envoy.extensions.filters.http.api_key_auth.v3.ApiKeyAuthPerRoute"
	typeCSRF            = "envoy.extensions.filters.http.csrf.v3.CsrfPolicy"
	typeNetworkRBAC     = "envoy.extensions.filters.network.rbac.v3.RBAC"
	typeNetworkExtAuthz = "envoy.extensions.filters.network.ext_authz.v3.ExtAuthz"

	typeHTTPConnectionManager = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
	typeTCPProxy              = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
)

// messageName returns the name of the message in an Any. That of a TypedStruct, with which istiod
// sends filters whose types Envoy does not have linked in, is the inner one.
func messageName(a *anypb.Any) string {
	name := string(a.MessageName())
	switch name {
	case "udpa.type.v1.TypedStruct":
		if s := new(udpapb.TypedStruct); a.UnmarshalTo(s) == nil {
			return afterSlash(s.GetTypeUrl())
		}
	case "xds.type.v3.TypedStruct":
		if s := new(xdstypepb.TypedStruct); a.UnmarshalTo(s) == nil {
			return afterSlash(s.GetTypeUrl())
		}
	}
	return name
}

func afterSlash(s string) string { return s[strings.LastIndexByte(s, '/')+1:] }

// isTelemetry names the filters by which Istio's proxies exchange metadata and count; they do not
// change what happens to a request.
func isTelemetry(name, message string) bool {
	switch message {
	case typePeerMetadata, // HTTP and TCP
		"envoy.tcp.metadataexchange.config.MetadataExchange",
		"istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
		"stats.PluginConfig",
		"envoy.extensions.filters.http.grpc_stats.v3.FilterConfig":
		return true
	}
	return name == "istio.stats" || name == "istio.metadata_exchange"
}

// isALPNFilter tells whether a filter chooses the protocols that TLS to upstreams offers.
func isALPNFilter(f *http_connection_managerpb.HttpFilter) bool {
	return messageName(f.GetTypedConfig()) == "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig"
}

// inspectHTTPFilters reports the filters of a connection manager that have no effect in APISIX, and
// returns those that restrict access. dormant are those that do so where a route enables them, and
// access those whose rules are compiled.
func inspectHTTPFilters(hcm *http_connection_managerpb.HttpConnectionManager, report reporter) (restrictions []restriction, dormant map[string]Code, access []accessFilter) {
	dormant = map[string]Code{}
	for i, f := range hcm.GetHttpFilters() {
		field := `http_filters["` + f.GetName() + `"]`
		if d := f.GetConfigDiscovery(); d != nil {
			report("filter_discovered", field, f.GetName(), strings.Join(shortTypes(d.GetTypeUrls()), ", "))
			continue
		}
		config := f.GetTypedConfig()
		message := messageName(config)
		if rules, ok := accessFilterOf(f, hcm.GetHttpFilters()[:i], field, report); ok {
			access = append(access, rules)
			continue
		}
		code, restricts := restrictionOf(config, message)
		switch {
		case restricts && f.GetDisabled():
			dormant[f.GetName()] = code
		case restricts:
			restrictions = append(restrictions, restriction{code, field, `filter "` + f.GetName() + `"`})
		case f.GetDisabled():
		case isTelemetry(f.GetName(), message), isAccessFilter(message), message == typeLocalRateLimit, message == typeGRPCWeb, isSessionFilter(config):
		case message == "envoy.extensions.filters.http.router.v3.Router", message == "envoy.extensions.filters.http.cors.v3.Cors":
		case message == "envoy.extensions.filters.http.fault.v3.HTTPFault":
			fault := new(faultpb.HTTPFault)
			if config.UnmarshalTo(fault) != nil || fault.GetDelay() != nil || fault.GetAbort() != nil || fault.GetResponseRateLimit() != nil {
				report("filter_fault", field)
			}
		default:
			report("filter_ignored", field, f.GetName(), message)
		}
	}
	return restrictions, dormant, access
}

// inspectNetworkFilters does the same for the filters in front of a connection manager.
func inspectNetworkFilters(filters []*listenerpb.Filter, report reporter) []restriction {
	var restrictions []restriction
	for _, f := range filters {
		field := `filters["` + f.GetName() + `"]`
		message := messageName(f.GetTypedConfig())
		code, restricts := restrictionOf(f.GetTypedConfig(), message)
		switch {
		case restricts:
			restrictions = append(restrictions, restriction{code, field, `filter "` + f.GetName() + `"`})
		case isTelemetry(f.GetName(), message), isAccessFilter(message), message == typeHTTPConnectionManager:
		case f.GetConfigDiscovery() != nil:
			report("filter_discovered", field, f.GetName(), strings.Join(shortTypes(f.GetConfigDiscovery().GetTypeUrls()), ", "))
		default:
			report("filter_ignored", field, f.GetName(), message)
		}
	}
	return restrictions
}

func shortTypes(typeURLs []string) []string {
	out := make([]string, len(typeURLs))
	for i, t := range typeURLs {
		out[i] = afterSlash(t)
	}
	return out
}

// perFilterConfig unwraps an entry of typed_per_filter_config.
func perFilterConfig(a *anypb.Any) (config *anypb.Any, disabled bool) {
	wrapper := new(routepb.FilterConfig)
	if a.MessageIs(wrapper) && a.UnmarshalTo(wrapper) == nil {
		return wrapper.GetConfig(), wrapper.GetDisabled()
	}
	return a, false
}

// decode returns the message in an Any, or nil where it is broken.
func decode[M any, T interface {
	*M
	proto.Message
}](a *anypb.Any) T {
	m := T(new(M))
	if a.UnmarshalTo(m) != nil {
		return nil
	}
	return m
}
