package envoytest

import (
	"regexp"
	"strings"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	uri_templatepb "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"
	rewritepb "github.com/envoyproxy/go-control-plane/envoy/extensions/path/rewrite/uri_template/v3"
)

// MatchURITemplate is Envoy's URI template match: {*} and {name} are one segment, {**} any number of
// them, {name=pattern} what the pattern says.
func (e *Evaluator) MatchURITemplate(template, path string) bool {
	re, _ := uriTemplateRegex(template)
	return e.fullMatch(re, path)
}

// rewriteTemplate puts what the variables of one template match into another.
func (e *Evaluator) rewriteTemplate(match, rewrite *corepb.TypedExtensionConfig, path string) (rewritten string, ok bool) {
	from, to := new(uri_templatepb.UriTemplateMatchConfig), new(rewritepb.UriTemplateRewriteConfig)
	if match.GetTypedConfig().UnmarshalTo(from) != nil || rewrite.GetTypedConfig().UnmarshalTo(to) != nil {
		return "", false
	}
	pattern, names := uriTemplateRegex(from.GetPathTemplate())
	re := e.compiled(`\A` + pattern + `\z`)
	if re == nil {
		return "", false
	}
	groups := re.FindStringSubmatch(path)
	if groups == nil {
		return "", false
	}
	rewritten = to.GetPathTemplateRewrite()
	for i, name := range names {
		rewritten = strings.ReplaceAll(rewritten, "{"+name+"}", groups[i+1])
	}
	return rewritten, true
}

// uriTemplateRegex returns an expression with a group for each of the names.
func uriTemplateRegex(template string) (re string, names []string) {
	const character = `[a-zA-Z0-9_\-.~%!$&'()+,;:@=]` // RFC 3986, pchar without the asterisk
	wildcards := func(pattern string) string {
		var b strings.Builder
		for pattern != "" {
			switch {
			case strings.HasPrefix(pattern, "**"):
				b.WriteString(`(?:` + character + `|/)*`)
				pattern = pattern[2:]
			case pattern[0] == '*':
				b.WriteString(character + `+`)
				pattern = pattern[1:]
			default:
				b.WriteString(regexp.QuoteMeta(pattern[:1]))
				pattern = pattern[1:]
			}
		}
		return b.String()
	}
	var b strings.Builder
	for template != "" {
		before, rest, ok := strings.Cut(template, "{")
		b.WriteString(wildcards(before))
		if !ok {
			break
		}
		variable, after, _ := strings.Cut(rest, "}")
		switch name, pattern, named := strings.Cut(variable, "="); {
		case named:
			names = append(names, name)
			b.WriteString("(" + wildcards(pattern) + ")")
		case strings.HasPrefix(variable, "*"):
			b.WriteString(wildcards(variable))
		default:
			names = append(names, name)
			b.WriteString("(" + wildcards("*") + ")")
		}
		template = after
	}
	return b.String(), names
}
