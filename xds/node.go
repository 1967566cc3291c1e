package xds

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
	meshpb "istio.io/api/mesh/v1alpha1"
)

// Kinds of NodeConfig.Type that are proxies of workloads.
const (
	NodeSidecar = "sidecar"
	NodeRouter  = "router" // a gateway
)

// defaultIstioVersion is the release that this package is tested with. istiod matches it with the
// proxyVersion of EnvoyFilters, and warns about proxies without one.
const defaultIstioVersion = "1.31.0"

// NodeConfig identifies a proxy to istiod, which decides by it what configuration to send.
// The zero value of a field means that istiod is told nothing, unless a default is given.
type NodeConfig struct {
	Type      string       // NodeSidecar (default) or NodeRouter
	PodName   string       // required
	Namespace string       // required
	IPs       []netip.Addr // required; the first one is the proxy's address
	// DNSDomain is that of the pod's services; default NAMESPACE.svc.cluster.local.
	DNSDomain string

	ServiceAccount   string // must be that of the token or certificate, on TLS connections
	ClusterID        string // the Kubernetes cluster's name in Istio
	MeshID           string
	Network          string
	NodeName         string // the Kubernetes node
	WorkloadName     string
	Owner            string // kubernetes://apis/...
	IstioVersion     string // default: the release this was tested with
	InterceptionMode string // REDIRECT (default for sidecars), TPROXY or NONE

	Labels      map[string]string // by which Sidecar, Gateway, policies and others select the workload
	Annotations map[string]string
	ProxyConfig *meshpb.ProxyConfig

	// Metadata is any other of Istio's node metadata, such as DNS_CAPTURE or HTTP10. The fields
	// above take precedence.
	Metadata map[string]any

	// UserAgentVersion is the version of the program.
	UserAgentVersion string
}

// Node returns the identity as it goes to istiod. Its error names every field that is missing or
// not usable.
func (c NodeConfig) Node() (*corepb.Node, error) {
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("node identity: %w", err)
	}
	c.Type = cmp.Or(c.Type, NodeSidecar)
	if c.Type == NodeSidecar {
		c.InterceptionMode = cmp.Or(c.InterceptionMode, "REDIRECT")
	}
	metadata, err := c.metadata()
	if err != nil {
		return nil, fmt.Errorf("node identity: metadata: %w", err)
	}
	domain := cmp.Or(c.DNSDomain, c.Namespace+".svc.cluster.local")
	return &corepb.Node{
		Id:                   strings.Join([]string{c.Type, c.IPs[0].String(), c.PodName + "." + c.Namespace, domain}, "~"),
		Cluster:              c.serviceCluster(),
		Metadata:             metadata,
		Locality:             locality(c.Labels),
		UserAgentName:        "meshbridge",
		UserAgentVersionType: &corepb.Node_UserAgentVersion{UserAgentVersion: c.UserAgentVersion},
	}, nil
}

func (c NodeConfig) validate() error {
	var errs []error
	switch c.Type {
	case "", NodeSidecar, NodeRouter:
	default:
		errs = append(errs, fmt.Errorf("type %q is neither %s nor %s", c.Type, NodeSidecar, NodeRouter))
	}
	for _, f := range []struct{ what, value string }{
		{"pod name (POD_NAME)", c.PodName},
		{"namespace (POD_NAMESPACE)", c.Namespace},
	} {
		if f.value == "" {
			errs = append(errs, fmt.Errorf("no %s", f.what))
		}
	}
	for _, f := range []struct{ what, value string }{
		{"pod name", c.PodName}, {"namespace", c.Namespace}, {"DNS domain", c.DNSDomain},
	} {
		// istiod takes the id apart at the tildes and wants four parts.
		if strings.Contains(f.value, "~") {
			errs = append(errs, fmt.Errorf("%s %q holds a ~", f.what, f.value))
		}
	}
	if len(c.IPs) == 0 {
		errs = append(errs, errors.New("no IP address (INSTANCE_IP)"))
	}
	for _, ip := range c.IPs {
		if !ip.IsValid() || ip.Zone() != "" {
			errs = append(errs, fmt.Errorf("IP address %s is not usable", ip))
		}
	}
	switch c.InterceptionMode {
	case "", "REDIRECT", "TPROXY", "NONE":
	default:
		errs = append(errs, fmt.Errorf("interception mode %q is not REDIRECT, TPROXY or NONE", c.InterceptionMode))
	}
	return errors.Join(errs...)
}

func (c NodeConfig) metadata() (*structpb.Struct, error) {
	m := map[string]any{}
	maps.Copy(m, c.Metadata)
	ips := make([]string, 0, len(c.IPs))
	for _, ip := range c.IPs {
		ips = append(ips, ip.String())
	}
	for key, value := range map[string]string{
		"NAME":              c.PodName,
		"NAMESPACE":         c.Namespace,
		"INSTANCE_IPS":      strings.Join(ips, ","), // a string, not a list
		"SERVICE_ACCOUNT":   c.ServiceAccount,
		"CLUSTER_ID":        c.ClusterID,
		"MESH_ID":           c.MeshID,
		"NETWORK":           c.Network,
		"NODE_NAME":         c.NodeName,
		"WORKLOAD_NAME":     c.WorkloadName,
		"OWNER":             c.Owner,
		"ISTIO_VERSION":     cmp.Or(c.IstioVersion, defaultIstioVersion),
		"INTERCEPTION_MODE": c.InterceptionMode,
	} {
		if value != "" {
			m[key] = value
		}
	}
	if len(c.Labels) > 0 {
		m["LABELS"] = c.Labels
	}
	if len(c.Annotations) > 0 {
		m["ANNOTATIONS"] = c.Annotations
	}
	// Always: istiod shows no node without it in proxy-status.
	proxyConfig, err := protojson.Marshal(c.ProxyConfig)
	if err != nil {
		return nil, fmt.Errorf("PROXY_CONFIG: %w", err)
	}
	m["PROXY_CONFIG"] = json.RawMessage(proxyConfig)
	// Through JSON, because Metadata may hold any Go value that has a JSON form.
	var encoded bytes.Buffer
	if err := json.NewEncoder(&encoded).Encode(m); err != nil {
		return nil, err
	}
	s := &structpb.Struct{}
	return s, protojson.Unmarshal(encoded.Bytes(), s)
}

// serviceCluster is what access logs and traces show as the proxy's service.
func (c NodeConfig) serviceCluster() string {
	return cmp.Or(c.ProxyConfig.GetServiceCluster(), cmp.Or(c.Labels["app"], "istio-proxy")+"."+c.Namespace)
}

// locality reads the label that overrides where a workload is: region/zone/subzone, with dots where
// slashes are not allowed, as in values of Kubernetes labels. Without it, the labels count that
// Kubernetes gives to pods of the node that they run on.
func locality(labels map[string]string) *corepb.Locality {
	label := cmp.Or(labels["topology.istio.io/locality"], labels["istio-locality"])
	if label == "" {
		region, zone := labels["topology.kubernetes.io/region"], labels["topology.kubernetes.io/zone"]
		subzone := labels["topology.istio.io/subzone"]
		if region == "" && zone == "" && subzone == "" {
			return nil // istiod looks at the node itself
		}
		return &corepb.Locality{Region: region, Zone: zone, SubZone: subzone}
	}
	if !strings.Contains(label, "/") {
		label = strings.ReplaceAll(label, ".", "/")
	}
	parts := append(strings.SplitN(label, "/", 3), "", "")
	return &corepb.Locality{Region: parts[0], Zone: parts[1], SubZone: parts[2]}
}
