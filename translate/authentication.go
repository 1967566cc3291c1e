package translate

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strconv"
	"strings"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	jwtpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	http_connection_managerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherpb "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"

	"meshbridge/translate/apisix"
)

// A RequestAuthentication becomes a filter that verifies tokens. APISIX cannot do so by Istio's rules;
// its plugin forward-auth asks the bridge, and refuses what the bridge refuses, or does not answer.
// The plugin runs in the access phase: what a token says is known to plugins behind it alone.

// Authentication is a filter's configuration by which the bridge verifies the tokens of requests. It
// must not be modified.
type Authentication struct {
	// Key names it in the path that APISIX asks for; equal keys are equal configurations.
	Key string
	// Filter is Envoy's configuration, and Requirement its rule for all requests.
	Filter      *jwtpb.JwtAuthentication
	Requirement *jwtpb.JwtRequirement
	// Headers are those that the filter may change, in lower case: the answer has each that the
	// upstream is to get, and APISIX removes the others.
	Headers []string
	// Claims are conditions on what the filter finds out. The answer has a digit for each in
	// ClaimsHeader: 1 where it holds.
	Claims []*matcherpb.MetadataMatcher
}

// ClaimsHeader is the header of a request that tells rules in APISIX about its token. It is one that
// concerns a single connection: nginx passes none on to any upstream. APISIX replaces what a client sends.
const ClaimsHeader = "te"

// varClaims is ClaimsHeader in conditions.
const varClaims = "http_" + ClaimsHeader

// authenticationPath is where the bridge answers, before the key.
const authenticationPath = "/authn/"

// tokenFilter is a filter that verifies tokens, as far as it depends on the listener alone.
type tokenFilter struct {
	name, field string
	config      *jwtpb.JwtAuthentication
	requirement *jwtpb.JwtRequirement
	// sources are the headers that may have tokens, changes those that the filter may change.
	sources, changes []string
}

// tokenFilterOf returns the filter of a connection manager that the bridge verifies tokens for; nil where
// there is none, or after reporting why it cannot.
func tokenFilterOf(hcm *http_connection_managerpb.HttpConnectionManager, options *Options, report reporter) *tokenFilter {
	var found []*http_connection_managerpb.HttpFilter
	for _, f := range hcm.GetHttpFilters() {
		if messageName(f.GetTypedConfig()) == typeJWT {
			found = append(found, f)
		}
	}
	if len(found) == 0 {
		return nil
	}
	f := &tokenFilter{name: found[0].GetName(), field: filterPath(found[0].GetName()), config: decode[jwtpb.JwtAuthentication](found[0].GetTypedConfig())}
	var why string
	switch {
	case f.config == nil || len(f.config.GetRules()) == 0 && f.config.GetFilterStateRules() == nil:
		return nil // which is reported where it restricts anything
	case len(found) > 1 || found[0].GetDisabled():
		why = "there is another such filter, or this one is for some routes"
	case !options.Internal.IsValid():
		why = "there is no internal port where APISIX could ask the bridge"
	case !options.APISIXVersion.Has(apisix.FeatureAuthClearsHeaders):
		why = apisix.FeatureAuthClearsHeaders.String() + " needs APISIX " + apisix.FeatureAuthClearsHeaders.Since().String()
	default:
		why = f.read(hcm)
	}
	if why != "" {
		report(codeAuthenticationUnsupported, f.field, why)
		return nil
	}
	reportUnknown(f.config, report, f.field+".")
	for _, name := range slices.Sorted(maps.Keys(f.config.GetProviders())) {
		p := f.config.GetProviders()[name]
		field := f.field + ".providers[" + strconv.Quote(name) + "]"
		reportUnknown(p, report, field+".")
		if !p.GetForward() && (len(p.GetFromParams()) > 0 || len(p.GetFromHeaders())+len(p.GetFromCookies()) == 0) {
			report(codeAuthenticationQuery, field+".forward")
		}
	}
	return f
}

func filterPath(name string) string { return `http_filters["` + name + `"]` }

// read returns why the bridge cannot do what the filter does; empty where it can.
func (f *tokenFilter) read(hcm *http_connection_managerpb.HttpConnectionManager) (why string) {
	rule := f.config.GetRules()
	everything := &routepb.RouteMatch{PathSpecifier: &routepb.RouteMatch_Prefix{Prefix: "/"}}
	if f.config.GetFilterStateRules() != nil || !proto.Equal(rule[0].GetMatch(), everything) {
		return "its rules depend on the request"
	}
	f.requirement = rule[0].GetRequires()
	if name := rule[0].GetRequirementName(); name != "" {
		if f.requirement = f.config.GetRequirementMap()[name]; f.requirement == nil {
			return "requirement " + strconv.Quote(name) + " is not there"
		}
	}
	if why := f.unsupported(f.requirement); why != "" {
		return why
	}
	if !f.config.GetBypassCorsPreflight() && slices.ContainsFunc(hcm.GetHttpFilters(), func(f *http_connection_managerpb.HttpFilter) bool {
		return f.GetName() == filterCORS
	}) {
		return "APISIX would answer preflight requests first"
	}
	for _, p := range f.config.GetProviders() {
		if why := f.addProvider(p); why != "" {
			return why
		}
	}
	if slices.ContainsFunc(slices.Collect(maps.Values(f.config.GetProviders())), func(p *jwtpb.JwtProvider) bool { return !p.GetForward() }) {
		// A token may be where another provider's are.
		f.changes = append(f.changes, slices.DeleteFunc(slices.Clone(f.sources), func(name string) bool { return name == "cookie" })...)
	}
	slices.Sort(f.sources)
	slices.Sort(f.changes)
	f.sources, f.changes = slices.Compact(f.sources), slices.Compact(f.changes)
	return ""
}

// unsupported returns why a requirement cannot be checked.
func (f *tokenFilter) unsupported(r *jwtpb.JwtRequirement) (why string) {
	provider := ""
	var children []*jwtpb.JwtRequirement
	switch kind := r.GetRequiresType().(type) {
	case nil, *jwtpb.JwtRequirement_AllowMissing, *jwtpb.JwtRequirement_AllowMissingOrFailed:
		return ""
	case *jwtpb.JwtRequirement_ProviderName:
		provider = kind.ProviderName
	case *jwtpb.JwtRequirement_ProviderAndAudiences:
		provider = kind.ProviderAndAudiences.GetProviderName()
	case *jwtpb.JwtRequirement_RequiresAny:
		children = kind.RequiresAny.GetRequirements()
	case *jwtpb.JwtRequirement_RequiresAll:
		children = kind.RequiresAll.GetRequirements()
	default:
		return "a requirement is of a kind that is not translated"
	}
	if len(children) == 0 && f.config.GetProviders()[provider] == nil {
		return "provider " + strconv.Quote(provider) + " is not there"
	}
	for _, child := range children {
		if why := f.unsupported(child); why != "" {
			return why
		}
	}
	return ""
}

// addProvider notes the headers of a provider.
func (f *tokenFilter) addProvider(p *jwtpb.JwtProvider) (why string) {
	jwks := p.GetLocalJwks()
	if jwks.GetInlineString() == "" && len(jwks.GetInlineBytes()) == 0 {
		return "the keys of issuer " + strconv.Quote(p.GetIssuer()) + " are not in the configuration"
	}
	if p.GetFailedStatusInMetadata() != "" {
		return "failures are to be known to rules"
	}
	if p.GetSubjects() != nil {
		if _, err := newStringTest(p.GetSubjects()); err != nil {
			return "subjects: " + err.Error()
		}
	}
	var tokens []string
	for _, h := range p.GetFromHeaders() {
		tokens = append(tokens, strings.ToLower(h.GetName()))
	}
	if len(p.GetFromHeaders())+len(p.GetFromParams())+len(p.GetFromCookies()) == 0 {
		tokens = append(tokens, "authorization")
	}
	f.sources = append(f.sources, tokens...)
	if len(p.GetFromCookies()) > 0 {
		f.sources = append(f.sources, "cookie")
	}
	if name := p.GetForwardPayloadHeader(); name != "" {
		f.changes = append(f.changes, strings.ToLower(name))
	}
	for _, c := range p.GetClaimToHeaders() {
		f.changes = append(f.changes, strings.ToLower(c.GetHeaderName()))
	}
	for _, name := range slices.Concat(f.sources, f.changes) {
		if !isForwardedHeader(name) {
			return "header " + strconv.Quote(name) + " is nginx's own"
		}
	}
	return ""
}

// isForwardedHeader tells whether a header is one that plugins can change and that nginx passes on.
func isForwardedHeader(name string) bool {
	switch name {
	case ClaimsHeader, "host", "connection", "content-length", "transfer-encoding", "upgrade", "expect", "keep-alive", "trailer":
		return false
	}
	return name != "" && !strings.HasPrefix(name, ":") && !strings.HasPrefix(name, "x-forwarded-")
}

// claims collects the conditions on what tokens say, in the rules of a chain.
type claims struct {
	filter   *tokenFilter
	matchers []*matcherpb.MetadataMatcher
}

// holds returns the predicate of a condition: exact, because the bridge evaluates it.
func (c *claims) holds(m *matcherpb.MetadataMatcher) (predicate, bool) {
	if !isKnownValue(m.GetValue()) {
		return predicate{}, false
	}
	m = proto.CloneOf(m)
	inverted := m.GetInvert()
	m.Invert = false
	i := slices.IndexFunc(c.matchers, func(o *matcherpb.MetadataMatcher) bool { return proto.Equal(o, m) })
	if i < 0 {
		i = len(c.matchers)
		c.matchers = append(c.matchers, m)
	}
	p := exactly(when(apisix.Match(varClaims, `\A[01]{`+strconv.Itoa(i)+`}1`)))
	if inverted {
		return p.not(), true
	}
	return p, true
}

// isKnownValue tells whether the bridge can evaluate a matcher of values.
func isKnownValue(m *matcherpb.ValueMatcher) bool {
	switch p := m.GetMatchPattern().(type) {
	case *matcherpb.ValueMatcher_NullMatch_, *matcherpb.ValueMatcher_DoubleMatch, *matcherpb.ValueMatcher_BoolMatch, *matcherpb.ValueMatcher_PresentMatch:
		return true
	case *matcherpb.ValueMatcher_StringMatch:
		_, err := newStringTest(p.StringMatch)
		return err == nil
	case *matcherpb.ValueMatcher_ListMatch:
		return isKnownValue(p.ListMatch.GetOneOf())
	case *matcherpb.ValueMatcher_OrMatch:
		return !slices.ContainsFunc(p.OrMatch.GetValueMatchers(), func(m *matcherpb.ValueMatcher) bool { return !isKnownValue(m) })
	}
	return false
}

// authentication is what the bridge is to know of the filter.
func (c *claims) authentication() *Authentication {
	changes := c.filter.changes
	a := &Authentication{Filter: c.filter.config, Requirement: c.filter.requirement, Headers: changes, Claims: c.matchers}
	hash := sha256.New()
	messages := []proto.Message{a.Filter, a.Requirement}
	for _, m := range a.Claims {
		messages = append(messages, m)
	}
	for _, m := range messages {
		body, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			body = []byte(err.Error()) // a message that was decoded encodes
		}
		hash.Write([]byte(strconv.Itoa(len(body)) + ":"))
		hash.Write(body)
	}
	a.Key = hex.EncodeToString(hash.Sum(nil)[:16])
	return a
}

// tokenPlugins are what a chain does with tokens.
type tokenPlugins struct {
	// filter is the name of the filter.
	filter string
	auth   *forwardAuth
	// refusal answers where rules refuse by what a token says; nil without such rules.
	refusal *workflow
	// names are the headers that the filter reads or writes.
	names []string
}

// Settings of forward-auth.
const (
	authTimeout     = 3000 // milliseconds, the plugin's own default
	authConnections = 64   // kept open by each of APISIX's workers
)

func newTokenPlugins(a *Authentication, f *tokenFilter, options *Options) *tokenPlugins {
	auth := &forwardAuth{
		URI: "http://" + options.Internal.String() + authenticationPath + a.Key,
		ExtraHeaders: map[string]string{
			"X-Forwarded-Uri":  "$real_request_uri",
			"X-Forwarded-Host": "$http_host",
		},
		RequestHeaders: []string{"origin", "access-control-request-method"},
		// The header with the results is always replaced, also where no rule asks for it.
		UpstreamHeaders: append(slices.Clone(f.changes), ClaimsHeader),
		ClientHeaders:   []string{"content-type", "www-authenticate"},
		StatusOnError:   403,
		Timeout:         authTimeout,
		KeepalivePool:   authConnections,
	}
	// All lines of a header, of which request_headers would tell the first.
	for _, name := range slices.Concat(f.sources, f.changes) {
		auth.ExtraHeaders[name] = "$" + headerVariableName(name)
	}
	names := slices.Concat(f.sources, f.changes, []string{ClaimsHeader, "origin", "access-control-request-method"})
	slices.Sort(names)
	return &tokenPlugins{filter: f.name, auth: auth, names: slices.Compact(names)}
}

func headerVariableName(name string) string { return "http_" + strings.ReplaceAll(name, "-", "_") }

// refuses returns the plugin that answers 403 where a condition holds.
func refusalOf(v verdict) *workflow {
	if v.never() {
		return nil
	}
	rule := workflowRule{Actions: [][]any{{"return", map[string]any{"code": 403}}}}
	if !v.always() {
		rule.Case = apisix.List(v.cond)
	}
	return &workflow{Meta: &errorMeta{ErrorResponse: "RBAC: access denied"}, Rules: []workflowRule{rule}}
}

// mentionsClaims tells whether a verdict depends on what a token says.
func (v verdict) mentionsClaims() bool { return mentions(v.cond, varClaims) }

func mentions(c any, variable string) bool {
	list, ok := c.(apisix.Cond)
	if !ok || len(list) == 0 {
		return false
	}
	return list[0] == any(variable) || slices.ContainsFunc(list[1:], func(operand any) bool { return mentions(operand, variable) })
}

// withoutToken is the verdict for a request that no token has been looked for in.
func (v verdict) withoutToken() verdict {
	if !v.mentionsClaims() {
		return v
	}
	operands := func() []verdict {
		var out []verdict
		for _, o := range v.cond[1:] {
			if c, ok := o.(apisix.Cond); ok {
				out = append(out, when(c).withoutToken())
			}
		}
		return out
	}
	switch v.cond[0] {
	case any("AND"):
		return conjunction(operands())
	case any("!AND"):
		return conjunction(operands()).not()
	case any("OR"):
		return disjunction(operands())
	case any("!OR"):
		return disjunction(operands()).not()
	}
	return verdict{holds: v.cond[1] == any("!")} // a match of a header that is not there
}

// forPreflight restricts a verdict to requests that the filter lets pass unseen.
func forPreflight(v verdict) verdict {
	preflight := make([]verdict, 0, 4)
	for _, c := range isPreflight() {
		preflight = append(preflight, when(c))
	}
	return conjunction(append(preflight, v))
}

// Authentications returns the configurations by which tokens of the served chains are verified, sorted
// by Key.
func (s *State) Authentications() []*Authentication {
	var out []*Authentication
	for _, c := range s.table.chains {
		if c.authentication != nil && c.NotServed == "" {
			out = append(out, c.authentication)
		}
	}
	slices.SortFunc(out, func(a, b *Authentication) int { return cmp.Compare(a.Key, b.Key) })
	return slices.CompactFunc(out, func(a, b *Authentication) bool { return a.Key == b.Key })
}

// withTokens has the tokens of requests verified: the plugins of the chain do so for all branches that
// forward, and those that answer get the plugins themselves.
func (x *routeCompiler) withTokens(branches []branch, access routeAccess, report reporter) []branch {
	tokens := x.chain.plugins.tokens
	if tokens == nil {
		return branches
	}
	out := slices.Clone(branches)
	for i, b := range out {
		header := tokens.changedBy(b.plugins)
		switch {
		case b.early:
		case header != "":
			report(codeAuthenticationHeader, "", header)
			out[i] = b.refused()
		case b.upstream == nil:
			out[i] = x.answerLater(b, access.later, report)
		case answersEarly(b.plugins): // an injected fault
			report(codeAuthenticationAnswer, "")
			out[i] = b.refused()
		case !access.common:
			out[i] = x.withRefusal(b, access.later)
		}
	}
	return out
}

// answerLater lets a branch answer once tokens have been verified. Where that is not possible, it is refused,
// unless it answers with an error anyway.
func (x *routeCompiler) answerLater(b branch, later verdict, report reporter) branch {
	answer, ok := answerOf(b.plugins)
	switch {
	case !ok && answersEarly(b.plugins):
		report(codeAuthenticationAnswer, "")
		return b.refused()
	case !ok:
		return b
	}
	b = b.plus(pluginMocking, answer).plus(pluginForwardAuth, x.chain.plugins.tokens.auth)
	delete(b.plugins, pluginFaultInjection)
	delete(b.plugins, pluginRedirect)
	if refusal := refusalOf(later); refusal != nil {
		b.plugins[pluginWorkflow] = refusal
	}
	return b
}

// answerOf is what a branch answers, in a form that comes after tokens have been verified; ok is false where
// there is none.
func answerOf(plugins apisix.Plugins) (answer *mocking, ok bool) {
	answer = &mocking{Meta: orderMeta{Priority: priorityOfAnswers}, ContentType: "text/plain"}
	if to, redirects := plugins[pluginRedirect].(redirect); redirects {
		if to.RegexURI != nil || to.EncodeURI {
			return nil, false
		}
		if to.AppendQueryString {
			to.URI += apisix.Var("is_args") + apisix.Var("args")
		}
		answer.Status, answer.Headers = to.Status, map[string]string{"location": to.URI}
		return answer, true
	}
	fault, ok := plugins[pluginFaultInjection].(faultInjection)
	if !ok || fault.Delay != nil || fault.Abort == nil || fault.Abort.Vars != nil {
		return nil, false
	}
	answer.Status, answer.Body = fault.Abort.HTTPStatus, fault.Abort.Body
	for name, value := range fault.Abort.Headers {
		if name != "content-type" || value != answer.ContentType {
			return nil, false
		}
	}
	return answer, true
}

// withRefusal gives a branch rules of its own, instead of the chain's.
func (x *routeCompiler) withRefusal(b branch, later verdict) branch {
	if own := refusalOf(later); own != nil {
		return b.plus(pluginWorkflow, own)
	}
	if x.chain.plugins.tokens.refusal == nil {
		return b
	}
	return b.plus(pluginWorkflow, &workflow{Rules: []workflowRule{}}) // which takes the place of the chain's
}

// refused is the branch with nothing but a refusal.
func (b branch) refused() branch {
	return branch{suffix: b.suffix, vars: b.vars, plugins: answer(403), denies: true}
}

// answersEarly tells whether plugins answer, other than with an error, before tokens are verified.
func answersEarly(plugins apisix.Plugins) bool {
	if plugins[pluginRedirect] != nil {
		return true
	}
	fault, ok := plugins[pluginFaultInjection].(faultInjection)
	return ok && fault.Abort != nil && fault.Abort.HTTPStatus < 400
}

// changedBy returns a header of the filter that plugins change, or pass on by another name, before it sees
// them; empty where they leave them alone.
func (t *tokenPlugins) changedBy(plugins apisix.Plugins) string {
	rewrite, ok := plugins[pluginProxyRewrite].(*proxyRewrite)
	if !ok || rewrite.Headers == nil {
		return ""
	}
	for _, name := range t.names {
		touches := func(headers map[string]string) bool {
			for header, value := range headers {
				if strings.EqualFold(header, name) || strings.Contains(value, headerVariableName(name)) {
					return true
				}
			}
			return false
		}
		if touches(rewrite.Headers.Add) || touches(rewrite.Headers.Set) ||
			slices.ContainsFunc(rewrite.Headers.Remove, func(header string) bool { return strings.EqualFold(header, name) }) {
			return name
		}
	}
	return ""
}
