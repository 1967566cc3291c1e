package envoytest

import (
	"net/netip"
	"slices"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacpb "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	uritemplatepb "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"
	matcherpb "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// rbacAllows tells whether an RBAC filter lets the request pass.
func (s *Stream) rbacAllows(rules *rbacpb.RBAC) bool {
	if rules == nil || rules.GetAction() == rbacpb.RBAC_LOG {
		return true
	}
	matched := false
	for _, p := range rules.GetPolicies() {
		if p.GetCondition() != nil || p.GetCheckedCondition() != nil {
			s.undecided("a CEL condition")
		}
		matched = matched || slices.ContainsFunc(p.GetPermissions(), s.permitted) && slices.ContainsFunc(p.GetPrincipals(), s.identified)
	}
	return matched == (rules.GetAction() == rbacpb.RBAC_ALLOW)
}

// undecided makes the decision one about which nothing is known.
func (s *Stream) undecided(what string) bool {
	s.decision.note(what + " is not evaluated")
	s.decision.answer(Unknown, 0)
	return false
}

//nolint:staticcheck // Istio sends metadata in the deprecated form.
func (s *Stream) permitted(p *rbacpb.Permission) bool {
	switch r := p.GetRule().(type) {
	case *rbacpb.Permission_AndRules:
		return all(r.AndRules.GetRules(), s.permitted)
	case *rbacpb.Permission_OrRules:
		return slices.ContainsFunc(r.OrRules.GetRules(), s.permitted)
	case *rbacpb.Permission_NotRule:
		return !s.permitted(r.NotRule)
	case *rbacpb.Permission_Any:
		return true
	case *rbacpb.Permission_Header:
		return s.MatchHeader(r.Header)
	case *rbacpb.Permission_UrlPath:
		return s.MatchString(r.UrlPath.GetPath(), s.path())
	case *rbacpb.Permission_UriTemplate:
		config := decode[uritemplatepb.UriTemplateMatchConfig](r.UriTemplate.GetTypedConfig())
		return s.evaluator.MatchURITemplate(config.GetPathTemplate(), s.path())
	case *rbacpb.Permission_DestinationIp:
		return within(r.DestinationIp, s.request.Connection.Destination.Addr())
	case *rbacpb.Permission_DestinationPort:
		return uint32(s.request.Connection.Destination.Port()) == r.DestinationPort
	case *rbacpb.Permission_DestinationPortRange:
		port := int32(s.request.Connection.Destination.Port())
		return r.DestinationPortRange.GetStart() <= port && port < r.DestinationPortRange.GetEnd()
	case *rbacpb.Permission_RequestedServerName:
		name := ""
		if s.request.Connection.TLS {
			name = asciiLower(s.request.Connection.ServerName)
		}
		return s.MatchString(r.RequestedServerName, name)
	case *rbacpb.Permission_Metadata:
		return s.MatchMetadata(r.Metadata)
	case *rbacpb.Permission_SourcedMetadata:
		return s.matchSourcedMetadata(r.SourcedMetadata)
	}
	return s.undecided("a permission")
}

//nolint:staticcheck // Istio sends metadata in the deprecated form.
func (s *Stream) identified(p *rbacpb.Principal) bool {
	conn := s.request.Connection
	switch r := p.GetIdentifier().(type) {
	case *rbacpb.Principal_AndIds:
		return all(r.AndIds.GetIds(), s.identified)
	case *rbacpb.Principal_OrIds:
		return slices.ContainsFunc(r.OrIds.GetIds(), s.identified)
	case *rbacpb.Principal_NotId:
		return !s.identified(r.NotId)
	case *rbacpb.Principal_Any:
		return true
	case *rbacpb.Principal_Authenticated_:
		return s.authenticated(r.Authenticated.GetPrincipalName())
	case *rbacpb.Principal_SourceIp:
		return within(r.SourceIp, conn.Source.Addr())
	case *rbacpb.Principal_DirectRemoteIp:
		return within(r.DirectRemoteIp, conn.Source.Addr())
	case *rbacpb.Principal_RemoteIp:
		return within(r.RemoteIp, s.remote.Addr())
	case *rbacpb.Principal_Header:
		return s.MatchHeader(r.Header)
	case *rbacpb.Principal_UrlPath:
		return s.MatchString(r.UrlPath.GetPath(), s.path())
	case *rbacpb.Principal_Metadata:
		return s.MatchMetadata(r.Metadata)
	case *rbacpb.Principal_SourcedMetadata:
		return s.matchSourcedMetadata(r.SourcedMetadata)
	case *rbacpb.Principal_FilterState:
		return false // nothing sets any
	}
	return s.undecided("a principal")
}

func all[T any](list []T, holds func(T) bool) bool {
	return !slices.ContainsFunc(list, func(v T) bool { return !holds(v) })
}

// path is what rules see of :path.
func (s *Stream) path() string { return cutQuery(s.headers.get(":path")) }

// within tells whether an address is in a range; without a length, that is its whole family.
func within(r *corepb.CidrRange, a netip.Addr) bool {
	prefix, err := netip.ParseAddr(r.GetAddressPrefix())
	if err != nil {
		return false
	}
	p, err := prefix.Prefix(min(int(r.GetPrefixLen().GetValue()), prefix.BitLen()))
	return err == nil && p.Contains(a)
}

// authenticated compares the URIs of the client's certificate, then its DNS names, then its subject.
// Without a matcher, TLS is enough.
func (s *Stream) authenticated(m *matcherpb.StringMatcher) bool {
	conn := s.request.Connection
	if !conn.TLS || m == nil {
		return conn.TLS
	}
	names := []string{""} // the subject of no certificate
	if c := conn.Certificate; c != nil {
		names = slices.Concat(c.URIs, c.DNS, []string{c.Subject})
	}
	return slices.ContainsFunc(names, func(name string) bool { return s.MatchString(m, name) })
}

func (s *Stream) matchSourcedMetadata(m *rbacpb.SourcedMetadata) bool {
	if m.GetMetadataSource() != rbacpb.MetadataSource_DYNAMIC {
		return s.undecided("metadata of the route")
	}
	return s.MatchMetadata(m.GetMetadataMatcher())
}
