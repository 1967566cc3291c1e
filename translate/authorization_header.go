package translate

import (
	"slices"
	"strconv"
	"strings"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherpb "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"meshbridge/translate/apisix"
	"meshbridge/translate/stringmatch"
)

// header follows Envoy's HeaderUtility, as compileHeader does for routes: a header that is missing
// does not match, inverted or not, unless it is to be treated as empty.
func (x *accessCompiler) header(h *routepb.HeaderMatcher) predicate {
	variable, ok := x.headerVariable(h.GetName())
	if !ok {
		return x.unknown("header " + strconv.Quote(h.GetName()) + ", as Envoy passes it to its filters,")
	}
	if slices.ContainsFunc(x.changed, func(name string) bool { return headerVariableName(name) == variable }) {
		return x.unknown("header " + strconv.Quote(h.GetName()) + " once the token has been verified")
	}
	if !isSingleValue(variable) && !x.version.Has(apisix.FeatureHeaderLines) {
		reportTooOld(x.report, apisix.FeatureHeaderLines, x.field, h.GetName())
		return unknown()
	}
	if h.GetRangeMatch() != nil {
		return x.unknown("the number in header " + strconv.Quote(h.GetName()))
	}
	if variable == varAuthority {
		x.hosts = true
	}
	present := exactly(when(apisix.Present(variable)))
	m := stringmatch.OfHeader(h)
	if m == nil { // a presence test, also where nothing is said
		wanted := true
		if p, ok := h.GetHeaderMatchSpecifier().(*routepb.HeaderMatcher_PresentMatch); ok {
			wanted = p.PresentMatch
		}
		if wanted == h.GetInvertMatch() {
			return present.not()
		}
		return present
	}
	t, p := x.text(m, variable, !isSingleValue(variable))
	if t != nil && h.GetTreatMissingHeaderAsEmpty() && t.accepts("") {
		p = anyOf(p, present.not())
	}
	switch {
	case !h.GetInvertMatch():
		return p
	case h.GetTreatMissingHeaderAsEmpty():
		return p.not()
	}
	return allOf(present, p.not())
}

const varAuthority = "http_host"

// isSingleValue tells that a variable is not the values of several header lines together.
func isSingleValue(variable string) bool {
	return variable == varAuthority || variable == "request_method"
}

// headerVariable returns the variable with a header. ok is false for headers that Envoy changes
// before its filters see them, and for names that no variable can have.
func (x *accessCompiler) headerVariable(name string) (variable string, ok bool) {
	name = strings.ToLower(name)
	switch name {
	case ":method":
		return "request_method", true
	case ":authority", "host":
		return varAuthority, true
	case "connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade", "content-length",
		"forwarded", "via", "x-request-id":
		return "", false
	}
	if strings.HasPrefix(name, "x-forwarded-") || strings.HasPrefix(name, "x-envoy-") || !isHeaderVariable(name) {
		return "", false
	}
	if strings.ContainsAny(name, "-_") {
		x.report(codeAuthorizationHeaderName, x.field, name)
	}
	return "http_" + strings.ReplaceAll(name, "-", "_"), true
}

func isHeaderVariable(name string) bool {
	return name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_") == ""
}

// text is a string matcher on a variable, which does not hold where the variable is missing; t is
// nil where nothing is known about the matcher. With list, the variable is what nginx makes of
// several header lines: their values with a comma and a space between them, where Envoy has a comma.
func (x *accessCompiler) text(m *matcherpb.StringMatcher, variable string, list bool) (t *stringTest, p predicate) {
	t, err := newStringTest(m)
	if err != nil {
		return nil, x.unknown(err.Error())
	}
	on := when(t.on(variable))
	p = exactly(on)
	re := m.GetSafeRegex().GetRegex()
	var doubtful []string
	if m.GetSafeRegex() != nil { // RE2 matches characters and no invalid UTF-8, PCRE matches bytes
		doubtful = append(doubtful, `[\x80-\xff]`)
	}
	if list && (m.GetSafeRegex() != nil || strings.ContainsAny(stringLiteral(m), ", ")) {
		doubtful = append(doubtful, `, `)
	}
	if len(doubtful) > 0 {
		doubt := when(apisix.Match(variable, strings.Join(doubtful, "|")))
		p = predicate{
			must: conjunction([]verdict{on, doubt.not()}),
			may:  disjunction([]verdict{on, doubt}),
		}
	}
	if m.GetSafeRegex() != nil {
		p = x.limited(p, re)
	}
	return t, p
}

// limited is a predicate with a regular expression, which PCRE may give up on: then it is taken to
// match by rules that deny.
func (x *accessCompiler) limited(p predicate, re string) predicate {
	if reason, ok := apisix.GivesUp(re); ok {
		p.may = x.unknown("whether a long value matches " + strconv.Quote(re) + ", where " + reason + ",").may
	}
	return p
}

// stringLiteral is what a matcher other than of a regular expression looks for.
func stringLiteral(m *matcherpb.StringMatcher) string {
	return m.GetExact() + m.GetPrefix() + m.GetSuffix() + m.GetContains()
}

// serverName is a condition on the TLS server name, which Envoy has in lower case.
func (x *accessCompiler) serverName(m *matcherpb.StringMatcher) predicate {
	received := x.chain.received()
	variable := x.profile.SNI()
	t, err := newStringTest(m)
	switch {
	case err != nil:
		return x.unknown(err.Error())
	case !received.TLS && !x.chain.plain:
		return constantly(t.accepts(""))
	case x.chain.plain, variable == "":
		return x.unknown("the TLS server name")
	}
	empty := predicateOf(t.accepts(""), when(apisix.Absent(variable)))
	if re := m.GetSafeRegex(); re != nil {
		_, p := x.text(m, variable, false)
		folded := when(apisix.Match(variable, `[A-Z]`))
		return anyOf(empty, predicate{conjunction([]verdict{p.must, folded.not()}), disjunction([]verdict{p.may, folded})})
	}
	if literal := stringLiteral(m); !m.GetIgnoreCase() && literal != strings.ToLower(literal) {
		return constantly(false)
	}
	return anyOf(empty, exactly(when(apisix.MatchFold(variable, t.pcre))))
}

// predicateOf is c where it counts, and never holds where it does not.
func predicateOf(counts bool, c verdict) predicate {
	if !counts {
		return constantly(false)
	}
	return exactly(c)
}

// authenticated is a condition on the identity in the client's certificate; without a matcher, on
// whether there is TLS.
func (x *accessCompiler) authenticated(m *matcherpb.StringMatcher) predicate {
	received := x.chain.received()
	switch {
	case x.chain.plain: // Envoy would have an identity here
		return x.unknown("the peer's identity")
	case !received.TLS:
		return constantly(false)
	case m == nil:
		return constantly(true)
	case !received.MeshTLS && !x.chain.facts.mayHaveCertificate:
		t, err := newStringTest(m)
		if err != nil {
			return x.unknown(err.Error())
		}
		return constantly(t.accepts("")) // the empty subject of no certificate
	case !received.MeshTLS, x.profile.PeerIdentity() == "":
		return x.unknown("the identity in the client's certificate")
	}
	t, err := newStringTest(m)
	if err != nil {
		return x.unknown(err.Error())
	}
	if t.accepts("") { // the subject, which is empty, counts beside the identity
		return constantly(true)
	}
	p := exactly(when(t.on(x.profile.PeerIdentity())))
	// Identities are short, and issued rather than chosen by the client: only expressions that take
	// exponential time are a danger.
	if reason, ok := apisix.Backtracks(m.GetSafeRegex().GetRegex()); ok {
		p.may = x.unknown("whether an identity matches " + strconv.Quote(m.GetSafeRegex().GetRegex()) + ", where " + reason + ",").may
	}
	return p
}
