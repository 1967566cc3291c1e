package translate

import (
	"maps"
	"slices"
	"strconv"

	rbacpb "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	matcherpb "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"meshbridge/translate/apisix"
)

// accessCompiler compiles the rules of an RBAC filter for the requests of a chain.
type accessCompiler struct {
	profile Profile
	version apisix.Version
	chain   *Chain
	report  reporter
	// field is that of the rules being compiled.
	field string
	// paths and hosts tell that a condition on the path or on the host was compiled: such a one is
	// only right for requests that preconditions lets pass.
	paths, hosts bool
	// claims are conditions on tokens that the bridge evaluates; nil where what tokens say is not known.
	claims *claims
	// changed are headers that may be others once tokens have been verified.
	changed []string
}

// refuses returns when an RBAC filter with these rules refuses a request.
func (x *accessCompiler) refuses(rules *rbacpb.RBAC, field string) predicate {
	if rules == nil {
		return constantly(false)
	}
	reportUnknown(rules, x.report, field+".")
	switch rules.GetAction() {
	case rbacpb.RBAC_LOG:
		if len(rules.GetPolicies()) > 0 {
			x.report(codeAuthorizationAudit, field)
		}
		return constantly(false)
	case rbacpb.RBAC_DENY:
		return x.matches(rules, field, nil)
	case rbacpb.RBAC_ALLOW:
	}
	return x.matches(rules, field, nil).not()
}

// matches returns when a policy of the rules matches a request. Of policies that selected, if it is
// given, does not name, none counts.
func (x *accessCompiler) matches(rules *rbacpb.RBAC, field string, selected func(name string) bool) predicate {
	var policies []predicate
	for _, name := range slices.Sorted(maps.Keys(rules.GetPolicies())) {
		if selected != nil && !selected(name) {
			continue
		}
		x.field = field + ".policies[" + strconv.Quote(name) + "]"
		policies = append(policies, x.policy(rules.GetPolicies()[name]))
	}
	return anyOf(policies...)
}

func (x *accessCompiler) policy(p *rbacpb.Policy) predicate {
	reportUnknown(p, x.report, x.field+".")
	permissions, principals := make([]predicate, len(p.GetPermissions())), make([]predicate, len(p.GetPrincipals()))
	for i, permission := range p.GetPermissions() {
		permissions[i] = x.permission(permission)
	}
	for i, principal := range p.GetPrincipals() {
		principals[i] = x.principal(principal)
	}
	both := []predicate{anyOf(permissions...), anyOf(principals...)}
	if p.GetCondition() != nil || p.GetCheckedCondition() != nil {
		both = append(both, x.unknown("the result of a CEL expression"))
	}
	return allOf(both...)
}

// unknown reports what APISIX does not know.
func (x *accessCompiler) unknown(what string) predicate {
	x.report(codeAuthorizationUnknown, x.field, what)
	return unknown()
}

//nolint:staticcheck // Istio sends metadata in the deprecated form.
func (x *accessCompiler) permission(p *rbacpb.Permission) predicate {
	switch r := p.GetRule().(type) {
	case *rbacpb.Permission_AndRules:
		return allOf(x.permissions(r.AndRules)...)
	case *rbacpb.Permission_OrRules:
		return anyOf(x.permissions(r.OrRules)...)
	case *rbacpb.Permission_NotRule:
		return x.permission(r.NotRule).not()
	case *rbacpb.Permission_Any:
		return constantly(true)
	case *rbacpb.Permission_Header:
		return x.header(r.Header)
	case *rbacpb.Permission_UrlPath:
		return x.path(r.UrlPath)
	case *rbacpb.Permission_UriTemplate:
		return x.uriTemplate(r.UriTemplate)
	case *rbacpb.Permission_DestinationIp:
		return x.destinationAddress(r.DestinationIp)
	case *rbacpb.Permission_DestinationPort:
		return x.destinationPort(int64(r.DestinationPort), int64(r.DestinationPort)+1)
	case *rbacpb.Permission_DestinationPortRange:
		return x.destinationPort(int64(r.DestinationPortRange.GetStart()), int64(r.DestinationPortRange.GetEnd()))
	case *rbacpb.Permission_RequestedServerName:
		return x.serverName(r.RequestedServerName)
	case *rbacpb.Permission_Metadata:
		return x.metadata(r.Metadata)
	case *rbacpb.Permission_SourcedMetadata:
		return x.sourcedMetadata(r.SourcedMetadata)
	case *rbacpb.Permission_Matcher:
		return x.unknown("the result of extension " + r.Matcher.GetName())
	}
	return x.unknown("a kind of permission")
}

func (x *accessCompiler) permissions(set *rbacpb.Permission_Set) []predicate {
	out := make([]predicate, len(set.GetRules()))
	for i, p := range set.GetRules() {
		out[i] = x.permission(p)
	}
	return out
}

//nolint:staticcheck // Istio sends metadata in the deprecated form.
func (x *accessCompiler) principal(p *rbacpb.Principal) predicate {
	switch r := p.GetIdentifier().(type) {
	case *rbacpb.Principal_AndIds:
		return allOf(x.principals(r.AndIds)...)
	case *rbacpb.Principal_OrIds:
		return anyOf(x.principals(r.OrIds)...)
	case *rbacpb.Principal_NotId:
		return x.principal(r.NotId).not()
	case *rbacpb.Principal_Any:
		return constantly(true)
	case *rbacpb.Principal_Authenticated_:
		return x.authenticated(r.Authenticated.GetPrincipalName())
	case *rbacpb.Principal_SourceIp:
		return x.peerAddress(r.SourceIp)
	case *rbacpb.Principal_DirectRemoteIp:
		return x.peerAddress(r.DirectRemoteIp)
	case *rbacpb.Principal_RemoteIp:
		return x.remoteAddress(r.RemoteIp)
	case *rbacpb.Principal_Header:
		return x.header(r.Header)
	case *rbacpb.Principal_UrlPath:
		return x.path(r.UrlPath)
	case *rbacpb.Principal_Metadata:
		return x.metadata(r.Metadata)
	case *rbacpb.Principal_SourcedMetadata:
		return x.sourcedMetadata(r.SourcedMetadata)
	case *rbacpb.Principal_FilterState:
		return x.unknown("filter state " + strconv.Quote(r.FilterState.GetKey()))
	case *rbacpb.Principal_Custom:
		return x.unknown("the result of extension " + r.Custom.GetName())
	}
	return x.unknown("a kind of principal")
}

func (x *accessCompiler) principals(set *rbacpb.Principal_Set) []predicate {
	out := make([]predicate, len(set.GetIds()))
	for i, p := range set.GetIds() {
		out[i] = x.principal(p)
	}
	return out
}

// filterJWT is under whose name the filter that verifies tokens leaves what they say.
const filterJWT = "envoy.filters.http.jwt_authn"

// metadata is what other filters have found out about the request. The one that Istio's rules ask
// for is the verified token, which is not there where no filter verifies one.
func (x *accessCompiler) metadata(m *matcherpb.MetadataMatcher) predicate {
	switch {
	case m.GetFilter() != filterJWT:
		return x.unknown("metadata of filter " + strconv.Quote(m.GetFilter()))
	case !x.chain.facts.verifiesTokens:
		return constantly(m.GetInvert())
	case x.claims != nil:
		if p, ok := x.claims.holds(m); ok {
			return p
		}
	}
	return x.unknown("what a token says")
}

func (x *accessCompiler) sourcedMetadata(m *rbacpb.SourcedMetadata) predicate {
	if m.GetMetadataSource() == rbacpb.MetadataSource_DYNAMIC {
		return x.metadata(m.GetMetadataMatcher())
	}
	return x.unknown("metadata of the route")
}
