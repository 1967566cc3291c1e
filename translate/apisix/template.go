package apisix

import (
	"strconv"
	"strings"
)

// APISIX resolves $name, ${name} and ${name ?? default} in the strings of many plugins
// (core.utils.resolve_var): header values, bodies, rewritten paths. It has no escape for a literal
// dollar sign: a backslash keeps the reference from being resolved but stays in the result. The
// default of a variable that does not exist is the way to a literal.
const (
	literalDollar    = "${__d ?? $}"
	literalBackslash = `${__d ?? \}`
)

// EscapeTemplate returns a template that resolves to exactly s. Escaped literals and [Var]
// references can be concatenated. Only what would be a reference is escaped; an escape needs the ??
// operator, see [FeatureTemplateDefault].
func EscapeTemplate(s string) string {
	if !strings.ContainsAny(s, `$\`) {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		switch {
		case s[i] == '$' && (i+1 == len(s) || startsReference(s[i+1])):
			b.WriteString(literalDollar)
		case s[i] == '\\' && keepsReference(s[i+1:]):
			b.WriteString(literalBackslash)
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// startsReference tells whether a dollar sign before c may begin a reference.
func startsReference(c byte) bool {
	return c == '{' || c == '.' || c == '_' || isAlphanumeric(c)
}

// keepsReference tells whether a backslash before rest would keep a reference from being resolved,
// or would do so once the backslashes between them are escaped. The end counts as a reference,
// because one may be appended.
func keepsReference(rest string) bool {
	rest = strings.TrimLeft(rest, `\`)
	return rest == "" || rest[0] == '$'
}

// HasTemplateDefault tells whether a template has a ${name ?? default}, as [EscapeTemplate] and [VarOr]
// make them. It needs [FeatureTemplateDefault]: before, most of it is taken for literal text.
func HasTemplateDefault(template string) bool {
	for {
		_, reference, found := strings.Cut(template, "${")
		if !found {
			return false
		}
		reference, template, _ = strings.Cut(reference, "}")
		if strings.Contains(reference, "??") {
			return true
		}
	}
}

// Var returns the template reference to a variable. The braces matter: a bare $name takes following
// letters, digits, underscores and dots as part of the name.
func Var(name string) string { return "${" + name + "}" }

// VarOr returns the template reference to a variable with a literal for when it is missing. The
// literal is taken as it is; ok is false for one that cannot be: it is empty, contains "}", "$" or
// "??", or begins or ends with white space. It needs [FeatureTemplateDefault].
func VarOr(name, literal string) (reference string, ok bool) {
	// A dollar sign would be a capture of regex_uri to proxy-rewrite, which looks for those first.
	if literal == "" || strings.ContainsAny(literal, "}$") || strings.Contains(literal, "??") || strings.TrimSpace(literal) != literal {
		return "", false
	}
	return "${" + name + " ?? " + literal + "}", true
}

// EscapeReplacement returns the replacement text for proxy-rewrite's and redirect's regex_uri that
// stands for exactly s; $1 in a replacement is a capture.
func EscapeReplacement(s string) string { return strings.ReplaceAll(s, "$", "$$") }

// EscapeRedirect makes a literal safe within redirect's uri, which has a template syntax of its own
// without any escape: dollar signs and backslashes are percent-encoded.
func EscapeRedirect(s string) string {
	return strings.NewReplacer("$", "%24", `\`, "%5C").Replace(s)
}

// resolveTemplate is core.utils.resolve_var: it matches
// (?<!\\)\$(\{\s*([^}]+?)\s*\}|([\w\.]+)) and splits the reference at ??.
func resolveTemplate(template string, vars Variables) string {
	var b strings.Builder
	for i := 0; i < len(template); {
		reference, length := "", 0
		if template[i] == '$' && (i == 0 || template[i-1] != '\\') {
			reference, length = templateReference(template[i+1:])
		}
		if length == 0 {
			b.WriteByte(template[i])
			i++
			continue
		}
		b.WriteString(resolveReference(reference, vars))
		i += 1 + length
	}
	return b.String()
}

// templateReference returns what a reference behind "$" names and its length, 0 where it is none.
func templateReference(s string) (reference string, length int) {
	if strings.HasPrefix(s, "{") {
		end := strings.IndexByte(s, '}')
		if end < 2 {
			return "", 0
		}
		return strings.Trim(s[1:end], " \t\n\v\f\r"), end + 1
	}
	n := 0
	for n < len(s) && (isAlphanumeric(s[n]) || s[n] == '_' || s[n] == '.') {
		n++
	}
	return s[:n], n
}

func resolveReference(reference string, vars Variables) string {
	name, fallback, _ := strings.Cut(reference, "??")
	value := vars(strings.TrimRight(name, " \t\n\v\f\r"))
	if value == nil {
		fallback, _, _ = strings.Cut(fallback, "??")
		return strings.Trim(fallback, " \t\n\v\f\r")
	}
	if b, ok := value.(bool); ok {
		return strconv.FormatBool(b)
	}
	s, _ := luaString(value)
	return s
}
