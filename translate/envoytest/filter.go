package envoytest

import (
	rbacpb "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	corspb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	faultpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	jwtpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	rbacfilterpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	statefulpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	http_connection_managerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// httpFilter is a filter of a connection manager.
type httpFilter struct {
	name, message string
	disabled      bool
	rules         *rbacpb.RBAC
	jwt           *jwtpb.JwtAuthentication
	fault         *faultpb.HTTPFault
	session       *statefulpb.StatefulSession
}

func newHTTPFilter(f *http_connection_managerpb.HttpFilter) *httpFilter {
	config := f.GetTypedConfig()
	out := &httpFilter{name: f.GetName(), message: messageName(config), disabled: f.GetDisabled()}
	if rbac := decode[rbacfilterpb.RBAC](config); rbac != nil {
		out.rules = rbac.GetRules()
		if rbac.GetMatcher() != nil {
			out.message = "RBAC with a matcher tree"
		}
	}
	out.jwt = decode[jwtpb.JwtAuthentication](config)
	out.fault = decode[faultpb.HTTPFault](config)
	out.session = decode[statefulpb.StatefulSession](config)
	return out
}

// decode returns the message in an Any, or nil where it is another one.
func decode[M any, T interface {
	*M
	proto.Message
}](a *anypb.Any) T {
	m := T(new(M))
	if a == nil || !a.MessageIs(m) || a.UnmarshalTo(m) != nil {
		return nil
	}
	return m
}

// runFilters runs the HTTP filters until one of them answers, the router at the latest.
func (s *Stream) runFilters() {
	for _, f := range s.manager.filters {
		configs, disabled := s.perFilter(f)
		if disabled {
			continue
		}
		switch f.message {
		case "envoy.extensions.filters.http.router.v3.Router":
			s.runRouter()
			return
		case "envoy.extensions.filters.http.rbac.v3.RBAC":
			rules := f.rules
			if override := decode[rbacfilterpb.RBACPerRoute](last(configs)); override != nil {
				rules = override.GetRbac().GetRules()
			}
			if !s.rbacAllows(rules) {
				s.decision.answer(Denied, 403)
			}
		case "envoy.extensions.filters.http.fault.v3.HTTPFault":
			fault := f.fault
			if override := decode[faultpb.HTTPFault](last(configs)); override != nil {
				fault = override
			}
			s.runFault(fault)
		case "envoy.extensions.filters.http.cors.v3.Cors":
			s.runCORS(corsPolicies(configs))
		case "envoy.extensions.filters.http.stateful_session.v3.StatefulSession":
			s.runSession(f, configs)
		case "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb":
			s.runGRPCWeb()
		case "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication":
			if len(configs) > 0 {
				s.undecided("configuration of the JWT filter for a route")
				return
			}
			s.runJWT(f.jwt)
		case "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
			"RBAC with a matcher tree":
			s.decision.note("filter " + f.name + " is not evaluated")
			s.decision.answer(Unknown, 0)
		default:
			if !isHarmless(f.message) {
				s.decision.note("filter " + f.name + " is not evaluated")
			}
		}
		if s.decision.Outcome != "" {
			return
		}
	}
	s.decision.note("there is no router")
	s.decision.answer(Unknown, 0)
}

// isHarmless names filters that change nothing that a Decision has: telemetry, and what is about the
// way to an endpoint.
func isHarmless(message string) bool {
	switch message {
	case "udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct", // Istio's own, such as the exchange of metadata
		"io.istio.http.peer_metadata.Config",
		"istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
		"stats.PluginConfig",
		"envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
		"envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig":
		return true
	}
	return false
}

// perFilter returns what route configuration, virtual host, route and weighted cluster say to a
// filter, the most specific last, and whether the filter is off.
func (s *Stream) perFilter(f *httpFilter) (configs []*anypb.Any, disabled bool) {
	disabled = f.disabled
	if s.route == nil { // then there is no configuration for it
		return nil, disabled
	}
	for _, level := range []map[string]*anypb.Any{
		s.config.config.GetTypedPerFilterConfig(), s.route.vhost.GetTypedPerFilterConfig(),
		s.route.route.GetTypedPerFilterConfig(), s.route.weighted.GetTypedPerFilterConfig(),
	} {
		config, ok := level[f.name]
		if !ok {
			continue
		}
		disabled = false // what is configured is on
		if wrapper := decode[routepb.FilterConfig](config); wrapper != nil {
			if config, disabled = wrapper.GetConfig(), wrapper.GetDisabled(); disabled {
				continue
			}
		}
		if config != nil {
			configs = append(configs, config)
		}
	}
	return configs, disabled
}

func last(configs []*anypb.Any) *anypb.Any {
	if len(configs) == 0 {
		return nil
	}
	return configs[len(configs)-1]
}

func corsPolicies(configs []*anypb.Any) []*corspb.CorsPolicy {
	var out []*corspb.CorsPolicy
	for _, c := range configs {
		if p := decode[corspb.CorsPolicy](c); p != nil {
			out = append([]*corspb.CorsPolicy{p}, out...) // the most specific first
		}
	}
	return out
}
