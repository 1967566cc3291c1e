package istioctl

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"meshbridge/testdata/conformance/harness"
)

// binaries and the path of istioctl are made once, by TestMain.
var (
	binaries harness.Binaries
	istioctl string
)

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "istioctl")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.Chdir(".."); err != nil { // to the root of the module, as Build wants
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if binaries, err = harness.Build(context.Background(), dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if istioctl = os.Getenv("ISTIOCTL"); istioctl == "" {
		if istioctl, err = harness.BuildFrom(context.Background(), ".", "istio.io/istio/istioctl/cmd/istioctl", dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return m.Run()
}

// mesh is the demo's, with the bridge as the sidecar of the pod reviews-v1.
type mesh struct {
	istiod     *harness.Istiod
	bridge     *harness.Bridge
	kubeconfig string
}

const (
	pod   = "reviews-v1.default"
	token = "token-of-a-person"
	node  = "sidecar~127.0.1.11~" + pod + "~default.svc.cluster.local"
)

func newMesh(t *testing.T) *mesh {
	t.Helper()
	manifests := harness.CopyManifests(t, "demo")
	manifests.Write(t, "policies.yaml", `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only-productpage, namespace: default}
spec:
  selector: {matchLabels: {app: reviews}}
  action: ALLOW
  rules: [{to: [{operation: {methods: [GET]}}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: istiod, namespace: istio-system, labels: {app: istiod, istio.io/rev: default}}
spec: {containers: [{name: discovery, image: example/istiod}]}
status: {phase: Running}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "{}"}
`)
	m := &mesh{istiod: harness.StartIstiod(t, binaries.Istiod, manifests.Dir,
		"--mode", "bootstrap", "--secure", "127.0.0.1:0", "--tokens", token+"=istio-system/default")}
	m.bridge = harness.StartBridge(t, binaries.Meshbridge, "grpc://"+m.istiod.GRPC, "--node-id="+node,
		`--node-metadata={"LABELS":{"app":"reviews","version":"v1"}}`)
	m.bridge.WaitReady(t)
	m.istiod.WaitSynced(t)
	m.kubeconfig = startKubernetes(t, manifests.Dir, map[string]string{"15000": m.bridge.Admin, "15012": m.istiod.Secure}, token)
	return m
}

// istioctl runs the program and returns what it prints.
func (m *mesh) istioctl(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, istioctl, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+m.kubeconfig)
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("istioctl %s: %v\n%s", strings.Join(args, " "), err, text)
	}
	return string(text)
}

// wantLines fails unless each of the patterns, whose spaces stand for any number of them, matches a line.
func wantLines(t *testing.T, what, text string, patterns ...string) {
	t.Helper()
	for _, p := range patterns {
		if !regexp.MustCompile(`(?m)^` + strings.ReplaceAll(p, " ", `[ \t]+`) + `[ \t]*$`).MatchString(text) {
			t.Errorf("%s: no line %q in\n%s", what, p, text)
		}
	}
}

// what `istioctl proxy-config` prints of each kind.
var proxyConfig = map[string][]string{
	"clusters": {
		`reviews\.default\.svc\.cluster\.local 9080 v2 outbound EDS reviews\.default`,
		`ratings\.default\.svc\.cluster\.local 9080 - outbound EDS`,
		` 9080 - inbound ORIGINAL_DST`,
	},
	"listeners": {`0\.0\.0\.0 9080 .*Route: 9080`, `0\.0\.0\.0 15006 .*Cluster: inbound\|9080\|\|`},
	"routes":    {`9080 reviews\.default\.svc\.cluster\.local:9080 .* reviews\.default`},
	"endpoints": {`127\.0\.1\.11:9080 HEALTHY OK outbound\|9080\|\|reviews\.default\.svc\.cluster\.local`},
	"secrets":   {`No active or warming secrets found\.`},
	"bootstrap": {`Istio Version: 1\.31\.0`, `Envoy Version: .*apisix/.*`},
	"all":       {`endpoint/127\.0\.1\.12:9080 HEALTHY outbound\|9080\|v2\|reviews\.default\.svc\.cluster\.local`},
}

func TestProxyConfigOfARunningBridge(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	for what, want := range proxyConfig {
		wantLines(t, what, m.istioctl(t, "proxy-config", what, pod, "--output", "short"), want...)
	}
	wantLines(t, "log", m.istioctl(t, "proxy-config", "log", pod, "--level", "xds:trace,etcd:error"), ` xds: trace`, ` etcd: error`)
	wantLines(t, "envoy-stats", m.istioctl(t, "x", "envoy-stats", pod, "--output", "prom"), `meshbridge_commits_total \d+`)
	wantLines(t, "authz check", m.istioctl(t, "x", "authz", "check", pod), `ALLOW only-productpage\.default 1`)
}

func TestProxyConfigOfADump(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	dir := t.TempDir()
	files := map[string]string{"dump": "config_dump?include_eds=true", "hosts": "clusters?format=json"}
	for name, ask := range files {
		files[name] = filepath.Join(dir, name)
		if err := os.WriteFile(files[name], []byte(m.bridge.Ask(t, http.MethodGet, ask)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for what, want := range proxyConfig {
		file := files["dump"]
		if what == "endpoints" {
			file = files["hosts"]
		}
		wantLines(t, what, m.istioctl(t, "proxy-config", what, "--file", file, "--output", "short"), want...)
	}
}

// istioctl asks istiod itself, by its debug protocol.
func TestProxyStatusIsSynced(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	wantLines(t, "proxy-status", m.istioctl(t, "proxy-status", "-v=1"), strings.ReplaceAll(pod, ".", `\.`)+` .*SYNCED.*SYNCED.*SYNCED.*SYNCED.*`)
	wantLines(t, "proxy-status of the pod", m.istioctl(t, "proxy-status", pod), "Clusters Match", "Listeners Match", "Routes Match .*")
}

func TestDescribeOfARunningBridge(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	for _, args := range [][]string{{"x", "describe", "pod", pod}, {"x", "describe", "service", "reviews.default"}} {
		wantLines(t, strings.Join(args, " "), m.istioctl(t, args...),
			`Service: reviews`, `\s*DestinationRule: reviews for "reviews"`, `\s*VirtualService: reviews`, `RBAC policies: ns\[default\]-policy\[only-productpage\]-rule\[0\]`)
	}
}
