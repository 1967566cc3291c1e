package translate

import (
	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"meshbridge/translate/apisix"
)

// Stand-ins until actions and clusters are compiled.

func compileAction(rx *routeContext) []branch {
	if c := rx.route.GetRoute().GetCluster(); c != "" {
		return []branch{{upstream: &upstreamRef{cluster: c, variant: variant{retries: 2}}}}
	}
	return []branch{{plugins: apisix.Plugins{"fault-injection": map[string]any{"abort": map[string]any{"http_status": 503}}}}}
}

func factsOf(c *clusterpb.Cluster) clusterFacts { return clusterFacts{exists: c != nil} }

func compileUpstream(*clusterContext, variant) *apisix.Upstream {
	return &apisix.Upstream{Type: "roundrobin", Scheme: "http", PassHost: "pass", Nodes: []apisix.Node{}}
}

func reportCluster(*clusterContext) {}

func actionCodes() []CodeInfo { return nil }
