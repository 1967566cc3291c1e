package apisix

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The cases follow the source of lua-resty-cookie; values with white space were also seen with APISIX 3.18.
func TestCookiesAreReadAsAPISIXReadsThem(t *testing.T) {
	for _, test := range []struct {
		header string
		want   map[string]string
	}{
		{"", map[string]string{}},
		{"a=1; b=2", map[string]string{"a": "1", "b": "2"}},
		{"a=1;\tb=2;", map[string]string{"a": "1", "b": "2"}},
		{"a=1; a=2", map[string]string{"a": "2"}},
		{"a=; b=x=y", map[string]string{"a": "", "b": "x=y"}},
		{`a="1"`, map[string]string{"a": `"1"`}},
		{"a=x y", map[string]string{"a": "x"}},
		{"x; a=1", map[string]string{"x; a": "1"}},
		{"none", map[string]string{}},
	} {
		if diff := cmp.Diff(test.want, Cookies(test.header)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", test.header, diff)
		}
	}
}

func TestGRPCWeb(t *testing.T) {
	const openToAll = "access-control-allow-origin: *"
	rewrite := func(priority int) map[string]any {
		return object{"_meta": object{"priority": priority}, "headers": object{"set": object{"access-control-allow-origin": "https://a.example"}}}
	}
	post := Request{Method: "POST", Host: "a", URI: "/s/m", Headers: map[string][]string{"content-type": {"application/grpc-web"}}}
	for _, test := range []struct {
		name    string
		route   func(*Route)
		request Request
		status  int
		want    []string // among the headers of the response
	}{
		{"a request", nil, post, 0, []string{openToAll, "content-type: application/grpc-web"}},
		{"response-rewrite before it", with("response-rewrite", rewrite(899)), post, 0, []string{openToAll}},
		{"response-rewrite after it", with("response-rewrite", rewrite(500)), post, 0, []string{"access-control-allow-origin: https://a.example"}},
		{"a preflight", nil, Request{Method: "OPTIONS", Host: "a", URI: "/s/m"}, 204, []string{openToAll}},
		{"another method", nil, Request{Host: "a", URI: "/s/m", Headers: post.Headers}, 405, nil},
		{"another type", nil, Request{Method: "POST", Host: "a", URI: "/s/m"}, 400, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			change := []func(*Route){with("grpc-web", object{})}
			if test.route != nil {
				change = append(change, test.route)
			}
			d := evaluator(t, Options{}, to("r", "/s/*rest", 0, change...), up()).Evaluate(test.request)
			if d.Status != test.status {
				t.Fatalf("status %d of %s", d.Status, d.AnsweredBy)
			}
			if test.status == 0 && !slices.Equal(d.Headers["content-type"], []string{"application/grpc"}) {
				t.Errorf("the upstream gets %v", d.Headers)
			}
			var lines []string
			for _, name := range slices.Sorted(maps.Keys(d.Response)) {
				lines = append(lines, name+": "+strings.Join(d.Response[name], ", "))
			}
			for _, line := range test.want {
				if !slices.Contains(lines, line) {
					t.Errorf("no %q in %q", line, lines)
				}
			}
		})
	}
}

// The gRPC module of nginx encodes a path that proxy-rewrite has encoded already.
func TestRewrittenPathsOfGRPCAreEscapedAgain(t *testing.T) {
	for rewrite, want := range map[string]string{"/new$1": "/new/b%2520c?q=%20", "": "/a/b%20c?q=%20"} {
		route := to("r", "/*", 0)
		if rewrite != "" {
			route = to("r", "/*", 0, with("proxy-rewrite", object{"regex_uri": []string{"^/a(.*)$", rewrite}}))
		}
		upstream := up()
		upstream.Scheme = "grpc"
		if d := evaluator(t, Options{}, route, upstream).Evaluate(Request{Host: "a", URI: "/a/b%20c?q=%20"}); d.URI != want {
			t.Errorf("rewritten by %q: got %q, want %q", rewrite, d.URI, want)
		}
	}
}
