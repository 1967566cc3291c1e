package deploy

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"istio.io/istio/operator/pkg/helm"
	"istio.io/istio/operator/pkg/values"
	"istio.io/istio/pkg/config/mesh"
	"istio.io/istio/pkg/kube/inject"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// istiod is what istiod's injector is configured with, as Istio's own chart renders it with the project's
// templates among its values.
type istiod struct {
	templates inject.RawTemplates
	values    inject.ValuesConfig
	mesh      string
}

// newIstiod renders Istio's chart; set are further values, as PATH=VALUE.
func newIstiod(t *testing.T, set ...string) istiod {
	t.Helper()
	config := values.Map{}
	for name, file := range map[string]string{"meshbridge": "overlay.yaml", "meshbridge-full": "full.yaml"} {
		// As helm's --set-file does.
		if err := config.SetPath("spec.values.sidecarInjectorWebhook.templates."+name, read(t, deployed+"/injection/"+file)); err != nil {
			t.Fatal(err)
		}
	}
	if err := config.SetPaths(append([]string{
		"spec.values.global.hub=registry.istio.io/release", "spec.values.global.tag=1.31.0",
	}, set...)...); err != nil {
		t.Fatal(err)
	}
	manifests, _, err := helm.Render("istiod", "istio-system", "istio-control/istio-discovery", config, nil)
	if err != nil {
		t.Fatal(err)
	}
	maps := map[string]map[string]string{}
	for _, m := range manifests {
		if m.GetKind() != "ConfigMap" {
			continue
		}
		var c corev1.ConfigMap
		if err := yaml.Unmarshal([]byte(m.Content), &c); err != nil {
			t.Fatal(err)
		}
		maps[c.Name] = c.Data
	}
	parsed, err := inject.UnmarshalConfig([]byte(maps["istio-sidecar-injector"]["config"]))
	if err != nil {
		t.Fatal(err)
	}
	i := istiod{templates: map[string]string{}, mesh: maps["istio"]["mesh"]}
	for name, template := range parsed.RawTemplates {
		i.templates[name] = template
	}
	if i.values, err = inject.NewValuesConfig(maps["istio-sidecar-injector"]["values"]); err != nil {
		t.Fatal(err)
	}
	return i
}

// inject runs Istio's injector over a file of testdata/apps, with annotations added to the pod's.
func (i istiod) inject(t *testing.T, app string, annotations map[string]string) (string, error) {
	t.Helper()
	var d appsv1.Deployment
	decode(t, read(t, filepath.Join("testdata/apps", app+".yaml")), &d)
	return i.injectInto(t, d, annotations)
}

func (i istiod) injectInto(t *testing.T, d appsv1.Deployment, annotations map[string]string) (string, error) {
	t.Helper()
	if d.Spec.Template.Annotations == nil {
		d.Spec.Template.Annotations = map[string]string{}
	}
	for name, value := range annotations {
		d.Spec.Template.Annotations[name] = value
	}
	in, err := yaml.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	meshConfig, err := mesh.ApplyMeshConfigDefaults(i.mesh)
	if err != nil {
		t.Fatal(err)
	}
	templates, err := inject.ParseTemplates(i.templates)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	err = inject.IntoResourceFile(nil, templates, i.values, "default", meshConfig, bytes.NewReader(in), &out,
		func(warning string) { t.Errorf("injector: %s", warning) })
	return out.String(), err
}

const (
	templates     = "inject.istio.io/templates"
	nativeSidecar = "sidecar.istio.io/nativeSidecar"
)

func TestInjectedPods(t *testing.T) {
	plain := newIstiod(t)
	cni := newIstiod(t, "spec.values.pilot.cni.enabled=true")
	holding := newIstiod(t, "spec.values.global.proxy.holdApplicationUntilProxyStarts=true")
	for _, c := range []struct {
		name, app   string
		istiod      istiod
		annotations map[string]string
	}{
		{"hello", "hello", plain, map[string]string{nativeSidecar: "false"}},
		{"hello-native", "hello", plain, map[string]string{nativeSidecar: "true"}},
		{"hello-cni", "hello", cni, map[string]string{nativeSidecar: "true"}},
		{"hello-hold", "hello", holding, map[string]string{nativeSidecar: "false"}},
		{"probes", "probes", plain, map[string]string{nativeSidecar: "false"}},
		{"probes-native", "probes", plain, map[string]string{nativeSidecar: "true"}},
		{"probes-kept", "probes", plain, map[string]string{
			nativeSidecar: "false", "sidecar.istio.io/rewriteAppHTTPProbers": "false", "prometheus.istio.io/merge-metrics": "false",
		}},
		{"annotations", "hello", plain, map[string]string{
			nativeSidecar:                                      "false",
			"meshbridge/image":                                 "registry.internal/mesh/bridge@sha256:" + strings.Repeat("0", 64),
			"proxy.istio.io/config":                            `{"proxyMetadata": {"MESHBRIDGE_LOG_LEVEL": "debug", "ISTIO_META_DNS_CAPTURE": "true"}}`,
			"sidecar.istio.io/proxyCPU":                        "200m",
			"sidecar.istio.io/proxyMemoryLimit":                "512Mi",
			"traffic.sidecar.istio.io/excludeOutboundIPRanges": "10.96.0.1/32",
			"traffic.sidecar.istio.io/excludeInboundPorts":     "9443",
			"readiness.status.sidecar.istio.io/periodSeconds":  "3",
		}},
		{"interception-none", "hello", plain, map[string]string{nativeSidecar: "false", "sidecar.istio.io/interceptionMode": "NONE"}},
	} {
		for kind, selected := range map[string]string{"overlay": "sidecar,meshbridge", "full": "meshbridge-full"} {
			t.Run(kind+"/"+c.name, func(t *testing.T) {
				annotations := map[string]string{templates: selected}
				for name, value := range c.annotations {
					annotations[name] = value
				}
				out, err := c.istiod.inject(t, c.app, annotations)
				if err != nil {
					t.Fatal(err)
				}
				golden(t, "injection/"+kind+"/"+c.name, out)

				var d appsv1.Deployment
				decode(t, out, &d)
				pod := d.Spec.Template
				checkPod(t, &pod)
				checkSidecar(t, &pod, c.annotations[nativeSidecar] == "true")
			})
		}
	}
}

// A template that puts the proxy into the other list would add a second one.
func checkSidecar(t *testing.T, pod *corev1.PodTemplateSpec, native bool) {
	t.Helper()
	isProxy := func(c corev1.Container) bool { return c.Name == inject.ProxyContainerName }
	with, without := pod.Spec.Containers, pod.Spec.InitContainers
	if native {
		with, without = without, with
	}
	i := slices.IndexFunc(with, isProxy)
	if i < 0 || slices.ContainsFunc(without, isProxy) {
		t.Fatalf("native %v: init containers %v, containers %v", native, names(pod.Spec.InitContainers), names(pod.Spec.Containers))
	}
	proxy := with[i]
	if native && (proxy.RestartPolicy == nil || *proxy.RestartPolicy != corev1.ContainerRestartPolicyAlways) {
		t.Errorf("the native sidecar's restart policy is %v", proxy.RestartPolicy)
	}
	if text := fmt.Sprint(proxy.Command, proxy.Args, proxy.Lifecycle); strings.Contains(text, "pilot-agent") {
		t.Errorf("the image has no pilot-agent: %s", text)
	}
	checkArguments(t, &proxy)
}

func TestInjectionRefusesWhatIsNotSupported(t *testing.T) {
	i := newIstiod(t)
	for annotation, want := range map[[2]string]string{
		{"sidecar.istio.io/interceptionMode", "TPROXY"}:                                     "TPROXY is not supported",
		{"proxy.istio.io/config", `{"proxyMetadata": {"ISTIO_META_ENABLE_HBONE": "true"}}`}: "ISTIO_META_ENABLE_HBONE is not supported",
	} {
		for _, selected := range []string{"sidecar,meshbridge", "meshbridge-full"} {
			_, err := i.inject(t, "hello", map[string]string{templates: selected, annotation[0]: annotation[1]})
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s with %s=%s: %v, want %q", selected, annotation[0], annotation[1], err, want)
			}
		}
	}
}

func TestTheApplicationIsHeldUntilTheBridgeIsReady(t *testing.T) {
	for _, selected := range []string{"sidecar,meshbridge", "meshbridge-full"} {
		out, err := newIstiod(t, "spec.values.global.proxy.holdApplicationUntilProxyStarts=true").
			inject(t, "hello", map[string]string{templates: selected, nativeSidecar: "false"})
		if err != nil {
			t.Fatal(err)
		}
		var d appsv1.Deployment
		decode(t, out, &d)
		containers := d.Spec.Template.Spec.Containers
		if containers[0].Name != inject.ProxyContainerName {
			t.Fatalf("%s: containers start in the order %v", selected, names(containers))
		}
		var asked atomic.Int32
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if n := asked.Add(1); r.URL.Path != "/healthz/ready" || n < 3 {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		}))
		command := containers[0].Lifecycle.PostStart.Exec.Command
		if command[0] != "meshbridge" {
			t.Fatalf("%s: the command is %q", selected, command)
		}
		args := append(command[1:], "--url", server.URL+"/healthz/ready", "--period", "10ms")
		if out, err := exec.CommandContext(t.Context(), meshbridge(t), args...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", selected, err, out)
		}
		if n := asked.Load(); n != 3 {
			t.Errorf("%s: it asked %d times, want until the third answer, which is 200", selected, n)
		}
		server.Close()
	}
}

func decode(t *testing.T, text string, d *appsv1.Deployment) {
	t.Helper()
	if err := yaml.UnmarshalStrict([]byte(text), d); err != nil {
		t.Fatalf("Kubernetes would refuse it: %v", err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func names(containers []corev1.Container) []string {
	all := make([]string, 0, len(containers))
	for _, c := range containers {
		all = append(all, c.Name)
	}
	return all
}
