package translate

import (
	"strconv"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"meshbridge/translate/apisix"
)

// maxSplit is how many upstreams a rule of traffic-split may have.
const maxSplit = 20

// destinationsOf returns the clusters that a route forwards to; none, after reporting, where APISIX
// cannot choose them. Destinations without weight are left out, and those that are equal merged.
func destinationsOf(rx *routeContext, action *routepb.RouteAction) []destination {
	switch c := action.GetClusterSpecifier().(type) {
	case *routepb.RouteAction_Cluster:
		return []destination{{cluster: c.Cluster, facts: rx.facts(c.Cluster)}}
	case *routepb.RouteAction_WeightedClusters:
		return weightedDestinations(rx, c.WeightedClusters)
	case *routepb.RouteAction_ClusterHeader:
		rx.report(codeClusterChoice, "route.cluster_header", "the header "+strconv.Quote(c.ClusterHeader))
	case *routepb.RouteAction_ClusterSpecifierPlugin:
		rx.report(codeClusterChoice, "route.cluster_specifier_plugin", "the plugin "+strconv.Quote(c.ClusterSpecifierPlugin))
	case *routepb.RouteAction_InlineClusterSpecifierPlugin:
		rx.report(codeClusterChoice, "route.inline_cluster_specifier_plugin", "a plugin")
	default:
		rx.report(codeClusterChoice, "route", "nothing")
	}
	return nil
}

func weightedDestinations(rx *routeContext, weighted *routepb.WeightedCluster) []destination {
	const field = "route.weighted_clusters"
	reportUnknown(weighted, rx.report, field+".")
	var destinations []destination
	plain := map[string]int{} // cluster → index of its destination without settings of its own
	count := map[string]int{}
	for _, c := range weighted.GetClusters() {
		at := field + ".clusters[" + strconv.Quote(c.GetName()) + "]"
		reportUnknown(c, rx.report, at+".")
		reportWeightedFilters(rx, c, at)
		if c.GetClusterHeader() != "" {
			rx.report(codeClusterChoice, at+".cluster_header", "the header "+strconv.Quote(c.GetClusterHeader()))
		}
		weight := c.GetWeight().GetValue()
		if weight == 0 {
			continue
		}
		d := destination{cluster: c.GetName(), weight: weight, facts: rx.facts(c.GetName())}
		if hasOwnSettings(c) {
			d.own = c
		} else if i, ok := plain[d.cluster]; ok {
			destinations[i].weight += weight
			continue
		} else {
			plain[d.cluster] = len(destinations)
		}
		d.suffix = "to-" + d.cluster
		if count[d.cluster]++; count[d.cluster] > 1 {
			d.suffix += "#" + strconv.Itoa(count[d.cluster])
		}
		destinations = append(destinations, d)
	}
	if len(destinations) == 0 {
		rx.report(codeClusterChoice, field, "weights that are all zero")
	}
	return destinations
}

// reportWeightedFilters reports configuration of filters for one of several destinations: there is
// none that is translated.
func reportWeightedFilters(rx *routeContext, c *routepb.WeightedCluster_ClusterWeight, at string) {
	reportFilterConfigs(rx.chain, c.GetTypedPerFilterConfig(), at+".", rx.report)
	for _, filter := range []string{filterCORS, filterFault} {
		if c.GetTypedPerFilterConfig()[filter] != nil {
			rx.report(codeFilterIgnored, filterField(at+".", filter), filter, "for one of several destinations")
		}
	}
}

func hasOwnSettings(c *routepb.WeightedCluster_ClusterWeight) bool {
	return c.GetHostRewriteLiteral() != "" ||
		len(c.GetRequestHeadersToAdd()) > 0 || len(c.GetRequestHeadersToRemove()) > 0 ||
		len(c.GetResponseHeadersToAdd()) > 0 || len(c.GetResponseHeadersToRemove()) > 0
}

// sharesRoute tells whether one route with traffic-split serves all destinations: plugins and
// timeouts belong to the route, so destinations must not differ in them.
func (f *forwarding) sharesRoute(ds []destination) bool {
	if len(ds) == 1 {
		return true
	}
	if len(ds) > maxSplit {
		return false
	}
	for _, d := range ds {
		switch {
		case d.own != nil, d.facts.maxRequests > 0, d.facts.aliased,
			!d.facts.exists && f.notFound != 503,
			f.rx.chain.peers.quietTo(d.facts) != f.rx.chain.peers.quietTo(ds[0].facts),
			f.timeouts.set() && d.facts.connectTimeout != ds[0].facts.connectTimeout:
			return false
		}
	}
	return true
}

// split distributes requests by smooth weighted round robin, where Envoy draws at random.
func (f *forwarding) split(ds []destination, grpc bool) (split trafficSplit, extra []upstreamRef) {
	upstreams := make([]weightedUpstream, 0, len(ds))
	for i, d := range ds {
		ref := f.ref(d, grpc)
		upstreams = append(upstreams, weightedUpstream{UpstreamID: f.rx.upstreamID(ref), Weight: d.weight})
		if i > 0 {
			extra = append(extra, ref)
		}
	}
	return trafficSplit{Rules: []trafficSplitRule{{WeightedUpstreams: upstreams}}}, extra
}

// slices gives each destination branches of its own, chosen at random like in Envoy.
func (f *forwarding) slices(ds []destination) []branch {
	weights := make([]uint32, len(ds))
	for i, d := range ds {
		weights[i] = d.weight
	}
	var branches []branch
	for i, slice := range apisix.WeightSlices(weights) {
		var vars apisix.Vars
		if i < len(ds)-1 {
			vars = apisix.List(apisix.Match("request_id", slice))
		}
		branches = append(branches, f.branches(ds[i:i+1], ds[i].suffix, vars)...)
	}
	return branches
}
