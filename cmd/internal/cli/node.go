package cli

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"meshbridge/xds"
)

// nodeOptions override the node identity that the environment gives.
type nodeOptions struct{ kind, domain, id, metadata string }

// config returns the identity from the environment with the overrides.
func (o *nodeOptions) config(a *app) (xds.NodeConfig, error) {
	node, err := xds.NodeFromEnvironment(a.environ(), os.ReadFile)
	if err != nil {
		return node, fmt.Errorf("node identity: %w", err)
	}
	node.UserAgentVersion = a.version
	switch o.kind {
	case "", xds.NodeSidecar, xds.NodeRouter:
		node.Type = o.kind
	default:
		return node, fmt.Errorf("--node-type %q: want %s or %s", o.kind, xds.NodeSidecar, xds.NodeRouter)
	}
	node.DNSDomain = o.domain
	if o.id == "" && len(node.IPs) > 0 {
		if node.IPs, err = withInterfaces(node.IPs, a.addresses); err != nil {
			return node, fmt.Errorf("node identity: %w", err)
		}
	}
	if o.id != "" {
		if err := setNodeID(&node, o.id); err != nil {
			return node, fmt.Errorf("--node-id %q: %w", o.id, err)
		}
	}
	if o.metadata != "" {
		if err := mergeNodeMetadata(&node, o.metadata); err != nil {
			return node, fmt.Errorf("--node-metadata: %w", err)
		}
	}
	return node, nil
}

// withInterfaces adds the addresses of the pod's interfaces behind those that the environment gives, as
// Istio's agent does: Kubernetes gives the primary one, and in a dual-stack pod there is another.
func withInterfaces(ips []netip.Addr, addresses func() ([]net.Addr, error)) ([]netip.Addr, error) {
	all, err := addresses()
	if err != nil {
		return nil, fmt.Errorf("addresses of the interfaces: %w", err)
	}
	for _, a := range all {
		prefix, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue // not an IP network
		}
		if ip := prefix.Addr().Unmap(); ip.IsGlobalUnicast() && !slices.Contains(ips, ip) {
			ips = append(ips, ip)
		}
	}
	return ips, nil
}

// setNodeID takes an id apart: TYPE~IP~NAME.NAMESPACE~DOMAIN.
func setNodeID(node *xds.NodeConfig, id string) error {
	parts := strings.Split(id, "~")
	if len(parts) != 4 {
		return fmt.Errorf("has %d parts between tildes, want 4: TYPE~IP~POD.NAMESPACE~DOMAIN", len(parts))
	}
	ip, err := netip.ParseAddr(parts[1])
	if err != nil {
		return err
	}
	dot := strings.LastIndexByte(parts[2], '.')
	if dot <= 0 || dot == len(parts[2])-1 {
		return fmt.Errorf("%q is not POD.NAMESPACE", parts[2])
	}
	if !slices.Contains(node.IPs, ip) {
		node.IPs = append([]netip.Addr{ip}, node.IPs...)
	}
	node.Type, node.DNSDomain = parts[0], parts[3]
	node.PodName, node.Namespace = parts[2][:dot], parts[2][dot+1:]
	_, err = node.Node()
	return err
}

// mergeNodeMetadata adds the members of a JSON object; those that are fields of their own set them.
func mergeNodeMetadata(node *xds.NodeConfig, text string) error {
	var known struct {
		Labels         map[string]string `json:"LABELS"`
		Annotations    map[string]string `json:"ANNOTATIONS"`
		ServiceAccount string            `json:"SERVICE_ACCOUNT"`
		ClusterID      string            `json:"CLUSTER_ID"`
		MeshID         string            `json:"MESH_ID"`
		Network        string            `json:"NETWORK"`
		NodeName       string            `json:"NODE_NAME"`
		WorkloadName   string            `json:"WORKLOAD_NAME"`
		Owner          string            `json:"OWNER"`
		IstioVersion   string            `json:"ISTIO_VERSION"`
		Interception   string            `json:"INTERCEPTION_MODE"`
	}
	var all map[string]any
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(text), &known); err != nil {
		return err
	}
	if known.Labels != nil {
		node.Labels = known.Labels
	}
	if known.Annotations != nil {
		node.Annotations = known.Annotations
	}
	for _, f := range []struct {
		key   string
		value string
		to    *string
	}{
		{"SERVICE_ACCOUNT", known.ServiceAccount, &node.ServiceAccount},
		{"CLUSTER_ID", known.ClusterID, &node.ClusterID},
		{"MESH_ID", known.MeshID, &node.MeshID},
		{"NETWORK", known.Network, &node.Network},
		{"NODE_NAME", known.NodeName, &node.NodeName},
		{"WORKLOAD_NAME", known.WorkloadName, &node.WorkloadName},
		{"OWNER", known.Owner, &node.Owner},
		{"ISTIO_VERSION", known.IstioVersion, &node.IstioVersion},
		{"INTERCEPTION_MODE", known.Interception, &node.InterceptionMode},
	} {
		if f.value != "" {
			*f.to = f.value
		}
		delete(all, f.key)
	}
	for _, identity := range []string{"LABELS", "ANNOTATIONS"} {
		delete(all, identity)
	}
	for _, identity := range []string{"NAME", "NAMESPACE", "INSTANCE_IPS", "PROXY_CONFIG"} {
		if _, ok := all[identity]; ok {
			return fmt.Errorf("%s: is set by --node-id or the environment", identity)
		}
	}
	if node.Metadata == nil {
		node.Metadata = map[string]any{}
	}
	maps.Copy(node.Metadata, all)
	return nil
}
