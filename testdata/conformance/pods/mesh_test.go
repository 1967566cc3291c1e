package pods

import (
	"fmt"
	"strings"
	"testing"
)

// workload is the manifest of a pod with a service account of its name. Those with a sidecar say that they
// speak mutual TLS.
func workload(p *pod, labels string) string {
	ips := "{ip: " + p.address + "}"
	if p.address6 != "" {
		ips += ", {ip: \"" + p.address6 + "\"}"
	}
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, namespace: %[4]s, labels: {app: %[1]s%[3]s}}
spec:
  serviceAccountName: %[1]s
  containers: [{name: %[1]s, image: example/%[1]s}]
status:
  phase: Running
  podIP: %[2]s
  podIPs: [%[5]s]
  conditions: [{type: Ready, status: "True"}]
---`, p.name, p.address, labels, p.namespace, ips)
}

const meshTLS = ", security.istio.io/tlsMode: istio"

// service is the manifest of a service with a slice of endpoints for each family of its addresses, which have
// a comma between them. A port is "name:port:target".
func service(name, addresses string, ports []string, endpoints ...*pod) string {
	var b strings.Builder
	ips := strings.Split(addresses, ",")
	fmt.Fprintf(&b, `
apiVersion: v1
kind: Service
metadata: {name: %[1]s, namespace: default, labels: {app: %[1]s}}
spec:
  clusterIP: "%[2]s"
  clusterIPs: ["%[3]s"]
  selector: {app: %[1]s}
`, name, ips[0], strings.Join(ips, `", "`))
	if len(ips) > 1 {
		b.WriteString("  ipFamilies: [IPv4, IPv6]\n  ipFamilyPolicy: RequireDualStack\n")
	}
	b.WriteString("  ports:\n")
	split := func(p string) (name, port, target string) {
		parts := strings.Split(p, ":")
		return parts[0], parts[1], parts[2]
	}
	for _, p := range ports {
		name, port, target := split(p)
		fmt.Fprintf(&b, "  - {name: %s, port: %s, targetPort: %s, protocol: TCP}\n", name, port, target)
	}
	b.WriteString("---")
	for i, family := range []string{"IPv4", "IPv6"}[:len(ips)] {
		fmt.Fprintf(&b, `
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %[1]s-%[2]d, namespace: default, labels: {kubernetes.io/service-name: %[1]s}}
addressType: %[3]s
ports:
`, name, i, family)
		for _, p := range ports {
			name, _, target := split(p)
			fmt.Fprintf(&b, "- {name: %s, port: %s, protocol: TCP}\n", name, target)
		}
		b.WriteString("endpoints:\n")
		for _, e := range endpoints {
			fmt.Fprintf(&b, "- addresses: [\"%s\"]\n  conditions: {ready: true}\n  targetRef: {kind: Pod, name: %s, namespace: default}\n",
				[]string{e.address, e.address6}[i], e.name)
		}
		b.WriteString("---")
	}
	return b.String()
}

const namespace = `
apiVersion: v1
kind: Namespace
metadata: {name: default}
---
apiVersion: v1
kind: Namespace
metadata: {name: istio-system}
---
apiVersion: v1
kind: Namespace
metadata: {name: other}
---`

// The ports of the applications, and how peers may connect to them where there is a sidecar.
const peerAuthentication = `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: server, namespace: default}
spec:
  selector: {matchLabels: {app: server}}
  mtls: {mode: PERMISSIVE}
  portLevelMtls:
    8081: {mode: STRICT}
    9002: {mode: STRICT}
    8082: {mode: DISABLE}
---`

var serverPorts = []string{
	"http:80:8080", "http-strict:81:8081", "http-plain:82:8082", "auto:83:8083",
	"tcp:9000:9000", "tcp-first:9001:9001", "tcp-strict:9002:9002",
}

// world is two pods with sidecars, client and server, and one without.
type world struct {
	*mesh
	client, server *sidecar
	legacy         *pod
}

func serve(t testing.TB, p *pod) {
	t.Helper()
	app := p.start(t, appUser, programs.echo, "serve", "--name", p.name,
		"--http", ":8080,:8081,:8082,:8083,:8090", "--tcp", ":9000,:9002", "--greeting", ":9001", "--tls", ":8443")
	app.WaitLine(t, "ready", func(line string) bool { return line == "ready" })
}

func newWorld(t testing.TB, more string, flags ...string) *world {
	t.Helper()
	return newWorldIn(t, newNetwork(t), more, flags...)
}

// newWorldIn is newWorld in a network that may have more pods. What is more than the manifests of all tests
// is in more.yaml.
func newWorldIn(t testing.TB, n *network, more string, flags ...string) *world {
	t.Helper()
	client, server, legacy := n.pod(t, "client"), n.pod(t, "server"), n.pod(t, "legacy")
	m := startMesh(t, n, map[string]string{"mesh.yaml": namespace +
		workload(client, meshTLS) + workload(server, meshTLS) + workload(legacy, "") +
		service("server", "10.96.0.10", serverPorts, server) +
		service("legacy", "10.96.0.11", append([]string{"tls:8443:8443"}, serverPorts...), legacy) +
		service("mixed", "10.96.0.12", []string{"http:80:8080"}, server, legacy) +
		service("headless", "None", []string{"tcp:9000:9000", "http:8080:8080"}, server) +
		peerAuthentication, "more.yaml": more}, flags...)
	serve(t, server)
	serve(t, legacy)
	return &world{mesh: m, client: m.inject(t, client), server: m.inject(t, server), legacy: legacy}
}

const (
	clientID = "spiffe://cluster.local/ns/default/sa/client"
	serverID = "spiffe://cluster.local/ns/default/sa/server"
)

func TestPodsTalkThroughTheirSidecars(t *testing.T) {
	w := newWorld(t, "")

	for name, port := range map[string]string{"permissive": "80", "strict": "81", "sniffed": "83"} {
		t.Run("HTTP over mutual TLS, "+name, func(t *testing.T) {
			r := w.client.get(t, "http://server:"+port+"/a//b%2Fc?q=1", "--address", "10.96.0.10:"+port, "--header", "x-test: 1").request(t)
			if r.Name != "server" || r.URI != "/a//b%2Fc?q=1" || r.Headers.Get("X-Test") != "1" {
				t.Errorf("the application saw %+v", r)
			}
			if !strings.HasPrefix(r.Remote, "127.0.0.6:") {
				t.Errorf("the request came from %s, want 127.0.0.6", r.Remote)
			}
			xfcc := r.Headers.Get("X-Forwarded-Client-Cert")
			if !strings.Contains(xfcc, "URI="+clientID) || !strings.Contains(xfcc, "By="+serverID) {
				t.Errorf("x-forwarded-client-cert is %q", xfcc)
			}
		})
	}
	t.Run("HTTP in plain text", func(t *testing.T) {
		r := w.client.get(t, "http://server:82/", "--address", "10.96.0.10:82").request(t)
		if xfcc := r.Headers.Get("X-Forwarded-Client-Cert"); r.Name != "server" || xfcc != "" {
			t.Errorf("the application saw %+v", r)
		}
	})
	t.Run("HTTP/2 without TLS", func(t *testing.T) {
		r := w.client.get(t, "http://server:80/", "--address", "10.96.0.10:80", "--h2c").request(t)
		if r.Name != "server" {
			t.Errorf("the application saw %+v", r)
		}
	})
	t.Run("to a workload without a sidecar", func(t *testing.T) {
		r := w.client.get(t, "http://legacy:80/", "--address", "10.96.0.11:80").request(t)
		if r.Name != "legacy" || !strings.HasPrefix(r.Remote, w.client.address+":") {
			t.Errorf("the application saw %+v", r)
		}
	})
	t.Run("endpoints with and without a sidecar in one service", func(t *testing.T) {
		seen := map[string]bool{}
		for range 40 {
			seen[w.client.get(t, "http://mixed/", "--address", "10.96.0.12:80").request(t).Name] = true
		}
		if !seen["server"] || !seen["legacy"] {
			t.Errorf("answers came from %v", seen)
		}
	})
	t.Run("plain text is accepted where the mode is permissive", func(t *testing.T) {
		r := w.legacy.get(t, "http://server/", "--address", w.server.address+":8080", "--header", "x-forwarded-client-cert: By=me").request(t)
		if r.Name != "server" || r.Headers.Get("X-Forwarded-Client-Cert") != "" {
			t.Errorf("the application saw %+v", r)
		}
	})
	t.Run("plain text is refused where the mode is strict", func(t *testing.T) {
		if a := w.legacy.get(t, "http://server/", "--address", w.server.address+":8081"); a.Error == "" {
			t.Errorf("the answer was %+v", a)
		}
		if a := w.legacy.send(t, w.server.address+":9002", "hello"); a.Error == "" && a.Body != "" {
			t.Errorf("the answer was %+v", a)
		}
	})

	for name, address := range map[string]string{
		"service": "10.96.0.10:9000", "strict service": "10.96.0.10:9002", "headless service": w.server.address + ":9000",
	} {
		t.Run("TCP, "+name, func(t *testing.T) {
			if a := w.client.send(t, address, "hello"); a.Body != "server hello" || a.Error != "" {
				t.Errorf("the answer was %+v", a)
			}
		})
	}
	t.Run("TCP without a sidecar", func(t *testing.T) {
		if a := w.client.send(t, "10.96.0.11:9000", "hello"); a.Body != "legacy hello" || a.Error != "" {
			t.Errorf("the answer was %+v", a)
		}
	})
	t.Run("a server that speaks first", func(t *testing.T) {
		for _, address := range []string{"10.96.0.10:9001", "10.96.0.11:9001"} {
			if a := w.client.send(t, address, "hello", "--read-first"); a.Body != "220 ready\nhello" || a.Error != "" {
				t.Errorf("%s: the answer was %+v", address, a)
			}
		}
	})
	t.Run("TLS that the application speaks passes by its server name", func(t *testing.T) {
		a := w.client.get(t, "https://legacy:8443/", "--address", "10.96.0.11:8443", "--server-name", "legacy.example")
		if r := a.request(t); r.Name != "legacy" {
			t.Errorf("the application saw %+v", r)
		}
	})
	t.Run("unknown destinations", func(t *testing.T) {
		r := w.client.get(t, "http://nobody.example/", "--address", w.legacy.address+":8090").request(t)
		if r.Name != "legacy" || r.Host != "nobody.example" {
			t.Errorf("HTTP: the application saw %+v", r)
		}
		// On a port that services have, by a host that none has.
		r = w.client.get(t, "http://nobody.example/", "--address", w.legacy.address+":8080").request(t)
		if r.Name != "legacy" || r.Host != "nobody.example" {
			t.Errorf("HTTP, on a port of services: the application saw %+v", r)
		}
		r = w.legacy.get(t, "http://server/", "--address", w.server.address+":8090").request(t)
		if r.Name != "server" {
			t.Errorf("inbound: the application saw %+v", r)
		}
	})
	t.Run("loops are refused", func(t *testing.T) {
		for _, port := range []string{"15001", "15006", "15011"} {
			for from, address := range map[*pod]string{w.legacy: w.server.address, w.client.pod: w.server.address} {
				if a := from.send(t, address+":"+port, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "--timeout", "5s"); strings.Contains(a.Body, "200") {
					t.Errorf("%s to %s: the answer was %+v", from.name, port, a)
				}
			}
		}
	})
}

func TestUnknownDestinationsAreRefusedWhereTheRegistryCounts(t *testing.T) {
	const sidecarScope = `
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: default}
spec:
  outboundTrafficPolicy: {mode: REGISTRY_ONLY}
---`
	w := newWorld(t, sidecarScope)
	if r := w.client.get(t, "http://server/", "--address", "10.96.0.10:80").request(t); r.Name != "server" {
		t.Errorf("a service: the application saw %+v", r)
	}
	if a := w.client.get(t, "http://nobody.example/", "--address", w.legacy.address+":8090"); a.Error == "" && a.Status != 502 {
		t.Errorf("an unknown port: the answer was %+v", a)
	}
	if a := w.client.get(t, "http://nobody.example/", "--address", "10.96.0.11:80"); a.Status != 502 {
		t.Errorf("an unknown host: the answer was %+v", a)
	}
	if a := w.client.send(t, w.legacy.address+":9100", "hello"); a.Error == "" && a.Body != "" {
		t.Errorf("TCP: the answer was %+v", a)
	}
}
