package translate

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"meshbridge/translate/apisix"
)

// The overlay: endpoints that want more than APISIX can do are known to it by an address of capture,
// which does it. All others keep their own address, so that a cluster may have both kinds.

// defaultOverlayPort is where capture stands for endpoints.
const defaultOverlayPort = 15011

// overlayOf tells whether endpoints can be published as addresses of capture.
func overlayOf(p Profile, in *Inputs) bool { return p.Overlay() && in.Allocations != nil }

// overlay collects what capture has to know of a cluster's endpoints.
type overlay struct {
	transports *transports
	endpoints  map[netip.Addr]*OverlayEndpoint
	// exhausted tells that an endpoint had to be left out.
	exhausted bool
}

// used tells whether any endpoint has an address of capture.
func (o *overlay) used() bool { return o != nil && len(o.endpoints) > 0 }

// throughOverlay makes health checks go where requests go: capture knows one port of an endpoint.
func throughOverlay(u *apisix.Upstream) {
	if active, ok := u.Checks["active"].(map[string]any); ok {
		delete(active, "port")
	}
}

// reportOverlay reports what differs for endpoints behind capture.
func reportOverlay(cx *clusterContext) {
	if cx.overlay.exhausted {
		cx.report(codeOverlayExhausted, "load_assignment")
	}
	if !cx.overlay.used() || cx.cluster.GetOutlierDetection() == nil && len(cx.cluster.GetHealthChecks()) == 0 {
		return
	}
	cx.report(codeOverlayChecks, "load_assignment")
}

// overlaid gives the endpoints that need it an address of capture. tcp tells that connections carry no
// HTTP.
func (cx *clusterContext) overlaid(endpoints []endpoint, tcp bool) []endpoint {
	if cx.overlay == nil {
		return endpoints
	}
	out := endpoints[:0:0]
	for _, e := range endpoints {
		if t := cx.overlay.transports.of(e.metadata); cx.needsOverlay(&e, t) {
			alias, ok := cx.alias(&e, t, tcp)
			if !ok {
				continue
			}
			e.host, e.port = hostOf(alias), cmp.Or(cx.options.OverlayPort, defaultOverlayPort)
		}
		out = append(out, e)
	}
	return out
}

// needsOverlay tells whether capture has to connect to an endpoint.
func (cx *clusterContext) needsOverlay(e *endpoint, t *transport) bool {
	return e.virtual() || e.path != "" || !t.plain() || cx.isOwn(e)
}

// isOwn tells whether an endpoint is the workload itself, as clients see it. nginx would use one
// connection to it for both directions, which have different source addresses.
func (cx *clusterContext) isOwn(e *endpoint) bool {
	address, ok := parseHost(e.host)
	return ok && !strings.HasPrefix(cx.name, "inbound|") &&
		slices.ContainsFunc(cx.options.InstanceIPs, func(own netip.Addr) bool { return own.Unmap() == address })
}

// alias returns the address of capture for an endpoint.
func (cx *clusterContext) alias(e *endpoint, t *transport, tcp bool) (netip.Addr, bool) {
	kind := "http"
	if tcp {
		kind = "tcp"
	}
	// What is first cannot be mistaken for what follows.
	alias, ok := cx.inputs.Allocations.OverlayAddress(kind + " " + strconv.Quote(e.identity()) + " " + cx.name)
	if !ok {
		cx.overlay.exhausted = true
		return netip.Addr{}, false
	}
	if cx.overlay.endpoints[alias] != nil {
		return alias, true
	}
	out := cx.connection(e, t, alias)
	out.TCP = tcp
	if cx.overlay.endpoints == nil {
		cx.overlay.endpoints = map[netip.Addr]*OverlayEndpoint{}
	}
	cx.overlay.endpoints[alias] = out
	return alias, true
}

// connection is how an endpoint is connected to, under an overlay address if it has one.
func (cx *clusterContext) connection(e *endpoint, t *transport, alias netip.Addr) *OverlayEndpoint {
	out := &OverlayEndpoint{
		Address: alias, Cluster: cx.name, TLS: t.tls, ProxyProtocol: t.proxyProtocol,
		Path: e.path, OriginalDestination: e.originalDestination, Dynamic: e.dynamic,
		ConnectTimeout: connectTimeoutOf(cx.cluster),
	}
	if t.hostSNI && e.hostname != "" {
		named := *t.tls
		named.ServerName = e.hostname
		out.TLS = &named
	}
	switch address, isAddress := parseHost(e.host); {
	case e.dynamic:
		out.DynamicPort = 80
		if t.tls != nil {
			out.DynamicPort = 443
		}
	case e.originalDestination:
		out.Source, out.OtherSource = bindSources(cx.cluster)
	case e.path != "":
	case isAddress:
		out.Target = netip.AddrPortFrom(address, uint16(e.port))
	default:
		out.Name = e.address()
	}
	return out
}

// identity tells an endpoint from the others of its cluster.
func (e *endpoint) identity() string {
	switch {
	case e.originalDestination:
		return "original destination"
	case e.dynamic:
		return "dynamic"
	case e.path != "":
		return e.path
	}
	return e.address()
}

// virtual endpoints have no address of their own.
func (e *endpoint) virtual() bool { return e.originalDestination || e.dynamic }

// parseHost reads an address as a node has it.
func parseHost(host string) (netip.Addr, bool) {
	address, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return address.Unmap(), err == nil
}

// bindSources are the local addresses of connections to a cluster, of one family and of the other
// (BindConfig.extra_source_addresses); invalid for any.
func bindSources(c *clusterpb.Cluster) (source, other netip.Addr) {
	parse := func(text string) netip.Addr {
		address, err := netip.ParseAddr(text)
		if err != nil || address.IsUnspecified() {
			return netip.Addr{}
		}
		return address.Unmap()
	}
	bind := c.GetUpstreamBindConfig()
	source = parse(bind.GetSourceAddress().GetAddress())
	for _, extra := range bind.GetExtraSourceAddresses() {
		if a := parse(extra.GetAddress().GetAddress()); a.IsValid() && (!source.IsValid() || a.Is4() != source.Is4()) && !other.IsValid() {
			other = a
		}
	}
	return source, other
}

// typeDynamicForwardProxy is the type of clusters whose endpoints are where requests' hosts resolve to.
const typeDynamicForwardProxy = "envoy.clusters.dynamic_forward_proxy"

func isDynamic(c *clusterpb.Cluster) bool {
	return c.GetClusterType().GetName() == typeDynamicForwardProxy
}

// virtualEndpoint stands for the endpoints of a cluster whose addresses come with each request.
func virtualEndpoint(c *clusterpb.Cluster) (endpoint, bool) {
	if _, inbound := inboundPort(c); inbound {
		return endpoint{}, false
	}
	e := endpoint{weight: 1, originalDestination: isOriginalDestination(c), dynamic: isDynamic(c)}
	return e, e.virtual()
}
