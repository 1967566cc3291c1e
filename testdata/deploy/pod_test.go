package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// checkPod holds a pod against those of Kubernetes' rules that its public modules have, and the rules about
// names that refer to each other; the whole validation is internal to k8s.io/kubernetes. Unknown and doubled
// fields were found by strict decoding before.
func checkPod(t *testing.T, pod *corev1.PodTemplateSpec) {
	t.Helper()
	errs := metavalidation.ValidateLabels(pod.Labels, field.NewPath("metadata", "labels"))
	errs = append(errs, apivalidation.ValidateAnnotations(pod.Annotations, field.NewPath("metadata", "annotations"))...)
	volumes := map[string]bool{}
	for i, v := range pod.Spec.Volumes {
		at := field.NewPath("spec", "volumes").Index(i).Child("name")
		if volumes[v.Name] {
			errs = append(errs, field.Duplicate(at, v.Name))
		}
		volumes[v.Name] = true
		for _, reason := range validation.IsDNS1123Label(v.Name) {
			errs = append(errs, field.Invalid(at, v.Name, reason))
		}
	}
	seen := map[string]bool{}
	for list, containers := range map[string][]corev1.Container{"initContainers": pod.Spec.InitContainers, "containers": pod.Spec.Containers} {
		for i := range containers {
			at := field.NewPath("spec", list).Index(i)
			if seen[containers[i].Name] {
				errs = append(errs, field.Duplicate(at.Child("name"), containers[i].Name))
			}
			seen[containers[i].Name] = true
			errs = append(errs, checkContainer(&containers[i], volumes, list == "initContainers", at)...)
		}
	}
	for _, err := range errs {
		t.Error(err)
	}
}

func checkContainer(c *corev1.Container, volumes map[string]bool, initial bool, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, reason := range validation.IsDNS1123Label(c.Name) {
		errs = append(errs, field.Invalid(at.Child("name"), c.Name, reason))
	}
	if c.Image == "" || strings.TrimSpace(c.Image) != c.Image {
		errs = append(errs, field.Invalid(at.Child("image"), c.Image, "not an image"))
	}
	sidecar := c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
	if initial && !sidecar && (c.Lifecycle != nil || c.ReadinessProbe != nil || c.LivenessProbe != nil || c.StartupProbe != nil) {
		errs = append(errs, field.Forbidden(at, "init containers that end have no probes and no lifecycle"))
	}
	defined := map[string]bool{}
	for i, e := range c.Env {
		if defined[e.Name] {
			errs = append(errs, field.Duplicate(at.Child("env").Index(i), e.Name))
		}
		defined[e.Name] = true
		for _, reason := range validation.IsEnvVarName(e.Name) {
			errs = append(errs, field.Invalid(at.Child("env").Index(i), e.Name, reason))
		}
		if e.Value != "" && e.ValueFrom != nil {
			errs = append(errs, field.Invalid(at.Child("env").Index(i), e.Name, "has a value and a source of it"))
		}
	}
	paths := map[string]bool{}
	for i, m := range c.VolumeMounts {
		if !volumes[m.Name] {
			errs = append(errs, field.NotFound(at.Child("volumeMounts").Index(i).Child("name"), m.Name))
		}
		if paths[m.MountPath] {
			errs = append(errs, field.Duplicate(at.Child("volumeMounts").Index(i).Child("mountPath"), m.MountPath))
		}
		paths[m.MountPath] = true
	}
	ports := map[string]bool{}
	for i, p := range c.Ports {
		for _, reason := range validation.IsValidPortNum(int(p.ContainerPort)) {
			errs = append(errs, field.Invalid(at.Child("ports").Index(i), p.ContainerPort, reason))
		}
		if p.Name == "" {
			continue
		}
		for _, reason := range validation.IsValidPortName(p.Name) {
			errs = append(errs, field.Invalid(at.Child("ports").Index(i), p.Name, reason))
		}
		if ports[p.Name] {
			errs = append(errs, field.Duplicate(at.Child("ports").Index(i), p.Name))
		}
		ports[p.Name] = true
	}
	for resource, limit := range c.Resources.Limits {
		if request, ok := c.Resources.Requests[resource]; ok && request.Cmp(limit) > 0 {
			errs = append(errs, field.Invalid(at.Child("resources", "requests"), resource, "is more than the limit"))
		}
	}
	return errs
}

var reference = regexp.MustCompile(`\$\(([A-Z_]+)\)`)

// checkArguments runs the program with the arguments and variables of a container, and --print-config, which
// refuses flags and values that it does not know.
func checkArguments(t *testing.T, c *corev1.Container) {
	t.Helper()
	env := map[string]string{}
	for _, e := range c.Env {
		env[e.Name] = e.Value
		if e.ValueFrom != nil && e.ValueFrom.FieldRef != nil {
			env[e.Name] = map[string]string{"status.podIP": "10.0.0.1"}[e.ValueFrom.FieldRef.FieldPath]
			if env[e.Name] == "" {
				env[e.Name] = "name"
			}
		}
	}
	args := make([]string, 0, len(c.Args)+1)
	for _, a := range c.Args {
		args = append(args, reference.ReplaceAllStringFunc(a, func(r string) string {
			value, ok := env[r[2:len(r)-1]]
			if !ok {
				t.Errorf("%s is no variable of the container: Kubernetes leaves it as it is", r)
			}
			return value
		}))
	}
	cmd := exec.CommandContext(t.Context(), meshbridge(t), append(args, "--print-config")...)
	for name, value := range env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("meshbridge %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// meshbridge returns the program: $MESHBRIDGE, which make sets.
func meshbridge(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs(os.Getenv("MESHBRIDGE"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); os.Getenv("MESHBRIDGE") == "" || err != nil {
		t.Fatalf("MESHBRIDGE names no program (make deploy builds it): %v", err)
	}
	return path
}
