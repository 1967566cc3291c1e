package pods

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"meshbridge/testdata/conformance/harness"
)

const namedHosts = `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: entry, namespace: default}
spec:
  hosts: [entry.example, "*.wild.example"]
  addresses: [10.96.4.1]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}]
  endpoints: [{address: 10.77.1.3}]
---`

// resolveThrough gives the pod an /etc/resolv.conf of its own.
func (p *pod) resolveThrough(t testing.TB, server string) {
	t.Helper()
	dir := filepath.Join("/etc/netns", p.netns) // where ip-netns(8) looks
	t.Cleanup(func() {
		_ = os.RemoveAll(dir)
		_ = os.Remove(filepath.Dir(dir)) // unless somebody else uses it
	})
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("nameserver %s\nsearch default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n", server)
	if err := os.WriteFile(filepath.Join(dir, "resolv.conf"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestNamesResolveInThePod(t *testing.T) {
	n := newNetwork(t)
	w := newWorldIn(t, n, namedHosts)
	upstream := harness.Start(t, "/sbin/ip", "netns", "exec", n.name, programs.echo, "dns", "--listen", hubAddress+":53",
		"--record", "outside.example=10.77.1.3", "--record", "server.default.svc.cluster.local=192.0.2.1")
	upstream.WaitLine(t, "ready", func(line string) bool { return line == "ready" })

	p := n.pod(t, "gateway") // any that istiod has a token for
	p.resolveThrough(t, hubAddress)
	p.metadata["DNS_CAPTURE"] = "true"
	p.redirect(t, "--redirect-dns")
	s := w.attach(t, p, "sidecar")

	for _, c := range []struct{ name, want string }{
		{"server", "10.96.0.10"},
		{"server.default", "10.96.0.10"},
		{"server.default.svc.cluster.local", "10.96.0.10"},
		{"SERVER.default.svc.cluster.local.", "10.96.0.10"},
		{"headless", "10.77.1.2"},
		{"entry.example", "10.96.4.1"},
		{"any.wild.example", "10.96.4.1"},
		{"outside.example", "10.77.1.3"},
		{"nobody.example", ""},
	} {
		for _, transport := range []string{"udp", "tcp"} {
			t.Run(c.name+" over "+transport, func(t *testing.T) {
				a := s.must(t, "resolve", "--name", c.name, "--over", transport)
				if a.Body != c.want || (c.want == "") != strings.Contains(a.Error, "no such host") {
					t.Errorf("%+v, want %q", a, c.want)
				}
			})
		}
	}
	t.Run("requests by name", func(t *testing.T) {
		for url, want := range map[string]string{
			"http://server/": "server", "http://entry.example/": "legacy", "http://outside.example:8090/": "legacy",
			"http://headless:8080/": "server",
		} {
			if r := s.get(t, url).request(t); r.Name != want {
				t.Errorf("%s: the application saw %+v", url, r)
			}
		}
	})
	t.Run("a new service has a name", func(t *testing.T) {
		w.configure(t, "more.yaml", namedHosts+service("late", "10.96.0.20", []string{"http:80:8080"}, w.server.pod))
		harness.Eventually(t, "its address", func(ctx context.Context) error {
			a, err := s.call(ctx, appUser, "resolve", "--name", "late")
			if err == nil && a.Body != "10.96.0.20" {
				err = fmt.Errorf("%+v", a)
			}
			return err
		})
	})
	t.Run("names of the mesh without the upstream", func(t *testing.T) {
		upstream.Stop()
		if a := s.must(t, "resolve", "--name", "server"); a.Body != "10.96.0.10" {
			t.Errorf("%+v", a)
		}
	})
}
