package stringmatch

import (
	"errors"
	"testing"

	matcherpb "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/encoding/protojson"
)

func parse(t *testing.T, text string) *matcherpb.StringMatcher {
	t.Helper()
	m := new(matcherpb.StringMatcher)
	if err := protojson.Unmarshal([]byte(text), m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMatchers(t *testing.T) {
	for _, c := range []struct {
		matcher  string
		yes, not []string
	}{
		{`{"exact": "Ab"}`, []string{"Ab"}, []string{"ab", "Abc", ""}},
		{`{"exact": "Ab", "ignore_case": true}`, []string{"Ab", "aB"}, []string{"abc"}},
		{`{"exact": "É", "ignore_case": true}`, []string{"É"}, []string{"é"}},
		{`{"prefix": "a"}`, []string{"a", "ab"}, []string{"ba", "A"}},
		{`{"suffix": "A", "ignore_case": true}`, []string{"a", "ba"}, []string{"ab"}},
		{`{"contains": "a"}`, []string{"a", "bab"}, []string{"b", "A"}},
		{`{"safe_regex": {"regex": "a|b"}}`, []string{"a", "b"}, []string{"ab", "a\n", "A"}},
		{`{"safe_regex": {"regex": "a"}, "ignore_case": true}`, []string{"a"}, []string{"A"}},
	} {
		accepts, err := New(parse(t, c.matcher))
		if err != nil {
			t.Errorf("%s: %v", c.matcher, err)
			continue
		}
		for _, s := range c.yes {
			if !accepts(s) {
				t.Errorf("%s does not match %q", c.matcher, s)
			}
		}
		for _, s := range c.not {
			if accepts(s) {
				t.Errorf("%s matches %q", c.matcher, s)
			}
		}
	}
}

func TestMatchersThatCannotBeEvaluated(t *testing.T) {
	if _, err := New(parse(t, `{}`)); !errors.Is(err, ErrUnsupported) {
		t.Errorf("error %v", err)
	}
	if _, err := New(parse(t, `{"safe_regex": {"regex": "(a"}}`)); err == nil || errors.Is(err, ErrUnsupported) {
		t.Errorf("error %v", err)
	}
}
