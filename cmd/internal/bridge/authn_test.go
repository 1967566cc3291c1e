package bridge

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	clientv3 "go.etcd.io/etcd/client/v3"

	"meshbridge/translate"
	"meshbridge/xds"
)

// A listener whose filter wants tokens, and a route.
const listenerWithTokens = `
- "@type": type.googleapis.com/envoy.config.listener.v3.Listener
  name: listener
  address: {socket_address: {address: "0.0.0.0", port_value: 8080}}
  filter_chains:
  - filters:
    - name: hcm
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: http
        http_filters:
        - name: jwt
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication
            providers: {p: {issuer: i, local_jwks: {inline_string: '{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}'}}}
            rules: [{match: {prefix: /}, requires: {provider_name: p}}]
        route_config: {name: rc, virtual_hosts: [{name: v, domains: ["*"], routes: [{name: all, match: {prefix: /}, direct_response: {status: 200}}]}]}
`

// What APISIX is told to ask is answered before it is told.
func TestAPISIXAsksAboutTokens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "xds.yaml")
	if err := os.WriteFile(path, []byte(listenerWithTokens), 0o600); err != nil {
		t.Fatal(err)
	}
	c := testConfig(nil)
	c.NewSource = func(prometheus.Registerer) (xds.Source, error) {
		return xds.NewFileSource(xds.FileConfig{Path: path, Logger: c.Logger})
	}
	c.Translate = translate.Options{Profile: translate.Gateway()}
	c.Internal = "127.0.0.1:0"
	b := startBridge(t, c)
	b.waitReady(t)
	answer, err := b.client(t).Get(t.Context(), "/apisix/routes/r.", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	for _, kv := range answer.Kvs {
		var route struct {
			Plugins map[string]struct {
				URI string `json:"uri"`
			} `json:"plugins"`
		}
		if err := json.Unmarshal(kv.GetValue(), &route); err != nil {
			t.Fatal(err)
		}
		url := route.Plugins["forward-auth"].URI
		if url == "" {
			continue
		}
		asked++
		code, body := get(t, url)
		if code != http.StatusUnauthorized || body != "Jwt is missing" {
			t.Errorf("%s: %d %q", url, code, body)
		}
		if code, _ := get(t, url+"0"); code != http.StatusForbidden {
			t.Errorf("another key: %d", code)
		}
	}
	if asked == 0 {
		t.Errorf("no route asks: %v", answer.Kvs)
	}
}
