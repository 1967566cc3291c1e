package pods

import (
	"testing"
)

const tcpRouting = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: split, namespace: default}
spec:
  hosts: [split.default.svc.cluster.local]
  tcp:
  - route:
    - {destination: {host: server, port: {number: 9000}}, weight: 50}
    - {destination: {host: legacy, port: {number: 9000}}, weight: 50}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: names, namespace: default}
spec:
  hosts: [a.example, b.example, c.example]
  addresses: [10.96.3.1]
  resolution: NONE
  ports: [{number: 443, name: tls, protocol: TLS}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: names, namespace: default}
spec:
  hosts: [a.example, b.example]
  tls:
  - match: [{port: 443, sniHosts: [a.example]}]
    route: [{destination: {host: legacy, port: {number: 8443}}}]
  - match: [{port: 443, sniHosts: [b.example]}]
    route: [{destination: {host: secure, port: {number: 8443}}}]
---`

func TestTCPIsRouted(t *testing.T) {
	w := newWorld(t, tcpRouting+
		service("split", "10.96.0.20", []string{"tcp:9000:9000"}, &pod{name: "legacy", address: "10.77.1.3"})+
		service("secure", "10.96.0.21", []string{"tls:8443:8443"}, &pod{name: "server", address: "10.77.1.2"}))
	t.Run("by weight", func(t *testing.T) {
		seen := map[string]int{}
		for range 60 {
			seen[w.client.send(t, "10.96.0.20:9000", "hello").Body]++
		}
		// Fewer than 12 of 60 have a probability of 10^-6.
		if a, b := seen["server hello"], seen["legacy hello"]; a+b != 60 || a < 12 || b < 12 {
			t.Errorf("answers: %v", seen)
		}
	})
	for name, want := range map[string]string{"a.example": "legacy", "b.example": "server"} {
		t.Run("by server name, "+name, func(t *testing.T) {
			r := w.client.get(t, "https://"+name+"/", "--address", "10.96.3.1:443").request(t)
			if r.Name != want || r.ServerName != name {
				t.Errorf("the application saw %+v", r)
			}
		})
	}
	t.Run("a server name without a route", func(t *testing.T) {
		if a := w.client.get(t, "https://nobody.example/", "--address", "10.96.3.1:443", "--timeout", "1s"); a.Status != 0 {
			t.Errorf("%+v", a)
		}
	})
}

func TestExcludedSubnetsAreNotRedirected(t *testing.T) {
	const registryOnly = `
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: default}
spec:
  outboundTrafficPolicy: {mode: REGISTRY_ONLY}
---`
	n := newNetwork(t)
	client, near, far := n.pod(t, "client"), n.pod(t, "server"), n.pod(t, "legacy")
	m := startMesh(t, n, map[string]string{"mesh.yaml": namespace + workload(client, meshTLS) + workload(far, "") + registryOnly +
		service("legacy", "10.96.0.11", []string{"http:80:8080"}, far)})
	serve(t, near)
	serve(t, far)
	client.redirect(t, "-x", near.address+"/32")
	c := m.attach(t, client, "sidecar")
	if r := c.get(t, "http://"+near.address+":8080/").request(t); r.Name != "server" {
		t.Errorf("the application saw %+v", r)
	}
	if a := c.send(t, near.address+":9000", "hello"); a.Body != "server hello" {
		t.Errorf("%+v", a)
	}
	if a := c.send(t, far.address+":9000", "hello"); a.Body != "" {
		t.Errorf("what is not excluded: %+v", a)
	}
	if accepted := c.metric(t, `meshbridge_capture_connections_total{direction="outbound"}`); accepted != 1 {
		t.Errorf("%v connections were redirected, want that one", accepted)
	}
}
