package telemetry

import (
	"net/netip"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"meshbridge/xds"
)

// endpointOf returns the workload at an address of a cluster.
func endpointOf(assignment, cluster *xds.Resource, at netip.AddrPort) (Workload, bool) {
	if !at.IsValid() {
		return Workload{}, false
	}
	for _, locality := range assignmentOf(assignment, cluster).GetEndpoints() {
		for _, e := range locality.GetLbEndpoints() {
			if addressOf(e) == at {
				return workloadOfEndpoint(e.GetMetadata())
			}
		}
	}
	return Workload{}, false
}

// endpoint is one that connections may go to.
type endpoint struct {
	address  netip.AddrPort // invalid for names and paths
	workload Workload
}

// endpointsOf returns the endpoints of a cluster that may get connections.
func endpointsOf(assignment, cluster *xds.Resource) []endpoint {
	var all []endpoint
	for _, locality := range assignmentOf(assignment, cluster).GetEndpoints() {
		for _, e := range locality.GetLbEndpoints() {
			switch e.GetHealthStatus() {
			case corepb.HealthStatus_UNHEALTHY, corepb.HealthStatus_TIMEOUT:
				continue
			case corepb.HealthStatus_UNKNOWN, corepb.HealthStatus_HEALTHY, corepb.HealthStatus_DRAINING, corepb.HealthStatus_DEGRADED:
			}
			one := endpoint{address: addressOf(e)}
			one.workload, _ = workloadOfEndpoint(e.GetMetadata())
			all = append(all, one)
		}
	}
	return all
}

// assignmentOf returns the endpoints that a cluster has: those of its own where no resource has them.
func assignmentOf(assignment, cluster *xds.Resource) *endpointpb.ClusterLoadAssignment {
	if assignment != nil {
		load, err := xds.Decode[*endpointpb.ClusterLoadAssignment](assignment)
		if err != nil {
			return nil
		}
		return load
	}
	if cluster != nil {
		if c, err := xds.Decode[*clusterpb.Cluster](cluster); err == nil {
			return c.GetLoadAssignment()
		}
	}
	return nil
}

// addressOf returns the address of an endpoint; invalid where it has none.
func addressOf(e *endpointpb.LbEndpoint) netip.AddrPort {
	a := e.GetEndpoint().GetAddress().GetSocketAddress()
	address, err := netip.ParseAddr(a.GetAddress())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(address.Unmap(), uint16(a.GetPortValue()))
}
