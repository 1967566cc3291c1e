package translate

import (
	"net/netip"
	"testing"

	networkrbacpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
)

// peers of the tables below.
var (
	plainPeer = NetworkPeer{
		Source: netip.MustParseAddrPort("10.1.2.3:40000"), Destination: netip.MustParseAddrPort("10.9.9.9:3306"),
	}
	mutualPeer = NetworkPeer{
		Source: netip.MustParseAddrPort("10.1.2.3:40000"), DirectSource: netip.MustParseAddrPort("192.0.2.1:5"),
		Destination: netip.MustParseAddrPort("[2001:db8::1]:3306"), ServerName: "db.example.com", TLS: true, MutualTLS: true,
		URIs: []string{"spiffe://cluster.local/ns/a/sa/b"}, DNSNames: []string{"b.a.example"}, Subject: "CN=b,O=example",
	}
	anonymousPeer = NetworkPeer{Source: netip.MustParseAddrPort("[::ffff:10.1.2.3]:1"), TLS: true}
)

// Each condition is that of a policy that allows by it, and of one that denies by it. What holds for a
// peer allows by the one and denies by the other; what is unknown does the stricter thing in both.
func TestNetworkPoliciesDecideAsEnvoyDoes(t *testing.T) {
	const holds, fails, unknown = "holds", "fails", "unknown"
	for _, tt := range []struct {
		name, permission, principal string
		plain, mutual, anonymous    string
	}{
		{"anything", `{"any": true}`, `{"any": true}`, holds, holds, holds},
		{"destination port", `{"destination_port": 3306}`, "", holds, holds, fails},
		{"destination port range excludes its end", `{"destination_port_range": {"start": 3000, "end": 3306}}`, "", fails, fails, fails},
		{"destination port range", `{"destination_port_range": {"start": 3306, "end": 3307}}`, "", holds, holds, fails},
		{"destination address", `{"destination_ip": {"address_prefix": "10.9.0.0", "prefix_len": 16}}`, "", holds, fails, fails},
		{"IPv6 destination", `{"destination_ip": {"address_prefix": "2001:db8::", "prefix_len": 32}}`, "", fails, holds, fails},
		{"server name", `{"requested_server_name": {"suffix": ".example.com"}}`, "", fails, holds, fails},
		{"no server name", `{"requested_server_name": {"exact": ""}}`, "", holds, fails, holds},
		{"not", `{"not_rule": {"destination_port": 3306}}`, "", fails, fails, holds},
		{"and", `{"and_rules": {"rules": [{"destination_port": 3306}, {"requested_server_name": {"prefix": "db"}}]}}`, "", fails, holds, fails},
		{"or", `{"or_rules": {"rules": [{"destination_port": 1}, {"requested_server_name": {"prefix": "db"}}]}}`, "", fails, holds, fails},
		{"a header is never there", `{"header": {"name": "x", "string_match": {"exact": "y"}}}`, "", fails, fails, fails},
		{"nor is it missing, inverted", `{"header": {"name": "x", "string_match": {"exact": "y"}, "invert_match": true}}`, "", fails, fails, fails},
		{"a header that must not be there", `{"header": {"name": "x", "present_match": false}}`, "", holds, holds, holds},
		{"a header that must be there, inverted", `{"header": {"name": "x", "present_match": true, "invert_match": true}}`, "", holds, holds, holds},
		{"a missing header is empty", `{"header": {"name": "x", "string_match": {"exact": ""}, "treat_missing_header_as_empty": true}}`, "", holds, holds, holds},
		{"a missing header is empty, inverted", `{"header": {"name": "x", "string_match": {"exact": ""}, "treat_missing_header_as_empty": true, "invert_match": true}}`, "", fails, fails, fails},
		{"there is no path", `{"url_path": {"path": {"prefix": "/"}}}`, "", fails, fails, fails},
		{"not the path", `{"not_rule": {"url_path": {"path": {"prefix": "/"}}}}`, "", holds, holds, holds},
		{"metadata", `{"metadata": {"filter": "f", "path": [{"key": "k"}], "value": {"present_match": true}}}`, "", unknown, unknown, unknown},
		{"not metadata", `{"not_rule": {"metadata": {"filter": "f", "path": [{"key": "k"}], "value": {"present_match": true}}}}`, "", unknown, unknown, unknown},
		{"metadata where nothing else holds", `{"and_rules": {"rules": [{"destination_port": 1}, {"metadata": {"filter": "f", "path": [{"key": "k"}], "value": {"present_match": true}}}]}}`, "", fails, fails, fails},
		{"metadata or what holds", `{"or_rules": {"rules": [{"any": true}, {"metadata": {"filter": "f", "path": [{"key": "k"}], "value": {"present_match": true}}}]}}`, "", holds, holds, holds},
		{"an extension", `{"matcher": {"name": "x"}}`, "", unknown, unknown, unknown},

		{"any TLS", "", `{"authenticated": {}}`, fails, holds, holds},
		{"identity", "", `{"authenticated": {"principal_name": {"exact": "spiffe://cluster.local/ns/a/sa/b"}}}`, fails, holds, fails},
		{"namespace", "", `{"authenticated": {"principal_name": {"safe_regex": {"regex": ".*/ns/a/.*"}}}}`, fails, holds, fails},
		{"regular expressions match as a whole", "", `{"authenticated": {"principal_name": {"safe_regex": {"regex": "/ns/a/"}}}}`, fails, fails, fails},
		{"DNS name", "", `{"authenticated": {"principal_name": {"suffix": ".example"}}}`, fails, holds, fails},
		{"subject", "", `{"authenticated": {"principal_name": {"contains": "O=EXAMPLE", "ignore_case": true}}}`, fails, holds, fails},
		{"another identity", "", `{"authenticated": {"principal_name": {"exact": "spiffe://cluster.local/ns/a/sa/c"}}}`, fails, fails, fails},
		{"not an identity", "", `{"not_id": {"authenticated": {"principal_name": {"prefix": "spiffe://"}}}}`, holds, fails, holds},
		{"a regular expression that is none", "", `{"authenticated": {"principal_name": {"safe_regex": {"regex": "("}}}}`, fails, unknown, unknown},
		{"source", "", `{"source_ip": {"address_prefix": "10.1.2.3", "prefix_len": 32}}`, holds, holds, holds},
		{"remote", "", `{"remote_ip": {"address_prefix": "10.0.0.0", "prefix_len": 8}}`, holds, holds, holds},
		{"direct remote", "", `{"direct_remote_ip": {"address_prefix": "192.0.2.0", "prefix_len": 24}}`, fails, holds, fails},
		{"direct remote without a PROXY header", "", `{"direct_remote_ip": {"address_prefix": "10.0.0.0", "prefix_len": 8}}`, holds, fails, holds},
		{"and of principals", "", `{"and_ids": {"ids": [{"any": true}, {"authenticated": {}}]}}`, fails, holds, holds},
		{"or of principals", "", `{"or_ids": {"ids": [{"remote_ip": {"address_prefix": "1.1.1.1", "prefix_len": 32}}, {"authenticated": {}}]}}`, fails, holds, holds},
		{"filter state", "", `{"filter_state": {"key": "k", "string_match": {"exact": "v"}}}`, unknown, unknown, unknown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.permission == "" {
				tt.permission = `{"any": true}`
			}
			if tt.principal == "" {
				tt.principal = `{"any": true}`
			}
			policy := `"p": {"permissions": [` + tt.permission + `], "principals": [` + tt.principal + `]}`
			allows := networkPolicyOf(t, `{"rules": {"action": "ALLOW", "policies": {`+policy+`}}}`)
			denies := networkPolicyOf(t, `{"rules": {"action": "DENY", "policies": {`+policy+`}}}`)
			for peer, want := range map[*NetworkPeer]string{&plainPeer: tt.plain, &mutualPeer: tt.mutual, &anonymousPeer: tt.anonymous} {
				if allowed, by := allows.Allows(*peer); allowed != (want == holds) || allowed != (by == "p") {
					t.Errorf("%+v: ALLOW: %t by %q, and the condition %s", *peer, allowed, by, want)
				}
				if allowed, by := denies.Allows(*peer); allowed != (want == fails) || allowed != (by == "") {
					t.Errorf("%+v: DENY: %t by %q, and the condition %s", *peer, allowed, by, want)
				}
			}
		})
	}
}

func networkPolicyOf(t *testing.T, text string) *NetworkPolicy {
	t.Helper()
	c := &networkrbacpb.RBAC{}
	parseJSON(t, text, c)
	var diagnostics []string
	p, ok := compileNetworkPolicy(c, "filters", collect(t, &diagnostics))
	if !ok || p == nil {
		t.Fatalf("%s: %v, %t", text, p, ok)
	}
	return p
}

func TestNetworkPoliciesAsAWhole(t *testing.T) {
	compile := func(text string) (*NetworkPolicy, bool) {
		c := &networkrbacpb.RBAC{}
		parseJSON(t, text, c)
		var diagnostics []string
		return compileNetworkPolicy(c, "filters", collect(t, &diagnostics))
	}
	for name, text := range map[string]string{
		"no rules":                   `{}`,
		"shadow rules":               `{"shadow_rules": {"action": "ALLOW"}}`,
		"rules that log":             `{"rules": {"action": "LOG", "policies": {"p": {"permissions": [{"any": true}], "principals": [{"any": true}]}}}}`,
		"rules that deny by nothing": `{"rules": {"action": "DENY"}}`,
	} {
		if p, ok := compile(text); p != nil || !ok {
			t.Errorf("%s: %v, %t", name, p, ok)
		}
	}
	if _, ok := compile(`{"matcher": {"on_no_match": {}}}`); ok {
		t.Error("a matcher tree is compiled")
	}
	nobody, _ := compile(`{"rules": {"action": "ALLOW"}}`)
	if allowed, by := nobody.Allows(mutualPeer); allowed || by != "" {
		t.Errorf("rules that allow nobody: %t by %q", allowed, by)
	}
	first, _ := compile(`{"rules": {"action": "DENY", "policies": {
		"b": {"permissions": [{"any": true}], "principals": [{"any": true}]},
		"a": {"permissions": [{"any": true}], "principals": [{"any": true}]}}}}`)
	if _, by := first.Allows(plainPeer); by != "a" {
		t.Errorf("denied by %q, not by the first by name", by)
	}
	empty, _ := compile(`{"rules": {"action": "ALLOW", "policies": {"p": {"permissions": [{"any": true}]}}}}`)
	if allowed, _ := empty.Allows(plainPeer); allowed {
		t.Error("a policy without principals allows")
	}
	cel, _ := compile(`{"rules": {"action": "ALLOW", "policies": {"p": {"permissions": [{"any": true}], "principals": [{"any": true}], "condition": {}}}}}`)
	if allowed, _ := cel.Allows(plainPeer); allowed {
		t.Error("a condition that is not evaluated allows")
	}
}
