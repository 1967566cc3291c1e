package translate

import (
	"regexp"
	"regexp/syntax"
	"strings"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherpb "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"meshbridge/translate/apisix"
)

// wholePath matches any path, from beginning to end.
const wholePath = `\A(?s:.*)\z`

// pathRewrite is a rewrite in the terms of proxy-rewrite, which sees the path decoded and encodes
// the result again. Both fields are empty where the path stays as it is.
type pathRewrite struct {
	uri      string // a template
	regexURI []string
}

func compilePathRewrite(rx *routeContext, action *routepb.RouteAction) pathRewrite {
	if to := action.GetPrefixRewrite(); to != "" {
		if pattern := rx.matchedPath(); pattern != wholePath || !strings.HasPrefix(to, "/") {
			return pathRewrite{regexURI: []string{pattern, apisix.EscapeReplacement(to)}}
		}
		return pathRewrite{uri: apisix.EscapeTemplate(to)}
	}
	if r := action.GetRegexRewrite(); r != nil {
		return pathRewrite{regexURI: rx.regexRewrite(r, "route.regex_rewrite")}
	}
	if action.GetPathRewritePolicy() != nil {
		return rx.templateRewrite(action)
	}
	if format := action.GetPathRewrite(); format != "" {
		return rx.formattedPath(format)
	}
	return pathRewrite{}
}

// matchedPath returns a PCRE for the part of the path that prefix_rewrite replaces: the prefix, or
// everything where the route matches an exact path or a regular expression.
func (rx *routeContext) matchedPath() string {
	if rx.pathExact || rx.pathPrefix == "" || rx.matchesExpression() {
		return wholePath
	}
	pattern := `\A` + apisix.QuoteRegex(rx.pathPrefix)
	if sensitive := rx.route.GetMatch().GetCaseSensitive(); sensitive != nil && !sensitive.GetValue() {
		pattern = "(?i)" + pattern
	}
	return pattern
}

// matchesExpression tells whether the route's path is a regular expression or a template.
func (rx *routeContext) matchesExpression() bool {
	return rx.route.GetMatch().GetSafeRegex() != nil || rx.route.GetMatch().GetPathMatchPolicy() != nil
}

// regexRewrite returns expression and replacement; nil, after reporting, where there is no PCRE.
func (rx *routeContext) regexRewrite(r *matcherpb.RegexMatchAndSubstitute, field string) []string {
	re := r.GetPattern().GetRegex()
	pcre, err := apisix.RegexToPCRE(re)
	if err != nil {
		rx.report(codeRegexUnsupported, field+".pattern", err, "the path is not rewritten")
		return nil
	}
	if !matchesOnce(re) {
		rx.report(codeRegexFirstMatch, field+".pattern", re)
	}
	return []string{pcre, replacement(r.GetSubstitution())}
}

// replacement translates RE2's \1 to ${1}.
func replacement(substitution string) string {
	return regexp.MustCompile(`\\[0-9\\]|\$`).ReplaceAllStringFunc(substitution, func(s string) string {
		switch s {
		case `$`:
			return "$$"
		case `\\`:
			return `\`
		}
		return "${" + s[1:] + "}"
	})
}

// matchesOnce tells whether an expression matches at most once in a path: it begins at its start,
// or runs to its end.
func matchesOnce(re2 string) bool {
	re, err := syntax.Parse(re2, syntax.Perl)
	if err != nil {
		return false
	}
	parts := []*syntax.Regexp{re}
	if re.Op == syntax.OpConcat {
		parts = re.Sub
	}
	if parts[0].Op == syntax.OpBeginText || parts[len(parts)-1].Op == syntax.OpEndText {
		return true
	}
	last := parts[len(parts)-1]
	for last.Op == syntax.OpCapture {
		last = last.Sub[0]
	}
	anything := last.Op == syntax.OpStar && last.Flags&syntax.NonGreedy == 0 &&
		(last.Sub[0].Op == syntax.OpAnyChar || last.Sub[0].Op == syntax.OpAnyCharNotNL)
	// An expression of nothing but .* matches the end of the path once more.
	return anything && len(parts) > 1
}

// hostRewrite is the Host header that a route sends.
type hostRewrite struct {
	literal  string
	endpoint bool // the endpoint's own name
}

func compileHostRewrite(rx *routeContext, action *routepb.RouteAction) hostRewrite {
	const unchanged = "the client's Host is sent"
	switch h := action.GetHostRewriteSpecifier().(type) {
	case *routepb.RouteAction_HostRewriteLiteral:
		if h.HostRewriteLiteral != "" && !isUpstreamHost(h.HostRewriteLiteral) {
			rx.report(codeHostRewrite, "route.host_rewrite_literal", "to "+h.HostRewriteLiteral, unchanged)
			return hostRewrite{}
		}
		return hostRewrite{literal: h.HostRewriteLiteral}
	case *routepb.RouteAction_AutoHostRewrite:
		return hostRewrite{endpoint: h.AutoHostRewrite.GetValue()}
	case *routepb.RouteAction_HostRewriteHeader:
		rx.report(codeHostRewrite, "route.host_rewrite_header", "to the value of a header", unchanged)
	case *routepb.RouteAction_HostRewritePathRegex:
		rx.report(codeHostRewrite, "route.host_rewrite_path_regex", "to a part of the path", unchanged)
	case *routepb.RouteAction_HostRewrite:
		rx.report(codeHostRewrite, "route.host_rewrite", "to a formatted value", unchanged)
	}
	return hostRewrite{}
}

// nodeHost is the variant.host that sends the endpoint's own name.
const nodeHost = "node"

// of returns the Host for a destination; empty for the client's. Envoy executes the rewrite of a
// destination first, so that the route's wins.
func (h hostRewrite) of(d destination) string {
	if own := d.own.GetHostRewriteLiteral(); h.literal == "" && !h.endpoint && isUpstreamHost(own) {
		return own
	}
	return h.literal
}

// onRoute returns the Host where proxy-rewrite accepts it, and onUpstream where only an upstream
// does: names with underscores.
func (h hostRewrite) onRoute(d destination) string {
	if host := h.of(d); host != "" && isProxyRewriteHost(host) {
		return host
	}
	return ""
}

func (h hostRewrite) onUpstream(d destination) string {
	if h.endpoint {
		return nodeHost
	}
	if host := h.of(d); host != "" && !isProxyRewriteHost(host) {
		return host
	}
	return ""
}

// The letters of a Host without its port.
const (
	digits      = "0123456789"
	hostLetters = digits + "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-"
)

func isProxyRewriteHost(host string) bool {
	name, port, hasPort := strings.Cut(host, ":")
	return consistsOf(name, hostLetters) && (!hasPort || len(port) <= 5 && consistsOf(port, digits))
}

// isUpstreamHost tells whether an upstream accepts a Host. "node" is taken by variant.host, but
// accepted by proxy-rewrite.
func isUpstreamHost(host string) bool { return consistsOf(host, hostLetters+"_[]:") }

// consistsOf tells whether s is of these letters, and not empty.
func consistsOf(s, letters string) bool { return s != "" && strings.Trim(s, letters) == "" }
