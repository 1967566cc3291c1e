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

// waitForTwoComplaints waits for two attempts that failed for the cause. The first is a warning that names it
// and the address; that nothing has changed since is not told as loud.
func waitForTwoComplaints(t *testing.T, bridge *harness.Bridge, cause, address string) {
	t.Helper()
	const message = "no configuration from istiod, keeping the last"
	var levels []string
	bridge.WaitLog(t, message, func(e harness.LogEntry) bool {
		if strings.Contains(e.Text("error"), cause) {
			levels = append(levels, e.Text("level"))
			if text := e.Text("error") + e.Text("target"); !strings.Contains(text, address) {
				t.Errorf("the report does not name %s: %s", address, text)
			}
		}
		return len(levels) == 2
	})
	if want := []string{"WARN", "DEBUG"}; !slices.Equal(levels, want) {
		t.Errorf("two attempts were reported at %q, want %q", levels, want)
	}
}
