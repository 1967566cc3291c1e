package deploy

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"istio.io/istio/pkg/kube/inject"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// What the injector makes of an application's probes, annotations and hooks is asked of a bridge that has the
// variables of the injected container.
func TestInjectedPodsAskTheBridgeForWhatItServes(t *testing.T) {
	for _, selected := range []string{"sidecar,meshbridge", "meshbridge-full"} {
		t.Run(selected, func(t *testing.T) {
			app := newApplication(t)
			out, err := newIstiod(t).injectInto(t, app.deployment(t), map[string]string{templates: selected, nativeSidecar: "true"})
			if err != nil {
				t.Fatal(err)
			}
			var d appsv1.Deployment
			decode(t, out, &d)
			pod := d.Spec.Template
			proxy := container(t, pod.Spec.InitContainers, inject.ProxyContainerName)
			bridge := runInjected(t, proxy)

			application := container(t, pod.Spec.Containers, "probes")
			for name, probe := range map[string]*corev1.Probe{
				"readiness": application.ReadinessProbe, "liveness": application.LivenessProbe, "startup": application.StartupProbe,
			} {
				if probe.HTTPGet == nil || probe.HTTPGet.Port.IntValue() != 15020 {
					t.Errorf("the injector leaves the %s probe as %v", name, probe)
					continue
				}
				if code, body := bridge.get(t, probe.HTTPGet.Path); code != http.StatusOK {
					t.Errorf("%s: %d %s", name, code, body)
				}
			}
			if pod.Annotations["prometheus.io/port"] != "15020" {
				t.Errorf("annotations %v", pod.Annotations)
			}
			code, metrics := bridge.get(t, pod.Annotations["prometheus.io/path"])
			for _, want := range []string{"\nmeshbridge_revision ", "\napp_jobs 7\n"} {
				if code != http.StatusOK || !strings.Contains(metrics, want) {
					t.Errorf("metrics: %d, no %q in\n%s", code, want, metrics)
				}
			}

			app.stop()
			for name, probe := range map[string]*corev1.Probe{
				"readiness": application.ReadinessProbe, "liveness": application.LivenessProbe, "startup": application.StartupProbe,
			} {
				if code, _ := bridge.get(t, probe.HTTPGet.Path); code != http.StatusInternalServerError {
					t.Errorf("%s of an application that is gone: %d", name, code)
				}
			}

			hook := proxy.Lifecycle.PreStop.Exec.Command
			if hook[0] != "meshbridge" || bridge.ready(t) != http.StatusOK {
				t.Fatalf("the hook is %q, ready %d", hook, bridge.ready(t))
			}
			args := strings.Split(strings.ReplaceAll(strings.Join(hook[1:], " "), "15020", bridge.port(t)), " ")
			if out, err := exec.CommandContext(t.Context(), meshbridge(t), args...).CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "OK" {
				t.Errorf("the hook: %v %s", err, out)
			}
			if code := bridge.ready(t); code != http.StatusServiceUnavailable {
				t.Errorf("ready after the hook: %d", code)
			}
		})
	}
}

// application is what testdata/apps/probes.yaml describes, on ports that are free.
type application struct {
	http, metrics *httptest.Server
	grpc          *grpc.Server
	grpcPort      int
	done          chan error
}

func newApplication(t *testing.T) *application {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/ready", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "yes") })
	metrics := http.NewServeMux()
	metrics.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "app_jobs 7\n") })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := &application{
		http: httptest.NewServer(mux), metrics: httptest.NewServer(metrics),
		grpc: grpc.NewServer(), grpcPort: l.Addr().(*net.TCPAddr).Port, done: make(chan error, 1),
	}
	grpc_health_v1.RegisterHealthServer(a.grpc, health.NewServer())
	go func() { a.done <- a.grpc.Serve(l) }()
	t.Cleanup(a.stop)
	return a
}

func (a *application) stop() {
	if a.done == nil {
		return
	}
	a.http.Close()
	a.metrics.Close()
	a.grpc.Stop()
	<-a.done
	a.done = nil
}

func portOf(s *httptest.Server) int { return s.Listener.Addr().(*net.TCPAddr).Port }

// deployment has the ports of this application.
func (a *application) deployment(t *testing.T) appsv1.Deployment {
	t.Helper()
	var d appsv1.Deployment
	decode(t, read(t, "testdata/apps/probes.yaml"), &d)
	pod := &d.Spec.Template
	pod.Annotations["prometheus.io/port"] = fmt.Sprint(portOf(a.metrics))
	c := &pod.Spec.Containers[0]
	c.Ports[0].ContainerPort = int32(portOf(a.http))
	c.LivenessProbe.TCPSocket.Port = intstr.FromInt32(c.Ports[0].ContainerPort)
	c.StartupProbe.GRPC.Port = int32(a.grpcPort)
	return d
}

func container(t *testing.T, all []corev1.Container, name string) *corev1.Container {
	t.Helper()
	for i := range all {
		if all[i].Name == name {
			return &all[i]
		}
	}
	t.Fatalf("there is no container %s in %v", name, names(all))
	return nil
}

// injected is a bridge as in an injected container, but for APISIX, istiod, and its ports.
type injected struct{ metrics, status string }

func runInjected(t *testing.T, c *corev1.Container) *injected {
	t.Helper()
	recording, err := filepath.Abs("../istiod/bookinfo-client/xds")
	if err != nil {
		t.Fatal(err)
	}
	args := append([]string{}, c.Args...)
	args = append(args, "--mode=standalone", "--profile=direct", "--xds=file:"+recording, "--state-dir="+t.TempDir(), "--log-format=json",
		"--listen=127.0.0.1:0", "--admin=off", "--status=127.0.0.1:0", "--metrics=127.0.0.1:0", "--internal=off", "--dns-servers=off")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, meshbridge(t), args...)
	cmd.Env = variables(c)
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	b := &injected{}
	found := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(log); lines.Scan(); {
			b.note(t, lines.Text(), found)
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-ended
		if err := cmd.Wait(); err != nil {
			t.Errorf("the bridge: %v", err)
		}
	})
	select {
	case <-found:
	case <-ended:
		t.Fatal("the bridge ended")
	}
	return b
}

// note finds out the addresses, and closes found when traffic may come.
func (b *injected) note(t *testing.T, line string, found chan<- struct{}) {
	var entry struct{ Msg, Address string }
	if err := json.Unmarshal([]byte(line), &entry); err != nil {
		t.Errorf("%q: %v", line, err)
	}
	switch entry.Msg {
	case "serving metrics":
		b.metrics = entry.Address
	case "serving status":
		b.status = entry.Address
	case "ready for traffic":
		close(found)
	}
}

func (b *injected) port(t *testing.T) string {
	t.Helper()
	_, port, err := net.SplitHostPort(b.metrics)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func (b *injected) ready(t *testing.T) int {
	t.Helper()
	code, _ := fetch(t, "http://"+b.status+"/healthz/ready")
	return code
}

func (b *injected) get(t *testing.T, path string) (code int, body string) {
	t.Helper()
	return fetch(t, "http://"+b.metrics+path)
}

func fetch(t *testing.T, url string) (code int, body string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// variables are the container's, with what only a cluster knows made up.
func variables(c *corev1.Container) (env []string) {
	for _, e := range c.Env {
		value := e.Value
		if e.ValueFrom != nil && e.ValueFrom.FieldRef != nil {
			value = "name"
			if e.ValueFrom.FieldRef.FieldPath == "status.podIP" {
				value = "127.0.0.1"
			}
		}
		if value != "" {
			env = append(env, e.Name+"="+value)
		}
	}
	return env
}
