package pods

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"testing"

	"meshbridge/testdata/conformance/harness"
)

var certificateHash = regexp.MustCompile(`Hash=([0-9a-f]{64})`)

func TestCertificatesRotateUnderConnections(t *testing.T) {
	n := newNetwork(t)
	client, server := n.pod(t, "client"), n.pod(t, "server")
	m := startMesh(t, n, map[string]string{"mesh.yaml": namespace +
		workload(client, meshTLS) + workload(server, meshTLS) + peerAuthentication +
		service("server", "10.96.0.10", serverPorts, server)})
	serve(t, server)
	client.certificateTTL, server.certificateTTL = "4s", "4s" // renewed after half of it
	c, s := m.inject(t, client), m.inject(t, server)

	held := c.watch(t, "tcp", "--address", "10.96.0.10:9002", "--send", "hello", "--hold")
	held.until(t, 0, "an answer", func(a answer) bool { return a.Body != "" })
	fresh := c.watch(t, "http", "--url", "http://server/", "--address", "10.96.0.10:81")
	expiry := func() float64 { return s.metric(t, "meshbridge_identity_expiry_timestamp_seconds") }
	first := expiry()
	harness.Eventually(t, "some renewals of both", func(context.Context) error {
		if expiry() < first+6 {
			return errors.New("the server has the first certificates")
		}
		if hashes := hashesOf(t, fresh); len(hashes) < 4 {
			return fmt.Errorf("the server has seen %d certificates of the client", len(hashes))
		}
		return nil
	})
	held.more(t, 10)
	for _, a := range held.answers(t) {
		if a.Error != "" {
			t.Errorf("the connection that was open: %+v", a)
		}
	}
	for _, a := range fresh.answers(t) {
		if !ok("server")(a) {
			t.Errorf("a new connection: %+v", a)
		}
	}
}

// hashesOf returns those of the certificates that the application was told of.
func hashesOf(t testing.TB, w *watch) map[string]bool {
	t.Helper()
	seen := map[string]bool{}
	for _, a := range w.answers(t) {
		if hash := certificateHash.FindStringSubmatch(a.Body); hash != nil {
			seen[hash[1]] = true
		}
	}
	return seen
}
