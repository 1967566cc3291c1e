package translate

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	udpapb "github.com/cncf/xds/go/udpa/type/v1"
	xdstypepb "github.com/cncf/xds/go/xds/type/v3"
	http_connection_managerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
)

// typePeerMetadata is the message of Istio's filter by which proxies tell each other whose they are, in the
// headers x-envoy-peer-metadata-id (the node id) and x-envoy-peer-metadata (a Struct in base64).
const typePeerMetadata = "io.istio.http.peer_metadata.Config"

const codePeerMetadata Code = "peer_metadata_ignored"

// peerExchange is what a chain does with these headers. It is comparable.
type peerExchange struct {
	// take removes them from requests, and answer adds ours to the responses of those that had them.
	take, answer bool
	// tell adds ours to requests, and hide removes those of responses.
	tell, hide bool
	// inMesh leaves requests to clusters outside the mesh as they are.
	inMesh bool
	// labels are names of further labels that are told, with commas between them.
	labels string
}

// peerMetadataConfig is the part of the filter's configuration that is about headers, and what else it may
// have, in JSON.
type peerMetadataConfig struct {
	DownstreamDiscovery   []peerMethod `json:"downstream_discovery"`
	UpstreamDiscovery     []peerMethod `json:"upstream_discovery"`
	DownstreamPropagation []peerMethod `json:"downstream_propagation"`
	UpstreamPropagation   []peerMethod `json:"upstream_propagation"`
	SharedWithUpstream    bool         `json:"shared_with_upstream"`
	AdditionalLabels      []string     `json:"additional_labels"`
}

// peerMethod is a way to learn or tell who a peer is. What istiod says of endpoints stands for workload
// discovery.
type peerMethod struct {
	IstioHeaders *struct {
		SkipExternalClusters bool `json:"skip_external_clusters"`
	} `json:"istio_headers"`
	WorkloadDiscovery   *struct{} `json:"workload_discovery"`
	Baggage             *struct{} `json:"baggage"`
	UpstreamFilterState *struct {
		PeerMetadataKey string `json:"peer_metadata_key"`
	} `json:"upstream_filter_state"`
}

// peerExchangeOf returns what the filters of a connection manager do.
func peerExchangeOf(hcm *http_connection_managerpb.HttpConnectionManager, report reporter) (x peerExchange) {
	for _, f := range hcm.GetHttpFilters() {
		if f.GetDisabled() || messageName(f.GetTypedConfig()) != typePeerMetadata {
			continue
		}
		field := `http_filters["` + f.GetName() + `"]`
		c, err := readPeerMetadata(f.GetTypedConfig())
		if err != nil {
			report(codePeerMetadata, field, err)
			continue
		}
		headers := func(methods []peerMethod, name string) (found bool) {
			for _, m := range methods {
				switch {
				case m.IstioHeaders != nil:
					found = true
					x.inMesh = x.inMesh || m.IstioHeaders.SkipExternalClusters
				case m.Baggage != nil:
					report(codePeerMetadata, field+"."+name, "baggage, which only tunnels of waypoints carry")
				case m.UpstreamFilterState != nil:
					report(codePeerMetadata, field+"."+name, "upstream_filter_state")
				}
			}
			return found
		}
		x.take = headers(c.DownstreamDiscovery, "downstream_discovery") || x.take
		x.answer = headers(c.DownstreamPropagation, "downstream_propagation") || x.answer
		x.tell = headers(c.UpstreamPropagation, "upstream_propagation") || x.tell
		x.hide = headers(c.UpstreamDiscovery, "upstream_discovery") || x.hide
		if len(c.AdditionalLabels) > 0 {
			x.labels = strings.Join(slices.Compact(slices.Sorted(slices.Values(c.AdditionalLabels))), ",")
		}
	}
	x.answer = x.answer && x.take // Envoy answers what it has taken
	return x
}

// readPeerMetadata reads the configuration, for which there is no message here: istiod sends it as a
// TypedStruct.
func readPeerMetadata(config *anypb.Any) (*peerMetadataConfig, error) {
	var value *structpb.Struct
	if s := new(udpapb.TypedStruct); config.MessageIs(s) && config.UnmarshalTo(s) == nil {
		value = s.GetValue()
	} else if s := new(xdstypepb.TypedStruct); config.MessageIs(s) && config.UnmarshalTo(s) == nil {
		value = s.GetValue()
	} else {
		return nil, errors.New("a configuration that is no TypedStruct")
	}
	raw, err := json.Marshal(snakeCase(value.AsMap()))
	if err != nil {
		return nil, fmt.Errorf("a configuration that cannot be read: %w", err)
	}
	c := new(peerMetadataConfig)
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.DisallowUnknownFields()
	if err := d.Decode(c); err != nil {
		return nil, fmt.Errorf("a configuration that cannot be read: %w", err)
	}
	return c, nil
}

// snakeCase gives fields their names of the proto file: JSON may have them in camel case, too.
func snakeCase(v any) any {
	switch v := v.(type) {
	case []any:
		for i, element := range v {
			v[i] = snakeCase(element)
		}
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, element := range v {
			var name strings.Builder
			for _, c := range key {
				if 'A' <= c && c <= 'Z' {
					name.WriteByte('_')
					c += 'a' - 'A'
				}
				name.WriteRune(c)
			}
			out[name.String()] = snakeCase(element)
		}
		return out
	}
	return v
}

// quietTo tells whether requests to a cluster do not say whose they are.
func (x peerExchange) quietTo(facts clusterFacts) bool {
	return (x.tell || x.answer) && (facts.noPeers || x.inMesh && facts.external)
}

// Labels of Kubernetes that come before app and version.
const (
	labelAppName    = "app.kubernetes.io/name"
	labelAppVersion = "app.kubernetes.io/version"
)

// peerMetadata is the value of x-envoy-peer-metadata: of the node's metadata, what Istio's proxies tell.
func peerMetadata(node *structpb.Struct, at Locality, labels []string) (string, error) {
	text := func(s *structpb.Struct, key string) string { return s.GetFields()[key].GetStringValue() }
	own := node.GetFields()["LABELS"].GetStructValue()
	told := map[string]string{
		"service.istio.io/canonical-name":     text(own, "service.istio.io/canonical-name"),
		"service.istio.io/canonical-revision": text(own, "service.istio.io/canonical-revision"),
		"app":                                 cmp.Or(text(own, labelAppName), text(own, "app")),
		"version":                             cmp.Or(text(own, labelAppVersion), text(own, "version")),
	}
	for _, name := range labels {
		if name != labelAppName && name != labelAppVersion { // which are told as app and version
			told[name] = cmp.Or(told[name], text(own, name))
		}
	}
	fields := map[string]string{
		"NAME":              text(node, "NAME"),
		"NAMESPACE":         text(node, "NAMESPACE"),
		"WORKLOAD_NAME":     text(node, "WORKLOAD_NAME"),
		"CLUSTER_ID":        text(node, "CLUSTER_ID"),
		"IDENTITY":          text(node, "IDENTITY"),
		"OWNER":             peerOwner(text(node, "OWNER"), text(node, "NAMESPACE"), text(node, "WORKLOAD_NAME")),
		"REGION":            cmp.Or(text(node, "REGION"), at.Region),
		"AVAILABILITY_ZONE": cmp.Or(text(node, "AVAILABILITY_ZONE"), at.Zone),
	}
	out := peerStruct(fields)
	out.Fields["LABELS"] = structpb.NewStructValue(peerStruct(told))
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(out)
	if err != nil {
		return "", fmt.Errorf("metadata of the node: %w", err)
	}
	return base64.StdEncoding.EncodeToString(encoded), nil
}

// peerStruct leaves out what is empty.
func peerStruct(fields map[string]string) *structpb.Struct {
	s := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for key, value := range fields {
		if value != "" {
			s.Fields[key] = structpb.NewStringValue(value)
		}
	}
	return s
}

// peerOwner is the owner as Istio's proxies write it, which know pods, deployments, jobs and cron jobs; empty
// for others.
func peerOwner(owner, namespace, workload string) string {
	kind := afterSlash(strings.TrimSuffix(owner, "s/"+workload))
	if !slices.Contains([]string{"pod", "deployment", "job", "cronjob"}, kind) {
		return ""
	}
	return "kubernetes://apis/apps/v1/namespaces/" + namespace + "/" + kind + "s/" + workload
}
