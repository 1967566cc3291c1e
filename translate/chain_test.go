package translate

import (
	"net/netip"
	"testing"

	"meshbridge/translate/apisix"
)

func guardHolds(t *testing.T, guard apisix.Vars, v map[string]string) bool {
	t.Helper()
	e, err := apisix.ParseExpr(guard)
	if err != nil {
		t.Fatalf("%v: %v", guard, err)
	}
	ok, err := e.Eval(func(name string) any {
		if value, ok := v[name]; ok {
			return value
		}
		return nil
	})
	if err != nil {
		t.Fatalf("%v: %v", guard, err)
	}
	return ok
}

// A request belongs to exactly one chain: apisix-mesh-agent told listeners apart by host alone, so
// that routes of one port answered on another.
func TestAGuardHoldsForItsOwnChainOnly(t *testing.T) {
	for _, sc := range loadScenarios(t) {
		for _, p := range sc.profiles() {
			s := translated(t, sc.with(p), sc.snapshot)
			for _, c := range s.Chains() {
				if c.NotServed != "" {
					continue
				}
				v, err := RequestVars(p, c, Connection{})
				if err != nil {
					t.Fatal(err)
				}
				for _, o := range s.Chains() {
					if o.NotServed != "" {
						continue
					}
					guard, _, _ := o.guard(p)
					if got := guardHolds(t, guard, v); got != (o == c) {
						t.Errorf("%s/%s: on a request of chain %s, the guard of %s is %t: %v %v", sc.name, p.Name(), c.Key, o.Key, got, guard, v)
					}
				}
			}
		}
	}
}

func TestAWildcardListenerLeavesAddressesToTheirOwnListeners(t *testing.T) {
	c := &Chain{Key: "80", Direction: Outbound, HTTP: true, Address: netip.IPv4Unspecified(), Port: 80, Excluded: []netip.Addr{netip.MustParseAddr("10.96.0.22"), netip.MustParseAddr("fd00::1")}}
	guard, ok, why := Direct(0, 0).Guard(c)
	if !ok {
		t.Fatal(why)
	}
	for destination, want := range map[string]bool{"10.0.0.1:80": true, "10.96.0.22:80": false, "10.0.0.1:8080": false, "10.0.0.1:180": false, "": false} {
		if got := guardHolds(t, guard, map[string]string{"server_port": "9080", varOriginalDestination: destination}); got != want {
			t.Errorf("a connection to %q is %t, want %t", destination, got, want)
		}
	}
}

func TestServerNamesSelectTheMostSpecificChain(t *testing.T) {
	wild := &Chain{Key: "wild", Direction: Edge, Bound: true, HTTP: true, Port: 443, TLS: true, ServerNames: []string{"*.example.com"}, ExcludedServerNames: []string{"app.example.com"}}
	app := &Chain{Key: "app", Direction: Edge, Bound: true, HTTP: true, Port: 443, TLS: true, ServerNames: []string{"app.example.com"}}
	rest := &Chain{Key: "rest", Direction: Edge, Bound: true, HTTP: true, Port: 443, TLS: true, ExcludedServerNames: []string{"*.example.com", "app.example.com"}}
	chains := []*Chain{wild, app, rest}
	for name, want := range map[string]string{
		"app.example.com": "app", "APP.example.com": "app", "x.example.com": "wild", "a.b.example.com": "wild",
		"example.com": "rest", "other.org": "rest", "": "rest",
	} {
		v := map[string]string{"server_port": "443"}
		if name != "" {
			v[varServerName] = name
		}
		for _, c := range chains {
			guard, _, _ := Gateway().Guard(c)
			if got := guardHolds(t, guard, v); got != (c.Key == want) {
				t.Errorf("server name %q: the guard of %s is %t: %v", name, c.Key, got, guard)
			}
		}
		if c := FindChain(chains, Edge, Connection{Port: 443, ServerName: name}, true); c == nil || c.Key != want {
			t.Errorf("server name %q: found %v, want %s", name, c, want)
		}
	}
}

func TestTheChainOfAConnectionIsThatOfItsListener(t *testing.T) {
	for _, sc := range loadScenarios(t) {
		if sc.name != "bookinfo-client" {
			continue
		}
		chains := translated(t, sc.with(Direct(0, 0)), sc.snapshot).Chains()
		for destination, want := range map[string]string{
			"10.96.0.22:9999": "auto.default.svc.cluster.local:9999",
			"10.96.0.3:9080":  "9080",
			"192.0.2.7:80":    "80",
			"10.96.0.22:80":   "80",
			"10.96.0.20:3306": "", // TCP
		} {
			at := netip.MustParseAddrPort(destination)
			c := FindChain(chains, Outbound, Connection{Address: at.Addr(), Port: int(at.Port())}, false)
			if got := keyOf(c); got != want {
				t.Errorf("%s: found %q, want %q", destination, got, want)
			}
		}
	}
}

func keyOf(c *Chain) string {
	if c == nil {
		return ""
	}
	return c.Key
}
