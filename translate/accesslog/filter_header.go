package accesslog

import (
	"regexp"
	"strconv"
	"strings"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherpb "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// headerFilter holds for requests with a header that matches. Without HTTP there are no headers.
func (p *parser) headerFilter(h *routepb.HeaderMatcher) predicate {
	header := p.requestHeader(strings.ToLower(h.GetName()))
	invert, absentIsEmpty := h.GetInvertMatch(), h.GetTreatMissingHeaderAsEmpty()
	var test func(string) bool
	switch m := h.GetHeaderMatchSpecifier().(type) {
	case nil:
		return func(e *Entry) bool { _, ok := header(e); return ok != invert }
	case *routepb.HeaderMatcher_PresentMatch:
		return func(e *Entry) bool { _, ok := header(e); return (ok == m.PresentMatch) != invert }
	case *routepb.HeaderMatcher_RangeMatch:
		test = func(s string) bool {
			n, err := strconv.ParseInt(s, 10, 64)
			return err == nil && m.RangeMatch.GetStart() <= n && n < m.RangeMatch.GetEnd()
		}
	case *routepb.HeaderMatcher_StringMatch:
		test = stringTest(m.StringMatch)
	default:
		test = stringTest(deprecatedMatch(h))
	}
	if test == nil {
		p.problem(partOfFilter)
		return nil
	}
	return func(e *Entry) bool {
		value, ok := header(e)
		return (ok || absentIsEmpty) && test(value) != invert
	}
}

// deprecatedMatch spells out the matchers that string_match has replaced.
func deprecatedMatch(h *routepb.HeaderMatcher) *matcherpb.StringMatcher {
	//nolint:staticcheck // EnvoyFilters may still have them.
	switch m := h.GetHeaderMatchSpecifier().(type) {
	case *routepb.HeaderMatcher_ExactMatch:
		return &matcherpb.StringMatcher{MatchPattern: &matcherpb.StringMatcher_Exact{Exact: m.ExactMatch}}
	case *routepb.HeaderMatcher_PrefixMatch:
		return &matcherpb.StringMatcher{MatchPattern: &matcherpb.StringMatcher_Prefix{Prefix: m.PrefixMatch}}
	case *routepb.HeaderMatcher_SuffixMatch:
		return &matcherpb.StringMatcher{MatchPattern: &matcherpb.StringMatcher_Suffix{Suffix: m.SuffixMatch}}
	case *routepb.HeaderMatcher_ContainsMatch:
		return &matcherpb.StringMatcher{MatchPattern: &matcherpb.StringMatcher_Contains{Contains: m.ContainsMatch}}
	case *routepb.HeaderMatcher_SafeRegexMatch:
		return &matcherpb.StringMatcher{MatchPattern: &matcherpb.StringMatcher_SafeRegex{SafeRegex: m.SafeRegexMatch}}
	}
	return nil
}

// stringTest is a matcher; nil where it cannot be evaluated.
func stringTest(m *matcherpb.StringMatcher) func(string) bool {
	fold := func(s string) string { return s }
	if m.GetIgnoreCase() {
		fold = asciiLower
	}
	switch pattern := m.GetMatchPattern().(type) {
	case *matcherpb.StringMatcher_Exact:
		want := fold(pattern.Exact)
		return func(s string) bool { return fold(s) == want }
	case *matcherpb.StringMatcher_Prefix:
		want := fold(pattern.Prefix)
		return func(s string) bool { return strings.HasPrefix(fold(s), want) }
	case *matcherpb.StringMatcher_Suffix:
		want := fold(pattern.Suffix)
		return func(s string) bool { return strings.HasSuffix(fold(s), want) }
	case *matcherpb.StringMatcher_Contains:
		want := fold(pattern.Contains)
		return func(s string) bool { return strings.Contains(fold(s), want) }
	case *matcherpb.StringMatcher_SafeRegex:
		whole, err := regexp.Compile(`\A(?:` + pattern.SafeRegex.GetRegex() + `)\z`)
		if err == nil {
			return whole.MatchString
		}
	}
	return nil
}

// asciiLower leaves letters beyond ASCII alone, as Envoy does.
func asciiLower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}
