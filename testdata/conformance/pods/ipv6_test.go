package pods

import (
	"os"
	"strings"
	"testing"
)

func TestIPv6(t *testing.T) {
	requireRoot(t)
	if _, err := os.Stat("/proc/net/if_inet6"); err != nil {
		t.Skip("needs IPv6")
	}
	t.Setenv("ISTIO_DUAL_STACK", "true") // istiod's
	n := newNetwork(t)
	n.hub(t, "ip", "addr", "add", "fd77::1/64", "dev", "br0", "nodad")
	client, server, legacy := n.pod(t, "client"), n.pod(t, "server"), n.pod(t, "legacy")
	for _, p := range []*pod{client, server, legacy} {
		p.dualStack(t)
	}
	ports := []string{"http:80:8080", "tcp:9000:9000", "tcp-strict:9002:9002"}
	m := startMesh(t, n, map[string]string{"mesh.yaml": namespace +
		workload(client, meshTLS) + workload(server, meshTLS) + workload(legacy, "") + peerAuthentication +
		service("server", "10.96.0.10,fd96::10", ports, server) +
		service("legacy", "10.96.0.11,fd96::11", ports, legacy)})
	serve(t, server)
	serve(t, legacy)
	for _, p := range []*pod{client, server} {
		p.metadata["DUAL_STACK"] = "true"
	}
	c, s := m.inject(t, client), m.inject(t, server)

	for name, address := range map[string]string{"IPv4": "10.96.0.10", "IPv6": "[fd96::10]"} {
		t.Run("HTTP over mutual TLS, "+name, func(t *testing.T) {
			r := c.get(t, "http://server/a", "--address", address+":80").request(t)
			if xfcc := r.Headers.Get("X-Forwarded-Client-Cert"); r.Name != "server" || !strings.Contains(xfcc, "URI="+clientID) {
				t.Errorf("the application saw %+v", r)
			}
		})
		for _, port := range []string{":9000", ":9002"} {
			t.Run("TCP, "+name+port, func(t *testing.T) {
				if a := c.send(t, address+port, "hello"); a.Body != "server hello" || a.Error != "" {
					t.Errorf("%+v", a)
				}
			})
		}
	}
	t.Run("to a workload without a sidecar", func(t *testing.T) {
		if r := c.get(t, "http://legacy/", "--address", "[fd96::11]:80").request(t); r.Name != "legacy" {
			t.Errorf("the application saw %+v", r)
		}
	})
	t.Run("from a workload without a sidecar", func(t *testing.T) {
		r := legacy.get(t, "http://server/", "--address", "["+s.address6+"]:8080").request(t)
		if r.Name != "server" {
			t.Errorf("the application saw %+v", r)
		}
		if a := legacy.send(t, "["+s.address6+"]:9000", "hello"); a.Body != "server hello" {
			t.Errorf("%+v", a)
		}
		if a := legacy.send(t, "["+s.address6+"]:9002", "hello"); a.Body != "" {
			t.Errorf("plain text where the mode is strict: %+v", a)
		}
	})
	t.Run("unknown destinations", func(t *testing.T) {
		if r := c.get(t, "http://nobody.example/", "--address", "["+legacy.address6+"]:8090").request(t); r.Name != "legacy" {
			t.Errorf("HTTP: the application saw %+v", r)
		}
		if a := c.send(t, "["+legacy.address6+"]:9001", "hello", "--read-first"); a.Body != "220 ready\nhello" {
			t.Errorf("TCP: %+v", a)
		}
		if r := legacy.get(t, "http://server/", "--address", "["+s.address6+"]:8090").request(t); r.Name != "server" {
			t.Errorf("inbound: the application saw %+v", r)
		}
	})
}
