package pods

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"meshbridge/testdata/conformance/harness"
)

// secret is the manifest of a gateway's certificate, for clients of an authority where there is one.
func secret(t testing.TB, a harness.Authority, name, host string, clients *harness.Authority) string {
	t.Helper()
	encode := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
	certificate, key := a.Issue(t, host)
	text := fmt.Sprintf(`
apiVersion: v1
kind: Secret
metadata: {name: %s, namespace: default}
type: Opaque
data:
  tls.crt: %s
  tls.key: %s
`, name, encode(certificate), encode(key))
	if clients != nil {
		text += "  ca.crt: " + encode(clients.PEM()) + "\n"
	}
	return text + "---"
}

const gateways = `
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gateway, namespace: default}
spec:
  selector: {app: gateway}
  servers:
  - port: {number: 8443, name: https, protocol: HTTPS}
    hosts: [simple.example]
    tls: {mode: SIMPLE, credentialName: simple}
  - port: {number: 8443, name: https-mutual, protocol: HTTPS}
    hosts: [mutual.example]
    tls: {mode: MUTUAL, credentialName: mutual}
  - port: {number: 8443, name: tls, protocol: TLS}
    hosts: [passthrough.example]
    tls: {mode: PASSTHROUGH}
  - port: {number: 8443, name: tls-tcp, protocol: TLS}
    hosts: [tcp.example]
    tls: {mode: SIMPLE, credentialName: tcp}
  - port: {number: 8080, name: http, protocol: HTTP}
    hosts: [simple.example]
    tls: {httpsRedirect: true}
  - port: {number: 8080, name: http-plain, protocol: HTTP}
    hosts: [plain.example]
  - port: {number: 9443, name: https-mesh, protocol: HTTPS}
    hosts: [mesh.example]
    tls: {mode: ISTIO_MUTUAL}
  - port: {number: 15443, name: tls-auto, protocol: TLS}
    hosts: ["*.local"]
    tls: {mode: AUTO_PASSTHROUGH}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: default}
spec:
  hosts: [simple.example, mutual.example, plain.example, mesh.example]
  gateways: [gateway]
  http: [{route: [{destination: {host: server, port: {number: 80}}}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: passthrough, namespace: default}
spec:
  hosts: [passthrough.example]
  gateways: [gateway]
  tls:
  - match: [{port: 8443, sniHosts: [passthrough.example]}]
    route: [{destination: {host: legacy, port: {number: 8443}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: tcp, namespace: default}
spec:
  hosts: [tcp.example]
  gateways: [gateway]
  tcp:
  - match: [{port: 8443}]
    route: [{destination: {host: server, port: {number: 9000}}}]
---`

// passedOn are hosts that the client's sidecar reaches by way of the gateway.
const passedOn = `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: mesh, namespace: default}
spec:
  hosts: [mesh.example]
  addresses: [10.96.1.1]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: 9443}]
  endpoints: [{address: %[1]s}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: mesh, namespace: default}
spec:
  host: mesh.example
  trafficPolicy: {tls: {mode: ISTIO_MUTUAL, sni: mesh.example, subjectAltNames: ["spiffe://cluster.local/ns/default/sa/gateway"]}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: remote, namespace: default}
spec:
  hosts: [remote.example]
  addresses: [10.96.1.2]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: 15443}]
  endpoints: [{address: %[1]s}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: remote, namespace: default}
spec:
  host: remote.example
  trafficPolicy:
    tls:
      mode: ISTIO_MUTUAL
      sni: outbound_.80_._.server.default.svc.cluster.local
      subjectAltNames: ["spiffe://cluster.local/ns/default/sa/server"]
---`

const anotherPort = `
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: another, namespace: default}
spec:
  selector: {app: gateway}
  servers:
  - port: {number: 8081, name: http-another, protocol: HTTP}
    hosts: [another.example]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: another, namespace: default}
spec:
  hosts: [another.example]
  gateways: [another]
  http: [{route: [{destination: {host: server, port: {number: 80}}}]}]
---`

const gatewayID = "spiffe://cluster.local/ns/default/sa/gateway"

func TestGatewayServesItsPorts(t *testing.T) {
	n := newNetwork(t)
	web, clients := harness.NewAuthority(t, "web"), harness.NewAuthority(t, "clients")
	g := n.pod(t, "gateway")
	w := newWorldIn(t, n, workload(g, "")+gateways+fmt.Sprintf(passedOn, g.address)+
		secret(t, web, "simple", "simple.example", nil)+secret(t, web, "mutual", "mutual.example", &clients)+secret(t, web, "tcp", "tcp.example", nil))
	gateway := w.attach(t, g, "router")
	certificate, key, _ := w.credentials(t, clients, "visitor", "visitor.example")
	w.write(t, "web.ca", web.PEM())
	at := func(port string) []string { return []string{"--address", gateway.address + ":" + port} }
	secure := append(at("8443"), "--ca", w.path("web.ca"))

	t.Run("HTTPS", func(t *testing.T) {
		a := w.legacy.get(t, "https://simple.example/a?b=c", secure...)
		r := a.request(t)
		if r.Name != "server" || r.URI != "/a?b=c" || !strings.Contains(r.Headers.Get("X-Forwarded-Client-Cert"), "URI="+gatewayID) {
			t.Errorf("the application saw %+v", r)
		}
		if proto := r.Headers.Get("X-Forwarded-Proto"); proto != "https" {
			t.Errorf("x-forwarded-proto is %q", proto)
		}
	})
	t.Run("client certificates are demanded of the host that wants them", func(t *testing.T) {
		r := w.legacy.get(t, "https://mutual.example/", append(secure, "--cert", certificate, "--key", key)...).request(t)
		if r.Name != "server" {
			t.Errorf("the application saw %+v", r)
		}
		if a := w.legacy.get(t, "https://mutual.example/", secure...); a.Status == http.StatusOK {
			t.Errorf("without one: %+v", a)
		}
		wrong, wrongKey, _ := w.credentials(t, web, "wrong", "visitor.example")
		if a := w.legacy.get(t, "https://mutual.example/", append(secure, "--cert", wrong, "--key", wrongKey)...); a.Status == http.StatusOK {
			t.Errorf("of another authority: %+v", a)
		}
	})
	t.Run("passthrough", func(t *testing.T) {
		a := w.legacy.get(t, "https://passthrough.example/", at("8443")...)
		if r := a.request(t); r.Name != "legacy" || r.ServerName != "passthrough.example" || r.Remote[:len(gateway.address)] != gateway.address {
			t.Errorf("the application saw %+v", r)
		}
	})
	t.Run("TCP over TLS", func(t *testing.T) {
		a := w.legacy.send(t, gateway.address+":8443", "hello", "--tls", "--server-name", "tcp.example", "--ca", w.path("web.ca"))
		if a.Body != "server hello" || !slices.Contains(a.Peer, "tcp.example") {
			t.Errorf("%+v", a)
		}
	})
	t.Run("an unknown server name", func(t *testing.T) {
		if a := w.legacy.get(t, "https://nobody.example/", at("8443")...); a.Error == "" || a.Peer != nil {
			t.Errorf("%+v", a)
		}
	})
	t.Run("HTTP", func(t *testing.T) {
		if r := w.legacy.get(t, "http://plain.example/", at("8080")...).request(t); r.Name != "server" {
			t.Errorf("the application saw %+v", r)
		}
		a := w.legacy.get(t, "http://simple.example/a?b=c", at("8080")...)
		if a.Status != http.StatusMovedPermanently || !strings.HasPrefix(a.Headers.Get("Location"), "https://simple.example") {
			t.Errorf("%+v", a)
		}
		if a := w.legacy.get(t, "http://nobody.example/", at("8080")...); a.Status != http.StatusNotFound {
			t.Errorf("%+v", a)
		}
	})
	t.Run("mutual TLS of the mesh", func(t *testing.T) {
		r := w.client.get(t, "http://mesh.example/", "--address", "10.96.1.1:80").request(t)
		xfcc := r.Headers.Get("X-Forwarded-Client-Cert")
		if r.Name != "server" || !strings.Contains(xfcc, "URI="+clientID) || !strings.Contains(xfcc, "URI="+gatewayID) {
			t.Errorf("the application saw %+v", r)
		}
		if a := w.legacy.get(t, "https://mesh.example/", at("9443")...); a.Status == http.StatusOK {
			t.Errorf("without a certificate: %+v", a)
		}
	})
	t.Run("mutual TLS that passes by the name of a service", func(t *testing.T) {
		// Only the server's own sidecar sees the client's certificate.
		r := w.client.get(t, "http://remote.example/", "--address", "10.96.1.2:80", "--header", "host: server.default.svc.cluster.local").request(t)
		if xfcc := r.Headers.Get("X-Forwarded-Client-Cert"); r.Name != "server" || strings.Contains(xfcc, gatewayID) || !strings.Contains(xfcc, "URI="+clientID) {
			t.Errorf("the application saw %+v", r)
		}
	})
	t.Run("ports open and close while the others serve", func(t *testing.T) {
		watches := []*watch{
			w.legacy.watch(t, append([]string{"http", "--url", "https://simple.example/"}, secure...)...),
			w.legacy.watch(t, append([]string{"http", "--url", "http://plain.example/"}, at("8080")...)...),
			w.legacy.watch(t, "tcp", "--address", gateway.address+":8443", "--send", "hello", "--tls", "--server-name", "tcp.example"),
		}
		call := func(ctx context.Context) (answer, error) {
			return w.legacy.call(ctx, appUser, append([]string{"http", "--url", "http://another.example/"}, at("8081")...)...)
		}
		for range 2 {
			w.configure(t, "another.yaml", anotherPort)
			harness.Eventually(t, "the new port", func(ctx context.Context) error {
				a, err := call(ctx)
				if err == nil && a.Status != http.StatusOK {
					err = fmt.Errorf("%+v", a)
				}
				return err
			})
			w.configure(t, "another.yaml", "")
			harness.Eventually(t, "the end of the port", func(ctx context.Context) error {
				a, err := call(ctx)
				if err == nil && !strings.Contains(a.Error, "refused") {
					err = fmt.Errorf("%+v", a)
				}
				return err
			})
		}
		for _, watch := range watches {
			watch.more(t, 3)
			for _, a := range watch.answers(t) {
				if !ok("server")(a) {
					t.Errorf("on a port that stays: %+v", a)
					break
				}
			}
		}
	})
}
