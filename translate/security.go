package translate

import (
	"bytes"
	"maps"
	"slices"
	"strings"

	rbacpb "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	extauthzpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	jwtpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	rbacfilterpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	networkrbacpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// Access control fails closed: what restricts access and cannot be enforced makes its chain, or
// where it belongs to a route its route, answer 403.

// Codes of access restrictions; Options.AllowUnenforced takes these.
const (
	codeUnenforcedRBAC              Code = "unenforced_rbac"
	codeUnenforcedJWT               Code = "unenforced_jwt"
	codeUnenforcedExtAuthz          Code = "unenforced_ext_authz"
	codeUnenforcedAuthFilter        Code = "unenforced_auth_filter"
	codeUnenforcedClientCertificate Code = "unenforced_client_certificate"
	codeUnenforcedMutualTLS         Code = "unenforced_mutual_tls"
)

// restriction is something that restricts access.
type restriction struct {
	code Code
	// field is the field with it, and what names it in a message.
	field, what string
}

// accessFilterCode returns the code for a filter, or a route's configuration of one, that can
// restrict access.
func accessFilterCode(message string) (Code, bool) {
	switch message {
	case typeRBAC, typeRBACPerRoute, typeNetworkRBAC:
		return codeUnenforcedRBAC, true
	case typeJWT, typeJWTPerRoute:
		return codeUnenforcedJWT, true
	case typeExtAuthz, typeExtAuthzRoute, typeNetworkExtAuthz:
		return codeUnenforcedExtAuthz, true
	case typeOAuth2, typeOAuth2PerRoute, typeBasicAuth, typeBasicAuthRoute, typeAPIKeyAuth, typeAPIKeyAuthRoute, typeCSRF:
		return codeUnenforcedAuthFilter, true
	}
	return "", false
}

func isAccessFilter(message string) bool {
	_, ok := accessFilterCode(message)
	return ok
}

// restrictionOf tells whether a filter's configuration refuses any request, and the code for it. A
// configuration that does not decode is taken to.
func restrictionOf(config *anypb.Any, message string) (code Code, restricts bool) {
	code, access := accessFilterCode(message)
	if !access {
		return wrappedRestriction(config)
	}
	switch message {
	case typeRBAC:
		c := decode[rbacfilterpb.RBAC](config)
		return code, c == nil || c.GetMatcher() != nil || rulesRestrict(c.GetRules())
	case typeRBACPerRoute:
		c := decode[rbacfilterpb.RBACPerRoute](config)
		return code, c == nil || c.GetRbac().GetMatcher() != nil || rulesRestrict(c.GetRbac().GetRules())
	case typeNetworkRBAC:
		c := decode[networkrbacpb.RBAC](config)
		return code, c == nil || c.GetMatcher() != nil || rulesRestrict(c.GetRules())
	case typeJWT:
		return code, jwtRestricts(decode[jwtpb.JwtAuthentication](config))
	case typeJWTPerRoute:
		c := decode[jwtpb.PerRouteConfig](config)
		return code, c == nil || !c.GetDisabled()
	case typeExtAuthz:
		c := decode[extauthzpb.ExtAuthz](config)
		return code, c == nil || !c.GetShadowMode()
	case typeExtAuthzRoute:
		c := decode[extauthzpb.ExtAuthzPerRoute](config)
		return code, c == nil || !c.GetDisabled()
	}
	return code, true
}

// wrappedRestriction finds access filters inside filters that run other filters, such as composite.
func wrappedRestriction(config *anypb.Any) (Code, bool) {
	for _, message := range []string{typeRBAC, typeJWT, typeExtAuthz, typeOAuth2, typeBasicAuth, typeAPIKeyAuth, typeCSRF} {
		if bytes.Contains(config.GetValue(), []byte(message)) {
			return accessFilterCode(message)
		}
	}
	return "", false
}

// rulesRestrict follows the RBAC filter: no rules, or logging ones, refuse nothing; ALLOW refuses
// what no policy matches, DENY what one does.
func rulesRestrict(r *rbacpb.RBAC) bool {
	if r == nil {
		return false
	}
	switch r.GetAction() {
	case rbacpb.RBAC_LOG:
		return false
	case rbacpb.RBAC_DENY:
		return len(r.GetPolicies()) > 0
	case rbacpb.RBAC_ALLOW:
	}
	return true
}

func jwtRestricts(c *jwtpb.JwtAuthentication) bool {
	if c == nil || len(c.GetFilterStateRules().GetRequires()) > 0 {
		return true
	}
	return slices.ContainsFunc(c.GetRules(), func(r *jwtpb.RequirementRule) bool {
		if r.GetRequirementName() != "" {
			return requirementRestricts(c.GetRequirementMap()[r.GetRequirementName()])
		}
		return requirementRestricts(r.GetRequires())
	})
}

func requirementRestricts(r *jwtpb.JwtRequirement) bool {
	switch r.GetRequiresType().(type) {
	case nil, *jwtpb.JwtRequirement_AllowMissingOrFailed, *jwtpb.JwtRequirement_ExtractOnlyWithoutValidation:
		return false
	}
	return true
}

// restrictionsOfRoute returns what restricts access to a route beyond its chain: configuration of
// the chain's filters for the route, the virtual host or the route configuration. The most specific
// one counts.
func restrictionsOfRoute(c *Chain, config *routepb.RouteConfiguration, vhost *routepb.VirtualHost, route *routepb.Route) []restriction {
	effective := map[string]*anypb.Any{}
	for _, level := range []map[string]*anypb.Any{config.GetTypedPerFilterConfig(), vhost.GetTypedPerFilterConfig(), route.GetTypedPerFilterConfig()} {
		maps.Copy(effective, level)
	}
	for _, rule := range c.access {
		delete(effective, rule.filter) // which is compiled
	}
	out := restrictionsOfConfig(c, effective, "")
	for _, w := range route.GetRoute().GetWeightedClusters().GetClusters() {
		out = append(out, restrictionsOfConfig(c, w.GetTypedPerFilterConfig(), `route.weighted_clusters["`+w.GetName()+`"].`)...)
	}
	return out
}

func restrictionsOfConfig(c *Chain, configs map[string]*anypb.Any, prefix string) []restriction {
	var out []restriction
	for _, name := range slices.Sorted(maps.Keys(configs)) {
		if !slices.Contains(c.filters, name) {
			continue // Envoy ignores configuration of filters that are not there
		}
		if t := c.plugins.tokens; t != nil && t.filter == name { // whatever it says, it is not what the chain asks for
			out = append(out, restriction{codeUnenforcedJWT, prefix + `typed_per_filter_config["` + name + `"]`, `filter "` + name + `" for this route`})
			continue
		}
		config, disabled := perFilterConfig(configs[name])
		if disabled {
			continue
		}
		code, restricts := restrictionOf(config, messageName(config))
		if config == nil { // enabled as it is
			code, restricts = c.dormant[name]
		}
		if restricts {
			out = append(out, restriction{code, prefix + `typed_per_filter_config["` + name + `"]`, `filter "` + name + `" for this route`})
		}
	}
	return out
}

// enforcement splits restrictions by what happens: denied are those that refuse requests. Each is
// reported.
func (s *State) enforcement(restrictions []restriction, what string, report reporter) (denied []Code) {
	for _, r := range restrictions {
		consequence := what + " answers 403"
		if slices.Contains(s.options.AllowUnenforced, r.code) {
			consequence = "it is NOT ENFORCED, as was asked for: " + what + " is open to everyone"
		} else if !slices.Contains(denied, r.code) {
			denied = append(denied, r.code)
		}
		report(r.code, r.field, r.what, consequence)
	}
	slices.Sort(denied)
	return denied
}

// isRestrictionCode tells whether AllowUnenforced may have the code.
func isRestrictionCode(c Code) bool { return strings.HasPrefix(string(c), "unenforced_") }
