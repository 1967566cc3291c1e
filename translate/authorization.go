package translate

import (
	"maps"
	"slices"
	"strings"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacpb "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	extauthzpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	rbacfilterpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	http_connection_managerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"meshbridge/translate/apisix"
)

// An AuthorizationPolicy becomes RBAC filters of a connection manager, which refuse requests before
// faults, CORS and the router see them. In APISIX, fault-injection is the plugin that runs before all
// others: a plugin_config of the chain lets it answer 403 where the rules refuse. A route that has
// fault-injection of its own, to answer or to inject faults, hides that of the plugin_config; it gets
// a route in front of it that takes the refused requests instead.

// requestFacts is what a connection manager makes of requests before its filters see them, as far as
// conditions of access depend on it.
type requestFacts struct {
	// normalizesPath, mergesSlashes and unescapesSlashes are changes of the path.
	normalizesPath, mergesSlashes, unescapesSlashes bool
	// usesRemoteAddress, trustedHops and detectsAddress say where the client's address comes from.
	usesRemoteAddress, detectsAddress bool
	trustedHops                       uint32
	// verifiesTokens tells that a filter may set metadata about a token.
	verifiesTokens bool
	// mayHaveCertificate tells that the certificates of clients are looked at.
	mayHaveCertificate bool
}

func requestFactsOf(hcm *http_connection_managerpb.HttpConnectionManager) requestFacts {
	slashes := hcm.GetPathWithEscapedSlashesAction()
	return requestFacts{
		normalizesPath: hcm.GetNormalizePath().GetValue(),
		mergesSlashes:  hcm.GetMergeSlashes(),
		unescapesSlashes: slashes != http_connection_managerpb.HttpConnectionManager_IMPLEMENTATION_SPECIFIC_DEFAULT &&
			slashes != http_connection_managerpb.HttpConnectionManager_KEEP_UNCHANGED,
		usesRemoteAddress: hcm.GetUseRemoteAddress().GetValue(),
		detectsAddress:    len(hcm.GetOriginalIpDetectionExtensions()) > 0,
		trustedHops:       hcm.GetXffNumTrustedHops(),
		verifiesTokens: slices.ContainsFunc(hcm.GetHttpFilters(), func(f *http_connection_managerpb.HttpFilter) bool {
			return messageName(f.GetTypedConfig()) == typeJWT
		}),
	}
}

// accessFilter is a filter with rules of access.
type accessFilter struct {
	name, field string
	disabled    bool
	rules       *rbacpb.RBAC
	// selected and asks are of an ext_authz filter that asks about the requests that a policy of the
	// rules matches, of those that selected names.
	selected func(name string) bool
	asks     bool
	// afterTokens tells that the filter sees what tokens say.
	afterTokens bool
}

// accessRule is an accessFilter as compiled for a chain.
type accessRule struct {
	filter   string
	disabled bool
	refuses  verdict
	// later is what refuses requests once their tokens have been verified.
	later verdict
}

// accessFilterOf returns the rules of a filter behind those before it; ok is false for filters without
// rules that could be compiled.
func accessFilterOf(f *http_connection_managerpb.HttpFilter, before []*http_connection_managerpb.HttpFilter, field string, report reporter) (out accessFilter, ok bool) {
	switch messageName(f.GetTypedConfig()) {
	case typeRBAC:
		out, ok = rulesOf(f, field, report)
	case typeExtAuthz:
		out, ok = questionsOf(f, before)
	}
	out.name, out.field, out.disabled = f.GetName(), field, f.GetDisabled()
	out.afterTokens = slices.ContainsFunc(before, func(b *http_connection_managerpb.HttpFilter) bool {
		return messageName(b.GetTypedConfig()) == typeJWT
	})
	return out, ok
}

func rulesOf(f *http_connection_managerpb.HttpFilter, field string, report reporter) (out accessFilter, ok bool) {
	c := decode[rbacfilterpb.RBAC](f.GetTypedConfig())
	if c == nil || c.GetMatcher() != nil {
		return accessFilter{}, false
	}
	reportUnknown(c, report, field+".")
	if len(c.GetShadowRules().GetPolicies()) > 0 && c.GetShadowRulesStatPrefix() != shadowOfExtAuthz {
		report(codeAuthorizationDryRun, field+".shadow_rules")
	}
	return accessFilter{rules: c.GetRules()}, true
}

// shadowOfExtAuthz is the prefix by which Istio marks the rules that say about which requests
// ext_authz asks: those of an AuthorizationPolicy with action CUSTOM.
const shadowOfExtAuthz = "istio_ext_authz_"

// questionsOf returns about which requests an ext_authz filter asks; ok is false where that may be
// all of them.
func questionsOf(f *http_connection_managerpb.HttpFilter, before []*http_connection_managerpb.HttpFilter) (out accessFilter, ok bool) {
	c := decode[extauthzpb.ExtAuthz](f.GetTypedConfig())
	enabled := c.GetFilterEnabledMetadata()
	if enabled == nil || c.GetShadowMode() || enabled.GetInvert() || c.GetFilterEnabled() != nil || c.GetDenyAtDisable() != nil || len(enabled.GetPath()) != 1 {
		return accessFilter{}, false
	}
	prefix, isPolicy := strings.CutSuffix(enabled.GetPath()[0].GetKey(), "shadow_effective_policy_id")
	name, err := newStringTest(enabled.GetValue().GetStringMatch())
	if !isPolicy || err != nil || name.accepts("") {
		return accessFilter{}, false
	}
	rules := &rbacpb.RBAC{Policies: map[string]*rbacpb.Policy{}}
	for _, b := range before {
		rbac := decode[rbacfilterpb.RBAC](b.GetTypedConfig())
		if b.GetName() != enabled.GetFilter() || rbac.GetShadowRulesStatPrefix() != prefix {
			continue
		}
		if rbac.GetShadowMatcher() != nil || b.GetDisabled() {
			return accessFilter{}, false
		}
		for n, p := range rbac.GetShadowRules().GetPolicies() {
			if rules.GetPolicies()[n] != nil {
				return accessFilter{}, false
			}
			rules.Policies[n] = p
		}
	}
	return accessFilter{rules: rules, selected: name.accepts, asks: true}, true
}

// compileAccess compiles the rules of a chain's filters, and what becomes of tokens. Filters that cannot be
// enforced, because they would refuse everything and Envoy would not, are restrictions instead.
func (s *State) compileAccess(c *Chain, d *chainDraft, report reporter) (rules []accessRule, restrictions []restriction) {
	x := &accessCompiler{profile: s.options.Profile, version: s.options.APISIXVersion, chain: c, report: report}
	var said *claims
	if d.tokens != nil {
		said = &claims{filter: d.tokens}
		x.changed = d.tokens.changes
	}
	for _, f := range d.accessFilters {
		if x.claims = nil; f.afterTokens {
			x.claims = said
		}
		r := restriction{codeUnenforcedRBAC, f.field, `filter "` + f.name + `"`}
		var refuses predicate
		if f.asks {
			r.code = codeUnenforcedExtAuthz
			refuses.may = x.matches(f.rules, f.field, f.selected).may
		} else {
			refuses = x.refuses(f.rules, f.field+".rules")
		}
		switch {
		case f.disabled, refuses.may.never():
		case refuses.may.always() && !refuses.must.always():
			restrictions = append(restrictions, r)
			continue
		case f.asks:
			if len(s.enforcement([]restriction{r}, "every request that it asks about", report)) == 0 {
				continue
			}
		}
		rules = append(rules, newAccessRule(f, refuses.may, d.tokens))
	}
	if refused := x.preconditions(); !refused.never() {
		if x.paths {
			report(codeAuthorizationPath, "http_filters")
		}
		rules = append(rules, accessRule{refuses: refused})
	}
	if said != nil {
		c.authentication = said.authentication()
		c.plugins.tokens = newTokenPlugins(c.authentication, d.tokens, &s.options)
		var later []verdict
		for _, r := range rules {
			if !r.disabled {
				later = append(later, r.later)
			}
		}
		c.plugins.tokens.refusal = refusalOf(disjunction(later))
	}
	return rules, restrictions
}

// newAccessRule divides what refuses requests: what depends on a token waits until it has been verified,
// but for preflight requests that nobody looks for a token in.
func newAccessRule(f accessFilter, refuses verdict, tokens *tokenFilter) accessRule {
	if !refuses.mentionsClaims() {
		return accessRule{filter: f.name, disabled: f.disabled, refuses: refuses}
	}
	r := accessRule{filter: f.name, disabled: f.disabled, later: refuses}
	if tokens.config.GetBypassCorsPreflight() {
		r.refuses = forPreflight(refuses.withoutToken())
	}
	return r
}

// routeAccess is when a request is refused on a route.
type routeAccess struct {
	// refused is before tokens are looked at, later afterwards.
	refused, later verdict
	// common tells that it is so on every route that says nothing about it.
	common bool
}

// accessOf returns when a request is refused on a route, and what cannot be enforced.
func (x *routeCompiler) accessOf(v *routepb.VirtualHost, r *routepb.Route, report reporter) (access routeAccess, restrictions []restriction) {
	effective := map[string]*anypb.Any{}
	for _, level := range []map[string]*anypb.Any{x.config.GetTypedPerFilterConfig(), v.GetTypedPerFilterConfig(), r.GetTypedPerFilterConfig()} {
		maps.Copy(effective, level)
	}
	access.common = true
	compiler := &accessCompiler{profile: x.state.options.Profile, version: x.state.options.APISIXVersion, chain: x.chain, report: report}
	if a := x.chain.authentication; a != nil {
		compiler.changed = a.Headers
	}
	var all, later []verdict
	for _, rule := range x.chain.access {
		if rule.filter == "" && disjunction(all).never() && disjunction(later).never() {
			continue // the precondition of rules that do not apply
		}
		packed, ok := effective[rule.filter]
		if !ok {
			if !rule.disabled {
				all, later = append(all, rule.refuses), append(later, rule.later)
			}
			continue
		}
		access.common = false
		config, disabled := perFilterConfig(packed)
		switch {
		case disabled:
		case config == nil: // enabled as it is
			all, later = append(all, rule.refuses), append(later, rule.later)
		case messageName(config) == typeRBACPerRoute:
			field := filterField("", rule.filter)
			c := decode[rbacfilterpb.RBACPerRoute](config)
			if c == nil || c.GetRbac().GetMatcher() != nil {
				restrictions = append(restrictions, restriction{codeUnenforcedRBAC, field, `filter "` + rule.filter + `" for this route`})
				continue
			}
			p := constantly(false)
			if c.GetRbac().GetRules() != nil {
				p = compiler.refuses(c.GetRbac().GetRules(), field+".rbac.rules")
			}
			if p.may.always() && !p.must.always() {
				restrictions = append(restrictions, restriction{codeUnenforcedRBAC, field, `filter "` + rule.filter + `" for this route`})
				continue
			}
			all = append(all, p.may)
		case messageName(config) == typeExtAuthzRoute && decode[extauthzpb.ExtAuthzPerRoute](config).GetDisabled():
		default:
			all, later = append(all, rule.refuses), append(later, rule.later)
		}
	}
	if !access.common {
		all = append(all, compiler.preconditions())
	}
	access.refused, access.later = disjunction(all), disjunction(later)
	return access, restrictions
}

// withAccess lets the branches answer 403 where the rules refuse.
func (x *routeCompiler) withAccess(branches []branch, access routeAccess) []branch {
	refused, common := access.refused, access.common
	switch {
	case refused.never():
		return branches
	case refused.always():
		return []branch{{early: true, plugins: apisix.Plugins{pluginFaultInjection: x.refusal()}, denies: true}}
	}
	answers := slices.ContainsFunc(branches, func(b branch) bool { return b.plugins[pluginFaultInjection] != nil })
	if answers || !common || !x.state.options.APISIXVersion.Has(apisix.FeatureMetaFilter) {
		denied := branch{early: true, suffix: "refused", vars: apisix.List(refused.cond), plugins: apisix.Plugins{pluginFaultInjection: x.refusal()}, denies: true}
		return append([]branch{denied}, branches...)
	}
	id := x.commonAccess(refused.cond)
	out := slices.Clone(branches)
	for i := range out {
		out[i].pluginConfig = id
	}
	return out
}

// refusal answers as Envoy does.
func (x *routeCompiler) refusal() faultInjection {
	return faultInjection{Abort: &faultAbort{
		HTTPStatus: 403, Body: "RBAC: access denied", Headers: map[string]string{"content-type": "text/plain"},
	}}
}

// commonAccess returns the id of the plugin_config with the chain's rules of access, and with what else
// the chain has in common.
func (x *routeCompiler) commonAccess(refused apisix.Cond) string {
	return x.pluginConfig("access", x.chain.plugins.onto(apisix.Plugins{pluginFaultInjection: conditional{
		Meta:           pluginMeta{Filter: apisix.List(refused)},
		faultInjection: x.refusal(),
	}}))
}

// conditional is fault-injection for the requests for which a condition holds. The plugin compiles
// conditions of its own for each request, and this one once.
type conditional struct {
	Meta pluginMeta `json:"_meta"`
	faultInjection
}

// pluginMeta is what every plugin has.
type pluginMeta struct {
	Filter apisix.Vars `json:"filter"`
}

// looksAtCertificates tells whether a listener's TLS validates certificates that clients have.
func looksAtCertificates(ts *corepb.TransportSocket) bool {
	c := decode[tlspb.DownstreamTlsContext](ts.GetTypedConfig())
	return c.GetRequireClientCertificate().GetValue() || c.GetCommonTlsContext().GetValidationContextType() != nil
}
