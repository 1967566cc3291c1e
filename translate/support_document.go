package translate

import (
	"fmt"
	"strings"
)

// SupportDocument renders the table, and all codes behind it, as Markdown.
func SupportDocument() string {
	var b strings.Builder
	b.WriteString(supportHead)
	count := map[SupportClass]int{}
	total := 0
	for _, section := range SupportTable() {
		for _, row := range section.Rows {
			count[row.Class]++
			total++
		}
	}
	fmt.Fprintf(&b, "| support | constructs of %d | means |\n|---|---:|---|\n", total)
	for _, class := range supportClasses() {
		fmt.Fprintf(&b, "| %s | %d | %s |\n", class, count[class], classMeaning(class))
	}
	b.WriteString("\nOn every HTTP listener: ")
	for i, code := range supportedEverywhere() {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(codeLink(code))
	}
	b.WriteString(".\n")
	for _, section := range SupportTable() {
		fmt.Fprintf(&b, "\n## %s\n\n| construct | in xDS | support | APISIX | in APISIX | diagnostics | test |\n|---|---|---|---|---|---|---|\n", section.Title)
		for _, row := range section.Rows {
			links := make([]string, len(row.Codes))
			for i, code := range row.Codes {
				links[i] = codeLink(code)
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s |\n",
				cell(row.Construct), quoted(row.Source), row.Class, row.oldest(), cell(row.Becomes), strings.Join(links, ", "), quoted(row.Test))
		}
	}
	b.WriteString("\n## Diagnostic codes\n\n`meshbridge translate --explain CODE` prints the same, and the constructs.\n")
	for _, info := range Codes() {
		fmt.Fprintf(&b, "\n### %s\n\n*%s:* %s.\n\n%s\n", info.Code, info.Severity, paragraph(anyMessage(info)), paragraph(info.Explanation))
		if why, ok := codesOfNoConstruct()[info.Code]; ok {
			fmt.Fprintf(&b, "It is about %s.\n", why)
		}
	}
	return b.String()
}

const supportHead = `<!-- Written by "go test ./translate -update" from the table in translate/support*.go. -->

# What is supported

Every construct that Istio emits, and those of Envoy that an EnvoyFilter may bring, with what becomes of it in APISIX.
Nothing is dropped in silence: where something differs, there is a diagnostic with a stable code, except for differences
that the column "in APISIX" states and that no single resource is the reason for. The column "APISIX" has the oldest
release in which a construct is what its row says, where that is not 2.15: with an older --apisix-version,
[apisix_too_old](#apisix_too_old) says what happens instead. Names in the last column are cases in testdata/cases,
recordings in testdata/istiod, or test functions.

`

func classMeaning(c SupportClass) string {
	switch c {
	case Exact:
		return "as in Envoy"
	case Approximate:
		return "works, with the difference that is stated"
	case NeedsCapture:
		return "as in Envoy in profile mesh, up to what is stated; in the other profiles reported or refused"
	case NotYet:
		return "could be translated; reported or refused"
	case NotPossible:
		return "has no counterpart in an unmodified APISIX; reported or refused"
	}
	return ""
}

func codeLink(c Code) string { return "[" + string(c) + "](#" + string(c) + ")" }

// cell escapes what would end a cell of a table or be taken for markup.
func cell(s string) string { return paragraph(strings.ReplaceAll(s, "|", `\|`)) }

func paragraph(s string) string {
	return strings.NewReplacer("*", `\*`, "_", `\_`, "<", "&lt;").Replace(s)
}

func quoted(s string) string {
	if s == "" {
		return ""
	}
	return "`" + strings.ReplaceAll(s, "|", `\|`) + "`"
}
