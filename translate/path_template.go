package translate

import (
	"slices"
	"strconv"
	"strings"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	uritemplatepb "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"
	uritemplaterewritepb "github.com/envoyproxy/go-control-plane/envoy/extensions/path/rewrite/uri_template/v3"

	"meshbridge/translate/apisix"
)

// Envoy's URI templates: * is one segment, ** any number of them, {name} is *, and {name=pattern} the
// pattern. What a name stands for can be put into a rewritten path.

const (
	codePathTemplate       Code = "path_template"
	codePathRewriteFormats Code = "path_rewrite_formatted"
)

type templateKind int

const (
	templateLiteral templateKind = iota
	templateSegment
	templateSegments
	templateBegin // of what text names
	templateEnd
)

type templatePart struct {
	kind templateKind
	text string
}

// parseTemplate takes a template of paths apart. ok is false for what Envoy refuses as well.
func parseTemplate(template string) (parts []templatePart, ok bool) {
	named := -1 // how much is left behind the pattern of a name
	for rest := template; rest != "" || named >= 0; {
		if named == len(rest) {
			parts, named = append(parts, templatePart{kind: templateEnd}), -1
			continue
		}
		piece := rest
		if named >= 0 {
			piece = rest[:len(rest)-named]
		}
		switch {
		case strings.HasPrefix(piece, "**"):
			parts = append(parts, templatePart{kind: templateSegments})
			rest = rest[2:]
		case rest[0] == '*':
			parts = append(parts, templatePart{kind: templateSegment})
			rest = rest[1:]
		case rest[0] == '{':
			variable, after, closed := strings.Cut(rest[1:], "}")
			name, pattern, has := strings.Cut(variable, "=")
			if !has {
				pattern = "*"
			}
			if !closed || name == "" || strings.ContainsAny(name, "*{/") || strings.Contains(pattern, "{") {
				return nil, false
			}
			parts = append(parts, templatePart{templateBegin, name})
			named, rest = len(after), pattern+after
		case rest[0] == '}':
			return nil, false
		default:
			literal := piece
			if end := strings.IndexAny(piece, "*{}"); end >= 0 {
				literal = piece[:end]
			}
			parts = append(parts, templatePart{templateLiteral, literal})
			rest = rest[len(literal):]
		}
	}
	return parts, strings.HasPrefix(template, "/")
}

// templateRegex translates a template to RE2 for a path as it was sent and for a decoded one.
func templateRegex(template string) (raw, decoded string, ok bool) {
	const character = `a-zA-Z0-9\-._~%!$&'()+,;:@=` // pchar of RFC 3986 without *
	parts, ok := parseTemplate(template)
	var r, d strings.Builder
	for _, p := range parts {
		switch p.kind {
		case templateSegments:
			r.WriteString(`[` + character + `/]*`)
			d.WriteString(`(?s:.*)`)
		case templateSegment:
			r.WriteString(`[` + character + `]+`)
			d.WriteString(`[^/]+`)
		case templateLiteral:
			r.WriteString(apisix.QuoteRegex(p.text))
			d.WriteString(apisix.QuoteRegex(normalPath(p.text)))
		case templateBegin, templateEnd:
		}
	}
	return r.String(), d.String(), ok
}

// templateOf returns the template of a path match policy; empty for policies of other kinds.
func templateOf(policy *corepb.TypedExtensionConfig) string {
	return decode[uritemplatepb.UriTemplateMatchConfig](policy.GetTypedConfig()).GetPathTemplate()
}

// compilePathTemplate translates a route's path match policy.
func compilePathTemplate(policy *corepb.TypedExtensionConfig, report reporter) (test pathTest, ok bool) {
	const field = "match.path_match_policy"
	template := templateOf(policy)
	_, decoded, ok := templateRegex(template)
	if !ok {
		report("path_policy_unsupported", field, policy.GetTypedConfig().GetTypeUrl()+" "+strconv.Quote(template))
		return test, false
	}
	report(codePathTemplate, field, template)
	return compilePathRegex(decoded, field, report)
}

// templateRewrite puts what the names of the route's template stand for into another path.
func (rx *routeContext) templateRewrite(action *routepb.RouteAction) pathRewrite {
	const field = "route.path_rewrite_policy"
	policy := action.GetPathRewritePolicy()
	rewrite := decode[uritemplaterewritepb.UriTemplateRewriteConfig](policy.GetTypedConfig()).GetPathTemplateRewrite()
	parts, ok := parseTemplate(templateOf(rx.route.GetMatch().GetPathMatchPolicy()))
	if !ok || !strings.HasPrefix(rewrite, "/") {
		rx.report(codePathRewrite, field, "path_rewrite_policy")
		return pathRewrite{}
	}
	var pattern strings.Builder
	var names []string
	pattern.WriteString(`\A`)
	for _, p := range parts {
		switch p.kind {
		case templateLiteral:
			pattern.WriteString(apisix.QuoteRegex(normalPath(p.text)))
		case templateSegment:
			pattern.WriteString(`[^/]+`)
		case templateSegments:
			pattern.WriteString(`(?s:.*)`)
		case templateBegin:
			names = append(names, p.text)
			pattern.WriteByte('(')
		case templateEnd:
			pattern.WriteByte(')')
		}
	}
	pattern.WriteString(`\z`)
	var replacement strings.Builder
	for rewrite != "" {
		literal, rest, named := strings.Cut(rewrite, "{")
		replacement.WriteString(apisix.EscapeReplacement(literal))
		if !named {
			break
		}
		name, after, _ := strings.Cut(rest, "}")
		group := slices.Index(names, name) + 1
		if group == 0 { // which Envoy refuses
			rx.report(codePathRewrite, field, "path_rewrite_policy to "+strconv.Quote(name))
			return pathRewrite{}
		}
		replacement.WriteString("${" + strconv.Itoa(group) + "}")
		rewrite = after
	}
	return pathRewrite{regexURI: []string{pattern.String(), replacement.String()}}
}

// formattedPath is a path that is made of values of the request.
func (rx *routeContext) formattedPath(format string) pathRewrite {
	const field = "route.path_rewrite"
	template, unknown := requestScope().expand(rx, format)
	switch {
	case unknown != "":
		rx.report(codePathRewrite, field, "path_rewrite with "+unknown)
		return pathRewrite{}
	case !strings.HasPrefix(format, "/") || strings.Contains(template, apisix.Var("real_request_uri")):
		rx.report(codePathRewrite, field, "path_rewrite to "+strconv.Quote(format))
		return pathRewrite{}
	}
	rx.report(codePathRewriteFormats, field, format)
	return pathRewrite{uri: template}
}
