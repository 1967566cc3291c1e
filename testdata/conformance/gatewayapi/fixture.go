package gatewayapi

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"istio.io/istio/pilot/pkg/config/kube/gatewaycommon"
	"istio.io/istio/pilot/pkg/features"
	"istio.io/istio/pilot/pkg/model"
	"istio.io/istio/pkg/config"
	"istio.io/istio/pkg/config/host"
	"istio.io/istio/pkg/log"
	"istio.io/istio/pkg/test"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"meshbridge/testdata/conformance/istiod"
)

// Surroundings are what Istio's test has in the cluster next to each fixture.
type Surroundings struct {
	Services []*model.Service
	// Objects are Secrets and ConfigMaps.
	Objects []runtime.Object
}

// Istio's test has a domain of its own; its test server has the usual one.
const (
	theirDomain = "domain.suffix"
	ourDomain   = "cluster.local"
)

func inOurDomain(text string) string {
	return strings.ReplaceAll(text, "."+theirDomain, "."+ourDomain)
}

// fixture is one of Istio's.
type fixture struct {
	name, text string
	objects    []runtime.Object
	// configs are those of the objects that are of Istio's kinds.
	configs []config.Config
	// golden is what Istio's test expects the conversion to make; isExpected is whether it says so.
	golden     string
	isExpected bool
}

// Record records every fixture of Istio's directory, each in directories of its own below out, with an
// Index of them.
func Record(t *testing.T, dir, out string, around Surroundings) {
	quiet := log.DefaultOptions()
	quiet.SetDefaultOutputLevel(log.OverrideScopeName, log.NoneLevel)
	if err := log.Configure(quiet); err != nil {
		t.Fatal(err)
	}
	// As Istio's test has them.
	for _, feature := range []*bool{
		&features.EnableAlphaGatewayAPI, &features.EnableAmbientWaypoints, &features.EnableAmbientMultiNetwork,
		&features.EnableGatewayAPIInferenceExtension,
	} {
		test.SetForTest(t, feature, true)
	}
	test.SetForTest(t, &features.EnableGatewayAPIGatewayClassController, false)
	gatewaycommon.ClassInfos = gatewaycommon.GetClassInfos()
	gatewaycommon.BuiltinGatewayClasses = gatewaycommon.GetBuiltinGatewayClasses()

	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no fixtures in %s: %v", dir, err)
	}
	var index Index
	for _, file := range files {
		f := load(t, file)
		t.Run(f.name, func(t *testing.T) { index.Fixtures = append(index.Fixtures, f.record(t, out, around)) })
	}
	index.write(t, out)
}

func load(t *testing.T, file string) fixture {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	docs, err := istiod.ParseFile(filepath.Base(file), []byte(inOurDomain(string(text))), false)
	if err != nil {
		t.Fatal(err)
	}
	f := fixture{name: strings.TrimSuffix(filepath.Base(file), ".yaml"), text: string(text)}
	for _, doc := range docs {
		f.objects = append(f.objects, doc.Object)
		if doc.Config != nil {
			f.configs = append(f.configs, *doc.Config)
		}
	}
	golden, err := os.ReadFile(file + ".golden")
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	f.golden, f.isExpected = inOurDomain(string(golden)), err == nil
	return f
}

// namespaces are those of the fixture's objects, with the label that Istio's test gives them.
func (f fixture) namespaces() []runtime.Object {
	var out []runtime.Object
	seen := map[string]bool{}
	for _, o := range f.objects {
		name := o.(metav1.Object).GetNamespace()
		if name == "" || seen[name] {
			continue
		}
		seen[name] = true
		first, _, _ := strings.Cut(name, "-")
		out = append(out, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name: name, Labels: map[string]string{"istio.io/test-name-part": first},
		}})
	}
	return out
}

// waypoints are the gateways of the fixture that have no use for a client of xDS other than ztunnel's.
func (f fixture) waypoints() []Skipped {
	var out []Skipped
	for _, o := range f.objects {
		if g, ok := o.(*gatewayv1.Gateway); ok && strings.HasSuffix(string(g.Spec.GatewayClassName), "-waypoint") {
			out = append(out, Skipped{g.Name + "." + g.Namespace, "waypoints are reached by HBONE, which APISIX does not speak"})
		}
	}
	return out
}

// kubernetes returns those services of Istio's test that are in its cluster, with an endpoint each, and
// others, which are known to Istio by host name only. A fixture has those that its text names; Istio's
// test server does not come up without any in its cluster, so that the first of these is in each.
func (s Surroundings) kubernetes(fixture string) (objects []runtime.Object, others []*model.Service) {
	for i, service := range s.Services {
		labels := strings.SplitN(string(service.Hostname), ".", 3)
		named, _, _ := strings.Cut(labels[0], "-ip-") // which Istio appends for the services of pools
		isNamed := strings.Contains(fixture, named)
		if !strings.HasSuffix(string(service.Hostname), "."+theirDomain) || service.Attributes.ClusterExternalAddresses.Len() > 0 {
			if isNamed {
				others = append(others, outside(service, i))
			}
			continue
		}
		if !isNamed && len(objects) > 0 {
			continue
		}
		meta := metav1.ObjectMeta{Name: labels[0], Namespace: labels[1], Labels: service.Attributes.Labels}
		object := &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{ClusterIP: fmt.Sprintf("10.96.1.%d", i+1)}}
		slice := &discoveryv1.EndpointSlice{
			ObjectMeta:  *meta.DeepCopy(),
			AddressType: discoveryv1.AddressTypeIPv4,
			Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{fmt.Sprintf("10.10.1.%d", i+1)}}},
		}
		slice.Labels = map[string]string{discoveryv1.LabelServiceName: meta.Name}
		for _, port := range service.Ports {
			number, target := int32(port.Port), int32(port.Port)
			if number == 80 { // Istio's test has another there, to see mistakes
				target = 8080
			}
			object.Spec.Ports = append(object.Spec.Ports, corev1.ServicePort{Name: port.Name, Port: number, Protocol: corev1.ProtocolTCP})
			slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{Name: &port.Name, Port: &target})
		}
		objects = append(objects, object, slice)
	}
	return append(objects, s.Objects...), others
}

// outside is a copy of a service in our domain, with an address.
func outside(service *model.Service, number int) *model.Service {
	out := service.DeepCopy()
	out.Hostname = host.Name(inOurDomain(string(service.Hostname)))
	out.DefaultAddress = fmt.Sprintf("10.96.2.%d", number+1)
	return out
}
