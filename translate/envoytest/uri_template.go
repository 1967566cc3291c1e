package envoytest

import (
	"regexp"
	"strings"
)

// MatchURITemplate is Envoy's URI template match: {*} and {name} are one segment, {**} any number of
// them, {name=pattern} what the pattern says.
func (e *Evaluator) MatchURITemplate(template, path string) bool {
	return e.fullMatch(uriTemplateRegex(template), path)
}

func uriTemplateRegex(template string) string {
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
		switch _, pattern, named := strings.Cut(variable, "="); {
		case named:
			b.WriteString(wildcards(pattern))
		case strings.HasPrefix(variable, "*"):
			b.WriteString(wildcards(variable))
		default:
			b.WriteString(wildcards("*"))
		}
		template = after
	}
	return b.String()
}
