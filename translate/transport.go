package translate

import (
	"strings"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// reportTransport reports endpoints that expect more than a plain connection, where there is no overlay
// that would do it for APISIX. They keep their real addresses.
func reportTransport(cx *clusterContext, endpoints []endpoint) {
	if cx.overlay != nil {
		return // transportsOf reports
	}
	c := cx.cluster
	if s := c.GetTransportSocket(); s != nil {
		reportSocket(s, "transport_socket", cx.report)
	}
	mesh := 0
	for _, e := range endpoints {
		if e.meshTLS {
			mesh++
		}
	}
	if mesh > 0 && hasTLSMatch(c) {
		// Not how many: that would change with every endpoint that comes or goes.
		which := "all"
		if mesh < len(endpoints) {
			which = "some"
		}
		cx.report(codeMeshTLS, "transport_socket_matches", which)
	}
}

func reportSocket(s *corepb.TransportSocket, field string, report reporter) {
	switch name := s.GetName(); {
	case isPlain(s):
	case isTLS(s):
		report(codeTLSOrigination, field)
	default:
		report(codeTransportSocket, field, name)
	}
}

func hasTLSMatch(c *clusterpb.Cluster) bool {
	for _, m := range c.GetTransportSocketMatches() {
		if !isPlain(m.GetTransportSocket()) {
			return true
		}
	}
	return false
}

func isPlain(s *corepb.TransportSocket) bool {
	return strings.HasSuffix(s.GetTypedConfig().GetTypeUrl(), ".RawBuffer") || s.GetName() == "envoy.transport_sockets.raw_buffer"
}

func isTLS(s *corepb.TransportSocket) bool {
	return strings.HasSuffix(s.GetTypedConfig().GetTypeUrl(), ".UpstreamTlsContext") || s.GetName() == "envoy.transport_sockets.tls"
}
