package envoytest

import "testing"

// Envoy keeps no session for requests outside of the path of its cookie.
func TestPathsOfSessionCookies(t *testing.T) {
	for _, test := range []struct {
		path, target string
		want         bool
	}{
		{"", "/a", true},
		{"/", "/a", true},
		{"/a", "/a", true},
		{"/a", "/a/b", true},
		{"/a", "/a?x", true},
		{"/a", "/ab", false},
		{"/a/", "/a/b", true},
		{"/a/", "/a", false},
	} {
		if got := cookiePathMatches(test.path, test.target); got != test.want {
			t.Errorf("the path %q of a cookie, and %q: %t", test.path, test.target, got)
		}
	}
}
