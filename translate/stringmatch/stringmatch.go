// Package stringmatch evaluates Envoy's string matchers, for what is decided here and not in APISIX.
package stringmatch

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherpb "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// ErrUnsupported is the error of a matcher of a kind that is not known.
var ErrUnsupported = errors.New("a kind of string match")

// New compiles a matcher (envoy.type.matcher.v3.StringMatcher). What it returns is safe for concurrent use.
// Regular expressions match the whole text, whatever ignore_case says. The error is that of a regular
// expression, or ErrUnsupported.
func New(m *matcherpb.StringMatcher) (func(string) bool, error) {
	fold := func(s string) string { return s }
	if m.GetIgnoreCase() {
		fold = lowerASCII
	}
	switch p := m.GetMatchPattern().(type) {
	case *matcherpb.StringMatcher_Exact:
		want := fold(p.Exact)
		return func(s string) bool { return fold(s) == want }, nil
	case *matcherpb.StringMatcher_Prefix:
		want := fold(p.Prefix)
		return func(s string) bool { return strings.HasPrefix(fold(s), want) }, nil
	case *matcherpb.StringMatcher_Suffix:
		want := fold(p.Suffix)
		return func(s string) bool { return strings.HasSuffix(fold(s), want) }, nil
	case *matcherpb.StringMatcher_Contains:
		want := fold(p.Contains)
		return func(s string) bool { return strings.Contains(fold(s), want) }, nil
	case *matcherpb.StringMatcher_SafeRegex:
		whole, err := regexp.Compile(`\A(?:` + p.SafeRegex.GetRegex() + `)\z`)
		if err != nil {
			return nil, fmt.Errorf("regular expression %q: %w", p.SafeRegex.GetRegex(), err)
		}
		return whole.MatchString, nil
	}
	return nil, ErrUnsupported
}

// lowerASCII leaves letters beyond ASCII alone, as Envoy does.
func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// OfHeader returns the string matcher of a header, made of the old forms where they are used; nil where it has
// none, as for a test of presence.
//
//nolint:staticcheck // configuration for older Envoys, and of EnvoyFilters, still has the deprecated forms.
func OfHeader(h *routepb.HeaderMatcher) *matcherpb.StringMatcher {
	switch m := h.GetHeaderMatchSpecifier().(type) {
	case *routepb.HeaderMatcher_StringMatch:
		return m.StringMatch
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
