package translate

import (
	"math"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// unlimited is how istiod writes that there is no limit.
const unlimited = math.MaxUint32

// thresholdsOf returns the circuit breakers of requests with the default priority.
func thresholdsOf(c *clusterpb.Cluster) *clusterpb.CircuitBreakers_Thresholds {
	for _, t := range c.GetCircuitBreakers().GetThresholds() {
		if t.GetPriority() == corepb.RoutingPriority_DEFAULT {
			return t
		}
	}
	return nil
}

// concurrencyLimit returns how many requests a cluster takes at a time; 0 is no limit. In HTTP/1.1, a
// request takes a connection or waits for one.
func concurrencyLimit(c *clusterpb.Cluster, options protocolOptions) uint32 {
	t := thresholdsOf(c)
	if t == nil {
		return 0
	}
	limit := limitOf(t.GetMaxRequests())
	if !options.http2 {
		limit = min(limit, limitOf(t.GetMaxConnections())+limitOf(t.GetMaxPendingRequests()))
	}
	if limit >= unlimited {
		return 0
	}
	return uint32(max(limit, 1)) // APISIX has no limit of zero
}

// limitOf is 1024 where nothing is said, which is Envoy's default.
func limitOf(v *wrapperspb.UInt32Value) uint64 {
	if v == nil {
		return 1024
	}
	return uint64(v.GetValue())
}

func reportCircuitBreakers(c *clusterpb.Cluster, options protocolOptions, report reporter) {
	if limit := concurrencyLimit(c, options); limit > 0 {
		report(codeCircuitBreaker, "circuit_breakers", limit)
	}
	if breakers := c.GetCircuitBreakers(); breakers != nil {
		reportUnknown(breakers, report, "circuit_breakers.")
	}
	for _, t := range c.GetCircuitBreakers().GetThresholds() {
		const field = "circuit_breakers.thresholds."
		reportUnknown(t, report, field)
		if t.GetPriority() != corepb.RoutingPriority_DEFAULT {
			report(codeSettingIgnored, field+"priority", "a threshold of priority "+t.GetPriority().String())
		}
		if r := t.GetMaxRetries(); r != nil && r.GetValue() != unlimited {
			report(codeSettingIgnored, field+"max_retries", "max_retries")
		}
	}
}
