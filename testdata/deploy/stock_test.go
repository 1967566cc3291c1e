package deploy

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"istio.io/istio/pkg/kube/inject"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// stock is the container of the proxy that Istio's own template makes, with the sidecar's image alone.
func stock(t *testing.T, i istiod, native string) (proxy, initial corev1.Container) {
	t.Helper()
	out, err := i.inject(t, "hello", map[string]string{
		"sidecar.istio.io/proxyImage": "registry.example.com/meshbridge-sidecar:latest", nativeSidecar: native,
	})
	if err != nil {
		t.Fatal(err)
	}
	var d appsv1.Deployment
	if err := yaml.UnmarshalStrict([]byte(out), &d); err != nil {
		t.Fatal(err)
	}
	for _, c := range slices.Concat(d.Spec.Template.Spec.InitContainers, d.Spec.Template.Spec.Containers) {
		switch c.Name {
		case inject.ProxyContainerName:
			proxy = c
		case inject.InitContainerName:
			initial = c
		}
	}
	return proxy, initial
}

// inPod returns a command as the container would run it, in a network namespace: of the image are the entry
// point and the name pilot-agent.
func inPod(t *testing.T, namespace, bin string, c *corev1.Container, env []string, command ...string) *exec.Cmd {
	t.Helper()
	for i := range command {
		command[i] = reference.ReplaceAllString(command[i], "default")
	}
	path := command[0]
	if !filepath.IsAbs(path) {
		path = filepath.Join(bin, path)
	}
	cmd := exec.CommandContext(t.Context(), "ip", append([]string{"netns", "exec", namespace, path}, command[1:]...)...)
	cmd.Env = append(os.Environ(), "POD_NAME=hello-0", "POD_NAMESPACE=default", "INSTANCE_IP=10.9.0.1", "SERVICE_ACCOUNT=default")
	for _, e := range c.Env {
		if e.Value != "" {
			cmd.Env = append(cmd.Env, e.Name+"="+e.Value)
		}
	}
	cmd.Env = append(cmd.Env, env...)
	return cmd
}

// Nothing but the image is changed in Istio's sidecar: its commands, and those of its life cycle, work.
func TestTheStockTemplateRunsTheBridge(t *testing.T) {
	namespace := "mb-stock-" + strconv.Itoa(os.Getpid())
	if out, err := exec.CommandContext(t.Context(), "ip", "netns", "add", namespace).CombinedOutput(); err != nil {
		if os.Getenv("REQUIRE_NETNS") != "" {
			t.Fatalf("network namespaces (root): %v: %s", err, out)
		}
		t.Skipf("needs network namespaces (root): %v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", namespace).Run() })
	if out, err := exec.CommandContext(t.Context(), "ip", "-n", namespace, "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	bin := t.TempDir()
	program := filepath.Join(bin, "meshbridge")
	for name, target := range map[string]string{"meshbridge": meshbridge(t), "pilot-agent": "meshbridge"} {
		if err := os.Symlink(target, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	recorded, err := filepath.Abs("../istiod/bookinfo-client/xds")
	if err != nil {
		t.Fatal(err)
	}
	holding, initial := stock(t, newIstiod(t, "spec.values.global.proxy.holdApplicationUntilProxyStarts=true"), "false")
	native, _ := stock(t, newIstiod(t), "true")

	// istio-init, whose entry point is the image's.
	out, err := inPod(t, namespace, bin, &initial, nil, append([]string{program}, append(initial.Args, "--dry-run")...)...).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "-A ISTIO_OUTPUT -j ISTIO_REDIRECT") {
		t.Errorf("istio-init: %v\n%s", err, out)
	}

	// There is neither an istiod nor an APISIX here.
	cmd := inPod(t, namespace, bin, &holding, []string{"MESHBRIDGE_XDS=file:" + recorded, "MESHBRIDGE_MODE=standalone", "MESHBRIDGE_STATE_DIR=" + t.TempDir()},
		append([]string{program}, holding.Args...)...)
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	wait := holding.Lifecycle.PostStart.Exec.Command
	if out, err := inPod(t, namespace, bin, &holding, nil, slices.Clone(wait)...).CombinedOutput(); err != nil {
		t.Errorf("%v: %v\n%s", wait, err, out)
	}
	if out, err := inPod(t, namespace, bin, &holding, nil, "pilot-agent", "request", "GET", "config_dump").Output(); err != nil || !strings.Contains(string(out), "ListenersConfigDump") {
		t.Errorf("pilot-agent request GET config_dump: %v\n%.300s", err, out)
	}
	drain := native.Lifecycle.PreStop.Exec.Command
	if out, err := inPod(t, namespace, bin, &native, nil, slices.Clone(drain)...).CombinedOutput(); err != nil {
		t.Errorf("%v: %v\n%s", drain, err, out)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("the bridge ended with %v", err)
	}
	for _, want := range []string{`"profile":"mesh"`, "--proxyComponentLogLevel", `"msg":"starting"`} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %s in its log", want)
		}
	}
	if t.Failed() {
		t.Logf("the log:\n%s", log.String())
	}
}
