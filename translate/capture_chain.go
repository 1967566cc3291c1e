package translate

import (
	"slices"
	"time"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	http_connection_managerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
)

// chainCapture is what of a filter chain is for capture, as far as it depends on nothing else.
type chainCapture struct {
	match            ChainMatch
	handshakeTimeout time.Duration
	tlsContext       *tlspb.DownstreamTlsContext
	policies         []*NetworkPolicy
	tcp              *tcpDraft
	// passthrough is the cluster that all requests of an HTTP chain go to, as they are; empty where
	// something has to look at them.
	passthrough string
	// beyond tells that the TLS context asks for what APISIX cannot do.
	beyond bool
	// forwarding is what happens to x-forwarded-client-cert, which wholeCertificate wants to have the
	// certificate in it.
	wholeCertificate bool
	forwarding       http_connection_managerpb.HttpConnectionManager_ForwardClientCertDetails
	// settled is the chain as the table has it.
	settled *Chain
}

// capturesTLS tells whether capture terminates the chain's TLS. All of what the workload's own
// certificate is for has to do with the mesh, which APISIX does not know.
func (s *State) capturesTLS(d *chainDraft) bool {
	if !s.options.Profile.Captures() || d.tlsContext == nil {
		return false
	}
	if d.MeshTLS || d.beyond || d.tls.unavailable != "" || len(d.tls.checks) > 0 {
		return true
	}
	needed := d.tls.certificates
	if d.tls.authority.name != "" {
		needed = append(slices.Clone(needed), d.tls.authority)
	}
	return slices.ContainsFunc(needed, func(secret secretName) bool {
		held := s.credentials[secret.name]
		return !secret.ads || held != nil && len(held.checks) > 0
	})
}

// isBeyondAPISIX tells whether a code says that APISIX terminates TLS in another way than it was asked
// to.
func isBeyondAPISIX(code Code) bool {
	return code == "alpn_ignored" || code == "tls_parameters_ignored" || code == "tls_version_unavailable"
}

// passthroughCluster returns the cluster that all requests on a connection go to, where APISIX would
// have nothing to do with them: those of Istio's chains for what no service claims. It is empty for
// other chains. Filters without effect in APISIX have been reported.
func passthroughCluster(d *chainDraft, hcm *http_connection_managerpb.HttpConnectionManager) string {
	config := hcm.GetRouteConfig()
	if len(d.restrictions) > 0 || len(d.accessFilters) > 0 || d.tokens != nil || len(d.dormant) > 0 || d.plugins.rateLimitFilter != "" ||
		len(config.GetRequestHeadersToAdd())+len(config.GetRequestHeadersToRemove())+len(config.GetResponseHeadersToAdd())+
			len(config.GetResponseHeadersToRemove())+len(config.GetTypedPerFilterConfig())+len(config.GetRequestMirrorPolicies()) > 0 {
		return ""
	}
	cluster := ""
	for _, v := range config.GetVirtualHosts() {
		if len(v.GetRequestHeadersToAdd())+len(v.GetRequestHeadersToRemove())+len(v.GetResponseHeadersToAdd())+
			len(v.GetResponseHeadersToRemove())+len(v.GetTypedPerFilterConfig())+len(v.GetRequestMirrorPolicies()) > 0 ||
			v.GetRequireTls() != routepb.VirtualHost_NONE || v.GetMatcher() != nil {
			return ""
		}
		for _, r := range v.GetRoutes() {
			to := r.GetRoute().GetCluster()
			if !isPassthrough(to) || cluster != "" && to != cluster || !forwardsAsIs(r) {
				return ""
			}
			cluster = to
		}
	}
	return cluster
}

func isPassthrough(cluster string) bool {
	return cluster == "PassthroughCluster" || cluster == "InboundPassthroughCluster"
}

// forwardsAsIs tells whether a route takes every request and changes nothing of it.
func forwardsAsIs(r *routepb.Route) bool {
	m, a := r.GetMatch(), r.GetRoute()
	return m.GetPrefix() == "/" && len(m.GetHeaders())+len(m.GetQueryParameters())+len(m.GetCookies())+len(m.GetDynamicMetadata())+len(m.GetFilterState()) == 0 &&
		m.GetRuntimeFraction() == nil && m.GetGrpc() == nil && m.GetTlsContext() == nil &&
		len(r.GetRequestHeadersToAdd())+len(r.GetRequestHeadersToRemove())+len(r.GetResponseHeadersToAdd())+
			len(r.GetResponseHeadersToRemove())+len(r.GetTypedPerFilterConfig()) == 0 &&
		!rewritesPath(a) && a.GetHostRewriteSpecifier() == nil && len(a.GetRequestMirrorPolicies()) == 0
}

// captureCompiler makes capture's part of a listener.
type captureCompiler struct {
	state    *State
	listener string
	part     *chainPart
}

// filterChain is what capture does with the connections of a chain.
func (x *captureCompiler) filterChain(d *chainDraft) *FilterChain {
	c := d.settled
	out := &FilterChain{
		Key: c.Key, Name: c.FilterChain, Match: d.match, HandshakeTimeout: d.handshakeTimeout, Policies: d.policies,
	}
	report := x.state.reporter(&x.part.diagnostics, "Listener "+x.listener, d.field, "")
	switch {
	case d.broken != "" || d.proxy != "":
		out.Refused = c.NotServed
		return out
	case d.HTTP && c.NotServed == "":
		out.HTTP = &HTTPProxy{TLS: c.Terminated}
	case d.HTTP && d.passthrough != "":
		out.TCP = &TCPProxy{Clusters: []TCPCluster{x.tcpCluster(tcpDestination{d.passthrough, 1}, &tcpDraft{attempts: 1}, report)}}
	case d.HTTP:
		out.Refused = c.NotServed
		return out
	default:
		if x.tcp(d, out, report); out.Refused != "" {
			return out
		}
	}
	if d.tlsContext != nil && !c.Terminated {
		out.TLS = x.state.downstreamTLS(d.tlsContext, report)
		out.TLS.ForwardClientCert = out.HTTP != nil && tellsCertificate(d.forwarding)
	}
	return out
}

// tcp fills in where connections go.
func (x *captureCompiler) tcp(d *chainDraft, out *FilterChain, report reporter) {
	for _, r := range d.restrictions {
		consequence := "connections of the chain are closed"
		if slices.Contains(x.state.options.AllowUnenforced, r.code) {
			consequence = "it is NOT ENFORCED, as was asked for: the chain is open to everyone"
		} else {
			out.Refused = r.what + " cannot be enforced"
		}
		report(r.code, r.field, r.what, consequence)
	}
	if d.tcp.unserved != "" {
		out.Refused = d.tcp.unserved
	}
	if out.Refused != "" {
		return
	}
	out.TCP = &TCPProxy{IdleTimeout: d.tcp.idleTimeout}
	for _, destination := range d.tcp.destinations {
		out.TCP.Clusters = append(out.TCP.Clusters, x.tcpCluster(destination, d.tcp, report))
	}
	if len(out.TCP.Clusters) == 0 {
		out.TCP, out.Refused = nil, "no cluster has a weight"
		report(codeTCPClosed, "tcp_proxy", out.Refused)
	}
}

// tcpCluster is a destination of TCP connections.
func (x *captureCompiler) tcpCluster(to tcpDestination, draft *tcpDraft, report reporter) TCPCluster {
	s := x.state
	facts := s.clusterFacts(to.cluster)
	x.part.facts = add(x.part.facts, knownFacts{to.cluster, facts})
	out := TCPCluster{Name: to.cluster, Weight: to.weight}
	switch {
	case !facts.exists:
		out.Refused = "there is no cluster " + to.cluster
		if !isUnclaimed(to.cluster) {
			report(codeTCPClusterNotFound, "tcp_proxy", to.cluster)
		}
	case facts.unserved != "":
		out.Refused = facts.unserved
		if !isUnclaimed(to.cluster) {
			report(codeTCPClosed, "tcp_proxy", facts.unserved)
		}
	case facts.originalDestination:
		c := s.decodedCluster(to.cluster)
		about := s.reporter(&x.part.diagnostics, "Cluster "+to.cluster, "", origin(c.GetMetadata()))
		source, other := bindSources(c)
		out.OriginalDestination = &OriginalDestination{
			Source: source, OtherSource: other, ConnectTimeout: connectTimeoutOf(c), TLS: s.transportsOf(c, about).of(nil).tls,
		}
	default:
		ref := upstreamRef{to.cluster, variant{tcp: true, retries: int(draft.attempts) - 1}}
		if draft.hashesSource && facts.hashes {
			ref.variant.hash = hashVars + ":remote_addr"
		}
		if s.inputs.Allocations != nil {
			if port, ok := s.inputs.Allocations.StreamPort(ref.streamUpstream()); ok {
				out.Port = port
				x.part.refs = append(x.part.refs, ref)
				return out
			}
		}
		out.Refused = "no stream port of APISIX is left"
		report(codeStreamPorts, "tcp_proxy", to.cluster)
	}
	return out
}
