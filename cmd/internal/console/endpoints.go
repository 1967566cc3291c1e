package console

import (
	"cmp"
	"net"
	"strconv"
	"strings"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"meshbridge/xds"
)

// clusterHealth is a cluster with its endpoints, as istiod knows them.
type clusterHealth struct {
	known bool
	// fixed says where requests go that need no endpoints, such as to their original destination.
	fixed     string
	endpoints []endpointHealth
	healthy   int
}

type endpointHealth struct {
	address, health string
	healthy         bool
}

// clusterEndpoints looks up the endpoints of a cluster.
func clusterEndpoints(s *xds.Snapshot, name string) clusterHealth {
	r := s.Get(xds.Key{Type: xds.ClusterType, Name: name})
	if r == nil {
		return clusterHealth{}
	}
	c, err := xds.Decode[*clusterpb.Cluster](r)
	if err != nil {
		return clusterHealth{}
	}
	h := clusterHealth{known: true}
	assignment := c.GetLoadAssignment()
	switch c.GetType() {
	case clusterpb.Cluster_ORIGINAL_DST:
		h.fixed = "original destination"
	case clusterpb.Cluster_EDS:
		assignment = nil
		service := cmp.Or(c.GetEdsClusterConfig().GetServiceName(), name)
		if r := s.Get(xds.Key{Type: xds.EndpointType, Name: service}); r != nil {
			if assignment, err = xds.Decode[*endpointpb.ClusterLoadAssignment](r); err != nil {
				assignment = nil
			}
		}
	default:
	}
	for _, locality := range assignment.GetEndpoints() {
		for _, e := range locality.GetLbEndpoints() {
			h.add(e)
		}
	}
	return h
}

func (h *clusterHealth) add(e *endpointpb.LbEndpoint) {
	status := e.GetHealthStatus()
	// Envoy takes unknown health, which is that of endpoints that nobody checks, for good.
	healthy := status == corepb.HealthStatus_HEALTHY || status == corepb.HealthStatus_UNKNOWN || status == corepb.HealthStatus_DEGRADED
	text := strings.ToLower(status.String())
	if status == corepb.HealthStatus_UNKNOWN {
		text = "healthy"
	}
	if healthy {
		h.healthy++
	}
	h.endpoints = append(h.endpoints, endpointHealth{addressOf(e.GetEndpoint().GetAddress()), text, healthy})
}

func addressOf(a *corepb.Address) string {
	if s := a.GetSocketAddress(); s != nil {
		return net.JoinHostPort(s.GetAddress(), strconv.Itoa(int(s.GetPortValue())))
	}
	if p := a.GetPipe(); p != nil {
		return p.GetPath()
	}
	return "internal"
}

func (h *clusterHealth) detail() string {
	switch {
	case !h.known:
		return "there is no such cluster"
	case h.fixed != "":
		return h.fixed
	case len(h.endpoints) == 0:
		return "no endpoints"
	default:
		return strconv.Itoa(h.healthy) + " of " + counted(len(h.endpoints), "endpoint") + " healthy"
	}
}

func (h *clusterHealth) bad() bool { return !h.known || h.fixed == "" && h.healthy == 0 }
