package translate

import (
	"fmt"
	"strings"
	"unicode/utf8"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	uritemplatepb "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"
	matcherpb "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"meshbridge/translate/apisix"
	"meshbridge/translate/stringmatch"
)

// Envoy's rules see the path as it was sent, without the query, after resolving dot segments and a
// few more changes; APISIX's routes see it decoded and with slashes merged. Rules look at both: what
// allows must match the path in both forms, and what denies matches in either. That is right for
// paths that Envoy does not change; requests with others are refused before (see preconditions).

// Variables with the two forms of the path; the first has the query behind it.
const (
	varRawTarget   = "real_request_uri"
	varDecodedPath = "uri"
)

// anyPath matches what precedes something in a path.
const anyPath = `\A[^?]*`

// changedPath matches a target whose path Envoy may change before its rules see it.
func (f requestFacts) changedPath() string {
	if !f.normalizesPath && !f.mergesSlashes && !f.unescapesSlashes {
		return ""
	}
	var parts []string
	if f.normalizesPath {
		parts = append(
			parts,
			`[^A-Za-z0-9\-._~!$&'()*+,;=:@/\[\]%?]`, // backslashes become slashes, and others are escaped
			`%(?:2[DEde]|3[0-9]|4[1-9A-Fa-f]|5[0-9AFaf]|6[1-9A-Fa-f]|7[0-9AEae])`, // unreserved characters are decoded
			`/\.{1,2}(?:[/?]|\z)`, // dot segments are resolved
		)
	}
	if f.mergesSlashes {
		parts = append(parts, `//`)
	}
	if f.unescapesSlashes {
		parts = append(parts, `%(?:2[Ff]|5[Cc])`)
	}
	return anyPath + `(?:` + strings.Join(parts, "|") + `)`
}

// preconditions returns when a request is refused because its path or host is not what the compiled
// conditions take it for.
func (x *accessCompiler) preconditions() verdict {
	var refused []verdict
	if x.paths {
		if changed := x.chain.facts.changedPath(); changed != "" {
			refused = append(refused, when(apisix.Match(varRawTarget, changed)))
		}
	}
	if x.hosts {
		// Envoy takes the host of a request line that has one for the Host header; nginx does so for
		// $host alone.
		refused = append(refused, when(apisix.NotMatch("request", `\A[^ ]+ /`)))
	}
	return disjunction(refused)
}

func (x *accessCompiler) path(m *matcherpb.PathMatcher) predicate {
	p := m.GetPath()
	if p.GetSafeRegex() != nil {
		return x.pathRegex(p.GetSafeRegex().GetRegex())
	}
	raw := stringLiteral(p)
	if strings.ContainsAny(raw, "?#") {
		return constantly(false) // there are none in a path
	}
	rawQuoted, decodedQuoted := apisix.QuoteRegex(raw), quoteBytes(normalPath(raw))
	var onRaw, onDecoded string
	switch p.GetMatchPattern().(type) {
	case *matcherpb.StringMatcher_Exact:
		onRaw, onDecoded = `\A`+rawQuoted+apisix.PathEnd, `\A`+decodedQuoted+`\z`
	case *matcherpb.StringMatcher_Prefix:
		onRaw, onDecoded = `\A`+rawQuoted, `\A`+decodedQuoted
	case *matcherpb.StringMatcher_Suffix:
		onRaw, onDecoded = anyPath+rawQuoted+apisix.PathEnd, decodedQuoted+`\z`
	case *matcherpb.StringMatcher_Contains:
		onRaw, onDecoded = anyPath+rawQuoted, decodedQuoted
	default:
		return x.unknown(stringmatch.ErrUnsupported.Error())
	}
	match := apisix.Match
	if p.GetIgnoreCase() {
		match = apisix.MatchFold
	}
	return x.bothPaths(match(varRawTarget, onRaw), match(varDecodedPath, onDecoded))
}

func (x *accessCompiler) bothPaths(raw, decoded apisix.Cond) predicate {
	x.paths = true
	both := []verdict{when(raw), when(decoded)}
	return predicate{must: conjunction(both), may: disjunction(both)}
}

func (x *accessCompiler) pathRegex(re string) predicate {
	raw, decoded, err := apisix.PathRegex(re)
	if err != nil {
		return x.unknown(err.Error())
	}
	return x.limited(x.bothPaths(apisix.Match(varRawTarget, raw), apisix.Match(varDecodedPath, decoded)), re)
}

// quoteBytes is QuoteRegex for what may be no text, which JSON cannot hold.
func quoteBytes(s string) string {
	if utf8.ValidString(s) {
		return apisix.QuoteRegex(s)
	}
	var b strings.Builder
	for i := range len(s) {
		if s[i] < utf8.RuneSelf {
			b.WriteString(apisix.QuoteRegex(s[i : i+1]))
		} else {
			fmt.Fprintf(&b, `\x%02x`, s[i])
		}
	}
	return b.String()
}

func (x *accessCompiler) uriTemplate(extension *corepb.TypedExtensionConfig) predicate {
	config := decode[uritemplatepb.UriTemplateMatchConfig](extension.GetTypedConfig())
	if config == nil {
		return x.unknown("the result of extension " + extension.GetName())
	}
	raw, decoded, ok := templateRegex(config.GetPathTemplate())
	if !ok {
		return x.unknown("a path of template " + config.GetPathTemplate())
	}
	onRaw, _, err := apisix.PathRegex(raw)
	if err != nil {
		return x.unknown(err.Error())
	}
	_, onDecoded, err := apisix.PathRegex(decoded)
	if err != nil {
		return x.unknown(err.Error())
	}
	return x.limited(x.bothPaths(apisix.Match(varRawTarget, onRaw), apisix.Match(varDecodedPath, onDecoded)), raw)
}
