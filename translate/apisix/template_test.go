package apisix

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func variables(m map[string]string) Variables {
	return func(name string) any { return found(m, name) }
}

// A backslash does not escape in these templates: it stays in the result.
func TestEscapedTemplatesResolveToThemselves(t *testing.T) {
	vars := variables(map[string]string{"host": "HOST", "1": "ONE", "x": "X"})
	for _, s := range []string{"", "plain", "$host", "${host}", "$$host", `\$host`, `a\`, `\\$`, "100$", "$", "$.x", "$ 5", "${", "$}", "${host ?? a}", "$1", `\${host}`} {
		if got := resolveTemplate(EscapeTemplate(s), vars); got != s {
			t.Errorf("%q escaped is %q and resolves to %q", s, EscapeTemplate(s), got)
		}
	}
}

func TestEscapedTemplatesCanBeConcatenated(t *testing.T) {
	vars := variables(map[string]string{"x": "X", "a.b": "WRONG", "xy": "WRONG"})
	parts := rapid.SampledFrom([]string{"$", `\`, "{", "}", "x", ".", "y", " ", "?", "??", "1", "_", "é"})
	rapid.Check(t, func(t *rapid.T) {
		var template, want strings.Builder
		for range rapid.IntRange(0, 4).Draw(t, "pieces") {
			if rapid.Bool().Draw(t, "variable") {
				template.WriteString(Var("x"))
				want.WriteByte('X')
				continue
			}
			literal := strings.Join(rapid.SliceOfN(parts, 0, 6).Draw(t, "literal"), "")
			template.WriteString(EscapeTemplate(literal))
			want.WriteString(literal)
		}
		if got := resolveTemplate(template.String(), vars); got != want.String() {
			t.Fatalf("%q resolves to %q, want %q", template.String(), got, want.String())
		}
	})
}

func TestBareReferencesSwallowDots(t *testing.T) {
	vars := variables(map[string]string{"host": "h"})
	if got := resolveTemplate("$host.example", vars); got != "" {
		t.Errorf("got %q", got)
	}
	if got := resolveTemplate(Var("host")+".example", vars); got != "h.example" {
		t.Errorf("got %q", got)
	}
}

func TestVarOr(t *testing.T) {
	reference, ok := VarOr("http_x", "a ? b")
	if !ok || resolveTemplate(reference, variables(nil)) != "a ? b" || resolveTemplate(reference, variables(map[string]string{"http_x": ""})) != "" {
		t.Errorf("VarOr = %q, %v", reference, ok)
	}
	for _, literal := range []string{"", "a}", " a", "a??b", "$1"} {
		if reference, ok := VarOr("x", literal); ok {
			t.Errorf("VarOr(%q) = %q", literal, reference)
		}
	}
}

func TestEscapeReplacement(t *testing.T) {
	re, err := compilePCRE(`^/(a)`, false)
	if err != nil {
		t.Fatal(err)
	}
	got, _ := re.replaceFirst("/ab/a", EscapeReplacement("$1${1}")+"-$1-${1}-$0-$9")
	if want := "$1${1}-a-a-/a-b/a"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
