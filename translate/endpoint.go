package translate

import (
	"strings"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// endpoint is an address that a cluster sends requests to.
type endpoint struct {
	host     string // as in an upstream's node
	port     int
	hostname string // its own name, if it has one
	weight   uint32 // among those of its locality
	// heldBack is the part of the weight that a new endpoint does not have yet.
	heldBack float64
	// draining endpoints get no traffic as long as there are others.
	draining bool
	// meshTLS endpoints are known to speak Istio's mTLS.
	meshTLS bool
	// metadata chooses among the transport sockets of the cluster.
	metadata *structpb.Struct
	// path is that of a Unix domain socket, instead of host and port.
	path string
	// originalDestination stands for where clients connected to, and dynamic for where the host of a
	// request resolves to.
	originalDestination, dynamic bool

	priority uint32
	locality *endpointpb.LocalityLbEndpoints
}

// effective is the weight that counts.
func (e *endpoint) effective() float64 { return float64(e.weight) * (1 - e.heldBack) }

// endpoints lists the endpoints of a cluster that may get traffic. report may be nil.
func (cx *clusterContext) endpoints(report reporter) []endpoint {
	r := endpointReader{clusterContext: cx, note: report}
	if port, ok := inboundPort(cx.cluster); ok {
		address, _ := instanceAddress(cx.options)
		return []endpoint{{host: hostOf(address), port: port, weight: 1}}
	}
	if cx.overlay != nil {
		if e, ok := virtualEndpoint(cx.cluster); ok {
			return []endpoint{e}
		}
	}
	if cx.cluster.GetClusterType() != nil && dnsOf(cx.cluster).kind == noDNS {
		return nil
	}
	load := cx.cluster.GetLoadAssignment()
	switch cx.cluster.GetType() {
	case clusterpb.Cluster_EDS:
		load = cx.load
	case clusterpb.Cluster_ORIGINAL_DST:
		return nil
	case clusterpb.Cluster_STATIC, clusterpb.Cluster_STRICT_DNS, clusterpb.Cluster_LOGICAL_DNS:
	}
	r.read(load)
	return r.found
}

type endpointReader struct {
	*clusterContext
	note  reporter
	found []endpoint
}

func (r *endpointReader) read(load *endpointpb.ClusterLoadAssignment) {
	if load == nil {
		return
	}
	if r.note != nil {
		reportUnknown(load, r.note, "load_assignment.")
		if p := load.GetPolicy(); p != nil {
			reportUnknown(p, r.note, "load_assignment.policy.")
		}
	}
	for _, locality := range load.GetEndpoints() {
		if r.note != nil {
			reportUnknown(locality, r.note, "load_assignment.endpoints.")
		}
		for _, e := range locality.GetLbEndpoints() {
			r.add(e, locality, load.GetNamedEndpoints())
		}
	}
}

func (r *endpointReader) add(e *endpointpb.LbEndpoint, locality *endpointpb.LocalityLbEndpoints, named map[string]*endpointpb.Endpoint) {
	target := e.GetEndpoint()
	if name := e.GetEndpointName(); name != "" {
		target = named[name]
	}
	if r.note != nil {
		reportUnknown(e, r.note, "load_assignment.endpoints.lb_endpoints.")
		if target != nil {
			reportUnknown(target, r.note, "load_assignment.endpoints.lb_endpoints.endpoint.")
		}
	}
	found := endpoint{
		hostname: target.GetHostname(),
		weight:   max(e.GetLoadBalancingWeight().GetValue(), 1),
		meshTLS:  e.GetMetadata().GetFilterMetadata()[transportMatch].GetFields()["tlsMode"].GetStringValue() == "istio",
		metadata: e.GetMetadata().GetFilterMetadata()[transportMatch],
		priority: locality.GetPriority(),
		locality: locality,
	}
	switch e.GetHealthStatus() {
	case corepb.HealthStatus_UNHEALTHY, corepb.HealthStatus_TIMEOUT:
		return
	case corepb.HealthStatus_DRAINING:
		found.draining = true
	case corepb.HealthStatus_HEALTHY, corepb.HealthStatus_UNKNOWN, corepb.HealthStatus_DEGRADED:
	}
	if path := target.GetAddress().GetPipe().GetPath(); path != "" && r.overlay != nil {
		found.path = path
		r.found = append(r.found, found)
		return
	}
	socket, why := connectable(target.GetAddress())
	if why != "" {
		r.leaveOut(target.GetAddress(), why)
		return
	}
	found.port = int(socket.GetPortValue())
	if found.hostname == "" && dnsOf(r.cluster).kind != noDNS {
		found.hostname = socket.GetAddress()
	}
	for _, host := range r.resolve(socket.GetAddress()) {
		found.host = host
		r.found = append(r.found, found)
	}
}

func (r *endpointReader) leaveOut(address *corepb.Address, why string) {
	if r.note != nil {
		name := strings.TrimSpace(address.String())
		if socket := address.GetSocketAddress(); socket != nil {
			name = endpointAddress(socket.GetAddress(), int(socket.GetPortValue()))
		} else if pipe := address.GetPipe(); pipe != nil {
			name = pipe.GetPath()
		} else if internal := address.GetEnvoyInternalAddress(); internal != nil {
			name = internal.GetServerListenerName()
		}
		r.note(codeEndpoint, "load_assignment.endpoints", name, why)
	}
}

// connectable returns an address if APISIX can connect to it; why says why it cannot.
func connectable(address *corepb.Address) (socket *corepb.SocketAddress, why string) {
	switch a := address.GetAddress().(type) {
	case *corepb.Address_SocketAddress:
		switch {
		case a.SocketAddress.GetProtocol() != corepb.SocketAddress_TCP:
			return nil, "it is not TCP"
		case a.SocketAddress.GetPortValue() == 0 || a.SocketAddress.GetPortValue() > 65535:
			return nil, "it has no port number"
		case !isNodeHost(a.SocketAddress.GetAddress()):
			return nil, "it is neither an IP address nor a host name"
		}
		return a.SocketAddress, ""
	case *corepb.Address_Pipe:
		return nil, "APISIX cannot connect to Unix sockets"
	case *corepb.Address_EnvoyInternalAddress:
		return nil, "it is a listener within Envoy"
	}
	return nil, "it has no address"
}

// isNodeHost follows APISIX's schema of a node's host.
func isNodeHost(host string) bool {
	for i := range len(host) {
		switch c := host[i]; {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', strings.IndexByte("-._:", c) >= 0:
		default:
			return false
		}
	}
	return host != ""
}
