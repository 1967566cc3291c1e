package envoytest

import (
	"strconv"
	"strings"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherpb "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// matchString is Envoy's StringMatcher.
func (e *Evaluator) matchString(m *matcherpb.StringMatcher, value string) bool {
	folded := func(s string) string {
		if m.GetIgnoreCase() {
			return asciiLower(s)
		}
		return s
	}
	switch p := m.GetMatchPattern().(type) {
	case *matcherpb.StringMatcher_Exact:
		return folded(value) == folded(p.Exact)
	case *matcherpb.StringMatcher_Prefix:
		return strings.HasPrefix(folded(value), folded(p.Prefix))
	case *matcherpb.StringMatcher_Suffix:
		return strings.HasSuffix(folded(value), folded(p.Suffix))
	case *matcherpb.StringMatcher_Contains:
		return strings.Contains(folded(value), folded(p.Contains))
	case *matcherpb.StringMatcher_SafeRegex:
		return e.fullMatch(p.SafeRegex.GetRegex(), value)
	}
	return false // custom matchers
}

// asciiLower leaves letters beyond ASCII alone, as absl does.
func asciiLower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// matchHeader is Envoy's HeaderMatcher. A header that is missing matches only where its absence is
// asked for, or where it is to be taken as empty.
func (e *Evaluator) matchHeader(h *routepb.HeaderMatcher, headers *headerMap) bool {
	name := h.GetName()
	if strings.EqualFold(name, "host") {
		name = ":authority"
	}
	value, present := headers.joined(name)
	test := headerTest(h)
	if test == nil { // presence, also where nothing is said
		wanted := true
		if p, ok := h.GetHeaderMatchSpecifier().(*routepb.HeaderMatcher_PresentMatch); ok {
			wanted = p.PresentMatch
		}
		return (present == wanted) != h.GetInvertMatch()
	}
	if !present && !h.GetTreatMissingHeaderAsEmpty() {
		return false
	}
	return test(e, value) != h.GetInvertMatch()
}

// headerTest returns the test of a header's value; nil for tests of presence.
//
//nolint:staticcheck // configuration for older Envoys has the deprecated forms.
func headerTest(h *routepb.HeaderMatcher) func(e *Evaluator, value string) bool {
	var m *matcherpb.StringMatcher
	switch s := h.GetHeaderMatchSpecifier().(type) {
	case *routepb.HeaderMatcher_StringMatch:
		m = s.StringMatch
	case *routepb.HeaderMatcher_ExactMatch:
		m = &matcherpb.StringMatcher{MatchPattern: &matcherpb.StringMatcher_Exact{Exact: s.ExactMatch}}
	case *routepb.HeaderMatcher_PrefixMatch:
		m = &matcherpb.StringMatcher{MatchPattern: &matcherpb.StringMatcher_Prefix{Prefix: s.PrefixMatch}}
	case *routepb.HeaderMatcher_SuffixMatch:
		m = &matcherpb.StringMatcher{MatchPattern: &matcherpb.StringMatcher_Suffix{Suffix: s.SuffixMatch}}
	case *routepb.HeaderMatcher_ContainsMatch:
		m = &matcherpb.StringMatcher{MatchPattern: &matcherpb.StringMatcher_Contains{Contains: s.ContainsMatch}}
	case *routepb.HeaderMatcher_SafeRegexMatch:
		m = &matcherpb.StringMatcher{MatchPattern: &matcherpb.StringMatcher_SafeRegex{SafeRegex: s.SafeRegexMatch}}
	case *routepb.HeaderMatcher_RangeMatch:
		return func(_ *Evaluator, value string) bool {
			n, err := strconv.ParseInt(strings.Trim(value, " \t\n\v\f\r"), 10, 64)
			return err == nil && n >= s.RangeMatch.GetStart() && n < s.RangeMatch.GetEnd()
		}
	default:
		return nil
	}
	return func(e *Evaluator, value string) bool { return e.matchString(m, value) }
}

// MatchHeader tells whether a header matcher holds for the request.
func (s *Stream) MatchHeader(h *routepb.HeaderMatcher) bool {
	return s.evaluator.matchHeader(h, s.headers)
}

// MatchString tells whether a string matcher holds for a value.
func (s *Stream) MatchString(m *matcherpb.StringMatcher, value string) bool {
	return s.evaluator.matchString(m, value)
}
