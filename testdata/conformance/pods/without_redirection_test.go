package pods

import (
	"fmt"
	"strings"
	"testing"
)

// bound are sidecars in front of which nothing is redirected.
const bound = `
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: server, namespace: default}
spec:
  workloadSelector: {labels: {app: server}}
  ingress:
  - port: {number: 18080, protocol: HTTP, name: http}
    bind: 0.0.0.0
    captureMode: NONE
    defaultEndpoint: 127.0.0.1:8080
  - port: {number: 19000, protocol: TCP, name: tcp}
    bind: 0.0.0.0
    captureMode: NONE
    defaultEndpoint: 127.0.0.1:9000
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: client, namespace: default}
spec:
  workloadSelector: {labels: {app: client}}
  egress:
  - port: {number: 8888, protocol: HTTP, name: http}
    bind: 127.0.0.1
    captureMode: NONE
    hosts: ["./bound.default.svc.cluster.local"]
  - port: {number: 9009, protocol: TCP, name: tcp}
    bind: 127.0.0.1
    captureMode: NONE
    hosts: ["./bound.default.svc.cluster.local"]
  - bind: 127.0.0.1
    captureMode: NONE
    hosts: ["./*"]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: default}
spec: {mtls: {mode: STRICT}}
---`

func TestSidecarsWithoutRedirection(t *testing.T) {
	n := newNetwork(t)
	client, server, legacy := n.pod(t, "client"), n.pod(t, "server"), n.pod(t, "legacy")
	m := startMesh(t, n, map[string]string{"mesh.yaml": namespace +
		workload(client, meshTLS) + workload(server, meshTLS) + workload(legacy, "") +
		service("bound", "10.96.0.10", []string{"http:8888:18080", "tcp:9009:19000"}, server) +
		service("legacy", "10.96.0.11", []string{"http:80:8080"}, legacy) + bound})
	serve(t, server)
	serve(t, legacy)
	client.metadata = map[string]any{"INTERCEPTION_MODE": "NONE", "HTTP_PROXY_PORT": "15007"}
	server.metadata = map[string]any{"INTERCEPTION_MODE": "NONE"}
	m.attach(t, client, "sidecar")
	m.attach(t, server, "sidecar")

	const host = "bound.default.svc.cluster.local"
	identified := func(t *testing.T, r request) {
		t.Helper()
		if xfcc := r.Headers.Get("X-Forwarded-Client-Cert"); r.Name != "server" || !strings.Contains(xfcc, "URI="+clientID) {
			t.Errorf("the application saw %+v", r)
		}
	}
	t.Run("HTTP", func(t *testing.T) {
		identified(t, client.get(t, "http://"+host+":8888/a", "--address", "127.0.0.1:8888").request(t))
	})
	t.Run("TCP", func(t *testing.T) {
		if a := client.send(t, "127.0.0.1:9009", "hello"); a.Body != "server hello" || a.Error != "" {
			t.Errorf("%+v", a)
		}
	})
	t.Run("HTTP proxy", func(t *testing.T) {
		r := client.get(t, "http://"+host+":8888/a?b=c", "--proxy", "http://127.0.0.1:15007").request(t)
		identified(t, r)
		if r.URI != "/a?b=c" {
			t.Errorf("the application saw %+v", r)
		}
		if r := client.get(t, "http://legacy.default.svc.cluster.local/", "--proxy", "http://127.0.0.1:15007").request(t); r.Name != "legacy" {
			t.Errorf("the application saw %+v", r)
		}
	})
	t.Run("plain text is refused where the mode is strict", func(t *testing.T) {
		if a := legacy.get(t, "http://"+host+"/", "--address", server.address+":18080"); a.Error == "" {
			t.Errorf("%+v", a)
		}
		if a := legacy.send(t, fmt.Sprintf("%s:%d", server.address, 19000), "hello"); a.Body != "" {
			t.Errorf("%+v", a)
		}
	})
	t.Run("nothing listens where redirected connections would arrive", func(t *testing.T) {
		for _, port := range []string{"15001", "15006"} {
			if a := legacy.send(t, server.address+":"+port, "hello"); a.Body != "" {
				t.Errorf("%s: %+v", port, a)
			}
		}
	})
}
