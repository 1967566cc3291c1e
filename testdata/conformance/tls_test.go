package conformance

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"meshbridge/testdata/conformance/harness"
)

const goodToken, wrongToken = "token-of-client", "token-of-nobody"

// secureIstiod runs a complete istiod with a TLS port and its own certificate
// authority, and returns the file with its root certificate.
func secureIstiod(t *testing.T) (istiod *harness.Istiod, root string) {
	t.Helper()
	root = filepath.Join(t.TempDir(), "root-cert.pem")
	manifests := harness.CopyManifests(t, demo)
	return harness.StartIstiod(t, binaries.Istiod, manifests.Dir, "--mode", "bootstrap", "--secure", "127.0.0.1:0",
		"--tokens", goodToken+"=default/client", "--root-cert-out", root), root
}

// startSecureBridge connects over TLS with the token and root in two files.
func startSecureBridge(t *testing.T, istiod *harness.Istiod, token, root string) *harness.Bridge {
	t.Helper()
	return harness.StartBridge(t, binaries.Meshbridge, "grpcs://"+istiod.Secure, "--xds-token-file="+token,
		"--xds-root-cert="+root, "--xds-server-name=istiod.istio-system.svc", `--node-metadata={"SERVICE_ACCOUNT":"client"}`)
}

func writeFile(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTLSWithTokenServes(t *testing.T) {
	t.Parallel()
	istiod, root := secureIstiod(t)
	bridge := startSecureBridge(t, istiod, writeFile(t, filepath.Join(t.TempDir(), "token"), goodToken+"\n"), root)
	bridge.WaitReady(t)
	istiod.WaitSynced(t)
	routesOf(t, bridge.MustRange(t), "reviews.default.svc.cluster.local")
}

// A refused token is reported, tried again, and replaced without a restart by
// what is in the file then.
func TestWrongTokenIsReportedAndReadAgain(t *testing.T) {
	t.Parallel()
	istiod, root := secureIstiod(t)
	token := writeFile(t, filepath.Join(t.TempDir(), "token"), wrongToken)
	bridge := startSecureBridge(t, istiod, token, root)

	waitForTwoComplaints(t, bridge, "Unauthenticated", istiod.Secure)
	if bridge.Ready(t.Context()) {
		t.Error("ready with a refused token")
	}
	for _, line := range bridge.Lines() {
		if strings.Contains(line, wrongToken) {
			t.Errorf("the log shows the token: %s", line)
		}
	}
	writeFile(t, token, goodToken)
	bridge.WaitReady(t)
}

func TestWrongRootCertificateIsReportedAndReadAgain(t *testing.T) {
	t.Parallel()
	istiod, root := secureIstiod(t)
	_, other := secureIstiod(t)
	right, err := os.ReadFile(root)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	token := writeFile(t, filepath.Join(dir, "token"), goodToken)
	bridge := startSecureBridge(t, istiod, token, other)

	waitForTwoComplaints(t, bridge, "certificate signed by unknown authority", istiod.Secure)
	if bridge.Ready(t.Context()) {
		t.Error("ready with an istiod that cannot be verified")
	}
	writeFile(t, other, string(right))
	bridge.WaitReady(t)
}

// waitForTwoComplaints waits for two log entries that name the cause and the
// address: the first attempt was reported, and another one followed.
func waitForTwoComplaints(t *testing.T, bridge *harness.Bridge, cause, address string) {
	t.Helper()
	n := 0
	line := bridge.WaitLine(t, "two reports of: "+cause, func(line string) bool {
		if strings.Contains(line, cause) {
			n++
		}
		return n == 2
	})
	if !strings.Contains(line, address) {
		t.Errorf("the report does not name %s: %s", address, line)
	}
	var loud []string
	for _, entry := range bridge.Log() {
		if slices.Contains([]string{"WARN", "ERROR"}, entry.Text("level")) {
			loud = append(loud, entry.Text("msg"))
		}
	}
	if len(loud) < 2 || len(loud) > 3 { // a third attempt may have followed
		t.Errorf("two attempts gave %d warnings, want one each: %q", len(loud), loud)
	}
}
