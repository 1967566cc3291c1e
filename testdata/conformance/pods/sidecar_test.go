package pods

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"meshbridge/testdata/conformance/harness"
)

// programs are built once, by TestMain.
var programs struct {
	harness.Binaries
	standin, echo, iptables string
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "pods")
	if err == nil {
		err = os.Chmod(dir, 0o755) // the programs run as other users
	}
	if err == nil {
		err = build(context.Background(), dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

func build(ctx context.Context, dir string) (err error) {
	if err := os.Chdir(".."); err != nil { // where harness builds from
		return err
	}
	if programs.Binaries, err = harness.Build(ctx, dir); err != nil {
		return err
	}
	// A program that starts a real APISIX and says "ready" can take the stand-in's place.
	programs.standin = os.Getenv("STANDIN")
	for _, p := range []struct {
		module, pkg string
		path        *string
	}{
		{filepath.Join("..", ".."), "./testdata/standin", &programs.standin},
		{filepath.Join("..", ".."), "./testdata/echo", &programs.echo},
		{".", "./cmd/iptables", &programs.iptables},
	} {
		if *p.path != "" {
			continue
		}
		if *p.path, err = harness.BuildFrom(ctx, p.module, p.pkg, dir); err != nil {
			return err
		}
	}
	return os.Chdir("pods")
}

// mesh is istiod and what workloads need of it.
type mesh struct {
	*network
	dir    string // readable by everybody
	istiod *harness.Process
}

// startMesh runs an istiod with a certificate authority over the manifests. The pod's names are those of
// service accounts.
func startMesh(t testing.TB, n *network, manifests map[string]string, flags ...string) *mesh {
	t.Helper()
	dir, err := os.MkdirTemp("", "mesh")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	m := &mesh{network: n, dir: dir}
	for _, d := range []string{dir, m.path("config")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range manifests {
		m.write(t, filepath.Join("config", name), text)
	}
	args := []string{
		"netns", "exec", n.name, programs.Istiod, "--mode", "bootstrap", "--dir", m.path("config"),
		"--grpc", hubAddress + ":15010", "--http", hubAddress + ":15014", "--secure", hubAddress + ":15012",
		"--tokens", "client=default/client,server=default/server,gateway=default/gateway", "--root-cert-out", m.path("root-cert.pem"),
	}
	m.istiod = harness.Start(t, "/sbin/ip", append(args, flags...)...)
	m.istiod.WaitLine(t, "ready line", func(line string) bool { return strings.HasPrefix(line, "ready ") })
	return m
}

func (m *mesh) path(name string) string { return filepath.Join(m.dir, name) }

func (m *mesh) write(t testing.TB, name, text string) {
	t.Helper()
	if err := os.WriteFile(m.path(name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// sidecar is a bridge and what stands for APISIX, in a pod whose connections are redirected to it.
type sidecar struct {
	*pod
	bridge, apisix *harness.Process
}

// inject starts a sidecar in the pod and returns when it is ready.
func (m *mesh) inject(t testing.TB, p *pod, flags ...string) *sidecar {
	t.Helper()
	p.redirect(t)
	return m.attach(t, p, "sidecar", flags...)
}

// attach starts the bridge and the stand-in without any redirection.
func (m *mesh) attach(t testing.TB, p *pod, kind string, flags ...string) *sidecar {
	t.Helper()
	m.write(t, p.name+".token", p.name)
	labels, err := json.Marshal(map[string]any{"LABELS": map[string]string{"app": p.name}, "SERVICE_ACCOUNT": p.name})
	if err != nil {
		t.Fatal(err)
	}
	s := &sidecar{pod: p}
	args := []string{
		"run", "--profile", "mesh", "--log-format", "json", "--log-level", "debug",
		"--xds", "grpcs://" + hubAddress + ":15012", "--xds-server-name", "istiod.istio-system.svc",
		"--xds-root-cert", m.path("root-cert.pem"), "--xds-token-file", m.path(p.name + ".token"),
		"--node-id", kind + "~" + p.address + "~" + p.name + ".default~default.svc.cluster.local",
		"--node-metadata", string(labels), "--apisix-stream-ports", "16000-16063",
	}
	s.bridge = p.start(t, proxyUser, programs.Meshbridge, append(args, flags...)...)
	s.bridge.WaitLine(t, "the etcd port", func(line string) bool { return strings.Contains(line, "serving etcd") })
	s.apisix = p.start(t, proxyUser, programs.standin)
	s.apisix.WaitLine(t, "ready", func(line string) bool { return line == "ready" })
	harness.Eventually(t, "readiness of "+p.name, func(ctx context.Context) error {
		a, err := p.call(ctx, proxyUser, "http", "--url", "http://127.0.0.1:15021/healthz/ready")
		if err == nil && a.Status != http.StatusOK {
			err = fmt.Errorf("%d %s%s", a.Status, a.Body, a.Error)
		}
		return err
	})
	return s
}

// answer is what the program echo prints of a call.
type answer struct {
	Status  int
	Headers http.Header
	Body    string
	Error   string
}

// request is what the application saw of a request.
type request struct {
	Name, Method, Host, URI, Protocol string
	Remote, Local                     string
	Headers                           http.Header
}

// request returns what the application saw.
func (a answer) request(t testing.TB) request {
	t.Helper()
	var r request
	if err := json.Unmarshal([]byte(a.Body), &r); err != nil || a.Status != http.StatusOK {
		t.Fatalf("no answer of the application: %+v", a)
	}
	return r
}

// call runs the client in the pod.
func (p *pod) call(ctx context.Context, user string, args ...string) (answer, error) {
	var a answer
	cmd := exec.CommandContext(ctx, "ip", p.as(user, programs.echo, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return a, err
	}
	return a, json.Unmarshal(out, &a)
}

// must runs the client of an application in the pod.
func (p *pod) must(t testing.TB, args ...string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	a, err := p.call(ctx, appUser, args...)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// get asks for a URL.
func (p *pod) get(t testing.TB, url string, flags ...string) answer {
	t.Helper()
	return p.must(t, append([]string{"http", "--url", url}, flags...)...)
}

// send sends bytes over TCP and returns all that comes back.
func (p *pod) send(t testing.TB, address, text string, flags ...string) answer {
	t.Helper()
	return p.must(t, append([]string{"tcp", "--address", address, "--send", text}, flags...)...)
}
