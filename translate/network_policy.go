package translate

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacpb "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	networkrbacpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	matcherpb "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"

	"meshbridge/translate/stringmatch"
)

// NetworkPolicy is an RBAC network filter: what an AuthorizationPolicy becomes for TCP. It is
// immutable and safe for concurrent use.
type NetworkPolicy struct {
	// text is the filter's configuration: equal texts decide equally.
	text     string
	denies   bool
	policies []namedPolicy // sorted by name, the order in which Envoy tries them
}

type namedPolicy struct {
	name    string
	matches peerTest
}

// Allows tells whether a connection may go on, and the name of the policy that decided: the one that
// denied it, or that allowed it; empty where none matched.
func (p *NetworkPolicy) Allows(peer NetworkPeer) (allowed bool, policy string) {
	for _, named := range p.policies {
		// What cannot be evaluated counts where it denies, and does not where it allows.
		switch result := named.matches(&peer); {
		case p.denies && result != no:
			return false, named.name
		case !p.denies && result == yes:
			return true, named.name
		}
	}
	return p.denies, ""
}

// truth is what is known of a condition.
type truth int8

const (
	no truth = iota - 1
	maybe
	yes
)

func truthOf(holds bool) truth {
	if holds {
		return yes
	}
	return no
}

// peerTest is a condition on a connection.
type peerTest func(*NetworkPeer) truth

func always(t truth) peerTest { return func(*NetworkPeer) truth { return t } }

// every is the least of the tests; without any, yes.
func every(tests []peerTest) peerTest {
	return func(p *NetworkPeer) truth {
		result := yes
		for _, test := range tests {
			result = min(result, test(p))
		}
		return result
	}
}

// some is the most of the tests; without any, no.
func some(tests []peerTest) peerTest {
	return func(p *NetworkPeer) truth {
		result := no
		for _, test := range tests {
			result = max(result, test(p))
		}
		return result
	}
}

func negation(test peerTest) peerTest {
	return func(p *NetworkPeer) truth { return -test(p) }
}

// compileNetworkPolicy compiles a filter that restricts access. It returns nil where it restricts
// nothing, and ok is false where it has rules of a kind that is not translated.
func compileNetworkPolicy(c *networkrbacpb.RBAC, field string, report reporter) (policy *NetworkPolicy, ok bool) {
	if c == nil || c.GetMatcher() != nil {
		return nil, false
	}
	reportUnknown(c, report, field+".")
	if len(c.GetShadowRules().GetPolicies()) > 0 {
		report(codeAuthorizationDryRun, field+".shadow_rules")
	}
	if !rulesRestrict(c.GetRules()) {
		if len(c.GetRules().GetPolicies()) > 0 {
			report(codeAuthorizationAudit, field+".rules")
		}
		return nil, true
	}
	x := &networkPolicyCompiler{report: report}
	reportUnknown(c.GetRules(), report, field+".rules.")
	p := &NetworkPolicy{text: deterministic(c), denies: c.GetRules().GetAction() == rbacpb.RBAC_DENY}
	for _, name := range slices.Sorted(maps.Keys(c.GetRules().GetPolicies())) {
		x.field = field + ".rules.policies[" + strconv.Quote(name) + "]"
		p.policies = append(p.policies, namedPolicy{name, x.policy(c.GetRules().GetPolicies()[name])})
	}
	return p, true
}

type networkPolicyCompiler struct {
	report reporter
	field  string
}

func (x *networkPolicyCompiler) policy(p *rbacpb.Policy) peerTest {
	reportUnknown(p, x.report, x.field+".")
	both := []peerTest{some(compileEach(p.GetPermissions(), x.permission)), some(compileEach(p.GetPrincipals(), x.principal))}
	if p.GetCondition() != nil || p.GetCheckedCondition() != nil {
		both = append(both, x.unknown("the result of a CEL expression"))
	}
	return every(both)
}

func compileEach[M any](list []M, compile func(M) peerTest) []peerTest {
	out := make([]peerTest, len(list))
	for i, m := range list {
		out[i] = compile(m)
	}
	return out
}

// unknown reports what capture does not know of a connection.
func (x *networkPolicyCompiler) unknown(what string) peerTest {
	x.report(codeAuthorizationUnknown, x.field, what)
	return always(maybe)
}

//nolint:staticcheck // Istio sends metadata in the deprecated form.
func (x *networkPolicyCompiler) permission(p *rbacpb.Permission) peerTest {
	switch r := p.GetRule().(type) {
	case *rbacpb.Permission_AndRules:
		return every(compileEach(r.AndRules.GetRules(), x.permission))
	case *rbacpb.Permission_OrRules:
		return some(compileEach(r.OrRules.GetRules(), x.permission))
	case *rbacpb.Permission_NotRule:
		return negation(x.permission(r.NotRule))
	case *rbacpb.Permission_Any:
		return always(truthOf(r.Any))
	case *rbacpb.Permission_Header:
		return x.header(r.Header)
	case *rbacpb.Permission_UrlPath, *rbacpb.Permission_UriTemplate:
		return always(no) // there is no path
	case *rbacpb.Permission_DestinationIp:
		return x.within(r.DestinationIp, func(p *NetworkPeer) netip.AddrPort { return p.Destination })
	case *rbacpb.Permission_DestinationPort:
		return func(p *NetworkPeer) truth { return truthOf(uint32(p.Destination.Port()) == r.DestinationPort) }
	case *rbacpb.Permission_DestinationPortRange:
		start, end := r.DestinationPortRange.GetStart(), r.DestinationPortRange.GetEnd()
		return func(p *NetworkPeer) truth {
			port := int32(p.Destination.Port())
			return truthOf(start <= port && port < end)
		}
	case *rbacpb.Permission_RequestedServerName:
		name := x.text(r.RequestedServerName)
		return func(p *NetworkPeer) truth { return name(p.ServerName) }
	case *rbacpb.Permission_Metadata:
		return x.unknown("metadata of filter " + r.Metadata.GetFilter())
	case *rbacpb.Permission_SourcedMetadata:
		return x.unknown("metadata of filter " + r.SourcedMetadata.GetMetadataMatcher().GetFilter())
	case *rbacpb.Permission_Matcher:
		return x.unknown("the result of extension " + r.Matcher.GetName())
	}
	return x.unknown("a kind of permission")
}

//nolint:staticcheck // deprecated kinds still mean what they did.
func (x *networkPolicyCompiler) principal(p *rbacpb.Principal) peerTest {
	source := func(p *NetworkPeer) netip.AddrPort { return p.Source }
	switch r := p.GetIdentifier().(type) {
	case *rbacpb.Principal_AndIds:
		return every(compileEach(r.AndIds.GetIds(), x.principal))
	case *rbacpb.Principal_OrIds:
		return some(compileEach(r.OrIds.GetIds(), x.principal))
	case *rbacpb.Principal_NotId:
		return negation(x.principal(r.NotId))
	case *rbacpb.Principal_Any:
		return always(truthOf(r.Any))
	case *rbacpb.Principal_Authenticated_:
		return x.authenticated(r.Authenticated)
	case *rbacpb.Principal_SourceIp:
		return x.within(r.SourceIp, source)
	case *rbacpb.Principal_RemoteIp:
		return x.within(r.RemoteIp, source)
	case *rbacpb.Principal_DirectRemoteIp:
		return x.within(r.DirectRemoteIp, func(p *NetworkPeer) netip.AddrPort {
			if !p.DirectSource.IsValid() {
				return p.Source
			}
			return p.DirectSource
		})
	case *rbacpb.Principal_Header:
		return x.header(r.Header)
	case *rbacpb.Principal_UrlPath:
		return always(no)
	case *rbacpb.Principal_Metadata:
		return x.unknown("metadata of filter " + r.Metadata.GetFilter())
	case *rbacpb.Principal_SourcedMetadata:
		return x.unknown("metadata of filter " + r.SourcedMetadata.GetMetadataMatcher().GetFilter())
	case *rbacpb.Principal_FilterState:
		return x.unknown("filter state " + r.FilterState.GetKey())
	case *rbacpb.Principal_Custom:
		return x.unknown("the result of extension " + r.Custom.GetName())
	}
	return x.unknown("a kind of principal")
}

// authenticated follows Envoy: without a name, any TLS connection; otherwise one of the certificate's
// URIs, one of its DNS names or its subject.
func (x *networkPolicyCompiler) authenticated(a *rbacpb.Principal_Authenticated) peerTest {
	if a.GetPrincipalName() == nil {
		return func(p *NetworkPeer) truth { return truthOf(p.TLS || p.MutualTLS) }
	}
	name := x.text(a.GetPrincipalName())
	return func(p *NetworkPeer) truth {
		if !p.TLS && !p.MutualTLS {
			return no
		}
		result := name(p.Subject)
		for _, names := range [][]string{p.URIs, p.DNSNames} {
			for _, n := range names {
				result = max(result, name(n))
			}
		}
		return result
	}
}

// header is about requests, which a connection has none of: Envoy looks for the header in an empty
// list.
func (x *networkPolicyCompiler) header(h *routepb.HeaderMatcher) peerTest {
	inverted := h.GetInvertMatch()
	if _, presence := h.GetHeaderMatchSpecifier().(*routepb.HeaderMatcher_PresentMatch); presence {
		return always(truthOf(h.GetPresentMatch() == inverted))
	}
	if h.GetHeaderMatchSpecifier() == nil { // whether it is there
		return always(truthOf(inverted))
	}
	if !h.GetTreatMissingHeaderAsEmpty() {
		return always(no)
	}
	m := stringmatch.OfHeader(h)
	if m == nil { // a range of numbers, which an empty text is not in
		return always(truthOf(inverted))
	}
	accepts := always(x.text(m)(""))
	if inverted {
		return negation(accepts)
	}
	return accepts
}

// within compares without regard to how an IPv4 address is written.
func (x *networkPolicyCompiler) within(r *corepb.CidrRange, address func(*NetworkPeer) netip.AddrPort) peerTest {
	prefix, err := prefixOf(r)
	if err != nil {
		return x.unknown("address range " + r.GetAddressPrefix())
	}
	return func(p *NetworkPeer) truth { return truthOf(prefix.Contains(address(p).Addr().Unmap().WithZone(""))) }
}

// text compiles a string matcher.
func (x *networkPolicyCompiler) text(m *matcherpb.StringMatcher) func(string) truth {
	accepts, err := stringmatch.New(m)
	if err != nil {
		test := x.unknown("whether " + err.Error() + " matches")
		return func(string) truth { return test(nil) }
	}
	return func(s string) truth { return truthOf(accepts(s)) }
}

// deterministic is a message as a text that equal messages have in common.
func deterministic(m proto.Message) string {
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return "" // a message that was decoded encodes
	}
	return string(body)
}

// describeString is a string matcher for messages.
func describeString(m *matcherpb.StringMatcher) string {
	var kind, text string
	switch p := m.GetMatchPattern().(type) {
	case *matcherpb.StringMatcher_Exact:
		kind, text = "exact", p.Exact
	case *matcherpb.StringMatcher_Prefix:
		kind, text = "prefix", p.Prefix
	case *matcherpb.StringMatcher_Suffix:
		kind, text = "suffix", p.Suffix
	case *matcherpb.StringMatcher_Contains:
		kind, text = "contains", p.Contains
	case *matcherpb.StringMatcher_SafeRegex:
		kind, text = "regex", p.SafeRegex.GetRegex()
	default:
		return "a matcher of another kind"
	}
	described := kind + " " + strconv.Quote(text)
	if m.GetIgnoreCase() {
		described += " in any case"
	}
	return strings.TrimSpace(described)
}
