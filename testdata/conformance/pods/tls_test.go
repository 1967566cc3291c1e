package pods

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"meshbridge/testdata/conformance/harness"
)

// external is a host that wants TLS of the sidecar: its name, address and port, and the settings.
func external(name, ip string, p *pod, port int, settings string) string {
	return fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: %[1]s, namespace: default}
spec:
  hosts: [%[1]s.example]
  addresses: [%[2]s]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports:
  - {number: 80, name: http, protocol: HTTP, targetPort: %[4]d}
  endpoints: [{address: %[3]s}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: %[1]s, namespace: default}
spec:
  host: %[1]s.example
  trafficPolicy: {tls: {%[5]s}}
---`, name, ip, p.address, port, settings)
}

func TestTLSIsOriginated(t *testing.T) {
	w := newWorld(t, "")
	web, clients := harness.NewAuthority(t, "web"), harness.NewAuthority(t, "clients")
	certificate, key, authorities := w.credentials(t, web, "web", "secure.example")
	ours, ourKey, ourAuthorities := w.credentials(t, clients, "ours", "visitor.example")
	simple := w.legacy.start(t, appUser, programs.echo, "serve", "--name", "simple", "--tls", ":8444", "--cert", certificate, "--key", key)
	mutual := w.legacy.start(t, appUser, programs.echo, "serve", "--name", "mutual", "--tls", ":8445", "--cert", certificate, "--key", key, "--ca", ourAuthorities)
	for _, p := range []interface {
		WaitLine(testing.TB, string, func(string) bool) string
	}{simple, mutual} {
		p.WaitLine(t, "ready", func(line string) bool { return line == "ready" })
	}
	files := fmt.Sprintf("clientCertificate: %s, privateKey: %s, ", ours, ourKey)
	verified := fmt.Sprintf("sni: secure.example, caCertificates: %s, ", authorities)
	w.configure(t, "more.yaml",
		external("simple", "10.96.2.1", w.legacy, 8444, "mode: SIMPLE, "+verified+"subjectAltNames: [secure.example]")+
			external("mutual", "10.96.2.2", w.legacy, 8445, "mode: MUTUAL, "+files+verified+"subjectAltNames: [secure.example]")+
			external("bare", "10.96.2.3", w.legacy, 8445, "mode: SIMPLE, "+verified+"subjectAltNames: [secure.example]")+
			external("wrong-name", "10.96.2.4", w.legacy, 8444, "mode: SIMPLE, "+verified+"subjectAltNames: [other.example]")+
			external("wrong-authority", "10.96.2.5", w.legacy, 8444,
				fmt.Sprintf("mode: SIMPLE, sni: secure.example, caCertificates: %s, subjectAltNames: [secure.example]", ourAuthorities)))
	w.client.watch(t, "http", "--url", "http://wrong-authority.example/", "--address", "10.96.2.5:80", "--timeout", "1s").
		until(t, 0, "the manifests", func(a answer) bool { return a.Status >= 500 })

	call := func(t *testing.T, name, ip string) answer {
		t.Helper()
		return w.client.get(t, "http://"+name+".example/a", "--address", ip+":80")
	}
	t.Run("simple", func(t *testing.T) {
		if r := call(t, "simple", "10.96.2.1").request(t); r.Name != "simple" || r.ServerName != "secure.example" || r.Host != "simple.example" || r.Peer != nil {
			t.Errorf("the application saw %+v", r)
		}
	})
	t.Run("mutual", func(t *testing.T) {
		if r := call(t, "mutual", "10.96.2.2").request(t); r.Name != "mutual" || !slices.Contains(r.Peer, "visitor.example") {
			t.Errorf("the application saw %+v", r)
		}
	})
	for _, c := range []struct{ name, ip, reason string }{
		{"bare", "10.96.2.3", "refused_by_peer"},
		{"wrong-name", "10.96.2.4", "name"},
		{"wrong-authority", "10.96.2.5", "unknown_authority"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if a := call(t, c.name, c.ip); a.Status < 500 {
				t.Errorf("%+v", a)
			}
			w.client.bridge.WaitLine(t, "the reason", func(line string) bool { return strings.Contains(line, `"reason":"`+c.reason+`"`) })
			if w.client.metric(t, fmt.Sprintf(`meshbridge_capture_tls_refused_total{direction="outbound",reason=%q}`, c.reason)) < 1 {
				t.Error("the failure is not counted")
			}
		})
	}
}

func TestCertificatesOfOthersAreRefused(t *testing.T) {
	w := newWorld(t, "")
	t.Run("of the mesh", func(t *testing.T) {
		certificate, key, _ := w.credentials(t, w.root, "good", "spiffe://cluster.local/ns/default/sa/vm")
		a := w.legacy.send(t, w.server.address+":9002", "hello", "--tls", "--cert", certificate, "--key", key)
		if a.Body != "server hello" || !slices.Contains(a.Peer, serverID) {
			t.Errorf("%+v", a)
		}
	})
	for _, c := range []struct {
		name, id, reason string
		authority        harness.Authority
	}{
		{"trust domain", "spiffe://other.domain/ns/default/sa/client", "trust_domain", w.root},
		{"no SPIFFE ID", "client.example", "not_spiffe", w.root},
		{"authority", clientID, "unknown_authority", harness.NewAuthority(t, "mesh")},
	} {
		t.Run(c.name, func(t *testing.T) {
			certificate, key, _ := w.credentials(t, c.authority, "bad", c.id)
			for _, port := range []string{"9002", "9000", "8081"} {
				a := w.legacy.send(t, w.server.address+":"+port, "GET / HTTP/1.1\r\nhost: server\r\nconnection: close\r\n\r\n",
					"--tls", "--server-name", "outbound_.9002_._.server", "--cert", certificate, "--key", key)
				if a.Body != "" || a.Error == "" {
					t.Errorf("port %s: %+v", port, a)
				}
			}
			w.server.bridge.WaitLine(t, "the reason", func(line string) bool { return strings.Contains(line, `"reason":"`+c.reason+`"`) })
			if w.server.metric(t, fmt.Sprintf(`meshbridge_capture_tls_refused_total{direction="inbound",reason=%q}`, c.reason)) < 1 {
				t.Error("the failure is not counted")
			}
		})
	}
	t.Run("none", func(t *testing.T) {
		if a := w.legacy.send(t, w.server.address+":9002", "hello", "--tls"); a.Body != "" || a.Error == "" {
			t.Errorf("%+v", a)
		}
	})
}
