package pods

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
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
	dir    string            // readable by everybody
	root   harness.Authority // issues istiod's certificate and those of workloads
	istiod *harness.Process
	args   []string // of istiod
}

// startMesh runs an istiod with a certificate authority over the manifests. The pods' names are those of
// service accounts.
func startMesh(t testing.TB, n *network, manifests map[string]string, flags ...string) *mesh {
	t.Helper()
	dir, err := os.MkdirTemp("", "mesh")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	m := &mesh{network: n, dir: dir, root: harness.NewAuthority(t, "mesh")}
	for _, d := range []string{dir, m.path("config"), m.path("ca")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"ca/root-cert.pem", "ca/ca-cert.pem", "ca/cert-chain.pem"} {
		m.write(t, name, m.root.PEM())
	}
	m.write(t, "ca/ca-key.pem", m.root.KeyPEM(t))
	t.Setenv("ROOT_CA_DIR", m.path("ca")) // a root that outlives an istiod
	for name, text := range manifests {
		m.write(t, filepath.Join("config", name), text)
	}
	m.args = append([]string{
		"netns", "exec", n.name, programs.Istiod, "--mode", "bootstrap", "--dir", m.path("config"),
		"--grpc", hubAddress + ":15010", "--http", hubAddress + ":15014", "--secure", hubAddress + ":15012",
		"--tokens", "client=default/client,server=default/server,gateway=default/gateway,foreign=other/foreign",
		"--root-cert-out", m.path("root-cert.pem"),
	}, flags...)
	m.startIstiod(t)
	return m
}

// startIstiod starts istiod, again where it has ended.
func (m *mesh) startIstiod(t testing.TB) {
	t.Helper()
	m.istiod = harness.Start(t, "/sbin/ip", m.args...)
	m.istiod.WaitLine(t, "ready line", func(line string) bool { return strings.HasPrefix(line, "ready ") })
}

func (m *mesh) path(name string) string { return filepath.Join(m.dir, name) }

// write puts a file in place at once.
func (m *mesh) write(t testing.TB, name, text string) {
	t.Helper()
	if err := os.WriteFile(m.path(name)+".new", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(m.path(name)+".new", m.path(name)); err != nil {
		t.Fatal(err)
	}
}

// configure puts a manifest in place, which istiod sees.
func (m *mesh) configure(t testing.TB, name, text string) {
	t.Helper()
	m.write(t, filepath.Join("config", name), text)
}

// sidecar is a bridge and what stands for APISIX, in a pod whose connections are redirected to it.
type sidecar struct {
	*pod
	bridge *harness.Bridge
	apisix *harness.Process
	args   []string // of the bridge
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
	s := m.prepare(t, p, kind, flags...)
	s.startBridge(t)
	s.startAPISIX(t)
	s.waitReady(t)
	return s
}

// prepare returns a sidecar that is not running.
func (m *mesh) prepare(t testing.TB, p *pod, kind string, flags ...string) *sidecar {
	t.Helper()
	m.write(t, p.name+".token", p.name)
	metadata := map[string]any{
		"LABELS": map[string]string{"app": p.name}, "SERVICE_ACCOUNT": p.name, "CLUSTER_ID": "Kubernetes",
	}
	maps.Copy(metadata, p.metadata)
	text, err := json.Marshal(metadata)
	if err != nil {
		t.Fatal(err)
	}
	return &sidecar{pod: p, args: append([]string{
		"run", "--profile", "mesh", "--log-format", "json", "--log-level", "debug",
		"--xds", "grpcs://" + hubAddress + ":15012", "--xds-server-name", "istiod.istio-system.svc",
		"--xds-root-cert", m.path("root-cert.pem"), "--xds-token-file", m.path(p.name + ".token"),
		"--node-id", kind + "~" + p.address + "~" + p.name + "." + p.namespace + "~" + p.namespace + ".svc.cluster.local",
		"--node-metadata", string(text), "--apisix-stream-ports", "16000-16063",
		"--drain-time", "0s", // nobody else sends anything
	}, flags...)}
}

func (s *sidecar) startBridge(t testing.TB) {
	t.Helper()
	environment := []string{"INSTANCE_IP=" + s.address, "SECRET_TTL=" + cmp.Or(s.certificateTTL, "24h")}
	if s.address6 != "" {
		environment[0] += "," + s.address6
	}
	args := slices.Concat(environment, []string{programs.Meshbridge}, s.args)
	s.bridge = &harness.Bridge{Process: s.start(t, proxyUser, "/usr/bin/env", args...)}
	s.bridge.WaitLog(t, "serving etcd", func(harness.LogEntry) bool { return true })
}

func (s *sidecar) startAPISIX(t testing.TB) {
	t.Helper()
	s.apisix = s.start(t, proxyUser, programs.standin)
	s.apisix.WaitLine(t, "ready", func(line string) bool { return line == "ready" })
}

// waitReady waits until the kubelet would send requests.
func (s *sidecar) waitReady(t testing.TB) {
	t.Helper()
	harness.Eventually(t, "readiness of "+s.name, func(ctx context.Context) error {
		a, err := s.call(ctx, proxyUser, "http", "--url", "http://127.0.0.1:15021/healthz/ready")
		if err == nil && a.Status != http.StatusOK {
			err = fmt.Errorf("%d %s%s", a.Status, a.Body, a.Error)
		}
		return err
	})
}

// metric returns the value of a line of the bridge's metrics; 0 where there is none.
func (s *sidecar) metric(t testing.TB, name string) float64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	a, err := s.call(ctx, proxyUser, "http", "--url", "http://127.0.0.1:15020/metrics")
	if err != nil || a.Status != http.StatusOK {
		t.Fatalf("metrics: %v %+v", err, a)
	}
	for line := range strings.Lines(a.Body) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			value, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			if err != nil {
				t.Fatal(err)
			}
			return value
		}
	}
	return 0
}

// answer is what the program echo prints of a call.
type answer struct {
	Status  int
	Headers http.Header
	Body    string
	Error   string
	Peer    []string
}

// request is what the application saw of a request.
type request struct {
	Name, Method, Host, URI, Protocol string
	Remote, Local                     string
	Headers                           http.Header
	ServerName                        string
	Peer                              []string
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

// watch is a client that calls again and again.
type watch struct{ process *harness.Process }

// watch starts a client of an application in the pod that calls every now and then.
func (p *pod) watch(t testing.TB, args ...string) *watch {
	t.Helper()
	return &watch{p.start(t, appUser, programs.echo, append(args, "--every", "10ms")...)}
}

// answers returns those so far.
func (w *watch) answers(t testing.TB) []answer {
	t.Helper()
	var all []answer
	for _, line := range w.process.Lines() {
		var a answer
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, a)
	}
	return all
}

// until waits for an answer beyond the first n that match accepts, and returns how many there are then.
func (w *watch) until(t testing.TB, n int, what string, match func(answer) bool) int {
	t.Helper()
	harness.Eventually(t, what, func(context.Context) error {
		all := w.answers(t)
		for i := n; i < len(all); i++ {
			if match(all[i]) {
				n = i + 1
				return nil
			}
		}
		if len(all) > n {
			return fmt.Errorf("the last answer is %+v", all[len(all)-1])
		}
		return errors.New("no answer")
	})
	return n
}

// more waits for some more answers.
func (w *watch) more(t testing.TB, some int) {
	t.Helper()
	n := len(w.answers(t))
	harness.Eventually(t, "answers", func(context.Context) error {
		if have := len(w.answers(t)); have < n+some {
			return fmt.Errorf("%d of %d", have-n, some)
		}
		return nil
	})
}
