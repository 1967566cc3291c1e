package translate

import (
	"errors"
	"net/url"
	"strings"
	"unicode/utf8"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherpb "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typepb "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"meshbridge/translate/apisix"
	"meshbridge/translate/stringmatch"
)

// reporter adds a diagnostic about a field of what is being compiled.
type reporter func(code Code, field string, args ...any)

// routeMatch is a compiled RouteMatch.
type routeMatch struct {
	path  pathTest
	conds []apisix.Cond
	// never tells that no request matches; why has been reported, if it is not what the
	// configuration says.
	never bool
}

// unconditional tells whether every request matches.
func (m routeMatch) unconditional() bool { return m.path.all() && len(m.conds) == 0 && !m.never }

// compileMatch translates the conditions of a route. Whatever cannot be expressed is reported and
// makes the route match nothing: the next routes answer, and never this one for a request that
// Envoy would not give it.
func (x *routeCompiler) compileMatch(m *routepb.RouteMatch, report reporter) routeMatch {
	var out routeMatch
	add := func(v verdict) {
		switch {
		case v.cond != nil:
			out.conds = append(out.conds, v.cond)
		case !v.holds:
			out.never = true
		}
	}
	path, ok := compilePath(m, report)
	out.path = path
	out.never = !ok
	for _, h := range m.GetHeaders() {
		add(x.compileHeader(h, report))
	}
	for _, q := range m.GetQueryParameters() {
		add(compileQuery(q, report))
	}
	for _, c := range m.GetCookies() {
		add(compileCookie(c, report))
	}
	if m.GetGrpc() != nil {
		add(when(apisix.Match("http_content_type", `\Aapplication/grpc(?:\+|\z)`)))
	}
	if f := m.GetRuntimeFraction(); f != nil {
		add(compileFraction(f.GetDefaultValue()))
	}
	add(x.compileTLSContext(m.GetTlsContext()))
	// Both are set by filters that do not run in APISIX: like in Envoy without the filter, only an
	// inverted matcher holds.
	for _, d := range m.GetDynamicMetadata() {
		report("metadata_match_unsupported", "match.dynamic_metadata", d.GetFilter(), holdsOrNever(d.GetInvert()))
		add(verdict{holds: d.GetInvert()})
	}
	for _, f := range m.GetFilterState() {
		report("filter_state_match_unsupported", "match.filter_state", f.GetKey())
		out.never = true
	}
	reportUnknown(m, report, "match.")
	return out
}

func holdsOrNever(holds bool) string {
	if holds {
		return "always holds"
	}
	return "never holds"
}

// verdict is a condition, or where cond is nil what is known about it beforehand.
type verdict struct {
	cond  apisix.Cond
	holds bool
}

func when(c apisix.Cond) verdict { return verdict{cond: c} }

func compileFraction(f *typepb.FractionalPercent) verdict {
	c, some := fractionOf(f, apisix.WindowMatch)
	return verdict{cond: c, holds: some}
}

// compileTLSContext knows the answer from the chain, except for client certificates that the
// chain asks for and does not require.
func (x *routeCompiler) compileTLSContext(t *routepb.RouteMatch_TlsContextMatchOptions) verdict {
	if t == nil {
		return verdict{holds: true}
	}
	out := verdict{holds: true}
	for _, wanted := range []struct {
		want     bool
		set      bool
		accepted []string
	}{
		{t.GetPresented().GetValue(), t.GetPresented() != nil, nil},
		{t.GetValidated().GetValue(), t.GetValidated() != nil, []string{"SUCCESS"}},
	} {
		if !wanted.set {
			continue
		}
		if !x.chain.TLS || x.chain.MeshTLS {
			// Mesh TLS always has a certificate, and one that was validated.
			if x.chain.MeshTLS != wanted.want {
				return verdict{}
			}
			continue
		}
		c := apisix.NotIn("ssl_client_verify", "NONE", "")
		if wanted.accepted != nil {
			c = apisix.In("ssl_client_verify", wanted.accepted...)
		}
		if !wanted.want {
			c = apisix.Not(c)
		}
		if out.cond != nil {
			c = apisix.And(out.cond, c)
		}
		out.cond = c
	}
	return out
}

// stringTest is a compiled string matcher.
type stringTest struct {
	// exact has the value where equality decides, and pcre the expression otherwise.
	exact *string
	pcre  string
	fold  bool
	// accepts does in Go what the condition does in APISIX.
	accepts func(string) bool
}

func (t stringTest) on(variable string) apisix.Cond {
	switch {
	case t.exact != nil:
		return apisix.Eq(variable, *t.exact)
	case t.fold:
		return apisix.MatchFold(variable, t.pcre)
	}
	return apisix.Match(variable, t.pcre)
}

// compileString returns nil, after reporting, where APISIX has no equivalent.
func compileString(m *matcherpb.StringMatcher, field string, report reporter) *stringTest {
	t, err := newStringTest(m)
	switch {
	case errors.Is(err, stringmatch.ErrUnsupported):
		report("string_match_unsupported", field)
		return nil
	case err != nil:
		report("regex_unsupported", field, err)
		return nil
	}
	if m.GetSafeRegex() != nil {
		reportBacktracking(m.GetSafeRegex().GetRegex(), field, report)
	}
	return t
}

// newStringTest compiles a string matcher. The error is that of a regular expression, or
// stringmatch.ErrUnsupported.
func newStringTest(m *matcherpb.StringMatcher) (*stringTest, error) {
	t := &stringTest{fold: m.GetIgnoreCase()}
	switch p := m.GetMatchPattern().(type) {
	case *matcherpb.StringMatcher_Exact:
		if !t.fold {
			t.exact = &p.Exact
		}
		t.pcre = `\A` + apisix.QuoteRegex(p.Exact) + `\z`
	case *matcherpb.StringMatcher_Prefix:
		t.pcre = `\A` + apisix.QuoteRegex(p.Prefix)
	case *matcherpb.StringMatcher_Suffix:
		t.pcre = apisix.QuoteRegex(p.Suffix) + `\z`
	case *matcherpb.StringMatcher_Contains:
		t.pcre = apisix.QuoteRegex(p.Contains)
	case *matcherpb.StringMatcher_SafeRegex:
		t.fold = false // ignore_case has no effect on regular expressions
		var err error
		if t.pcre, err = apisix.FullMatchRegex(p.SafeRegex.GetRegex()); err != nil {
			return nil, err
		}
	}
	var err error
	t.accepts, err = stringmatch.New(m)
	return t, err
}

func reportBacktracking(re, field string, report reporter) {
	if reason, ok := apisix.Backtracks(re); ok {
		report("regex_backtracks", field, re, reason)
	}
}

// compileHeader follows Envoy's HeaderUtility: a header that is missing does not match, inverted or
// not, unless it is to be treated as empty.
func (x *routeCompiler) compileHeader(h *routepb.HeaderMatcher, report reporter) verdict {
	field := `match.headers["` + h.GetName() + `"]`
	variable, constant := x.headerVariable(h.GetName())
	if variable == "" && constant == nil {
		report("pseudo_header_unsupported", field, h.GetName())
	}
	inverted, missingIsEmpty := h.GetInvertMatch(), h.GetTreatMissingHeaderAsEmpty()

	if r := h.GetRangeMatch(); r != nil {
		if variable == "" {
			return verdict{holds: missingIsEmpty && inverted}
		}
		inRange := apisix.InRange(variable, r.GetStart(), r.GetEnd())
		switch {
		case !inverted:
			return when(inRange)
		case missingIsEmpty:
			return when(apisix.Not(inRange))
		}
		return when(apisix.And(apisix.Present(variable), apisix.Not(inRange)))
	}

	m := stringmatch.OfHeader(h)
	if m == nil { // a presence test, also where nothing is said
		wanted := true
		if p, ok := h.GetHeaderMatchSpecifier().(*routepb.HeaderMatcher_PresentMatch); ok {
			wanted = p.PresentMatch
		}
		wanted = wanted != inverted
		switch {
		case variable == "":
			return verdict{holds: wanted == (constant != nil)}
		case wanted:
			return when(apisix.Present(variable))
		}
		return when(apisix.Absent(variable))
	}
	t := compileString(m, field, report)
	if t == nil {
		return verdict{}
	}
	emptyMatches := missingIsEmpty && t.accepts("")
	if variable == "" {
		if constant != nil {
			return verdict{holds: t.accepts(*constant) != inverted}
		}
		return verdict{holds: missingIsEmpty && emptyMatches != inverted}
	}
	on := t.on(variable)
	switch {
	case !inverted && !emptyMatches:
		return when(on)
	case !inverted:
		return when(apisix.Or(apisix.Absent(variable), on))
	case missingIsEmpty && !emptyMatches:
		return when(apisix.Not(on)) // holds without the header
	}
	return when(apisix.And(apisix.Present(variable), apisix.Not(on)))
}

// headerVariable returns the variable with a header, or its value where the chain decides it. Both
// are empty for pseudo headers that APISIX does not know.
func (x *routeCompiler) headerVariable(name string) (variable string, constant *string) {
	name = strings.ToLower(name)
	switch name {
	case ":method":
		return "request_method", nil
	case ":authority", "host":
		return "http_host", nil
	case ":path":
		return "real_request_uri", nil
	case ":scheme":
		if x.chain.MeshTLS { // which is terminated in front of APISIX
			https := "https"
			return "", &https
		}
		return "scheme", nil
	}
	if strings.HasPrefix(name, ":") {
		return "", nil
	}
	return "http_" + strings.ReplaceAll(name, "-", "_"), nil
}

// compileQuery matches the first value of a parameter. APISIX decodes it and Envoy does not, so a
// literal is decoded too.
func compileQuery(q *routepb.QueryParameterMatcher, report reporter) verdict {
	field := `match.query_parameters["` + q.GetName() + `"]`
	variable := "arg_" + q.GetName()
	m := q.GetStringMatch()
	if m == nil {
		if p, ok := q.GetQueryParameterMatchSpecifier().(*routepb.QueryParameterMatcher_PresentMatch); ok && !p.PresentMatch {
			return when(apisix.Absent(variable))
		}
		return when(apisix.Present(variable))
	}
	t := compileString(decodedLiteral(m), field, report)
	if t == nil {
		return verdict{}
	}
	if t.accepts("") {
		// APISIX gives a parameter without "=" the value true.
		report("query_without_value", field, q.GetName())
	}
	return when(t.on(variable))
}

func decodedLiteral(m *matcherpb.StringMatcher) *matcherpb.StringMatcher {
	decode := func(s string) string {
		if d, err := url.QueryUnescape(s); err == nil && utf8.ValidString(d) {
			return d
		}
		return s
	}
	out := &matcherpb.StringMatcher{IgnoreCase: m.GetIgnoreCase()}
	switch p := m.GetMatchPattern().(type) {
	case *matcherpb.StringMatcher_Exact:
		out.MatchPattern = &matcherpb.StringMatcher_Exact{Exact: decode(p.Exact)}
	case *matcherpb.StringMatcher_Prefix:
		out.MatchPattern = &matcherpb.StringMatcher_Prefix{Prefix: decode(p.Prefix)}
	case *matcherpb.StringMatcher_Suffix:
		out.MatchPattern = &matcherpb.StringMatcher_Suffix{Suffix: decode(p.Suffix)}
	case *matcherpb.StringMatcher_Contains:
		out.MatchPattern = &matcherpb.StringMatcher_Contains{Contains: decode(p.Contains)}
	default:
		return m
	}
	return out
}

// compileCookie holds for an inverted matcher without the cookie, unlike with headers.
func compileCookie(c *routepb.CookieMatcher, report reporter) verdict {
	t := compileString(c.GetStringMatch(), `match.cookies["`+c.GetName()+`"]`, report)
	if t == nil {
		return verdict{}
	}
	cond := t.on("cookie_" + c.GetName())
	if c.GetInvertMatch() {
		cond = apisix.Not(cond)
	}
	return when(cond)
}
