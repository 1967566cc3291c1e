package translate

import (
	"strings"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	loadpb "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/common/v3"
	typepb "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// defaultMinClusterSize is Envoy's min_cluster_size.
const defaultMinClusterSize = 6

// Locality is where a workload or an endpoint is. Zone awareness keeps requests in the same Locality,
// all parts of it, as Envoy does.
type Locality struct{ Region, Zone, SubZone string }

// String returns the parts with slashes between them.
func (l Locality) String() string {
	return strings.TrimRight(l.Region+"/"+l.Zone+"/"+l.SubZone, "/")
}

func localityOf(l *corepb.Locality) Locality {
	return Locality{Region: l.GetRegion(), Zone: l.GetZone(), SubZone: l.GetSubZone()}
}

// zonePolicy is zone aware load balancing as a cluster asks for it.
type zonePolicy struct {
	// enabled is the part of the requests that it applies to.
	enabled float64
	// least is the number of endpoints from which on it applies.
	least int
	// byWeight compares zones by the weights of their endpoints instead of their number.
	byWeight bool
}

// zonePolicyOf returns false where the cluster asks for none.
func zonePolicyOf(c *clusterpb.Cluster) (zonePolicy, bool) {
	var config interface {
		GetRoutingEnabled() *typepb.Percent
		GetMinClusterSize() *wrapperspb.UInt64Value
	}
	p := zonePolicy{enabled: 1, least: defaultMinClusterSize}
	if balancingOf(c) == consistentHash {
		return p, false // as in Envoy
	}
	if typed := localityConfig(c).GetZoneAwareLbConfig(); typed != nil {
		config = typed
		p.byWeight = typed.GetLocalityBasis() == loadpb.LocalityLbConfig_ZoneAwareLbConfig_HEALTHY_HOSTS_WEIGHT
	} else if plain := c.GetCommonLbConfig().GetZoneAwareLbConfig(); plain != nil && len(c.GetLoadBalancingPolicy().GetPolicies()) == 0 {
		config = plain
	} else {
		return p, false
	}
	if percent := config.GetRoutingEnabled(); percent != nil {
		p.enabled = min(max(percent.GetValue()/100, 0), 1)
	}
	if size := config.GetMinClusterSize(); size != nil {
		p.least = int(min(size.GetValue(), 1<<30))
	}
	return p, p.enabled > 0
}

// localityConfig returns that of the policies that replace lb_policy; nil where there is none.
func localityConfig(c *clusterpb.Cluster) *loadpb.LocalityLbConfig {
	if m, ok := typedBalancing(c).(interface {
		GetLocalityLbConfig() *loadpb.LocalityLbConfig
	}); ok {
		return m.GetLocalityLbConfig()
	}
	return nil
}

// zoneShares returns the part of the requests that each locality of the first priority gets, and nil
// where all endpoints are alike.
//
// Envoy keeps as many requests in the local zone as its endpoints can take without getting more than
// the others, which depends on how many clients each zone has. It knows that from the endpoints of its
// own cluster; here, clients are taken to be spread evenly over the zones that have endpoints.
func zoneShares(p zonePolicy, own Locality, endpoints []endpoint) map[Locality]float64 {
	sizes, total, count := map[Locality]float64{}, 0.0, 0
	for _, e := range endpoints {
		if e.priority > 0 || e.draining {
			continue
		}
		size := 1.0
		if p.byWeight {
			size = float64(e.weight)
		}
		sizes[localityOf(e.locality.GetLocality())] += size
		total += size
		count++
	}
	if len(sizes) < 2 || sizes[own] == 0 || count < p.least {
		return nil
	}
	clients := 1 / float64(len(sizes)) // the part of them in each zone
	shares := make(map[Locality]float64, len(sizes))
	local := sizes[own] / total / clients
	if local >= 1 {
		shares[own] = 1
		return shares
	}
	// The others get the rest in proportion to what they can take beyond their own clients.
	residual := map[Locality]float64{}
	sum := 0.0
	for zone, size := range sizes {
		if zone != own {
			residual[zone] = max(size/total-clients, 0)
			sum += residual[zone]
		}
	}
	for zone, r := range residual {
		shares[zone] = (1 - local) * r / sum // sum is what the local zone lacks, or more
	}
	shares[own] = local
	return shares
}

// byZone tells how endpoints share the traffic by zones; nil is not at all. Where all requests stay in
// the zone, the other endpoints become a level of their own, which APISIX uses when the zone has
// nobody left; it changes the endpoints.
func (cx *clusterContext) byZone(endpoints []endpoint) map[Locality]float64 {
	p, ok := zonePolicyOf(cx.cluster)
	own := cx.options.Locality
	if !ok || own == (Locality{}) {
		return nil
	}
	shares := zoneShares(p, own, endpoints)
	switch {
	case shares == nil:
		return nil
	case p.enabled == 1 && shares[own] == 1:
		for i, e := range endpoints {
			if e.priority > 0 || localityOf(e.locality.GetLocality()) != own {
				endpoints[i].priority++
			}
		}
		return nil
	}
	// The requests that zones do not matter to see all endpoints alike.
	alike, total := map[Locality]float64{}, 0.0
	for _, e := range endpoints {
		if e.priority == 0 && !e.draining {
			alike[localityOf(e.locality.GetLocality())] += e.effective()
			total += e.effective()
		}
	}
	for zone, weight := range alike {
		shares[zone] = p.enabled*shares[zone] + (1-p.enabled)*weight/total
	}
	return shares
}

// reportZones reports what zone awareness makes of a cluster.
func reportZones(cx *clusterContext, endpoints []endpoint) {
	p, ok := zonePolicyOf(cx.cluster)
	own := cx.options.Locality
	switch {
	case !ok:
	case own == (Locality{}):
		cx.report(codeZoneUnknown, "zone_aware_lb_config")
	case zoneShares(p, own, endpoints) != nil:
		cx.report(codeZoneAware, "zone_aware_lb_config", own)
	}
	var config proto.Message
	if typed := localityConfig(cx.cluster).GetZoneAwareLbConfig(); typed != nil {
		config = typed
	} else if plain := cx.cluster.GetCommonLbConfig().GetZoneAwareLbConfig(); plain != nil {
		config = plain
	}
	if config != nil {
		reportUnknown(config, cx.report, "zone_aware_lb_config.")
	}
}
