package translate

import (
	"cmp"
	"net/netip"
	"strconv"
	"strings"
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"meshbridge/translate/apisix"
)

// factsOf returns what routes need to know of a cluster, which is nil where it does not exist.
func factsOf(c *clusterpb.Cluster) clusterFacts {
	if c == nil {
		return clusterFacts{}
	}
	_, inbound := inboundPort(c)
	options, _ := protocolOptionsOf(c) // reportCluster reports the error
	istio := c.GetMetadata().GetFilterMetadata()["istio"].GetFields()
	return clusterFacts{
		exists:              true,
		connectTimeout:      connectTimeout(c),
		http2:               options.http2,
		downstream:          options.downstream,
		originalDestination: isOriginalDestination(c) && !inbound,
		opening:             originalDestinationOf(c),
		unserved:            closedTo(c),
		hashes:              balancingOf(c) == consistentHash,
		maxRequests:         concurrencyLimit(c, options),
		mirror:              mirrorAddress(c),
		external:            c.GetName() == "PassthroughCluster" || istio["external"].GetBoolValue(),
		noPeers:             istio["disable_mx"].GetBoolValue(),
	}
}

// factsOf returns the same with what depends on the profile and the inputs.
func (s *State) factsOf(c *clusterpb.Cluster) clusterFacts {
	facts := factsOf(c)
	facts.aliased = facts.originalDestination && overlayOf(s.options.Profile, &s.inputs)
	return facts
}

// originalDestinationOf identifies how connections to the original destination are opened.
func originalDestinationOf(c *clusterpb.Cluster) string {
	if !isOriginalDestination(c) {
		return ""
	}
	return shortHash(deterministic(c))
}

// closedTo says why TCP connections to a cluster are closed; empty where they are not.
func closedTo(c *clusterpb.Cluster) string {
	switch {
	case c.GetClusterType() != nil && dnsOf(c).kind == noDNS:
		return "where connections to cluster " + c.GetName() + " go is known only of HTTP requests"
	case c.GetClusterType() == nil && c.GetType() == clusterpb.Cluster_STATIC && len(c.GetLoadAssignment().GetEndpoints()) == 0:
		return "cluster " + c.GetName() + " has no endpoints"
	}
	return ""
}

// connectTimeout is in seconds.
func connectTimeout(c *clusterpb.Cluster) float64 { return seconds(connectTimeoutOf(c)) }

func connectTimeoutOf(c *clusterpb.Cluster) time.Duration {
	if c.GetConnectTimeout() == nil {
		return defaultConnectTimeout
	}
	return c.GetConnectTimeout().AsDuration()
}

func isOriginalDestination(c *clusterpb.Cluster) bool {
	return c.GetClusterType() == nil && c.GetType() == clusterpb.Cluster_ORIGINAL_DST
}

// inboundPort returns the port of a cluster for a port of the workload itself, such as
// "inbound|9080||": Envoy finds its address as the original destination, but it is known.
func inboundPort(c *clusterpb.Cluster) (port int, ok bool) {
	rest, ok := strings.CutPrefix(c.GetName(), "inbound|")
	if !ok || !isOriginalDestination(c) {
		return 0, false
	}
	number, _, _ := strings.Cut(rest, "|")
	parsed, err := strconv.ParseUint(number, 10, 16)
	return int(parsed), err == nil && parsed > 0
}

// compileUpstream renders a cluster with its endpoints in the variant that a route needs. A cluster
// that is not there, or has no endpoints, is an upstream without nodes, which answers 503 like Envoy.
func compileUpstream(cx *clusterContext, v variant) *apisix.Upstream {
	u := &apisix.Upstream{
		Type:     typeRoundRobin,
		Scheme:   "http",
		PassHost: "pass",
		Retries:  &v.retries,
		Nodes:    []apisix.Node{},
	}
	if v.grpc {
		u.Scheme = "grpc"
	}
	if v.retryTimeout > 0 {
		limit := seconds(v.retryTimeout)
		u.RetryTimeout = &limit
	}
	if cx.cluster == nil {
		return u
	}
	options, _ := protocolOptionsOf(cx.cluster) // reportCluster reports the error
	u.Timeout = upstreamTimeouts(connectTimeout(cx.cluster))
	if v.tcp {
		u.Timeout = streamTimeouts(connectTimeout(cx.cluster))
	} else {
		u.KeepalivePool = options.keepalivePool()
	}
	u.Checks = checksOf(cx.cluster, cx.load)
	setBalancing(u, balancingOf(cx.cluster), v.hash)
	endpoints := cx.endpoints(nil)
	cx.ramp(endpoints)
	endpoints = cx.overlaid(endpoints, v.tcp && !v.mirrored) // copies are HTTP
	if cx.overlay.used() {
		throughOverlay(u)
	}
	setHost(u, v.host, endpoints, cx.overlay.used())
	zones := cx.byZone(endpoints)
	u.Nodes = nodesOf(endpoints, weighting{
		byLocality: weighsLocalities(cx.cluster),
		byZone:     zones,
		limit:      weightLimit(u.Type),
	})
	return u
}

// setHost sets the Host header that an upstream sends, if it is not the client's.
func setHost(u *apisix.Upstream, host string, endpoints []endpoint, overlaid bool) {
	if host == "" {
		return
	}
	if host == nodeHost {
		names := map[string]bool{}
		for _, e := range endpoints {
			names[e.hostname] = true
			host = e.hostname
		}
		switch {
		case len(names) > 1:
			// APISIX has no names of endpoints apart from their addresses, and adds the port. Those of
			// capture are nobody's name.
			if !overlaid {
				u.PassHost = "node"
			}
			return
		case len(names) == 0, !isUpstreamHost(host):
			return // like Envoy, for endpoints without a name
		}
	}
	u.PassHost, u.UpstreamHost = "rewrite", host
}

// reportCluster reports what a cluster and its endpoints say that APISIX cannot do.
func reportCluster(cx *clusterContext) {
	c := cx.cluster
	if c == nil {
		return
	}
	reportUnknown(c, cx.report, "")
	options, err := protocolOptionsOf(c)
	if err != nil {
		cx.report(codeProtocolOptions, "typed_extension_protocol_options", err)
	}
	options.reportTo(cx.report)
	if o := c.GetUpstreamConnectionOptions(); o != nil {
		reportUnknown(o, cx.report, "upstream_connection_options.")
	}
	reportClusterType(cx)
	reportBalancing(c, cx.report)
	reportCircuitBreakers(c, options, cx.report)
	reportOutlierDetection(c, cx.report)
	reportHealthChecks(cx)
	endpoints := cx.endpoints(cx.report)
	reportZones(cx, endpoints)
	reportTransport(cx, endpoints)
}

func reportClusterType(cx *clusterContext) {
	c := cx.cluster
	if t := c.GetClusterType(); t != nil && dnsOf(c).kind == noDNS && (cx.overlay == nil || !isDynamic(c)) {
		cx.report(codeClusterType, "cluster_type", t.GetName())
		return
	}
	reportDNS(c, cx.report)
	if _, inbound := inboundPort(c); !inbound {
		return
	}
	address, known := instanceAddress(cx.options)
	switch {
	case !cx.options.Profile.SourceBind():
		cx.report(codeSourceNotBound, "upstream_bind_config", address)
	case !known:
		cx.report(codeInstanceAddress, "", address)
	}
}

// instanceAddress returns the address at which the application of the workload listens. known is
// false for the loopback address, which most applications listen on as well, and which is the only
// one to use where connections do not leave from 127.0.0.6: Istio's iptables rules send whatever
// else the proxy's user opens to the pod's own address back to the proxy.
func instanceAddress(options *Options) (address netip.Addr, known bool) {
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if !options.Profile.SourceBind() {
		return loopback, false
	}
	var v6 netip.Addr
	for _, a := range options.InstanceIPs {
		switch a = a.Unmap(); {
		case a.Is4():
			return a, true
		case !v6.IsValid():
			v6 = a
		}
	}
	if v6.IsValid() {
		return v6, true
	}
	return loopback, false
}

// hostOf is an address as the host of a node: APISIX wants IPv6 in brackets.
func hostOf(a netip.Addr) string {
	if a = a.Unmap(); a.Is4() {
		return a.String()
	}
	return "[" + a.String() + "]"
}

// endpointAddress is host and port for messages.
func endpointAddress(host string, port int) string {
	return cmp.Or(host, "?") + ":" + strconv.Itoa(port)
}
