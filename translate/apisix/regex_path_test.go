package apisix

import (
	"regexp"
	"testing"

	"pgregory.net/rapid"
)

// TestPathRegexEndsWithThePath compares both forms of an expression with a full match of the path,
// whatever the query.
func TestPathRegexEndsWithThePath(t *testing.T) {
	expressions := []string{"/a.*", ".*b", "/[^/]*", "/a/?", "/(?:a|b)+$", `/a\?b`, "(?s).*", "/a[^b]", "/(?i)A", "[?]|/a"}
	rapid.Check(t, func(t *rapid.T) {
		re := rapid.SampledFrom(expressions).Draw(t, "re")
		path := rapid.StringMatching(`/[abA/]{0,4}`).Draw(t, "path")
		query := rapid.SampledFrom([]string{"", "?", "?a", "?b", "?/a?b"}).Draw(t, "query")
		raw, decoded, err := PathRegex(re)
		if err != nil {
			t.Fatal(err)
		}
		want := regexp.MustCompile(`\A(?:` + re + `)\z`).MatchString(path)
		for expression, subject := range map[string]string{raw: path + query, decoded: path} {
			p, err := compilePCRE(expression, false)
			if err != nil {
				t.Fatal(err)
			}
			if got := p.match(subject); got != want {
				t.Fatalf("%s on %s: %t, want %t", expression, subject, got, want)
			}
		}
	})
}

func TestPathRegexRefusesWhatDependsOnTheEnd(t *testing.T) {
	for _, re := range []string{`/a$|/b`, `/\bab`, `(?m)^/a`} {
		if raw, _, err := PathRegex(re); err == nil {
			t.Errorf("%s becomes %s", re, raw)
		}
	}
}

// TestGivesUp has what was measured with PCRE2 and the limits that APISIX sets, on values of 8,000
// characters.
func TestGivesUp(t *testing.T) {
	for re, want := range map[string]bool{
		"/a/.*":                      false,
		".*/ns/foo/.*":               false,
		"/x/[a-z]+/y/[a-z]+/z":       false,
		"/x/[^/]+/.*":                false,
		"[a-z/]*/x/y":                false,
		"(?:a|b){1,5}":               false,
		"(?s)/a.*":                   false,
		"(?:/[a-z]+)*":               true, // runs out of stack
		"(?:[a-z/]|%20)*":            true,
		"(a+)+b":                     true,
		".*x.*x[1-9]":                true, // takes too many steps
		".*a.*b.*c":                  true,
		"[a-z]+[a-z0-9]+[0-9]":       true,
		"é*":                         true, // two bytes
		"(":                          true,
		"(?:a.*){20}":                true,
		"[0-9]+(?:\\.[0-9]+)?[a-z]*": false,
	} {
		if reason, got := GivesUp(re); got != want {
			t.Errorf("%s: %t %s", re, got, reason)
		}
	}
}
