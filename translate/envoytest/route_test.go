package envoytest

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// routed is a listener with the routes, and what they refer to.
func routed(tb testing.TB, virtualHosts string) *Evaluator {
	tb.Helper()
	return load(tb, `
- '@type': type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: c
- '@type': type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: d
- '@type': type.googleapis.com/envoy.config.listener.v3.Listener
  name: l
  address: {socket_address: {address: 0.0.0.0, port_value: 80}}
  filter_chains:
  - filters:
    - name: hcm
      typed_config:
        '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: x
        normalize_path: true
        http_filters:
        - {name: envoy.filters.http.cors, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}}
        - {name: router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
        route_config:
          ignore_port_in_host_matching: true
          virtual_hosts:`+virtualHosts)
}

func get(e *Evaluator, host, target string, headers ...Header) Decision {
	return e.Evaluate(Request{
		Connection: Connection{Destination: at("10.0.0.1:80"), Source: at("10.0.0.2:1234")}, Host: host, Target: target, Headers: headers,
		Draws: Draws{Cluster: 0.5},
	})
}

// An exact domain wins over the longest suffix, over the longest prefix, over "*".
func TestTheMostSpecificVirtualHostIsChosen(t *testing.T) {
	e := routed(t, `
          - {name: exact, domains: [a.b.com]}
          - {name: suffix, domains: ["*.com"]}
          - {name: longer, domains: ["*.b.com"]}
          - {name: prefix, domains: ["a.*"]}
          - {name: any, domains: ["*"]}`)
	for host, want := range map[string]string{
		"A.b.com:8080": "exact", "x.b.com": "longer", ".b.com": "suffix", "b.com": "suffix", "a.org": "prefix", "a.": "any", "c.org": "any",
	} {
		if got := get(e, host, "/").VirtualHost; got != want {
			t.Errorf("%s gets %q, want %q", host, got, want)
		}
	}
}

func TestTheFirstRouteThatMatchesIsChosen(t *testing.T) {
	e := routed(t, `
          - name: v
            domains: ["*"]
            routes:
            - {name: inverted, match: {path: /h, headers: [{name: x, string_match: {exact: a}, invert_match: true}]}, route: {cluster: c}}
            - {name: empty, match: {path: /h, headers: [{name: "y", string_match: {exact: ""}, treat_missing_header_as_empty: true}]}, route: {cluster: c}}
            - {name: query, match: {prefix: /, query_parameters: [{name: q, string_match: {prefix: a}}]}, route: {cluster: c}}
            - {name: separated, match: {path_separated_prefix: /s}, route: {cluster: c}}
            - {name: regex, match: {safe_regex: {regex: "/r[0-9]"}}, route: {cluster: c}}
            - {name: folded, match: {path: /FOLD, case_sensitive: false}, route: {cluster: c}}`)
	for _, c := range []struct {
		target  string
		headers []Header
		want    string
	}{
		{"/h", []Header{{"X", "b"}}, "inverted"},
		{"/h", []Header{{"x", "a"}, {"x", "a"}}, "inverted"}, // a,a
		{"/h", []Header{{"x", "a"}}, "empty"},
		{"/h", nil, "empty"}, // what is missing does not match, inverted or not
		{"/?q=ab", nil, "query"},
		{"/?q=b&q=a", nil, ""}, // the first value counts
		{"/s/x", nil, "separated"},
		{"/sx", nil, ""},
		{"/r1?x", nil, "regex"},
		{"/r12", nil, ""},
		{"/fold", nil, "folded"},
	} {
		if got := get(e, "h", c.target, c.headers...); got.Route != c.want {
			t.Errorf("%s %v: route %q, want %q", c.target, c.headers, got.Route, c.want)
		}
	}
}

func TestWhatTheUpstreamReceives(t *testing.T) {
	e := routed(t, `
          - name: v
            domains: ["*"]
            request_headers_to_add: [{header: {key: x, value: vhost}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]
            routes:
            - name: r
              match: {prefix: /old}
              request_headers_to_remove: [gone]
              request_headers_to_add:
              - {header: {key: x, value: route}}
              - {header: {key: "y", value: "%REQ(gone)%"}}
              - {header: {key: z, value: "%REQ(kept)%-1"}}
              route:
                prefix_rewrite: /new
                host_rewrite_literal: h.example
                weighted_clusters: {clusters: [{name: c, weight: 49}, {name: d, weight: 51, host_rewrite_literal: own.example}]}`)
	got := get(e, "a", "/old/../old/x%41?q", Header{"gone", "1"}, Header{"kept", "2"})
	if got.Cluster != "d" || got.Path != "/new/xA?q" || got.Host != "h.example" {
		t.Errorf("it goes to %s as %s%s", got.Cluster, got.Host, got.Path)
	}
	want := []Header{{"kept", "2"}, {"x-forwarded-proto", "http"}, {"z", "2-1"}, {"x", "vhost"}}
	if diff := cmp.Diff(want, got.Headers); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
}

func TestRedirectsAndDirectResponses(t *testing.T) {
	e := routed(t, `
          - {name: tls, domains: [tls], require_tls: ALL}
          - name: v
            domains: ["*"]
            routes:
            - {match: {path: /https}, redirect: {https_redirect: true}}
            - {match: {path: /port}, redirect: {port_redirect: 8443, response_code: FOUND}}
            - {match: {prefix: /prefix}, redirect: {prefix_rewrite: to, strip_query: true}}
            - {match: {path: /query}, redirect: {path_redirect: "/to?x"}}
            - match: {path: /direct}
              direct_response: {status: 418, body: {inline_string: tea}}
              typed_per_filter_config: {envoy.filters.http.cors: {'@type': type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy, allow_origin_string_match: [{exact: "*"}]}}`)
	for _, c := range []struct {
		host, target, location string
		status                 int
	}{
		{"tls:8080", "/a", "https://tls:8080/a", 301},
		{"a:80", "/https", "https://a/https", 301},
		{"a:81", "/https?q", "https://a:81/https?q", 301},
		{"a:81", "/port", "http://a:8443/port", 302},
		{"a", "/prefix/x?q", "http://a/to/x", 301},
		{"a", "/query?q", "http://a/to?x", 301},
		{"a", "/direct", "", 418},
		{"a", "/none", "", 404},
	} {
		got := get(e, c.host, c.target, Header{"origin", "x"})
		if got.Status != c.status || got.Location != c.location || len(got.Response) > 0 {
			t.Errorf("%s%s: %d %s %v, want %d %s", c.host, c.target, got.Status, got.Location, got.Response, c.status, c.location)
		}
	}
}
