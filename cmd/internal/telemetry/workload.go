package telemetry

import (
	"cmp"
	"encoding/base64"
	"strings"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// unknown is the value of labels that nothing is known about.
const unknown = "unknown"

// Workload is one end of a request, as Istio's labels name it.
type Workload struct {
	Name, Namespace, Cluster   string
	App, Version               string
	CanonicalService, Revision string
}

// workloadOf reads node metadata: ours, or what a peer says in its x-envoy-peer-metadata.
func workloadOf(metadata *structpb.Struct) Workload {
	text := func(s *structpb.Struct, key string) string { return s.GetFields()[key].GetStringValue() }
	labels := metadata.GetFields()["LABELS"].GetStructValue()
	w := Workload{
		Name: text(metadata, "WORKLOAD_NAME"), Namespace: text(metadata, "NAMESPACE"), Cluster: text(metadata, "CLUSTER_ID"),
		App:     cmp.Or(text(labels, "app.kubernetes.io/name"), text(labels, "app")),
		Version: cmp.Or(text(labels, "app.kubernetes.io/version"), text(labels, "version")),
	}
	// The injector sets the first of each as a label of the pod; Istio's rules for pods without are the same.
	w.CanonicalService = cmp.Or(text(labels, "service.istio.io/canonical-name"), w.App, w.Name)
	w.Revision = cmp.Or(text(labels, "service.istio.io/canonical-revision"), w.Version, "latest")
	return w
}

// WorkloadOfNode returns the workload that a node is the proxy of; nil is nobody.
func WorkloadOfNode(node *corepb.Node) Workload {
	return workloadOf(node.GetMetadata())
}

// workloadOfHeader reads the header x-envoy-peer-metadata: a Struct in base64, with padding or without. Of several
// lines, the first counts.
func workloadOfHeader(header string) (Workload, bool) {
	if header == "" {
		return Workload{}, false
	}
	header, _, _ = strings.Cut(header, ",")
	data, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(header, "="))
	if err != nil {
		return Workload{}, false
	}
	metadata := new(structpb.Struct)
	if proto.Unmarshal(data, metadata) != nil {
		return Workload{}, false
	}
	w := workloadOf(metadata)
	return w, w != Workload{Revision: "latest"}
}

// workloadOfEndpoint reads what istiod says of an endpoint in filter_metadata.istio.workload:
// "name;namespace;service;revision;cluster".
func workloadOfEndpoint(metadata *corepb.Metadata) (Workload, bool) {
	parts := strings.Split(metadata.GetFilterMetadata()["istio"].GetFields()["workload"].GetStringValue(), ";")
	if len(parts) < 5 {
		return Workload{}, false
	}
	return Workload{Name: parts[0], Namespace: parts[1], CanonicalService: parts[2], Revision: parts[3], Cluster: parts[4]}, true
}

// namespaceOf returns that of a SPIFFE ID such as "spiffe://cluster.local/ns/default/sa/reviews"; empty where
// it has none.
func namespaceOf(principal string) string {
	_, rest, ok := strings.Cut(principal, "/ns/")
	if !ok {
		return ""
	}
	namespace, _, _ := strings.Cut(rest, "/")
	return namespace
}

// agree leaves of a workload what it has in common with another.
func (w *Workload) agree(o *Workload) {
	for _, texts := range [][2]*string{
		{&w.Name, &o.Name},
		{&w.Namespace, &o.Namespace},
		{&w.Cluster, &o.Cluster},
		{&w.App, &o.App},
		{&w.Version, &o.Version},
		{&w.CanonicalService, &o.CanonicalService},
		{&w.Revision, &o.Revision},
	} {
		if *texts[0] != *texts[1] {
			*texts[0] = ""
		}
	}
}
