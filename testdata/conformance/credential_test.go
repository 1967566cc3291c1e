package conformance

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"meshbridge/testdata/conformance/harness"
)

// credentials are the manifests of a gateway with TLS servers.
var credentials = filepath.Join("..", "istio", "gateway-credentials")

const lateServer = `
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: late, namespace: istio-ingress}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 443, name: https-late, protocol: HTTPS}
    hosts: [late.example.com]
    tls: {mode: SIMPLE, credentialName: late}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: late, namespace: default}
spec:
  hosts: [late.example.com]
  gateways: [istio-ingress/late]
  http: [{route: [{destination: {host: shop.default.svc.cluster.local}}]}]
`

// startGateway runs istiod with its certificate authority, which is the one that hands out secrets,
// and the bridge of a gateway that may have them.
func startGateway(t *testing.T, manifests harness.Manifests) *harness.Bridge {
	t.Helper()
	dir := t.TempDir()
	root := filepath.Join(dir, "root-cert.pem")
	istiod := harness.StartIstiod(t, binaries.Istiod, manifests.Dir, "--mode", "bootstrap", "--secure", "127.0.0.1:0",
		"--skip-validation", "--tokens", goodToken+"=istio-ingress/ingress-sa", "--root-cert-out", root)
	return harness.StartBridge(t, binaries.Meshbridge, "grpcs://"+istiod.Secure,
		"--xds-token-file="+writeFile(t, filepath.Join(dir, "token"), goodToken), "--xds-root-cert="+root,
		"--xds-server-name=istiod.istio-system.svc", "--profile=gateway", "--log-level=debug",
		"--node-id=router~10.1.2.1~ingress-0.istio-ingress~istio-ingress.svc.cluster.local",
		`--node-metadata={"LABELS":{"istio":"ingressgateway"},"SERVICE_ACCOUNT":"ingress-sa","CLUSTER_ID":"Kubernetes"}`)
}

// secretOf returns a secret's manifest.
func secretOf(t *testing.T, manifests harness.Manifests, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(manifests.Dir, "05-secrets.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for doc := range strings.SplitSeq(string(text), "---\n") {
		if strings.Contains(doc, "{name: "+name+",") {
			return doc
		}
	}
	t.Fatalf("no secret %s", name)
	return ""
}

// sslsFor returns the keys of the ssls that are made of a secret.
func sslsFor(s harness.Snapshot, secret string) []string {
	var keys []string
	for key, object := range s.Objects {
		if strings.Contains(key, "/ssls/") && regexp.MustCompile(`"desc":"certificates of kubernetes://`+secret+`[",;]`).MatchString(object.Value) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

func TestARotatedSecretIsOnePut(t *testing.T) {
	t.Parallel()
	manifests := harness.CopyManifests(t, credentials)
	bridge := startGateway(t, manifests)
	bridge.WaitReady(t)
	world := bridge.MustRange(t)
	before := sslsFor(world, "partner")
	if len(before) != 1 {
		t.Fatalf("ssls of the secret: %q in\n%s", before, dump(world))
	}
	watch := bridge.Watch(t, world.Revision+1)

	// The two secrets exchange what they hold, one after the other.
	partner, optional := secretOf(t, manifests, "partner"), secretOf(t, manifests, "optional")
	manifests.Replace(t, "05-secrets.yaml", partner, strings.Replace(optional, "name: optional", "name: partner", 1))
	frame := watch.Next(t)
	if len(frame.Events) != 1 || frame.Events[0].Key != before[0] || frame.Events[0].Deleted {
		t.Errorf("a rotated secret gives\n%s\nwant one put of %s", harness.Describe(frame.Events), before[0])
	}
	// A secret that is deleted is kept, as Envoy does; the next rotation shows that nothing else came.
	manifests.Replace(t, "05-secrets.yaml", strings.Replace(optional, "name: optional", "name: partner", 1), "")
	manifests.Replace(t, "05-secrets.yaml", optional, strings.Replace(partner, "name: partner", "name: optional", 1))
	frame = watch.Next(t)
	after := sslsFor(world, "optional")
	for _, e := range frame.Events {
		if e.Deleted || !slices.Contains(after, e.Key) {
			t.Errorf("unexpected event:\n%s", harness.Describe(frame.Events))
		}
	}
	for _, line := range bridge.Lines() {
		if strings.Contains(line, "PRIVATE KEY") || strings.Contains(line, "LS0tLS1CRUdJTiBQUklWQVRF") {
			t.Errorf("the log shows a private key: %s", line)
		}
	}
}

// A gateway whose secret does not exist serves everything else, and that server once it does.
func TestASecretThatComesLateCompletesItsServer(t *testing.T) {
	t.Parallel()
	manifests := harness.CopyManifests(t, credentials)
	manifests.Write(t, "30-late.yaml", lateServer)
	bridge := startGateway(t, manifests)
	bridge.WaitReady(t)
	world := bridge.MustRange(t)
	routesOf(t, world, "shop.example.com")
	for key, object := range world.Objects {
		if strings.Contains(object.Value, "https-late") || strings.Contains(key, "/ssls/") && strings.Contains(object.Value, "late.example.com") {
			t.Errorf("served without its certificate: %s", key)
		}
	}
	watch := bridge.Watch(t, world.Revision+1)
	manifests.Write(t, "40-secret.yaml", strings.Replace(secretOf(t, manifests, "shop"), "name: shop", "name: late", 1))
	watch.Until(t, "the ssl of the late secret", func(e harness.Event) bool {
		return strings.Contains(e.Key, "/ssls/") && strings.Contains(e.Value, "late.example.com")
	})
	watch.Until(t, "a route of the late server", func(e harness.Event) bool {
		return strings.Contains(e.Key, "/routes/") && strings.Contains(e.Value, "https-late")
	})
}
