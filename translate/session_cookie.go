package translate

import (
	"slices"
	"strconv"
	"strings"
	"time"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"meshbridge/translate/apisix"
)

// Envoy's router gives clients without the cookie of a hash policy one with a new value, and hashes
// that value at once, so that the first request gets to the endpoint of those that follow. In
// APISIX, a route in front takes the requests without the cookie: it hashes the request's id and sets
// the cookie to it. Both upstreams have the same ring, because both have the same endpoints.

// sessionCookie is a cookie that is set, or the header of a persistent session.
type sessionCookie struct {
	// variable is that of the request's cookie or header.
	variable string
	// line is the line of the response, a template.
	line string
	// first is the hash key of requests that have no cookie yet.
	first string
}

// cookieOfPolicies returns the first cookie among the hash policies that is to be set, with the key
// that takes its place in hash; nil where there is none, or none that APISIX can set.
func cookieOfPolicies(rx *routeContext, policies []*routepb.RouteAction_HashPolicy, hash string) *sessionCookie {
	var cookie *sessionCookie
	for i, p := range policies {
		c := p.GetCookie()
		if c.GetTtl() == nil || !isHashKey(c.GetName()) {
			continue
		}
		if cookie != nil {
			rx.report(codeHashPolicy, "route.hash_policy["+strconv.Itoa(i)+"].cookie.ttl", "the cookie "+strconv.Quote(c.GetName())+" is not set, one before it is")
			continue
		}
		line := cookieLine(c)
		if !apisix.ValidAddedHeaderValue(line) {
			rx.report(codeHashCookie, "route.hash_policy["+strconv.Itoa(i)+"].cookie", c.GetName())
			return nil
		}
		id := apisix.Var("request_id")
		first := id
		if combination, ok := strings.CutPrefix(hash, hashCombination+":"); ok {
			first = strings.Replace(combination, apisix.Var("cookie_"+c.GetName()), id, 1)
		}
		cookie = &sessionCookie{variable: "cookie_" + c.GetName(), line: "set-cookie: " + line, first: hashCombination + ":" + first}
	}
	return cookie
}

// cookieLine follows Envoy, without the quotes around the value, which nginx would take for a part of
// it. A lifetime of zero makes it a cookie of the browser's session.
func cookieLine(c *routepb.RouteAction_HashPolicy_Cookie) string {
	var b strings.Builder
	b.WriteString(c.GetName() + "=" + apisix.Var("request_id"))
	if ttl := c.GetTtl().AsDuration(); ttl >= time.Second {
		b.WriteString("; Max-Age=" + strconv.FormatInt(int64(ttl/time.Second), 10))
	}
	if c.GetPath() != "" {
		b.WriteString("; Path=" + apisix.EscapeTemplate(c.GetPath()))
	}
	for _, a := range c.GetAttributes() {
		b.WriteString("; " + apisix.EscapeTemplate(a.GetName()))
		if a.GetValue() != "" {
			b.WriteString("=" + apisix.EscapeTemplate(a.GetValue()))
		}
	}
	b.WriteString("; HttpOnly")
	return b.String()
}

// withoutSession returns the branches for requests without the cookie, or with an empty one; none where no destination
// hashes, because then Envoy sets none either.
func (f *forwarding) withoutSession(ds []destination, suffix string, vars apisix.Vars) []branch {
	if f.cookie == nil || !slices.ContainsFunc(ds, func(d destination) bool { return d.facts.hashes }) {
		return nil
	}
	first := *f
	first.hash, first.cookie = f.cookie.first, nil
	out := first.branches(ds, joinSuffix("new-session", suffix), slices.Concat(apisix.List(apisix.NotMatch(f.cookie.variable, ".")), vars))
	for i, b := range out {
		if b.upstream != nil {
			out[i] = b.plus(pluginResponseRewrite, addResponseHeader(b.plugins[pluginResponseRewrite], f.cookie.line))
		}
	}
	return out
}

// addResponseHeader returns a response-rewrite that also adds a line, on top of one that may be nil.
func addResponseHeader(config any, line string) *responseRewrite {
	out := &responseRewrite{}
	if own, ok := config.(*responseRewrite); ok {
		*out = *own
	}
	out.Headers.Add = append(slices.Clone(out.Headers.Add), line)
	return out
}
