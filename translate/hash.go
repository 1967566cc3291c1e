package translate

import (
	"regexp"
	"strconv"
	"strings"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"meshbridge/translate/apisix"
)

// Prefixes of variant.hash: what follows is the key of an upstream's hash_on.
const (
	hashHeader      = "header"
	hashCookie      = "cookie"
	hashVars        = "vars"
	hashCombination = "combination"
)

// hashKey is one hash policy: hash_on and key, and the same as a template for a combination.
type hashKey struct{ on, key, template string }

// compileHashPolicy returns variant.hash for a route to a cluster that hashes; empty where there is
// no key, which makes Envoy choose at random and APISIX in turn.
func compileHashPolicy(rx *routeContext, policies []*routepb.RouteAction_HashPolicy) string {
	var keys []hashKey
	for i, p := range policies {
		field := "route.hash_policy[" + strconv.Itoa(i) + "]"
		key, why := hashKeyOf(rx, p, field)
		if why != "" {
			rx.report(codeHashPolicy, field, why)
			continue
		}
		keys = append(keys, key)
		if p.GetTerminal() && i < len(policies)-1 {
			rx.report(codeHashPolicy, field+".terminal", "all policies are combined, also where this one has a value")
		}
	}
	switch len(keys) {
	case 0:
		return ""
	case 1:
		return keys[0].on + ":" + keys[0].key
	}
	var combination strings.Builder
	for _, k := range keys {
		combination.WriteString(k.template)
	}
	return hashCombination + ":" + combination.String()
}

func hashKeyOf(rx *routeContext, policy *routepb.RouteAction_HashPolicy, field string) (key hashKey, why string) {
	switch p := policy.GetPolicySpecifier().(type) {
	case *routepb.RouteAction_HashPolicy_Header_:
		name := strings.ToLower(p.Header.GetHeaderName())
		if p.Header.GetRegexRewrite() != nil {
			rx.report(codeHashPolicy, field+".header.regex_rewrite", "the header is hashed as it is")
		}
		if !isHashKey(name) {
			return key, "APISIX cannot hash the header " + strconv.Quote(name)
		}
		return hashKey{hashHeader, name, apisix.Var("http_" + strings.ReplaceAll(name, "-", "_"))}, ""
	case *routepb.RouteAction_HashPolicy_Cookie_:
		name := p.Cookie.GetName()
		if !isHashKey(name) {
			return key, "APISIX cannot hash the cookie " + strconv.Quote(name)
		}
		return hashKey{hashCookie, name, apisix.Var("cookie_" + name)}, ""
	case *routepb.RouteAction_HashPolicy_QueryParameter_:
		name := p.QueryParameter.GetName()
		if !isHashKey(name) {
			return key, "APISIX cannot hash the query parameter " + strconv.Quote(name)
		}
		return hashKey{hashVars, "arg_" + name, apisix.Var("arg_" + name)}, ""
	case *routepb.RouteAction_HashPolicy_ConnectionProperties_:
		if facts := rx.chain.facts; p.ConnectionProperties.GetSourceIp() && facts.usesRemoteAddress && facts.trustedHops > 0 {
			// Without the header, APISIX takes the address of the connection, as Envoy does.
			rx.report(codeHashPolicy, field+".connection_properties", "the client's address is hashed with all of x-forwarded-for")
			return hashKey{hashHeader, "x-forwarded-for", apisix.Var(varForwardedFor)}, ""
		}
		if p.ConnectionProperties.GetSourceIp() {
			return hashKey{hashVars, "remote_addr", apisix.Var("remote_addr")}, ""
		}
		return key, "it names no property of the connection"
	}
	return key, "APISIX hashes headers, cookies, query parameters and addresses"
}

// isHashKey follows APISIX's schema of an upstream's key.
func isHashKey(name string) bool {
	return regexp.MustCompile(`\A[a-zA-Z0-9_-]+\z`).MatchString(name)
}
