package apisix

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// objects encodes routes, upstreams and plugin configs.
func objects(tb testing.TB, values ...any) []Object {
	tb.Helper()
	var out []Object
	for _, v := range values {
		var o Object
		var err error
		switch v := v.(type) {
		case Route:
			o, err = Marshal(KindRoute, v.ID, v)
		case Upstream:
			o, err = Marshal(KindUpstream, v.ID, v)
		case PluginConfig:
			o, err = Marshal(KindPluginConfig, v.ID, v)
		case Object:
			o = v
		default:
			tb.Fatalf("%T is no object", v)
		}
		if err != nil {
			tb.Fatal(err)
		}
		out = append(out, o)
	}
	return out
}

func evaluator(tb testing.TB, options Options, values ...any) *Evaluator {
	tb.Helper()
	e, err := NewEvaluator(slices.Values(objects(tb, values...)), options)
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

// to is a route to the upstream "up", of which the tests of matching need to know nothing more.
func to(id, uri string, priority int, change ...func(*Route)) Route {
	r := Route{ID: id, URI: uri, Priority: priority, UpstreamID: "up"}
	for _, f := range change {
		f(&r)
	}
	return r
}

func onHosts(hosts ...string) func(*Route) { return func(r *Route) { r.Hosts = hosts } }

func when(conds ...Cond) func(*Route) { return func(r *Route) { r.Vars = List(conds...) } }

func with(name string, config any) func(*Route) {
	return func(r *Route) {
		if r.Plugins == nil {
			r.Plugins = Plugins{}
		}
		r.Plugins[name] = config
	}
}

type object = map[string]any

func up() Upstream {
	return Upstream{ID: "up", Type: "roundrobin", Nodes: []Node{{Host: "10.0.0.1", Port: 80, Weight: 1}}}
}

// Every trap of APISIX's routing that decides how routes are emitted.
func TestMatching(t *testing.T) {
	long := strings.Repeat("x", 6400)
	tests := []struct {
		name   string
		routes []any
		// want maps "host path" to the id of the route, empty for none.
		want map[string]string
	}{
		{
			"an exact path beats a prefix of higher priority",
			[]any{to("exact", "/exact", 1), to("all", "/*", 100)},
			map[string]string{"h /exact": "exact", "h /exact/": "all", "h /": "all"},
		},
		{
			"a longer prefix beats a shorter one of higher priority",
			[]any{to("short", "/a*", 100), to("long", "/a/b*", 1)},
			map[string]string{"h /a/b": "long", "h /a/c": "short"},
		},
		{
			"priority orders routes of the same path",
			[]any{to("low", "/*", 1), to("high", "/*", 2, when(Present("http_x"))), to("lowest", "/*", -5)},
			map[string]string{"h /": "low"},
		},
		{
			"equal priority keeps the order of loading",
			[]any{to("first", "/a", 0), to("second", "/a", 0)},
			map[string]string{"h /a": "first"},
		},
		{
			"a prefix is raw, not by segments",
			[]any{to("raw", "/foo*", 0)},
			map[string]string{"h /foo": "raw", "h /foobar": "raw", "h /foo/bar": "raw", "h /fo": ""},
		},
		{
			"a prefix with a slash does not match the path without it",
			[]any{to("slash", "/foo/*", 0)},
			map[string]string{"h /foo/": "slash", "h /foo/a/b": "slash", "h /foo": "", "h /foobar": ""},
		},
		{
			"a last segment of * makes the path a regular expression",
			[]any{to("plus", "/a+b/*", 0), to("dot", "/c.d/*", 0), to("paren", "/e(f/*", 0)},
			map[string]string{"h /a+b/x": "", "h /aab/x": "", "h /c.d/x": "dot", "h /cxd/x": "", "h /e(f/x": ""},
		},
		{
			"without a last segment of * special characters are literal",
			[]any{to("plus", "/a+b*", 0), to("brace", "/{id}*", 0)},
			map[string]string{"h /a+b/x": "plus", "h /aab": "", "h /{id}/x": "brace"},
		},
		{
			"a colon is literal in an exact path and before a bare *",
			[]any{to("exact", "/:id", 0), to("prefix", "/:a/*", 0), to("raw", "/:v/x*", 0)},
			map[string]string{"h /:id": "exact", "h /1": "", "h /:a/b": "prefix", "h /:v/x": "raw", "h /:v/xy": ""},
		},
		{
			"what follows a * in the middle is ignored unless the segment begins with it",
			[]any{to("ignored", "/a*b", 0), to("segment", "/c/*/d", 0)},
			map[string]string{"h /a": "ignored", "h /axc": "ignored", "h /c/x/d": "segment", "h /c/x/y/d": "segment", "h /c/x/e": "", "h /c/d": ""},
		},
		{
			"a bare * does not match more than 6 KB",
			[]any{to("all", "/*", 0), to("raw", "/p*", 0)},
			map[string]string{"h /" + long: "", "h /p" + long: "raw", "h /" + long[:6000]: "all"},
		},
		{
			"the path is decoded, merged and resolved",
			[]any{to("ab", "/a/b", 0), to("space", "/a b", 0), to("root", "/", 0), to("dir", "/a/", 0)},
			map[string]string{
				"h /a//b": "ab", "h /a%2Fb": "ab", "h /a/./b": "ab", "h /x/../a/b": "ab", "h /a/%2e%2e/a/b": "ab", "h /a/b?c=/d": "ab",
				"h /a%20b": "space", "h /a/b/..": "dir", "h /a/.": "dir", "h /a/..": "root", "h /a/b#c": "ab", "h /a%3Fb": "",
			},
		},
		{
			"an exact host beats a wildcard, a longer wildcard a shorter one",
			[]any{
				to("none", "/*", 100), to("wild", "/*", 50, onHosts("*.com")), to("longer", "/*", 1, onHosts("*.a.com")),
				to("exact", "/*", 0, onHosts("x.a.com")),
			},
			map[string]string{"x.a.com /": "exact", "y.a.com /": "longer", "z.y.a.com /": "longer", "a.com /": "wild", "com /": "none", "b.org /": "none"},
		},
		{
			"a request falls through to wider hosts",
			[]any{
				to("exact", "/only", 0, onHosts("x.a.com")), to("wild", "/wild", 0, onHosts("*.a.com")),
				to("none", "/none", 0),
			},
			map[string]string{"x.a.com /only": "exact", "x.a.com /wild": "wild", "x.a.com /none": "none", "x.a.com /": ""},
		},
		{
			"a wildcard does not cover its own domain but any depth",
			[]any{to("wild", "/*", 0, onHosts("*.a.com")), to("dash", "/*", 0, onHosts("*-x.b.com"))},
			map[string]string{"a.com /": "", "b.a.com /": "wild", "c.b.a.com /": "wild", "my-x.b.com /": "dash", "x.b.com /": ""},
		},
		{
			"the host has no port, no trailing dot and is in lower case",
			[]any{to("a", "/*", 0, onHosts("A.com")), to("v6", "/*", 0, onHosts("[::1]")), to("port", "/*", 0, onHosts("b.com:80"))},
			map[string]string{"a.COM:8080 /": "a", "a.com. /": "a", "a.com.:80 /": "a", "[::1]:80 /": "v6", "b.com:80 /": ""},
		},
		{
			"a host of * takes what has no other",
			[]any{to("star", "/*", 0, onHosts("*")), to("a", "/*", 0, onHosts("a.com"))},
			map[string]string{"a.com /": "a", "b.com /": "star"},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			e := evaluator(t, Options{}, append(test.routes, up())...)
			for request, want := range test.want {
				host, uri, _ := strings.Cut(request, " ")
				if d := e.Evaluate(Request{Host: host, URI: uri}); d.RouteID != want {
					t.Errorf("%.80s: got route %q, want %q; candidates %+v", request, d.RouteID, want, d.Candidates)
				}
			}
		})
	}
}

func TestRouterURIMatchesThePathFirst(t *testing.T) {
	routes := []any{to("host", "/*", 0, onHosts("a.com")), to("path", "/x", 0), to("wild", "/y*", 0, onHosts("*.b.com")), up()}
	for router, want := range map[Router]string{RouterHostURI: "host", RouterURI: "path"} {
		if d := evaluator(t, Options{Router: router}, routes...).Evaluate(Request{Host: "a.com", URI: "/x"}); d.RouteID != want {
			t.Errorf("router %v: got %q, want %q", router, d.RouteID, want)
		}
	}
	e := evaluator(t, Options{Router: RouterURI}, routes...)
	if d := e.Evaluate(Request{Host: "x.b.com", URI: "/y/z"}); d.RouteID != "wild" {
		t.Errorf("got %q", d.RouteID)
	}
	if d := e.Evaluate(Request{Host: "c.com", URI: "/y/z"}); d.RouteID != "" || d.Candidates[0].Reason != "hosts: does not have c.com" {
		t.Errorf("got %+v", d)
	}
}

func TestVariables(t *testing.T) {
	request := Request{
		Method: "POST", Host: "A.com:81", URI: "/a%20b/../c?x=1&x=2&flag&e=&p=a+b%26", RemoteAddr: "10.0.0.9",
		Headers: map[string][]string{
			"X-Multi": {"a", "b"}, "x-empty": {""}, "Content-Type": {"text/plain"}, "Cookie": {"s=1; t=2", "s=3"},
		},
		Vars: map[string]string{"server_port": "9080", "proxy_protocol_tlv_0xe0": "80"},
	}
	for _, cond := range []Cond{
		Eq("request_method", "POST"), Eq("scheme", "http"), Eq("host", "a.com"), Eq("http_host", "A.com:81"),
		Eq("uri", "/c"), Eq("request_uri", "/c?x=1&x=2&flag&e=&p=a+b%26"), Eq("real_request_uri", request.URI),
		Eq("args", "x=1&x=2&flag&e=&p=a+b%26"), Eq("query_string", "x=1&x=2&flag&e=&p=a+b%26"), Eq("is_args", "?"),
		Eq("arg_x", "1"), Present("arg_flag"), NotEq("arg_flag", ""), Eq("arg_e", ""), Eq("arg_p", "a b&"), Absent("arg_X"),
		Eq("http_x_multi", "a, b"), Eq("http_X-Multi", "a, b"), Eq("http_x_empty", ""), Absent("http_none"),
		Eq("content_type", "text/plain"), Eq("cookie_s", "3"), Eq("cookie_t", "2"), Absent("cookie_none"),
		Eq("remote_addr", "10.0.0.9"),
		{"server_port", "==", 9080},
		Eq("proxy_protocol_tlv_0xe0", "80"), Absent("proxy_protocol_tlv_0xe1"),
	} {
		e := evaluator(t, Options{}, to("r", "/*", 0, when(cond)), up())
		if d := e.Evaluate(request); d.RouteID != "r" {
			t.Errorf("%v does not hold: %s", cond, d.Candidates[0].Reason)
		}
	}
}

func TestNginxRefusesBadRequests(t *testing.T) {
	e := evaluator(t, Options{}, to("r", "/*", 0), up())
	for _, request := range []Request{
		{Host: "a", URI: "/%zz"},
		{Host: "a", URI: "/a%00"},
		{Host: "a", URI: "/.."},
		{Host: "a", URI: "/a/../.."},
		{Host: "a", URI: "/%"},
		{Host: "", URI: "/"},
		{Host: "a..b", URI: "/"},
		{Host: "a b", URI: "/"},
		{Host: "a/b", URI: "/"},
	} {
		if d := e.Evaluate(request); d.Status != 400 || d.AnsweredBy != "nginx" || len(d.Notes) != 1 {
			t.Errorf("%+v: %+v", request, d)
		}
	}
}

// What meshbridge does not emit, but an evaluator of APISIX must know.
func TestOtherConditionsOfARoute(t *testing.T) {
	raw := func(id, text string) Object { return Object{KindRoute, id, []byte(text)} }
	e := evaluator(t, Options{},
		raw("off", `{"uri":"/*","status":0,"priority":9,"upstream_id":"up"}`),
		raw("get", `{"uri":"/*","methods":["GET"],"priority":8,"upstream_id":"up"}`),
		raw("addr", `{"uri":"/*","remote_addrs":["10.0.0.0/8"],"priority":7,"upstream_id":"up"}`),
		raw("host", `{"uri":"/*","host":"a.com","upstream":{"type":"roundrobin","nodes":[{"host":"n","port":1,"weight":1}]}}`),
		raw("lua", `{"uri":"/*","filter_func":"function() end"}`),
		raw("bad", `{"uri":"/*","vars":[["a"]]}`),
		up(),
	)
	d := e.Evaluate(Request{Host: "a.com", URI: "/"})
	if d.RouteID != "host" || d.Upstream == nil || d.Upstream.Nodes[0].Host != "n" {
		t.Errorf("host and inline upstream: %+v", d)
	}
	if d := e.Evaluate(Request{Host: "b", URI: "/"}); d.RouteID != "get" {
		t.Errorf("method: %+v", d)
	}
	if d := e.Evaluate(Request{Host: "b", URI: "/", Method: "PUT", RemoteAddr: "10.9.9.9"}); d.RouteID != "addr" || d.Candidates[0].Reason != "methods: does not have PUT" {
		t.Errorf("address: %+v", d)
	}
	if d := e.Evaluate(Request{Host: "b", URI: "/", Method: "PUT"}); d.Status != 404 || d.Candidates[1].Reason != "remote_addrs: does not have 127.0.0.1" {
		t.Errorf("nothing: %+v", d)
	}
	if refused := e.Refused(); len(refused) != 2 || !strings.Contains(refused[0].Error(), "routes/bad: vars") || !strings.Contains(refused[1].Error(), "routes/lua: filter_func") {
		t.Errorf("refused: %v", refused)
	}
	if got := e.Why(Request{Host: "b", URI: "/"}, "lua"); !strings.Contains(got, "filter_func") {
		t.Errorf("Why = %q", got)
	}
	if _, err := NewEvaluator(slices.Values([]Object{raw("r", "{")}), Options{}); err == nil || !strings.HasPrefix(err.Error(), "routes/r: ") {
		t.Errorf("error %v", err)
	}
}

func TestDecisionSaysWhyNotTheOthers(t *testing.T) {
	guard := Eq("proxy_protocol_tlv_0xe0", "80")
	e := evaluator(t, Options{},
		to("jason", "/*", 3000, onHosts("reviews"), when(guard, Eq("http_end_user", "jason"))),
		to("nested", "/*", 2500, onHosts("reviews"), when(guard, Or(Eq("http_a", "1"), Eq("http_b", "2")))),
		to("rest", "/*", 2000, onHosts("reviews"), when(guard)),
		to("end", "/*", -1, onHosts("reviews"), when(guard)),
		to("other", "/x", 0, onHosts("ratings")),
		up(),
	)
	request := Request{Host: "reviews", URI: "/", Vars: map[string]string{"proxy_protocol_tlv_0xe0": "80"}}
	want := []Candidate{
		{"jason", "reviews", "/*", false, "vars[1] http_end_user == jason: is absent"},
		{"nested", "reviews", "/*", false, "vars[1] OR(http_a == 1, http_b == 2): does not hold"},
		{"rest", "reviews", "/*", true, ""},
		{"end", "reviews", "/*", false, "comes after rest"},
	}
	if diff := cmp.Diff(want, e.Evaluate(request).Candidates); diff != "" {
		t.Errorf("candidates (-want +got):\n%s", diff)
	}
	request.Headers = map[string][]string{"End-User": {"bob"}}
	if got := e.Evaluate(request).Candidates[0].Reason; got != `vars[1] http_end_user == jason: is "bob"` {
		t.Errorf("reason %q", got)
	}
	for id, want := range map[string]string{
		"jason": `vars[1] http_end_user == jason: is "bob"`,
		"rest":  "it is the route that is chosen",
		"end":   "comes after rest",
		"other": "hosts: ratings does not have reviews",
		"none":  "there is no such route",
	} {
		if got := e.Why(request, id); got != want {
			t.Errorf("Why(%s) = %q, want %q", id, got, want)
		}
	}
	for host, want := range map[string]string{
		"reviews":    "hosts: port:80 does not have reviews",
		"port:80":    "hosts: port:80 does not have port",
		"x.wild":     "a route of a more specific host was chosen: specific",
		"bad..host":  "nginx refuses the Host header bad..host",
		"other.wild": "it is the route that is chosen",
	} {
		e := evaluator(t, Options{}, to("p", "/*", 0, onHosts("port:80")), to("w", "/*", 0, onHosts("*.wild")), to("specific", "/*", 0, onHosts("x.wild")), up())
		id := "p"
		if strings.HasSuffix(host, "wild") {
			id = "w"
		}
		if got := e.Why(Request{Host: host, URI: "/"}, id); got != want {
			t.Errorf("Why(%s) on %s = %q, want %q", id, host, got, want)
		}
	}
	request.Host = "ratings"
	if got, want := e.Why(request, "other"), "uris: /x does not fit /"; got != want {
		t.Errorf("Why = %q, want %q", got, want)
	}
}

func TestPluginsThatAnswer(t *testing.T) {
	abort := func(status int) object { return object{"abort": object{"http_status": status}} }
	tests := []struct {
		name    string
		change  []func(*Route)
		request Request
		status  int
		by      string
	}{
		{"a plain route goes to the upstream", nil, Request{}, 0, ""},
		{"fault-injection aborts", []func(*Route){with("fault-injection", abort(404))}, Request{}, 404, "fault-injection"},
		{
			"fault-injection aborts if one of its vars holds",
			[]func(*Route){with("fault-injection", object{"abort": object{"http_status": 500, "vars": []any{
				List(Eq("http_a", "1")), List(Eq("http_b", "2"), Present("http_c")),
			}}})},
			Request{Headers: map[string][]string{"b": {"2"}, "c": {""}}},
			500, "fault-injection",
		},
		{
			"fault-injection does not abort if none of its vars holds",
			[]func(*Route){with("fault-injection", object{"abort": object{"http_status": 500, "vars": []any{List(Eq("http_a", "1"))}}})},
			Request{},
			0, "",
		},
		{
			"half of the requests are aborted",
			[]func(*Route){with("fault-injection", object{"abort": object{"http_status": 500, "vars": []any{List(HexWithin(1, 2, WindowAbort))}}})},
			Request{Vars: map[string]string{"request_id": requestID(0x7fffff, WindowAbort)}},
			500, "fault-injection",
		},
		{
			"the other half is not",
			[]func(*Route){with("fault-injection", object{"abort": object{"http_status": 500, "vars": []any{List(HexWithin(1, 2, WindowAbort))}}})},
			Request{Vars: map[string]string{"request_id": requestID(0x800000, WindowAbort)}},
			0, "",
		},
		{"native cors answers every OPTIONS", []func(*Route){with("cors", object{})}, Request{Method: "OPTIONS"}, 200, "cors"},
		{
			"fault-injection comes before workflow",
			[]func(*Route){
				with("fault-injection", abort(418)),
				with("workflow", object{"rules": []any{object{"actions": []any{[]any{"return", object{"code": 403}}}}}}),
			},
			Request{},
			418, "fault-injection",
		},
		{
			"the first matching rule of workflow returns",
			[]func(*Route){with("workflow", object{"rules": []any{
				object{"case": List(Eq("http_a", "1")), "actions": []any{[]any{"return", object{"code": 401}}}},
				object{"actions": []any{[]any{"return", object{"code": 403}}}},
			}})},
			Request{},
			403, "workflow",
		},
		{
			"a case of workflow that does not compile always matches",
			[]func(*Route){with("workflow", object{"rules": []any{
				object{"case": Vars{"!OR", Eq("http_a", "1")}, "actions": []any{[]any{"return", object{"code": 403}}}},
			}})},
			Request{Headers: map[string][]string{"a": {"1"}}},
			403, "workflow",
		},
		{
			"a plugin whose filter does not hold is skipped",
			[]func(*Route){with("workflow", object{
				"_meta": object{"filter": List(Eq("http_a", "1"))},
				"rules": []any{object{"actions": []any{[]any{"return", object{"code": 403}}}}},
			})},
			Request{},
			0, "",
		},
		{
			"a disabled plugin is skipped",
			[]func(*Route){with("fault-injection", object{"_meta": object{"disable": true}, "abort": object{"http_status": 404}})},
			Request{},
			0, "",
		},
		{
			"traffic-split with a missing upstream is 500",
			[]func(*Route){with("traffic-split", object{"rules": []any{object{"weighted_upstreams": []any{object{"upstream_id": "none"}}}}})},
			Request{},
			500, "traffic-split",
		},
		{"a missing upstream is 502", []func(*Route){func(r *Route) { r.UpstreamID = "none" }}, Request{}, 502, "upstream"},
		{"an upstream without nodes is 503", []func(*Route){func(r *Route) { r.UpstreamID = "empty" }}, Request{}, 503, "upstream"},
		{"no upstream is 503", []func(*Route){func(r *Route) { r.UpstreamID = "" }}, Request{}, 503, "upstream"},
		{
			"a rewritten path without a slash is 502",
			[]func(*Route){with("proxy-rewrite", object{"regex_uri": []string{"^/", "x"}})},
			Request{},
			502, "upstream",
		},
		{
			"unless something else answers",
			[]func(*Route){
				with("proxy-rewrite", object{"regex_uri": []string{"^/", "x"}}),
				with("workflow", object{"rules": []any{object{"actions": []any{[]any{"return", object{"code": 403}}}}}}),
			},
			Request{},
			403, "workflow",
		},
		{"a missing plugin_config is 503", []func(*Route){func(r *Route) { r.PluginConfigID = "none" }}, Request{}, 503, "plugin_config"},
		{"the plugins of a plugin_config run", []func(*Route){func(r *Route) { r.PluginConfigID = "teapot" }}, Request{}, 418, "fault-injection"},
		{
			"a plugin of the route replaces the one of the plugin_config",
			[]func(*Route){func(r *Route) { r.PluginConfigID = "teapot" }, with("fault-injection", abort(409))},
			Request{},
			409, "fault-injection",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			e := evaluator(t, Options{}, to("r", "/*", 0, test.change...), up(),
				Upstream{ID: "empty", Type: "roundrobin", Nodes: []Node{}},
				PluginConfig{ID: "teapot", Plugins: Plugins{"fault-injection": abort(418)}})
			test.request.Host = "h"
			if d := e.Evaluate(test.request); d.RouteID != "r" || d.Status != test.status || d.AnsweredBy != test.by {
				t.Errorf("route %q, status %d by %q, notes %q", d.RouteID, d.Status, d.AnsweredBy, d.Notes)
			}
		})
	}
}

func TestFaultInjectionBodyAndDelay(t *testing.T) {
	e := evaluator(t, Options{}, to("r", "/*", 0, with("fault-injection", object{
		"abort": object{"http_status": 200, "body": "$route_id on ${host}: " + EscapeTemplate("$host") + ", ${http_x ?? none}"},
		"delay": object{"duration": 1.5, "percentage": 100},
	})), up())
	d := e.Evaluate(Request{Host: "h"})
	if want := "r on h: $host, none"; d.Body != want || d.Delay != 1.5 {
		t.Errorf("body %q, delay %v", d.Body, d.Delay)
	}
}

func TestRedirects(t *testing.T) {
	for _, test := range []struct {
		config   object
		request  Request
		status   int
		location string
	}{
		{object{"uri": "https://$host$real_request_uri", "ret_code": 301}, Request{URI: "/a%20b?c"}, 301, "https://h/a%20b?c"},
		{object{"uri": "https://${host}x/" + EscapeRedirect(`$host\a`)}, Request{}, 302, "https://hx/%24host%5Ca"},
		{object{"uri": "/x", "append_query_string": true}, Request{URI: "/?a=b"}, 302, "/x?a=b"},
		{object{"uri": "/x?y=z", "append_query_string": true}, Request{URI: "/?a=b"}, 302, "/x?y=z&a=b"},
		{object{"regex_uri": []string{"^.*$", "/"}}, Request{URI: "/a"}, 302, "/"},
		{object{"regex_uri": []string{"^/a/(.*)", "/b/$1"}, "encode_uri": true}, Request{URI: "/a/c%20d"}, 302, "/b/c%20d"},
		{object{"regex_uri": []string{"^/none", "/"}}, Request{URI: "/a"}, 0, ""},
		{object{"uri": "$uri"}, Request{URI: "/a%0Ab"}, 302, "/a%0Ab"},
		{object{"http_to_https": true}, Request{URI: "/a//b"}, 301, "https://h/a/b"},
		{object{"http_to_https": true}, Request{Method: "POST"}, 308, "https://h/"},
		{object{"http_to_https": true}, Request{Headers: map[string][]string{"X-Forwarded-Proto": {"https"}}}, 0, ""},
	} {
		e := evaluator(t, Options{}, to("r", "/*", 0, with("redirect", test.config)), up())
		test.request.Host = "h"
		if d := e.Evaluate(test.request); d.Status != test.status || d.Location != test.location {
			t.Errorf("%v: %d %q, want %d %q", test.config, d.Status, d.Location, test.status, test.location)
		}
	}
}

func TestTheUpstreamReceives(t *testing.T) {
	for _, test := range []struct {
		name, target string
		rewrite      object
		uri          string
	}{
		{"without proxy-rewrite, what was sent", "/a//b%2Fc?d", nil, "/a//b%2Fc?d"},
		{"proxy-rewrite of headers normalises the path", "/a//b%2Fc?d", object{"headers": object{"set": object{"a": "b"}}}, "/a/b/c?d"},
		{"unless told not to", "/a//b%2Fc?d", object{"use_real_request_uri_unsafe": true}, "/a//b%2Fc?d"},
		{"uri keeps the query", "/a?b", object{"uri": "/x"}, "/x?b"},
		{"uri with a query joins it", "/a?b", object{"uri": "/x?y"}, "/x?y&b"},
		{"uri is a template", "/a%3Fb", object{"uri": "/x$uri"}, "/x/a%253Fb"},
		{"regex_uri replaces the first match", "/a/a/b?c", object{"regex_uri": []string{"^/a/(.*)", "/$1"}}, "/a/b?c"},
		{"the first pair that matches", "/b", object{"regex_uri": []string{"^/a", "/x", "^/b", "/y", "^/y", "/z"}}, "/y"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := to("r", "/*", 0)
			if test.rewrite != nil {
				r = to("r", "/*", 0, with("proxy-rewrite", test.rewrite))
			}
			d := evaluator(t, Options{}, r, up()).Evaluate(Request{Host: "h:1", URI: test.target})
			if d.URI != test.uri || d.Host != "h:1" {
				t.Errorf("got %q on %q, want %q", d.URI, d.Host, test.uri)
			}
		})
	}
	for want, change := range map[string]func(*Upstream, *Route){
		"h":           func(*Upstream, *Route) {},
		"rewritten":   func(_ *Upstream, r *Route) { r.Plugins = Plugins{"proxy-rewrite": object{"host": "rewritten"}} },
		"upstream":    func(u *Upstream, _ *Route) { u.PassHost, u.UpstreamHost = "rewrite", "upstream" },
		"10.0.0.1":    func(u *Upstream, _ *Route) { u.PassHost = "node" },
		"10.0.0.1:80": func(u *Upstream, _ *Route) { u.PassHost, u.Scheme = "node", "https" },
	} {
		u, r := up(), to("r", "/*", 0)
		change(&u, &r)
		if d := evaluator(t, Options{}, r, u).Evaluate(Request{Host: "h"}); d.Host != want {
			t.Errorf("host %q, want %q", d.Host, want)
		}
	}
}

func TestTrafficSplit(t *testing.T) {
	weighted := func(entries ...any) []any { return entries }
	e := evaluator(t, Options{},
		to("r", "/*", 0, with("traffic-split", object{"rules": []any{
			object{"match": []any{object{"vars": List(Eq("http_a", "1"))}}, "weighted_upstreams": weighted(object{"upstream_id": "v3"})},
			object{"weighted_upstreams": weighted(object{"upstream_id": "v1", "weight": 25}, object{"upstream_id": "v2", "weight": 70}, object{"weight": 5})},
		}})),
		up(), Upstream{ID: "v1", Nodes: up().Nodes}, Upstream{ID: "v2", Nodes: up().Nodes}, Upstream{ID: "v3", Nodes: up().Nodes},
	)
	d := e.Evaluate(Request{Host: "h"})
	want := []WeightedUpstream{{"v1", 25}, {"v2", 70}, {"", 5}}
	if diff := cmp.Diff(want, d.Split); diff != "" || d.UpstreamID != "v2" {
		t.Errorf("upstream %q, split (-want +got):\n%s", d.UpstreamID, diff)
	}
	if d := e.Evaluate(Request{Host: "h", Headers: map[string][]string{"a": {"1"}}}); d.UpstreamID != "v3" {
		t.Errorf("upstream %q", d.UpstreamID)
	}
}

// manyRoutes is a sidecar's world: services of five hosts with three routes and a terminal each.
func manyRoutes(tb testing.TB, n int) []Object {
	tb.Helper()
	var values []any
	guard := Eq("proxy_protocol_tlv_0xe0", "80")
	for i := 0; len(values) < n; i++ {
		name := fmt.Sprintf("svc-%d", i)
		hosts := onHosts(name, name+".ns", name+".ns.svc", name+".ns.svc.cluster.local", fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255))
		values = append(values,
			to(name+".1", "/*", 3000, hosts, when(guard, Eq("http_end_user", "jason"))),
			to(name+".2", "/api/*", 2000, hosts, when(guard)),
			to(name+".3", "/*", 1000, hosts, when(guard, Match("uri", `\A/(?:a|b)+\z`))),
			to(name+".t", "/*", -1, hosts, when(guard)),
		)
	}
	return objects(tb, append(values, up())...)
}

func BenchmarkEvaluate5000Routes(b *testing.B) {
	e, err := NewEvaluator(slices.Values(manyRoutes(b, 5000)), Options{})
	if err != nil {
		b.Fatal(err)
	}
	request := Request{Host: "svc-700.ns.svc.cluster.local:80", URI: "/x?y=z", Vars: map[string]string{"proxy_protocol_tlv_0xe0": "80"}}
	b.ReportAllocs()
	for b.Loop() {
		if d := e.Evaluate(request); d.RouteID != "svc-700.t" {
			b.Fatal(d.RouteID)
		}
	}
}

func BenchmarkNewEvaluator5000Routes(b *testing.B) {
	all := manyRoutes(b, 5000)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := NewEvaluator(slices.Values(all), Options{}); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzEvaluate(f *testing.F) {
	f.Add(`{"uri":"/*","vars":[["http_x","==","a"]],"upstream_id":"up"}`, "h", "/a%20b?c=d")
	f.Add(`{"uris":["/a/*/b","/:x/*"],"hosts":["*.h","H"],"plugins":{"redirect":{"uri":"/${x}$y\\$z"}}}`, "a.h:1", "/a/x/b")
	f.Add(`{"uri":"/a*","plugins":{"proxy-rewrite":{"regex_uri":["(a)|b","$1$$${2}"]},"fault-injection":{"abort":{"body":"$"}}}}`, "[::1]", "/ab")
	f.Add(`{"uri":"*","plugins":{"workflow":{"rules":[{"case":[],"actions":[["return",{"code":1}]]}]},"traffic-split":{"rules":[{}]}}}`, "h", "//")
	f.Fuzz(func(t *testing.T, route, host, uri string) {
		if !json.Valid([]byte(route)) {
			return
		}
		e, err := NewEvaluator(slices.Values(append(objects(t, up()), Object{KindRoute, "r", []byte(route)})), Options{})
		if err != nil {
			return
		}
		request := Request{Host: host, URI: uri}
		d := e.Evaluate(request)
		matched := slices.ContainsFunc(d.Candidates, func(c Candidate) bool { return c.Matched })
		if matched != (d.Route != nil) {
			t.Errorf("route %v and candidates %+v", d.Route, d.Candidates)
		}
		if e.Why(request, "r") == "" {
			t.Error("no reason")
		}
	})
}
