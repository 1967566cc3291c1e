package explain_test

import (
	"net/netip"
	"strings"
	"testing"

	"meshbridge/cmd/internal/explain"
	"meshbridge/translate"
	"meshbridge/xds"
)

// world translates a recorded scenario.
func world(t *testing.T, scenario string, p translate.Profile) explain.World {
	t.Helper()
	snapshot, rejected, err := xds.LoadFiles("../../../testdata/istiod/" + scenario + "/xds")
	if err != nil || len(rejected) > 0 {
		t.Fatal(err, rejected)
	}
	options := translate.Options{Profile: p, InstanceIPs: []netip.Addr{netip.MustParseAddr("10.1.0.13")}}
	state, _, err := translate.Translate(options, snapshot, translate.Inputs{})
	if err != nil {
		t.Fatal(err)
	}
	return explain.World{Profile: p, Chains: state.Chains(), Objects: state.Objects()}
}

func TestTheChainIsTheOneThatAClientOfTheURLReaches(t *testing.T) {
	for _, c := range []struct {
		name, scenario string
		profile        translate.Profile
		query          explain.Query
		chain          string
		upstream       string // part of the name
		status         int
	}{
		{"service by name", "bookinfo-client", translate.Mesh(), explain.Query{URL: "http://details:9080/"}, "9080", "details", 0},
		{"service by address", "bookinfo-client", translate.Mesh(), explain.Query{URL: "http://10.96.0.2:9080/"}, "9080", "details", 0},
		{"URL without a scheme", "bookinfo-client", translate.Mesh(), explain.Query{URL: "details:9080/x?y"}, "9080", "details", 0},
		{"sniffed port by short name", "bookinfo-client", translate.Mesh(), explain.Query{URL: "http://auto:9999/"}, "auto.default.svc.cluster.local:9999", "auto", 0},
		{"sniffed port by address", "bookinfo-client", translate.Direct(0, 0), explain.Query{URL: "http://10.96.0.22:9999/"}, "auto.default.svc.cluster.local:9999", "auto", 0},
		{"chain by name", "bookinfo-client", translate.Mesh(), explain.Query{URL: "http://x/", Chain: "9080"}, "9080", "Passthrough", 503},
		{"Host header", "bookinfo-client", translate.Mesh(), explain.Query{URL: "http://x:9080/", Headers: map[string][]string{"host": {"details"}}}, "9080", "details", 0},
		{"inbound, strict mutual TLS", "security-reviews-strict", translate.Mesh(), explain.Query{URL: "http://10.1.0.13:9080/", Direction: translate.Inbound}, "i:9080:tls", "", 403},
		{"gateway", "gateway-tls", translate.Gateway(), explain.Query{URL: "http://plain.example.com:8080/"}, "http.8080", "", 0},
		{"gateway by server name", "gateway-tls", translate.Gateway(), explain.Query{URL: "https://app.example.com:8443/"}, "https.443.https.gw.istio-ingress", "", 0},
	} {
		a, err := explain.Explain(world(t, c.scenario, c.profile), c.query)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if a.Chain != c.chain || !strings.Contains(a.Upstream, c.upstream) || c.status != 0 && a.Status != c.status {
			t.Errorf("%s: chain %q, upstream %q, status %d; want %q, %q, %d:\n%s",
				c.name, a.Chain, a.Upstream, a.Status, c.chain, c.upstream, c.status, a.Text())
		}
	}
}

func TestQueriesThatCannotBeAnsweredSayWhy(t *testing.T) {
	w := world(t, "bookinfo-client", translate.Mesh())
	for _, c := range []struct{ query, want string }{
		{"http://details:1/", "port 1; there are"},
		{"ftp://details/", "ftp"},
		{"http://details:99999/", "port"},
		{"http:///x", "HOST"},
		{"http://[::1/", "::1"},
	} {
		_, err := explain.Explain(w, explain.Query{URL: c.query})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one that says %q", c.query, err, c.want)
		}
	}
	if _, err := explain.Explain(w, explain.Query{URL: "http://x/", Chain: "nope"}); err == nil || !strings.Contains(err.Error(), `"nope"`) {
		t.Errorf("unknown chain: %v", err)
	}
}
