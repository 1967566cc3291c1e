package translate

import (
	"strings"

	corspb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"

	"meshbridge/translate/apisix"
)

// withCORS adds a route's CORS policy to its branches: a branch that answers preflight requests, and
// a copy of every branch for requests of an allowed origin, which sets the headers. APISIX's own
// cors plugin would answer all OPTIONS requests.
func withCORS(rx *routeContext, branches []branch) []branch {
	var policy corspb.CorsPolicy
	if !rx.filterConfig(filterCORS, &policy) || rx.route.GetRoute() == nil {
		return branches // Envoy's filter leaves redirects and direct responses alone
	}
	field := filterField("", filterCORS) + "."
	reportUnknown(&policy, rx.report, field)
	if enabled := policy.GetFilterEnabled(); enabled != nil {
		f := enabled.GetDefaultValue()
		if f.GetNumerator() == 0 {
			return branches
		}
		if uint64(f.GetNumerator()) < denominatorOf(f) {
			rx.report(codeCORS, field+"filter_enabled", "the policy applies to all requests instead of a fraction")
		}
	}
	allowed := rx.allowedOrigins(&policy, field)
	var out []branch
	if allowed != nil {
		out = append(out, branch{early: true}.with("preflight", apisix.List(append(isPreflight(), allowed)...),
			pluginFaultInjection, faultInjection{Abort: &faultAbort{HTTPStatus: 200, Headers: preflightHeaders(&policy)}}))
	}
	if forward := policy.GetForwardNotMatchingPreflights(); forward != nil && !forward.GetValue() {
		out = append(out, branch{early: true}.with("preflight-refused", apisix.List(isPreflight()...),
			pluginFaultInjection, faultInjection{Abort: &faultAbort{HTTPStatus: 200, Headers: refusedPreflightHeaders(&policy)}}))
	}
	for _, b := range branches {
		if allowed != nil {
			rewrite := addResponseHeaders(b.plugins[pluginResponseRewrite], responseCORSHeaders(&policy))
			out = append(out, b.with("cors", apisix.List(allowed), pluginResponseRewrite, rewrite))
		}
		out = append(out, b)
	}
	return out
}

func isPreflight() []apisix.Cond {
	return []apisix.Cond{
		apisix.Eq("request_method", "OPTIONS"),
		apisix.Match("http_access_control_request_method", "."),
		apisix.Match("http_origin", "."),
	}
}

// allowedOrigins returns the condition that the Origin header is allowed; nil where none is.
func (rx *routeContext) allowedOrigins(policy *corspb.CorsPolicy, field string) apisix.Cond {
	var conds []apisix.Cond
	for _, m := range policy.GetAllowOriginStringMatch() {
		t := compileString(m, field+"allow_origin_string_match", rx.report)
		switch {
		case t == nil:
		case t.accepts("*"): // like in Envoy, then any origin is allowed
			return apisix.Match("http_origin", ".")
		default:
			conds = append(conds, t.on("http_origin"))
		}
	}
	if len(conds) == 0 {
		return nil
	}
	return apisix.Or(conds...)
}

// responseCORSHeaders are those of all responses to an allowed origin, as templates.
func responseCORSHeaders(policy *corspb.CorsPolicy) map[string]string {
	headers := map[string]string{"access-control-allow-origin": apisix.Var("http_origin")}
	if policy.GetAllowCredentials().GetValue() {
		headers["access-control-allow-credentials"] = "true"
	}
	if h := policy.GetExposeHeaders(); h != "" {
		headers["access-control-expose-headers"] = apisix.EscapeTemplate(h)
	}
	return headers
}

func preflightHeaders(policy *corspb.CorsPolicy) map[string]string {
	headers := responseCORSHeaders(policy)
	for _, h := range []struct{ name, value, requested string }{
		{"access-control-allow-methods", policy.GetAllowMethods(), "http_access_control_request_method"},
		{"access-control-allow-headers", policy.GetAllowHeaders(), "http_access_control_request_headers"},
		{"access-control-max-age", policy.GetMaxAge(), ""},
	} {
		switch {
		case h.value == "*" && h.requested != "": // like Envoy, allow what is asked for
			headers[h.name] = apisix.Var(h.requested)
		case h.value != "":
			headers[h.name] = apisix.EscapeTemplate(h.value)
		}
	}
	return headers
}

// refusedPreflightHeaders are those of answers to an origin that is not allowed: all but what names it.
func refusedPreflightHeaders(policy *corspb.CorsPolicy) map[string]string {
	headers := preflightHeaders(policy)
	delete(headers, "access-control-allow-origin")
	delete(headers, "access-control-expose-headers")
	return headers
}

// addResponseHeaders returns a response-rewrite that also sets headers, on top of one that may be nil.
// Operations of the route on the same headers lose: Envoy's CORS filter comes after the router.
func addResponseHeaders(config any, set map[string]string) *responseRewrite {
	out := &responseRewrite{Headers: responseHeaderChanges{Set: set}}
	own, ok := config.(*responseRewrite)
	if !ok {
		return out
	}
	out.Meta = own.Meta
	for name, value := range own.Headers.Set {
		if _, ok := set[name]; !ok {
			set[name] = value
		}
	}
	for _, line := range own.Headers.Add {
		name, _, _ := strings.Cut(line, ":")
		if _, ok := set[name]; !ok {
			out.Headers.Add = append(out.Headers.Add, line)
		}
	}
	for _, name := range own.Headers.Remove {
		if _, ok := set[name]; !ok {
			out.Headers.Remove = append(out.Headers.Remove, name)
		}
	}
	return out
}
