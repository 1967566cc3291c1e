package envoytest

import (
	"strings"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherpb "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// rewriteHost sets what the upstream receives as Host. A weighted cluster's comes first, so that the
// route's wins.
func (s *Stream) rewriteHost(action *routepb.RouteAction) {
	if host := s.route.weighted.GetHostRewriteLiteral(); host != "" {
		s.headers.set(":authority", host)
	}
	host := ""
	switch h := action.GetHostRewriteSpecifier().(type) {
	case *routepb.RouteAction_HostRewriteLiteral:
		host = h.HostRewriteLiteral
	case *routepb.RouteAction_AutoHostRewrite:
		s.decision.HostOfEndpoint = h.AutoHostRewrite.GetValue()
	case *routepb.RouteAction_HostRewriteHeader:
		host = s.headers.get(strings.ToLower(h.HostRewriteHeader))
	case *routepb.RouteAction_HostRewritePathRegex:
		host = s.evaluator.replaceAll(h.HostRewritePathRegex, s.Path())
	case *routepb.RouteAction_HostRewrite:
		host = s.format(h.HostRewrite, nil)
	}
	if host == "" {
		return
	}
	if action.GetAppendXForwardedHost() {
		s.appendTo("x-forwarded-host", s.headers.get(":authority"))
	}
	s.headers.set(":authority", host)
}

// rewritePath sets what the upstream receives as path; the query stays.
func (s *Stream) rewritePath(action *routepb.RouteAction) {
	target := s.headers.get(":path")
	path := cutQuery(target)
	switch {
	case action.GetPrefixRewrite() != "":
		s.headers.set(":path", s.replacePrefix(target, action.GetPrefixRewrite()))
	case action.GetRegexRewrite() != nil:
		s.headers.set(":path", s.evaluator.replaceAll(action.GetRegexRewrite(), path)+target[len(path):])
	case action.GetPathRewritePolicy() != nil:
		if rewritten, ok := s.evaluator.rewriteTemplate(s.route.route.GetMatch().GetPathMatchPolicy(), action.GetPathRewritePolicy(), path); ok {
			s.headers.set(":path", rewritten+target[len(path):])
		}
	case action.GetPathRewrite() != "":
		if formatted := s.format(action.GetPathRewrite(), nil); formatted != "" {
			s.headers.set(":path", formatted+target[len(path):])
		}
	}
}

// replacePrefix replaces what the route's match calls the prefix: all of the path where the match is
// exact or a regular expression.
func (s *Stream) replacePrefix(target, replacement string) string {
	length := len(cutQuery(target))
	switch m := s.route.route.GetMatch().GetPathSpecifier().(type) {
	case *routepb.RouteMatch_Prefix:
		length = len(m.Prefix)
	case *routepb.RouteMatch_PathSeparatedPrefix:
		length = len(m.PathSeparatedPrefix)
	case *routepb.RouteMatch_Path:
		length = len(m.Path)
	}
	return replacement + target[min(length, len(target)):]
}

// replaceAll is RE2's GlobalReplace, with \0 to \9 in the substitution.
func (e *Evaluator) replaceAll(r *matcherpb.RegexMatchAndSubstitute, s string) string {
	re := e.compiled(r.GetPattern().GetRegex())
	if re == nil {
		return s
	}
	var b strings.Builder
	end := 0
	for _, m := range re.FindAllStringSubmatchIndex(s, -1) {
		b.WriteString(s[end:m[0]])
		end = m[1]
		substitution := r.GetSubstitution()
		for i := 0; i < len(substitution); i++ {
			c := substitution[i]
			if c != '\\' || i+1 == len(substitution) {
				b.WriteByte(c)
				continue
			}
			i++
			c = substitution[i]
			if group := int(c) - '0'; c < '0' || c > '9' {
				b.WriteByte(c)
			} else if 2*group+1 < len(m) && m[2*group] >= 0 {
				b.WriteString(s[m[2*group]:m[2*group+1]])
			}
		}
	}
	return b.String() + s[end:]
}
