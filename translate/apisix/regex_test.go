package apisix

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestRegexToPCRE(t *testing.T) {
	for re2, want := range map[string]string{
		`v[1-9]`:            `v[1-9]`,
		`^a.*b$`:            `\A` + `a[^\n]*b\z`,
		`(?s).`:             `[\x00-\xff]`,
		`(?i)ab-1`:          `[Aa][Bb]-1`,
		`(?i)k`:             `(?:[Kk]|\xe2\x84\xaa)`,
		`(?P<name>a|bc)+`:   `(a|bc)+`,
		`a{2,}?`:            `a{2,}?`,
		`(?:a+)+`:           `(?:a+)+`,
		`[^/]+`:             `[^/]+`,
		`é*`:                `(?:é)*`,
		`[à-ü]`:             `(?:\xc3[\xa0-\xbc])`,
		`a/b#c d`:           `a/b#c d`,
		`\Qa.b\E`:           `a\.b`,
		`\d\w\s`:            `[0-9][0-9A-Z_a-z][\x09\n\x0c\x0d ]`,
		`[]^\\-]`:           `[\-\\-\^]`,
		`(?m)^a$`:           `(?m:^)a(?=\n|\z)`,
		`x(?:a|b)y`:         `x[ab]y`,
		`/(?:ab|cd)/(e|ff)`: `/(?:ab|cd)/(e|ff)`,
	} {
		if got, err := RegexToPCRE(re2); err != nil || got != want {
			t.Errorf("RegexToPCRE(%q) = %q, %v; want %q", re2, got, err, want)
		}
	}
}

func TestRegexToPCRERejects(t *testing.T) {
	for _, re2 := range []string{"(", "a**", `\C`, "(?=a)", "[z-a]", `\1`, "a{2000}"} {
		if got, err := RegexToPCRE(re2); err == nil {
			t.Errorf("RegexToPCRE(%q) = %q", re2, got)
		}
	}
	if _, err := RegexToPCRE(`\p{L}`); !errors.Is(err, ErrRegexNotPortable) {
		t.Errorf("a class of many characters: %v", err)
	}
}

// PCRE's $ matches before a final newline: a path of "/a%0A" would pass for "/a".
func TestFullMatchDoesNotAcceptAFinalNewline(t *testing.T) {
	for _, re2 := range []string{"/a", "/a$", "^/a$", "/a|/b"} {
		pattern, err := FullMatchRegex(re2)
		if err != nil {
			t.Fatal(err)
		}
		re, err := compilePCRE(pattern, false)
		if err != nil {
			t.Fatal(err)
		}
		if !re.match("/a") || re.match("/a\n") || re.match("x/a") || re.match("/ab") {
			t.Errorf("%s decides wrongly", pattern)
		}
	}
}

// drawRegex draws an RE2 expression of a small alphabet, in which random strings have a chance.
// It never counts characters of a negated class, which the translation takes for bytes.
func drawRegex(t *rapid.T, depth int) string {
	atoms := rapid.SampledFrom([]string{
		"a", "b", "k", "/", `\.`, "[ab]", "[^a]*", ".*", `\d`, `\w`, "é", "[à-ü]", `[^\x{e9}]`, "(?i:ak)", "(?i:é)",
		`\b`, "^", "$", "(?:)", "-", `\x{17f}`, "(?s:.*)", "🙂", "(?m:^)", "(?m:$)",
	})
	var b strings.Builder
	for range rapid.IntRange(1, 4).Draw(t, "length") {
		form := rapid.IntRange(0, 9).Draw(t, "form")
		switch {
		case form == 0 && depth > 0:
			b.WriteString("(" + drawRegex(t, depth-1) + ")")
		case form == 1 && depth > 0:
			b.WriteString("(?:" + drawRegex(t, depth-1) + "|" + drawRegex(t, depth-1) + ")")
		case form <= 3:
			quantifier := rapid.SampledFrom([]string{"*", "+", "?", "{2}", "{1,3}", "*?"}).Draw(t, "quantifier")
			b.WriteString("(?:" + atoms.Draw(t, "atom") + ")" + quantifier)
		default:
			b.WriteString(atoms.Draw(t, "atom"))
		}
	}
	return b.String()
}

func TestTranslatedRegexMatchesTheSameStrings(t *testing.T) {
	subjects := rapid.Custom(func(t *rapid.T) string {
		letters := rapid.SampledFrom([]string{"a", "b", "k", "K", "A", "/", ".", "1", "é", "É", "ü", "\n", "-", "ſ", "K", "🙂", "_"})
		return strings.Join(rapid.SliceOfN(letters, 0, 7).Draw(t, "letters"), "")
	})
	rapid.Check(t, func(t *rapid.T) {
		re2 := drawRegex(t, 2)
		pattern, err := FullMatchRegex(re2)
		if err != nil {
			t.Fatalf("%q: %v", re2, err)
		}
		re, err := compilePCRE(pattern, false)
		if err != nil {
			t.Fatalf("%q became %q: %v", re2, pattern, err)
		}
		want := regexp.MustCompile(`\A(?:` + re2 + `)\z`)
		for range 5 {
			if s := subjects.Draw(t, "subject"); re.match(s) != want.MatchString(s) {
				t.Fatalf("%q became %q: they differ on %q", re2, pattern, s)
			}
		}
	})
}

// A predecessor built "^" + value + "$" without quoting: a header value with a dot matched more.
func TestQuoteRegexIsExact(t *testing.T) {
	for _, s := range []string{`a\Eb`, `\Qa\E`, "a.b", "a+b*(c)[d]{2}|^$?", `\`, "", "é\n", "\x00", "#x y", "-", "/"} {
		re, err := compilePCRE(`\A`+QuoteRegex(s)+`\z`, false)
		if err != nil {
			t.Errorf("QuoteRegex(%q): %v", s, err)
			continue
		}
		if !re.match(s) || re.match(s+"x") || re.match("x"+s) || re.match(s+"\n") {
			t.Errorf("QuoteRegex(%q) = %q decides wrongly", s, QuoteRegex(s))
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		s, other := rapid.String().Draw(t, "s"), rapid.String().Draw(t, "other")
		re, err := compilePCRE(`\A`+QuoteRegex(s)+`\z`, false)
		if err != nil || !re.match(s) || re.match(other) != (s == other) {
			t.Fatalf("QuoteRegex(%q) = %q: %v", s, QuoteRegex(s), err)
		}
	})
}

func TestLiteralPrefix(t *testing.T) {
	for re2, want := range map[string]struct {
		prefix   string
		complete bool
	}{
		`/api/v[0-9]+/.*`:   {"/api/v", false},
		`/api`:              {"/api", true},
		`^/api$`:            {"/api", true},
		`/a\.b/.*`:          {"/a.b/", false},
		`(?i)/api`:          {"/", false},
		`/(foo|fob)/x`:      {"/fo", false},
		`(/a)+`:             {"/a", false},
		`(?:/a){2}`:         {"/a/a", true},
		`(?:/a){2,3}b`:      {"/a/a", false},
		`/a?b`:              {"/", false},
		`.*`:                {"", false},
		`/a|/b`:             {"/", false},
		`(`:                 {"", false},
		`/é|/è`:             {"/", false},
		`/a\b/c`:            {"/a", false},
		`/productpage|/log`: {"/", false},
	} {
		prefix, complete := LiteralPrefix(re2)
		if prefix != want.prefix || complete != want.complete {
			t.Errorf("LiteralPrefix(%q) = %q, %v; want %q, %v", re2, prefix, complete, want.prefix, want.complete)
		}
	}
}

func TestLiteralPrefixIsAPrefixOfEveryMatch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		re2 := drawRegex(t, 2)
		prefix, complete := LiteralPrefix(re2)
		full := regexp.MustCompile(`\A(?:` + re2 + `)\z`)
		s := rapid.StringMatching(`[ab/k.1é-]{0,6}`).Draw(t, "subject")
		if full.MatchString(s) && !strings.HasPrefix(s, prefix) || complete && full.MatchString(s) && s != prefix {
			t.Fatalf("LiteralPrefix(%q) = %q, %v, and %q matches", re2, prefix, complete, s)
		}
	})
}

func TestBacktracks(t *testing.T) {
	for re2, want := range map[string]bool{
		`(a+)+b`:         true,
		`(?:a|ab)*c`:     true,
		`(.*)*`:          true,
		`(?:\w+\s?)*$`:   true,
		`([a-z]+\.)+x`:   true, // conservative: the dot keeps the repetitions apart
		`(?:a|b)*`:       false,
		`(?:ab|cd)*x`:    false,
		`/api/.*/x/.*`:   false,
		`[a-z]+[0-9]+`:   false,
		`(?:a{1,3}b){5}`: false,
	} {
		reason, got := Backtracks(re2)
		if got != want || got != (reason != "") {
			t.Errorf("Backtracks(%q) = %q, %v", re2, reason, got)
		}
	}
}
