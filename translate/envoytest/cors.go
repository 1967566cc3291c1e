package envoytest

import (
	corspb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
)

// corsState is what the CORS filter remembers for the response.
type corsState struct {
	policies []*corspb.CorsPolicy // the most specific first
	origin   string               // that is allowed
}

// runCORS answers preflight requests. The filter looks at routes that forward only.
func (s *Stream) runCORS(policies []*corspb.CorsPolicy) {
	if s.route == nil || s.route.route.GetRoute() == nil || len(policies) == 0 {
		return
	}
	if enabled := policies[0].GetFilterEnabled(); enabled != nil && s.request.Draws.Match >= share(enabled.GetDefaultValue()) {
		return
	}
	origin := s.headers.get("origin")
	if origin == "" {
		return
	}
	c := corsState{policies: policies}
	if c.allows(s, origin) {
		c.origin = origin
	}
	s.cors = c
	requested := s.headers.get("access-control-request-method")
	if s.headers.get(":method") != "OPTIONS" || requested == "" || c.origin == "" && c.forwards() {
		return
	}
	response := newHeaderMap(nil)
	if c.origin != "" {
		response.set("access-control-allow-origin", origin)
	}
	c.setCredentials(response)
	for _, h := range []struct{ name, value, echo string }{
		{"access-control-allow-methods", c.text((*corspb.CorsPolicy).GetAllowMethods), "access-control-request-method"},
		{"access-control-allow-headers", c.text((*corspb.CorsPolicy).GetAllowHeaders), "access-control-request-headers"},
		{"access-control-max-age", c.text((*corspb.CorsPolicy).GetMaxAge), ""},
	} {
		if h.value == "*" && h.echo != "" {
			h.value = s.headers.get(h.echo)
		}
		if h.value != "" {
			response.set(h.name, h.value)
		}
	}
	if s.cors.privateNetwork() && s.headers.get("access-control-request-private-network") == "true" {
		response.set("access-control-allow-private-network", "true")
	}
	s.decision.answer(Preflight, 200)
	s.encodeCORS(response)
	s.decision.Response = response.plain()
}

// encodeCORS sets the headers of responses to an allowed origin.
func (s *Stream) encodeCORS(response *headerMap) {
	if s.cors.origin == "" {
		return
	}
	response.set("access-control-allow-origin", s.cors.origin)
	s.cors.setCredentials(response)
	if expose := s.cors.text((*corspb.CorsPolicy).GetExposeHeaders); expose != "" {
		response.set("access-control-expose-headers", expose)
	}
}

func (c corsState) allows(s *Stream, origin string) bool {
	for _, p := range c.policies {
		if len(p.GetAllowOriginStringMatch()) == 0 {
			continue
		}
		for _, m := range p.GetAllowOriginStringMatch() {
			if s.MatchString(m, "*") || s.MatchString(m, origin) {
				return true
			}
		}
		return false // the first policy that says something counts
	}
	return false
}

func (c corsState) forwards() bool {
	for _, p := range c.policies {
		if f := p.GetForwardNotMatchingPreflights(); f != nil {
			return f.GetValue()
		}
	}
	return true
}

func (c corsState) setCredentials(response *headerMap) {
	for _, p := range c.policies {
		if p.GetAllowCredentials() != nil {
			if p.GetAllowCredentials().GetValue() {
				response.set("access-control-allow-credentials", "true")
			}
			return
		}
	}
}

func (c corsState) privateNetwork() bool {
	for _, p := range c.policies {
		if p.GetAllowPrivateNetworkAccess() != nil {
			return p.GetAllowPrivateNetworkAccess().GetValue()
		}
	}
	return false
}

func (c corsState) text(field func(*corspb.CorsPolicy) string) string {
	for _, p := range c.policies {
		if value := field(p); value != "" {
			return value
		}
	}
	return ""
}
