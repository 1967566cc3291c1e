package translate

import (
	"strings"
	"testing"

	"meshbridge/translate/apisix"
	"meshbridge/xds"
)

// Each test here is a failure of an earlier attempt at making APISIX a data plane of Istio.

// request evaluates a request on what the resources become in a profile. vars say where it came in.
func request(t *testing.T, s *State, vars map[string]string, host, path string, headers map[string][]string) apisix.Decision {
	t.Helper()
	e, err := apisix.NewEvaluator(s.Objects(), apisix.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if refused := e.Refused(); len(refused) > 0 {
		t.Fatal(refused)
	}
	return e.Evaluate(apisix.Request{Host: host, URI: path, Headers: headers, Vars: vars})
}

func routeName(d apisix.Decision) string {
	if d.Route == nil {
		return ""
	}
	return d.Route.Name[strings.LastIndexByte(d.Route.Name, '|')+1:]
}

func onChain(key string) map[string]string { return map[string]string{varChain: key} }

// apisix-mesh-agent and Amesh emitted all routes with one priority, so that a catch-all could win
// over the header match before it, and an exact path over the catch-all before it.
func TestTheOrderOfRoutesIsKept(t *testing.T) {
	s := translated(t, Options{Profile: Mesh()}, loadYAML(t, `
- "@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
  name: "80"
  virtual_hosts:
  - name: v
    domains: [a.com]
    routes:
    - name: canary
      match: {prefix: /, headers: [{name: end-user, string_match: {exact: jason}}]}
      direct_response: {status: 200}
    - name: all
      match: {prefix: /}
      direct_response: {status: 200}
    - name: shadowed
      match: {path: /exact}
      direct_response: {status: 200}
`))
	if got := routeName(request(t, s, onChain("80"), "a.com", "/exact", map[string][]string{"End-User": {"jason"}})); got != "canary" {
		t.Errorf("with the header, %q answers", got)
	}
	if got := routeName(request(t, s, onChain("80"), "a.com", "/exact", nil)); got != "all" {
		t.Errorf("without the header, %q answers", got)
	}
}

// apisix-mesh-agent made ids of route names, of which istiod repeats "default" in every virtual
// host; the last one replaced all others.
func TestRoutesOfOneNameDoNotCollide(t *testing.T) {
	s := translated(t, Options{Profile: Mesh()}, loadYAML(t, `
- "@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
  name: "80"
  virtual_hosts:
  - name: a
    domains: [a.com]
    routes:
    - {name: default, match: {path: /x}, direct_response: {status: 201}}
    - {name: default, match: {path: /x}, direct_response: {status: 202}}
    - {name: default, match: {prefix: /}, direct_response: {status: 203}}
  - name: b
    domains: [b.com]
    routes:
    - {name: default, match: {prefix: /}, direct_response: {status: 204}}
`))
	for where, want := range map[string]int{"a.com/x": 201, "a.com/y": 203, "b.com/x": 204} {
		host, path, _ := strings.Cut(where, "/")
		if d := request(t, s, onChain("80"), host, "/"+path, nil); d.Status != want {
			t.Errorf("%s answers %d, want %d", where, d.Status, want)
		}
	}
	if n := len(objectsOf(s)); n != 4 {
		t.Errorf("%d objects, want all four routes", n)
	}
}

// Both made the pattern ^value$ of exact header values without quoting: "1.0" matched "1x0", and
// "a+b" did not match itself.
func TestExactHeaderValuesAreLiterals(t *testing.T) {
	s := translated(t, Options{Profile: Mesh()}, loadYAML(t, `
- "@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
  name: "80"
  virtual_hosts:
  - name: v
    domains: ["*"]
    routes:
    - name: version
      match: {prefix: /, headers: [{name: version, string_match: {exact: "1.0"}}]}
      direct_response: {status: 200}
    - name: plus
      match: {prefix: /, headers: [{name: version, string_match: {prefix: "a+b"}}]}
      direct_response: {status: 200}
`))
	for value, want := range map[string]string{"1.0": "version", "1x0": "404", "a+b": "plus", "a+bc": "plus", "aab": "404"} {
		if got := routeName(request(t, s, onChain("80"), "a.com", "/", map[string][]string{"Version": {value}})); got != want {
			t.Errorf("version: %s is answered by %q, want %q", value, got, want)
		}
	}
}

// Amesh returned an error for the first route that it could not translate and kept nothing of the
// route configuration.
func TestABadRouteCostsItselfOnly(t *testing.T) {
	s := translated(t, Options{Profile: Mesh()}, loadYAML(t, `
- "@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
  name: "80"
  virtual_hosts:
  - name: v
    domains: [a.com]
    routes:
    - {name: before, match: {path: /before}, direct_response: {status: 200}}
    - {name: bad, match: {safe_regex: {regex: '/bad\C'}}, direct_response: {status: 200}}
    - {name: connect, match: {connect_matcher: {}}, direct_response: {status: 200}}
    - {name: after, match: {path: /after}, direct_response: {status: 200}}
`))
	for path, want := range map[string]string{"/before": "before", "/after": "after", "/bad": "404"} {
		if got := routeName(request(t, s, onChain("80"), "a.com", path, nil)); got != want {
			t.Errorf("%s is answered by %q, want %q", path, got, want)
		}
	}
	if len(s.Diagnostics()) != 3 { // one is about all requests
		t.Errorf("diagnostics: %v", s.Diagnostics())
	}
}

// Both subscribed to RDS only; istiod sends the routes of inbound listeners inline.
func TestInlineRoutesOfInboundListenersAreServed(t *testing.T) {
	for _, sc := range loadScenarios(t) {
		if sc.name != "security-ratings-permissive" {
			continue
		}
		s := translated(t, sc.with(Direct(0, 0)), sc.snapshot)
		vars := map[string]string{"server_port": "9081", varOriginalDestination: "10.1.0.14:9080"}
		d := request(t, s, vars, "ratings:9080", "/ratings/1", nil)
		if d.Upstream == nil || d.Upstream.Name != "inbound|9080||" {
			t.Errorf("an inbound request goes to %+v", d)
		}
		vars["server_port"] = "9080"
		if d := request(t, s, vars, "ratings:9080", "/ratings/1", nil); d.Upstream != nil && d.Upstream.Name == "inbound|9080||" {
			t.Error("an outbound request to the same port goes to the inbound cluster")
		}
	}
}

// apisix-mesh-agent cut domains at the first colon, which left "[fd00" of an IPv6 address.
func TestIPv6DomainsAreWhole(t *testing.T) {
	s := translated(t, Options{Profile: Mesh()}, loadYAML(t, `
- "@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
  name: "80"
  virtual_hosts:
  - name: v
    domains: ["[fd00::1]", "[fd00::1]:80"]
    routes:
    - {name: v6, match: {prefix: /}, direct_response: {status: 200}}
`))
	for _, host := range []string{"[fd00::1]", "[fd00::1]:80"} {
		if got := routeName(request(t, s, onChain("80"), host, "/", nil)); got != "v6" {
			t.Errorf("Host: %s is answered by %q", host, got)
		}
	}
}

// Both dropped the listener that a route came from: the routes of one host on two ports were mixed,
// and the virtual host "*" of one port took the requests of another.
func TestPortsDoNotMix(t *testing.T) {
	snap := loadYAML(t, `
- "@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
  name: "80"
  virtual_hosts:
  - name: a
    domains: [a.com]
    routes: [{name: eighty, match: {prefix: /}, direct_response: {status: 200}}]
- "@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
  name: "8080"
  virtual_hosts:
  - name: any
    domains: ["*"]
    routes: [{name: eight, match: {path: /}, direct_response: {status: 200}}]
`)
	snap = snap.With([]*xds.Resource{outboundListener(t, "0.0.0.0", 80, "80"), outboundListener(t, "0.0.0.0", 8080, "8080")}, nil)
	for _, p := range []Profile{Mesh(), Direct(0, 0)} {
		s := translated(t, Options{Profile: p}, snap)
		for _, c := range s.Chains() {
			vars, err := RequestVars(p, c, Connection{})
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]string{"80": "eighty", "8080": "eight"}[c.Key]
			if got := routeName(request(t, s, vars, "a.com", "/", nil)); got != want {
				t.Errorf("%s: on port %s, %q answers", p.Name(), c.Key, got)
			}
		}
	}
}

// Envoy never leaves the virtual host that it chose. APISIX goes on with the next host that matches,
// so that a path that a.com does not have was answered by "*".
func TestARequestStaysInItsVirtualHost(t *testing.T) {
	s := translated(t, Options{Profile: Mesh()}, loadYAML(t, `
- "@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
  name: "80"
  virtual_hosts:
  - name: a
    domains: [a.com]
    routes: [{name: a, match: {path: /a}, direct_response: {status: 200}}]
  - name: any
    domains: ["*"]
    routes: [{name: any, match: {prefix: /}, direct_response: {status: 200}}]
`))
	if d := request(t, s, onChain("80"), "a.com", "/b", nil); d.Status != 404 || d.Route == nil {
		t.Errorf("/b of a.com is answered by %q with %d", routeName(d), d.Status)
	}
}
