package translate

import (
	"encoding/json"
	"slices"
	"testing"

	"meshbridge/translate/apisix"
)

// A client that sends x-forwarded-client-cert itself must not be taken for the peer that it names:
// Envoy removes the header on every connection without mutual TLS.
func TestNoClientCanForgeACertificateHeader(t *testing.T) {
	seen := 0
	for _, sc := range loadScenarios(t) {
		for _, p := range sc.profiles() {
			state := translated(t, sc.with(p), sc.snapshot)
			outbound := map[string]bool{}
			for _, c := range state.Chains() {
				outbound[c.Listener] = c.Direction == Outbound
			}
			for o := range state.Objects() {
				if o.Kind != apisix.KindRoute {
					continue
				}
				var route struct {
					Labels     map[string]string `json:"labels"`
					UpstreamID string            `json:"upstream_id"`
					Plugins    struct {
						Rewrite struct {
							Headers struct {
								Remove []string          `json:"remove"`
								Set    map[string]string `json:"set"`
							} `json:"headers"`
						} `json:"proxy-rewrite"`
					} `json:"plugins"`
				}
				if err := json.Unmarshal(o.Value, &route); err != nil {
					t.Fatal(err)
				}
				if route.UpstreamID == "" || outbound[route.Labels["envoy.listener"]] {
					continue
				}
				seen++
				switch route.Plugins.Rewrite.Headers.Set["x-forwarded-client-cert"] {
				case apisix.Var(varClientCertificate), apisix.Var(varClientCertificates): // what capture has verified
					continue
				}
				if !slices.Contains(route.Plugins.Rewrite.Headers.Remove, "x-forwarded-client-cert") {
					t.Errorf("%s, profile %s: %s passes the header on", sc.name, p.Name(), o.Key())
				}
			}
		}
	}
	if seen == 0 {
		t.Error("no recording has a route that is not outbound")
	}
}
