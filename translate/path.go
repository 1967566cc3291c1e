package translate

import (
	"net/url"
	"strings"
	"unicode/utf8"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"meshbridge/translate/apisix"
)

type pathKind int

const (
	pathPrefix pathKind = iota
	pathExact
	// pathSeparated matches the literal itself and everything below it.
	pathSeparated
	pathRegex
)

// pathTest is what a route asks of a path, in the form in which APISIX sees paths: decoded, with
// repeated slashes merged.
type pathTest struct {
	kind pathKind
	// literal is the path or prefix; of a regular expression, what every match begins with.
	literal string
	fold    bool
	pcre    string // of pathRegex, anchored
}

// compilePath translates the path specifier. ok is false where no path can match.
func compilePath(m *routepb.RouteMatch, report reporter) (test pathTest, ok bool) {
	test.fold = m.GetCaseSensitive() != nil && !m.GetCaseSensitive().GetValue()
	var field, raw string
	switch p := m.GetPathSpecifier().(type) {
	case *routepb.RouteMatch_Prefix:
		field, raw, test.kind = "match.prefix", p.Prefix, pathPrefix
		if raw == "" {
			raw = "/"
		}
	case *routepb.RouteMatch_Path:
		field, raw, test.kind = "match.path", p.Path, pathExact
	case *routepb.RouteMatch_PathSeparatedPrefix:
		field, raw, test.kind = "match.path_separated_prefix", p.PathSeparatedPrefix, pathSeparated
	case *routepb.RouteMatch_SafeRegex:
		return compilePathRegex(p.SafeRegex.GetRegex(), "match.safe_regex", report)
	case *routepb.RouteMatch_ConnectMatcher_:
		report("connect_unsupported", "match.connect_matcher")
		return test, false
	case *routepb.RouteMatch_PathMatchPolicy:
		return compilePathTemplate(p.PathMatchPolicy, report)
	default:
		report("path_missing", "match")
		return test, false
	}
	if !strings.HasPrefix(raw, "/") {
		report("path_relative", field, raw)
		return test, false
	}
	test.literal = normalPath(raw)
	if !utf8.ValidString(test.literal) {
		report("path_bytes", field, raw)
		return test, false
	}
	switch {
	case strings.Contains(raw, "//"), strings.Contains(strings.ToUpper(raw), "%2F"):
		report("path_slashes", field, raw, test.literal)
	case test.literal != raw, strings.ContainsFunc(raw, isEncoded):
		report("path_decoded", field, raw, test.literal)
	}
	return test, true
}

func compilePathRegex(re, field string, report reporter) (test pathTest, ok bool) {
	pcre, err := apisix.FullMatchRegex(re)
	if err != nil {
		report("regex_unsupported", field, err)
		return test, false
	}
	reportBacktracking(re, field, report)
	if strings.Contains(re, "%") {
		report("path_regex_escapes", field, re)
	}
	prefix, complete := apisix.LiteralPrefix(re)
	if complete && strings.HasPrefix(prefix, "/") && normalPath(prefix) == prefix {
		return pathTest{kind: pathExact, literal: prefix}, true
	}
	if !strings.HasPrefix(prefix, "/") {
		prefix = "/"
	}
	return pathTest{kind: pathRegex, literal: prefix, pcre: pcre}, true
}

// normalPath makes of a configured path what nginx makes of the path of a request, except that dot
// segments stay: Envoy removes them from requests as well, so that neither matches them.
func normalPath(p string) string {
	if decoded, err := url.PathUnescape(p); err == nil {
		p = decoded
	}
	for strings.Contains(p, "//") {
		p = strings.ReplaceAll(p, "//", "/")
	}
	return p
}

// isEncoded tells whether Envoy encodes a character of a request's path before it compares, so that a
// literal that has it never matches there.
func isEncoded(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune("\"#<>?^`{}", r) }

// all tells whether every path passes.
func (t pathTest) all() bool { return t.kind == pathPrefix && t.literal == "/" }

// cond is the test as a condition.
func (t pathTest) cond() apisix.Cond {
	quoted := apisix.QuoteRegex(t.literal)
	match := apisix.Match
	if t.fold {
		match = apisix.MatchFold
	}
	switch t.kind {
	case pathExact:
		if !t.fold {
			return apisix.Eq("uri", t.literal)
		}
		return match("uri", `\A`+quoted+`\z`)
	case pathSeparated:
		return match("uri", `\A`+quoted+`(?:/|\z)`)
	case pathRegex:
		return match("uri", t.pcre)
	case pathPrefix:
	}
	return match("uri", `\A`+quoted)
}

// parts splits the test into tests that have one bucket each.
func (t pathTest) parts() []pathTest {
	if t.kind == pathSeparated && !t.fold && t.literal != "/" {
		return []pathTest{
			{kind: pathExact, literal: t.literal},
			{kind: pathPrefix, literal: strings.TrimSuffix(t.literal, "/") + "/"},
		}
	}
	return []pathTest{t}
}

// intersects tells whether a path may pass both tests. It may say yes where none does.
func (t pathTest) intersects(o pathTest) bool {
	a, b := t.literal, o.literal
	if t.fold || o.fold {
		a, b = strings.ToLower(a), strings.ToLower(b)
	}
	switch {
	case t.kind == pathExact && o.kind == pathExact:
		return a == b
	case t.kind == pathExact:
		return strings.HasPrefix(a, b)
	case o.kind == pathExact:
		return strings.HasPrefix(b, a)
	}
	return strings.HasPrefix(a, b) || strings.HasPrefix(b, a)
}
