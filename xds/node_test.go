package xds_test

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/structpb"

	"meshbridge/xds"
)

// files is a file system of texts.
type files map[string]string

func (f files) read(path string) ([]byte, error) {
	content, ok := f[path]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return []byte(content), nil
}

// pod is what Istio's injector gives to a sidecar.
func pod() []string {
	return []string{
		"POD_NAME=client-abc", "POD_NAMESPACE=default", "INSTANCE_IP=10.9.0.1", "SERVICE_ACCOUNT=client",
		"HOST_IP=172.18.0.2", "TRUST_DOMAIN=cluster.local", "PILOT_CERT_PROVIDER=istiod",
		"ISTIO_META_CLUSTER_ID=Kubernetes", "ISTIO_META_INTERCEPTION_MODE=REDIRECT", "ISTIO_META_MESH_ID=cluster.local",
		"ISTIO_META_WORKLOAD_NAME=client", "ISTIO_META_OWNER=kubernetes://apis/apps/v1/namespaces/default/deployments/client",
		"ISTIO_META_DNS_CAPTURE=true", `ISTIO_META_POD_PORTS=[{"containerPort":80}]`, "HOME=/",
		`PROXY_CONFIG={"proxyMetadata":{"ISTIO_META_HTTP10":"1","ISTIO_META_DNS_CAPTURE":"false","OTHER":"x"},"concurrency":2}`,
	}
}

func node(tb testing.TB, environ []string, f files) *corepb.Node {
	tb.Helper()
	config, err := xds.NodeFromEnvironment(environ, f.read)
	if err != nil {
		tb.Fatal(err)
	}
	n, err := config.Node()
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

func TestAnInjectedPodIdentifiesItselfLikeIstiosAgent(t *testing.T) {
	n := node(t, pod(), files{
		"/etc/istio/pod/labels":      "app=\"client\"\nistio-locality=\"region1.zone1.sub1\"\npod-template-hash=\"5d\"\nquote=\"a\\\"b\"",
		"/etc/istio/pod/annotations": "sidecar.istio.io/inject=\"true\"\n",
	})
	metadata, err := structpb.NewStruct(map[string]any{
		"NAME": "client-abc", "NAMESPACE": "default", "INSTANCE_IPS": "10.9.0.1", "SERVICE_ACCOUNT": "client",
		"CLUSTER_ID": "Kubernetes", "INTERCEPTION_MODE": "REDIRECT", "MESH_ID": "cluster.local", "WORKLOAD_NAME": "client",
		"OWNER":       "kubernetes://apis/apps/v1/namespaces/default/deployments/client",
		"DNS_CAPTURE": "true", "POD_PORTS": `[{"containerPort":80}]`, "HTTP10": "1", "ISTIO_VERSION": "1.31.0",
		"LABELS":      map[string]any{"app": "client", "istio-locality": "region1.zone1.sub1", "quote": `a"b`},
		"ANNOTATIONS": map[string]any{"sidecar.istio.io/inject": "true"},
		"PROXY_CONFIG": map[string]any{"concurrency": 2, "proxyMetadata": map[string]any{
			"ISTIO_META_HTTP10": "1", "ISTIO_META_DNS_CAPTURE": "false", "OTHER": "x",
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := &corepb.Node{
		Id:                   "sidecar~10.9.0.1~client-abc.default~default.svc.cluster.local",
		Cluster:              "client.default",
		Metadata:             metadata,
		Locality:             &corepb.Locality{Region: "region1", Zone: "zone1", SubZone: "sub1"},
		UserAgentName:        "meshbridge",
		UserAgentVersionType: &corepb.Node_UserAgentVersion{},
	}
	if diff := cmp.Diff(want, n, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

// The recorded identities are ones that istiod accepted; every key it was told is one we can tell.
func TestRecordedIdentitiesCanBeExpressed(t *testing.T) {
	recordedNodes, err := filepath.Glob(recorded + "/*/node.json")
	if err != nil || len(recordedNodes) == 0 {
		t.Fatal(recordedNodes, err)
	}
	for _, file := range recordedNodes {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want := &corepb.Node{}
		if err := protojson.Unmarshal(content, want); err != nil {
			t.Fatal(err)
		}
		m := want.GetMetadata().AsMap()
		id := strings.Split(want.GetId(), "~")
		pod, namespace, _ := strings.Cut(id[2], ".")
		text := func(key string) string { s, _ := m[key].(string); return s }
		labels := map[string]string{}
		for key, value := range want.GetMetadata().GetFields()["LABELS"].GetStructValue().GetFields() {
			labels[key] = value.GetStringValue()
		}
		config := xds.NodeConfig{
			Type: id[0], PodName: pod, Namespace: namespace, IPs: []netip.Addr{netip.MustParseAddr(id[1])}, DNSDomain: id[3],
			ServiceAccount: text("SERVICE_ACCOUNT"), ClusterID: text("CLUSTER_ID"), MeshID: text("MESH_ID"),
			IstioVersion: text("ISTIO_VERSION"), InterceptionMode: text("INTERCEPTION_MODE"), Labels: labels, Metadata: m,
		}
		got, err := config.Node()
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if got.GetId() != want.GetId() {
			t.Errorf("%s: id %s, want %s", file, got.GetId(), want.GetId())
		}
		want.GetMetadata().GetFields()["NAME"] = structpb.NewStringValue(pod)
		want.GetMetadata().GetFields()["PROXY_CONFIG"] = structpb.NewStructValue(&structpb.Struct{}) // which istiod's proxy-status wants
		if diff := cmp.Diff(want.GetMetadata(), got.GetMetadata(), protocmp.Transform()); diff != "" {
			t.Errorf("%s: %s", file, diff)
		}
	}
}

func TestDualStackGatewayIdentity(t *testing.T) {
	config, err := xds.NodeFromEnvironment([]string{
		"POD_NAME=gw-0", "POD_NAMESPACE=ingress", "INSTANCE_IP=fd00::1,10.0.0.1,fd00::1", "TRUST_DOMAIN=td",
		`ISTIO_METAJSON_LABELS={"istio":"gateway","topology.istio.io/locality":"r/z"}`,
		`ISTIO_METAJSON_EXTRA={"REQUESTED_NETWORK_VIEW":"a,b"}`,
	}, files{}.read)
	if err != nil {
		t.Fatal(err)
	}
	config.Type = xds.NodeRouter
	n, err := config.Node()
	if err != nil {
		t.Fatal(err)
	}
	if n.GetId() != "router~fd00::1~gw-0.ingress~ingress.svc.cluster.local" || n.GetLocality().GetZone() != "z" {
		t.Errorf("%v", n)
	}
	m := n.GetMetadata().AsMap()
	labels, _ := m["LABELS"].(map[string]any)
	if m["INSTANCE_IPS"] != "fd00::1,10.0.0.1" || m["MESH_ID"] != "td" || m["REQUESTED_NETWORK_VIEW"] != "a,b" ||
		m["INTERCEPTION_MODE"] != nil || labels["istio"] != "gateway" {
		t.Errorf("%v", m)
	}
}

func TestTheLocalityIsThatOfTheLabels(t *testing.T) {
	const region, zone, subzone = "topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone"
	for _, c := range []struct {
		name   string
		labels map[string]string
		want   *corepb.Locality
	}{
		{"none", map[string]string{"app": "a"}, nil},
		{"of the node", map[string]string{region: "r", zone: "r-1", subzone: "rack"}, &corepb.Locality{Region: "r", Zone: "r-1", SubZone: "rack"}},
		{"of the node, in part", map[string]string{zone: "z.1"}, &corepb.Locality{Zone: "z.1"}},
		{"overridden", map[string]string{region: "r", zone: "z", "topology.istio.io/locality": "a.b"}, &corepb.Locality{Region: "a", Zone: "b"}},
		{"overridden by the old label", map[string]string{zone: "z", "istio-locality": "a/b.c/d"}, &corepb.Locality{Region: "a", Zone: "b.c", SubZone: "d"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, err := xds.NodeConfig{PodName: "a", Namespace: "b", IPs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, Labels: c.labels}.Node()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, n.GetLocality(), protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAnIdentityThatIsNotCompleteNamesWhatIsMissing(t *testing.T) {
	_, err := xds.NodeConfig{Type: "ambassador", InterceptionMode: "MAYBE"}.Node()
	for _, want := range []string{"POD_NAME", "POD_NAMESPACE", "INSTANCE_IP", `"ambassador"`, `"MAYBE"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: want %s in it", err, want)
		}
	}
	_, err = xds.NodeConfig{PodName: "a~b", Namespace: "c", IPs: []netip.Addr{netip.MustParseAddr("fe80::1%eth0")}}.Node()
	for _, want := range []string{`"a~b" holds a ~`, "fe80::1%eth0"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: want %s in it", err, want)
		}
	}
}

func TestAnEnvironmentThatCannotBeUnderstoodNamesTheVariable(t *testing.T) {
	for variable, want := range map[string]string{
		"INSTANCE_IP=10.0.0":           "INSTANCE_IP: ",
		"PROXY_CONFIG={concurrency: x": "PROXY_CONFIG: ",
		"PROXY_CONFIG=concurrency: x":  "PROXY_CONFIG: ",
		"ISTIO_METAJSON_LABELS=[":      "ISTIO_METAJSON_LABELS: ",
		"ISTIO_METAJSON_X={":           "ISTIO_METAJSON_X: ",
	} {
		config, err := xds.NodeFromEnvironment([]string{variable, "POD_NAME=p"}, files{}.read)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", variable, err)
		}
		if config.PodName != "p" {
			t.Errorf("%s: the rest is lost", variable)
		}
	}
	_, err := xds.NodeFromEnvironment(nil, files{"/etc/istio/pod/labels": "a=\"b\"\nc=d\n"}.read)
	if err == nil || !strings.Contains(err.Error(), "/etc/istio/pod/labels: line 2") {
		t.Error(err)
	}
	_, err = xds.NodeFromEnvironment(nil, func(string) ([]byte, error) { return nil, errors.New("broken disk") })
	if err == nil || !strings.Contains(err.Error(), "/etc/istio/pod/annotations: broken disk") {
		t.Error(err)
	}
}
