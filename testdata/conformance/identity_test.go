package conformance

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"meshbridge/testdata/conformance/harness"
)

const clientID = "spiffe://cluster.local/ns/default/sa/client"

// startWorkload runs a program that gets its identity from istiod, and its configuration with that.
func startWorkload(t *testing.T, istiod *harness.Istiod, token, root string, flags ...string) *harness.Process {
	t.Helper()
	return harness.Start(t, binaries.Workload, append([]string{"--istiod", istiod.Secure, "--token", token, "--root", root}, flags...)...)
}

// waitIdentity returns the serial number of the first certificate that is not among those known.
func waitIdentity(t *testing.T, workload *harness.Process, known ...string) (serial string) {
	t.Helper()
	line := workload.WaitLine(t, "certificate", func(line string) bool {
		serial, ok := strings.CutPrefix(line, "identity "+clientID+" ")
		return ok && !slices.Contains(known, serial)
	})
	return line[strings.LastIndexByte(line, ' ')+1:]
}

func waitPrefix(t *testing.T, workload *harness.Process, prefix string) (rest string) {
	t.Helper()
	return strings.TrimPrefix(workload.WaitLine(t, prefix, func(line string) bool { return strings.HasPrefix(line, prefix) }), prefix)
}

// The certificate that istiod issues for a token is one that istiod trusts: no token is shown on the
// stream.
func TestIstiodTrustsTheCertificateThatItIssued(t *testing.T) {
	t.Parallel()
	istiod, root := secureIstiod(t)
	workload := startWorkload(t, istiod, writeFile(t, filepath.Join(t.TempDir(), "token"), goodToken), root)
	waitIdentity(t, workload)
	waitPrefix(t, workload, "clusters ")
	istiod.WaitSynced(t)
}

func TestACertificateIsRenewedBeforeItExpires(t *testing.T) {
	t.Parallel()
	istiod, root := secureIstiod(t)
	workload := startWorkload(t, istiod, writeFile(t, filepath.Join(t.TempDir(), "token"), goodToken), root, "--ttl", "4s")
	first := waitIdentity(t, workload)
	second := waitIdentity(t, workload, first)
	waitIdentity(t, workload, first, second)
}

func TestACertificateIsNotIssuedForAWrongToken(t *testing.T) {
	t.Parallel()
	istiod, root := secureIstiod(t)
	token := writeFile(t, filepath.Join(t.TempDir(), "token"), wrongToken)
	workload := startWorkload(t, istiod, token, root)
	line := workload.WaitLine(t, "refusal", func(line string) bool { return strings.Contains(line, "reason=refused") })
	if !strings.Contains(line, "Unauthenticated") || !strings.Contains(line, istiod.Secure) {
		t.Errorf("the report does not say who and why: %s", line)
	}
	for _, line := range workload.Lines() {
		if strings.Contains(line, wrongToken) || strings.HasPrefix(line, "identity") {
			t.Errorf("unexpected: %s", line)
		}
	}
	writeFile(t, token, goodToken)
	waitIdentity(t, workload)
}

// A token of another service account is good, but not for this identity.
func TestACertificateIsNotIssuedForAnothersToken(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "root-cert.pem")
	manifests := harness.CopyManifests(t, demo)
	istiod := harness.StartIstiod(t, binaries.Istiod, manifests.Dir, "--mode", "bootstrap", "--secure", "127.0.0.1:0",
		"--tokens", goodToken+"=default/other", "--root-cert-out", root)
	workload := startWorkload(t, istiod, writeFile(t, filepath.Join(t.TempDir(), "token"), goodToken), root)
	workload.WaitLine(t, "refusal", func(line string) bool {
		return strings.Contains(line, "source="+istiod.Secure) && strings.Contains(line, "reason=")
	})
	for _, line := range workload.Lines() {
		if strings.HasPrefix(line, "identity "+clientID) {
			t.Errorf("issued: %s", line)
		}
	}
}

func TestACertificateIsNotAskedForOfAnotherRoot(t *testing.T) {
	t.Parallel()
	istiod, root := secureIstiod(t)
	right, err := os.ReadFile(root)
	if err != nil {
		t.Fatal(err)
	}
	_, other := secureIstiod(t)
	workload := startWorkload(t, istiod, writeFile(t, filepath.Join(t.TempDir(), "token"), goodToken), other)
	workload.WaitLine(t, "refusal", func(line string) bool {
		return strings.Contains(line, "reason=unreachable") && strings.Contains(line, "certificate signed by unknown authority")
	})
	writeFile(t, other, string(right))
	waitIdentity(t, workload)
}

// istiod is gone when the certificate is due, and comes back with another root, as one does that makes
// its own.
func TestTheAuthorityGoesAwayAndComesBack(t *testing.T) {
	t.Parallel()
	istiod, root := secureIstiod(t)
	workload := startWorkload(t, istiod, writeFile(t, filepath.Join(t.TempDir(), "token"), goodToken), root, "--ttl", "6s")
	first := waitIdentity(t, workload)
	istiod.Stop()
	workload.WaitLine(t, "failure", func(line string) bool {
		return strings.Contains(line, "keeping the last") && strings.Contains(line, "reason=unreachable")
	})
	known := []string{first}
	for _, line := range workload.Lines() { // it may have been renewed meanwhile
		if serial, ok := strings.CutPrefix(line, "identity "+clientID+" "); ok {
			known = append(known, serial)
		}
	}
	istiod.Start(t)
	waitIdentity(t, workload, known...)
}

func TestNamesOfIstiodAreResolved(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "root-cert.pem")
	manifests := harness.CopyManifests(t, demo)
	const entry = `apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: ext, namespace: default}
spec:
  hosts: [api.ext.example]
  addresses: [%s]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: STATIC
  endpoints: [{address: 10.1.1.1}]
`
	manifests.Write(t, "entry.yaml", strings.Replace(entry, "%s", "240.1.2.3", 1))
	istiod := harness.StartIstiod(t, binaries.Istiod, manifests.Dir, "--mode", "bootstrap", "--secure", "127.0.0.1:0",
		"--tokens", goodToken+"=default/client", "--root-cert-out", root)
	upstream := startNameServer(t)
	upstream.set("outside.example", "192.0.2.1")
	workload := startWorkload(t, istiod, writeFile(t, filepath.Join(t.TempDir(), "token"), goodToken), root,
		"--upstream", upstream.conn.LocalAddr().String())
	address := waitPrefix(t, workload, "dns ")
	waitPrefix(t, workload, "names ")
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, address)
	}}
	lookup := func(name, want string) {
		t.Helper()
		harness.Eventually(t, name+" is "+want, func(ctx context.Context) error {
			got, err := resolver.LookupHost(ctx, name)
			if err == nil && !slices.Equal(got, []string{want}) {
				err = &net.DNSError{Err: "got " + strings.Join(got, " "), Name: name}
			}
			return err
		})
	}
	lookup("api.ext.example.", "240.1.2.3")
	lookup("outside.example.", "192.0.2.1")
	reviews, err := resolver.LookupHost(t.Context(), "reviews.default.svc.cluster.local.")
	if err != nil || len(reviews) != 1 {
		t.Fatalf("reviews: %v %v", reviews, err)
	}
	for _, short := range []string{"reviews.", "reviews.default.", "reviews.default.svc."} {
		lookup(short, reviews[0])
	}
	manifests.Write(t, "entry.yaml", strings.Replace(entry, "%s", "240.1.2.4", 1))
	lookup("api.ext.example.", "240.1.2.4")
}
