package envoytest

import (
	"testing"

	http_connection_managerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// The first group is from the unit tests of Envoy's path utility.
func TestPathsAreNormalisedAsEnvoyDoes(t *testing.T) {
	for target, want := range map[string]string{
		"/xyz":               "/xyz",
		"/a/b/../c":          "/a/c",
		"/a/b/./c":           "/a/b/c",
		"/a/b/../../../../c": "/c",
		`/a/..\c`:            "/c",
		"/%c0%af":            "/%c0%af",
		"/%5c%25":            "/%5c%25",
		"/a/b/%2E%2E/c":      "/a/c",
		"/a/%2F%2f/c":        "/a/%2F%2f/c",
		"/A/B/%2e%2E/c":      "/A/c",

		"/":                 "/",
		"/..":               "/",
		"/a/..":             "/",
		"/a/.":              "/a/",
		"/a/.b/..c/d.":      "/a/.b/..c/d.",
		"/a//b":             "/a//b",
		"/a//../b":          "/a/b",
		"/%41%7e%2d":        "/A~-",
		"/%zz":              "/%zz",
		"/a%2":              "/a%2",
		"/a b\x80":          "/a%20b%80",
		"/a?b=/../c":        "/a?b=/../c",
		"/a/..?q":           "/?q",
		"/%61dmin/%2e/?%41": "/admin/?%41",
	} {
		hcm := &http_connection_managerpb.HttpConnectionManager{NormalizePath: wrapperspb.Bool(true)}
		if got, _, ok := normalizeTarget(hcm, target); !ok || got != want {
			t.Errorf("%q becomes %q %t, want %q", target, got, ok, want)
		}
	}
	for _, target := range []string{"/xyz/.%00../abc", "/xyz/%00.%00./abc", "/a#b", "/a?b#c"} {
		hcm := &http_connection_managerpb.HttpConnectionManager{NormalizePath: wrapperspb.Bool(true)}
		if got, _, ok := normalizeTarget(hcm, target); ok {
			t.Errorf("%q becomes %q, want it refused", target, got)
		}
	}
}

func TestEscapedSlashesAreTreatedAsConfigured(t *testing.T) {
	const (
		keep     = http_connection_managerpb.HttpConnectionManager_KEEP_UNCHANGED
		reject   = http_connection_managerpb.HttpConnectionManager_REJECT_REQUEST
		redirect = http_connection_managerpb.HttpConnectionManager_UNESCAPE_AND_REDIRECT
		forward  = http_connection_managerpb.HttpConnectionManager_UNESCAPE_AND_FORWARD
	)
	for _, c := range []struct {
		action     http_connection_managerpb.HttpConnectionManager_PathWithEscapedSlashesAction
		merge      bool
		target     string
		want       string
		redirected bool
		refused    bool
	}{
		{keep, false, "/a%2Fb", "/a%2Fb", false, false},
		{keep, true, "/a//b/?c//d", "/a/b/?c//d", false, false},
		{reject, false, "/a%2Fb", "", false, true},
		{reject, false, "/a/b?c%2Fd", "/a/b?c%2Fd", false, false},
		{redirect, false, "/a%5cb", "/a/b", true, false},
		{forward, true, "/a%2f%2Fb", "/a/b", false, false},
	} {
		hcm := &http_connection_managerpb.HttpConnectionManager{
			NormalizePath: wrapperspb.Bool(true), MergeSlashes: c.merge, PathWithEscapedSlashesAction: c.action,
		}
		got, redirected, ok := normalizeTarget(hcm, c.target)
		if got != c.want || redirected != c.redirected || ok == c.refused {
			t.Errorf("%v %s: %q, redirected %t, ok %t", c.action, c.target, got, redirected, ok)
		}
	}
}
