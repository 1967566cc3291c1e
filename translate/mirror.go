package translate

import (
	"cmp"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"meshbridge/translate/apisix"
)

// APISIX's proxy-mirror sends copies to an address, not to an upstream: clusters that have a single
// one can be mirrored to. With capture, any cluster has one: behind an address of the overlay, capture
// leads connections to the stream port of an upstream, and APISIX balances them among the endpoints. The plugin writes the decoded path into the copy, so that an escaped line break
// would end the request line there: only requests whose path has no escapes are copied, by a route
// in front of the one for all. Upgraded requests are left to that one as well.

const codeMirrorApproximate Code = "mirror_approximate"

// proxyMirror sends copies of a share of the requests.
type proxyMirror struct {
	Host        string  `json:"host"`
	SampleRatio float64 `json:"sample_ratio"`

	// through is what the address leads to; nil for addresses of others.
	through *upstreamRef
}

// compileMirror returns the first mirror of a route, which is all that APISIX has, and reports the
// others; nil where nothing is mirrored.
func compileMirror(rx *routeContext, action *routepb.RouteAction) *proxyMirror {
	policies, field := action.GetRequestMirrorPolicies(), "route.request_mirror_policies"
	if len(policies) == 0 { // the more specific level replaces the others
		policies, field = rx.vhost.GetRequestMirrorPolicies(), ""
	}
	if len(policies) == 0 {
		policies = rx.config.GetRequestMirrorPolicies()
	}
	var mirror *proxyMirror
	for _, p := range policies {
		share := 1.0
		if f := p.GetRuntimeFraction().GetDefaultValue(); p.GetRuntimeFraction() != nil {
			share = min(float64(f.GetNumerator())/float64(denominatorOf(f)), 1)
		}
		if share < smallestSample {
			continue
		}
		at := field
		if at != "" {
			at += "[" + strconv.Quote(p.GetCluster()) + "]"
		}
		address, through := mirrorOf(rx, p.GetCluster())
		rewritten := rewritesPath(action)
		if address == "" || rewritten || mirror != nil {
			rx.report(codeMirror, at, p.GetCluster())
			continue
		}
		rx.report(codeMirrorApproximate, at, p.GetCluster(), address)
		mirror = &proxyMirror{Host: address, SampleRatio: share, through: through}
	}
	return mirror
}

// mirrorOf returns where copies for a cluster go, and the upstream that capture leads them to.
func mirrorOf(rx *routeContext, cluster string) (address string, through *upstreamRef) {
	facts := rx.facts(cluster)
	if rx.mirror == nil {
		return facts.mirror, nil
	}
	if !facts.exists || facts.originalDestination || facts.unserved != "" || facts.http2 {
		return "", nil
	}
	ref := upstreamRef{cluster, variant{tcp: true, mirrored: true, retries: defaultRetries}}
	host, ok := rx.mirror(ref)
	if !ok {
		return "", nil
	}
	return host, &ref
}

// mirrorHost is the address of the overlay behind which copies get to an upstream.
func (s *State) mirrorHost(ref upstreamRef) (host string, ok bool) {
	if _, ok = s.inputs.Allocations.StreamPort(ref.streamUpstream()); !ok {
		return "", false
	}
	alias, ok := s.mirrorAlias(ref)
	if !ok {
		return "", false
	}
	return "http://" + netip.AddrPortFrom(alias, uint16(cmp.Or(s.options.OverlayPort, defaultOverlayPort))).String(), true
}

func (s *State) mirrorAlias(ref upstreamRef) (alias netip.Addr, ok bool) {
	return s.inputs.Allocations.OverlayAddress("mirror " + ref.cluster)
}

// mirrorEndpoint is what capture is told of an upstream that copies get to: the stream port of APISIX,
// which wants to be told of the connection.
func (s *State) mirrorEndpoint(ref upstreamRef, c *clusterpb.Cluster) *OverlayEndpoint {
	port, ok := s.inputs.Allocations.StreamPort(ref.streamUpstream())
	if !ok {
		return nil
	}
	alias, ok := s.mirrorAlias(ref)
	if !ok {
		return nil
	}
	return &OverlayEndpoint{
		Address: alias, Cluster: ref.cluster, TCP: true, ProxyProtocol: 2, ConnectTimeout: connectTimeoutOf(c),
		Target: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port),
	}
}

func rewritesPath(action *routepb.RouteAction) bool {
	return action.GetPrefixRewrite() != "" || action.GetRegexRewrite() != nil || action.GetPathRewritePolicy() != nil || action.GetPathRewrite() != ""
}

// mirrorTwin returns the branch for the requests that are copied.
func mirrorTwin(b branch, mirror *proxyMirror) branch {
	b.suffix = joinSuffix("mirror", b.suffix)
	b.vars = append(apisix.List(apisix.NotMatch("real_request_uri", `\A[^?]*%`), apisix.Absent("http_upgrade")), b.vars...)
	if mirror.through != nil {
		b.extra = append(slices.Clone(b.extra), *mirror.through)
	}
	return b.plus(pluginProxyMirror, mirror)
}

// mirrorAddress is where copies for a cluster go: to the service of Kubernetes that it stands for, or
// to its only endpoint. It is empty where there is no such address.
func mirrorAddress(c *clusterpb.Cluster) string {
	if s := c.GetTransportSocket(); s != nil && !isPlain(s) {
		return ""
	}
	if c.GetType() == clusterpb.Cluster_EDS {
		if !isKubernetesService(c) {
			return ""
		}
		return serviceURL(c.GetName(), "")
	}
	var only *corepb.SocketAddress
	for _, locality := range c.GetLoadAssignment().GetEndpoints() {
		for _, e := range locality.GetLbEndpoints() {
			socket, why := connectable(e.GetEndpoint().GetAddress())
			if why != "" || only != nil {
				return ""
			}
			only = socket
		}
	}
	if only == nil || !isMirrorHost(only.GetAddress()) {
		return ""
	}
	return "http://" + net.JoinHostPort(only.GetAddress(), strconv.Itoa(int(only.GetPortValue())))
}

// isKubernetesService tells whether the cluster's host is the name of a service in Kubernetes' DNS, by
// the metadata that istiod puts on clusters. The host of a ServiceEntry need not be in any DNS.
func isKubernetesService(c *clusterpb.Cluster) bool {
	services := c.GetMetadata().GetFilterMetadata()["istio"].GetFields()["services"].GetListValue().GetValues()
	if len(services) != 1 {
		return false
	}
	service := services[0].GetStructValue().GetFields()
	prefix := service["name"].GetStringValue() + "." + service["namespace"].GetStringValue() + ".svc."
	return strings.HasPrefix(service["host"].GetStringValue(), prefix) && isMirrorHost(service["host"].GetStringValue())
}

// isMirrorHost follows the plugin's schema.
func isMirrorHost(host string) bool {
	return regexp.MustCompile(`\A([0-9a-zA-Z.-]+|[0-9a-fA-F:]+)\z`).MatchString(host)
}
