package deploy

import (
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/common"
	commonutil "helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

const chart = deployed + "/charts/meshbridge"

// renderChart does what helm template does. The result is by the names of the chart's templates.
func renderChart(t *testing.T, values map[string]any) (map[string]string, error) {
	t.Helper()
	c, err := loader.Load(chart)
	if err != nil {
		t.Fatal(err)
	}
	capabilities := *common.DefaultCapabilities
	release := common.ReleaseOptions{Name: "edge", Namespace: "ingress", Revision: 1, IsInstall: true}
	all, err := commonutil.ToRenderValues(c, values, release, &capabilities)
	if err != nil {
		return nil, err
	}
	rendered, err := engine.Render(c, all)
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	for name, text := range rendered {
		if text = strings.TrimSpace(text); text != "" {
			files[path.Base(name)] = text + "\n"
		}
	}
	return files, nil
}

func valueFile(t *testing.T, name string) map[string]any {
	t.Helper()
	values := map[string]any{}
	if err := yaml.UnmarshalStrict([]byte(read(t, filepath.Join("testdata/values", name+".yaml"))), &values); err != nil {
		t.Fatal(err)
	}
	return values
}

func TestChart(t *testing.T) {
	for _, name := range []string{"gateway", "gateway-full", "standalone"} {
		t.Run(name, func(t *testing.T) {
			files, err := renderChart(t, valueFile(t, name))
			if err != nil {
				t.Fatal(err)
			}
			var all strings.Builder
			for _, file := range slices.Sorted(maps.Keys(files)) {
				fmt.Fprintf(&all, "---\n# %s\n%s", file, files[file])
			}
			golden(t, "chart/"+name, all.String())

			for file, text := range files {
				if file == "NOTES.txt" {
					continue
				}
				for object := range strings.SplitSeq(text, "\n---\n") {
					checkObject(t, file, object)
				}
			}
		})
	}
}

// checkObject decodes an object strictly, as the API server does with fieldValidation=Strict.
func checkObject(t *testing.T, file, text string) {
	t.Helper()
	var kind metav1.TypeMeta
	if err := yaml.Unmarshal([]byte(text), &kind); err != nil {
		t.Errorf("%s: %v", file, err)
		return
	}
	typed, ok := map[string]any{
		"apps/v1 Deployment":                       &appsv1.Deployment{},
		"v1 Service":                               &corev1.Service{},
		"v1 ServiceAccount":                        &corev1.ServiceAccount{},
		"v1 ConfigMap":                             &corev1.ConfigMap{},
		"rbac.authorization.k8s.io/v1 Role":        &rbacv1.Role{},
		"rbac.authorization.k8s.io/v1 RoleBinding": &rbacv1.RoleBinding{},
		"networking.k8s.io/v1 NetworkPolicy":       &networkingv1.NetworkPolicy{},
		"policy/v1 PodDisruptionBudget":            &policyv1.PodDisruptionBudget{},
		"monitoring.coreos.com/v1 PodMonitor":      &podMonitor{},
		"monitoring.coreos.com/v1 PrometheusRule":  &prometheusRule{},
	}[kind.APIVersion+" "+kind.Kind]
	if !ok {
		t.Errorf("%s: %s %s is not expected", file, kind.APIVersion, kind.Kind)
		return
	}
	if err := yaml.UnmarshalStrict([]byte(text), typed); err != nil {
		t.Errorf("%s: %v", file, err)
		return
	}
	switch object := typed.(type) {
	case *appsv1.Deployment:
		checkPod(t, &object.Spec.Template)
		checkArguments(t, &object.Spec.Template.Spec.Containers[0])
		for label, value := range object.Spec.Selector.MatchLabels {
			if object.Spec.Template.Labels[label] != value {
				t.Errorf("the selector's %s=%s is no label of the pod", label, value)
			}
		}
	case *networkingv1.NetworkPolicy:
		if len(object.Spec.Ingress) == 0 {
			t.Error("the NetworkPolicy allows nothing")
		}
	}
}

// podMonitor and prometheusRule are the fields that are used of the Prometheus operator's kinds.
type podMonitor struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Selector            metav1.LabelSelector `json:"selector"`
		PodMetricsEndpoints []struct {
			Port     string `json:"port"`
			Path     string `json:"path"`
			Interval string `json:"interval"`
		} `json:"podMetricsEndpoints"`
	} `json:"spec"`
}

type prometheusRule struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              alertRules `json:"spec"`
}

func TestTheChartRefusesWhatCannotWork(t *testing.T) {
	for _, c := range []struct{ name, base, set, want string }{
		{"more than one standalone bridge", "standalone", "replicas: 2", "replicas"},
		{"no image", "gateway", "image: {repository: ''}", "image.repository"},
		{"an etcd port without TLS", "standalone", "etcd: {tls: {secretName: ''}}", "etcd.insecure"},
		{"an unknown role", "gateway", "role: waypoint", "role"},
		{"a misspelt key", "gateway", "podMonitors: {enabled: true}", "podMonitors"},
		{"an address with a scheme", "gateway", "istio: {discoveryAddress: 'grpcs://istiod:15012'}", "discoveryAddress"},
		{"a port that is none", "gateway", "service: {ports: [{name: http, port: 80, targetPort: 0}]}", "targetPort"},
		{"no account", "gateway", "serviceAccount: {create: false}", "serviceAccount.name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			set := map[string]any{}
			if err := yaml.UnmarshalStrict([]byte(c.set), &set); err != nil {
				t.Fatal(err)
			}
			_, err := renderChart(t, loader.MergeMaps(valueFile(t, c.base), set))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one about %s", err, c.want)
			}
		})
	}
}

func TestHelmLint(t *testing.T) {
	for _, m := range lint.RunAll(chart, valueFile(t, "gateway"), "ingress").Messages {
		if !strings.Contains(m.Err.Error(), "icon is recommended") {
			t.Error(m)
		}
	}
}

func TestTheChartBringsTheDashboard(t *testing.T) {
	values := valueFile(t, "gateway")
	values["dashboards"] = map[string]any{"enabled": true}
	files, err := renderChart(t, values)
	if err != nil {
		t.Fatal(err)
	}
	var c corev1.ConfigMap
	if err := yaml.UnmarshalStrict([]byte(files["dashboard.yaml"]), &c); err != nil {
		t.Fatal(err)
	}
	if got, want := c.Data["meshbridge.json"], read(t, deployed+"/dashboards/meshbridge.json"); strings.TrimSpace(got) != strings.TrimSpace(want) {
		t.Error("the ConfigMap's dashboard is not the one in deploy/dashboards")
	}
}
