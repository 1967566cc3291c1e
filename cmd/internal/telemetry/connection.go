package telemetry

import (
	"net/netip"

	"meshbridge/capture"
	"meshbridge/translate"
	"meshbridge/translate/accesslog"
)

// connection is what connections have in common that are counted together.
type connection struct {
	chain, cluster string
	// principal is the client's, and upstream that of the endpoint where capture has connected to it, which
	// direct tells.
	principal, upstream string
	direct              bool
	reason              string
}

func connectionOf(c *capture.Connected) connection {
	return connection{c.Chain, c.Cluster, c.Principal, c.UpstreamPrincipal, c.Upstream.IsValid(), c.Reason}
}

// Response flags of Envoy.
const (
	noFlags            = "-"
	flagNoRoute        = "NR"
	flagNoCluster      = "NC"
	flagNoEndpoint     = "UH"
	flagsNotConnected  = "UF,URX" // of one attempt, after which there is none
	protocolConnection = "tcp"
)

// findConnection returns what stands behind connections; nil where their chain is not known.
func (r *resolver) findConnection(c *connection) *resolved {
	out, rules := r.onChain(c.chain)
	if rules == nil {
		return out
	}
	to, exists := out.toCluster(r.world, c.cluster)
	e := ends{own: r.own, ownPrincipal: out.principal, reporter: rules.Reporter}
	e.name("", c.cluster, to)
	all := endpointsOf(out.endpoints, out.cluster)
	out.toOriginal = to.original
	if len(all) == 1 {
		out.upstream = all[0].address
	}
	if e.reporter == translate.ReporterSource {
		r.towardsOneOf(&e, c, all)
	} else {
		e.identified(c.principal)
	}
	e.onto(&out.labels)
	out.labels[labelRequestProtocol] = protocolConnection
	out.labels[labelResponseFlags] = c.flags(exists, len(all) > 0 || to.original)
	return out
}

// loggedBy returns the access logs of a listener, for connections that none of its chains takes.
func (r *resolver) loggedBy(l *translate.Listener) []*accesslog.Log {
	if !r.logs {
		return nil
	}
	return l.AccessLogs
}

// flags are Envoy's response flags.
func (c *connection) flags(clusterExists, endpoints bool) string {
	switch c.reason {
	case "":
		if !endpoints {
			return flagNoEndpoint // and APISIX closes the connection
		}
		return noFlags
	case capture.ReasonTLS, capture.ReasonPolicy:
		return noFlags
	case capture.ReasonChain:
		switch {
		case c.cluster == "":
			return noFlags
		case clusterExists:
			return flagNoEndpoint
		}
		return flagNoCluster
	default:
		return flagsNotConnected
	}
}

// towardsOneOf fills in what the endpoints of a cluster have in common: which one it is APISIX decides, and does
// not tell.
func (r *resolver) towardsOneOf(e *ends, c *connection, all []endpoint) {
	own := e.ownPrincipal
	e.ownPrincipal = ""
	if c.direct {
		if c.upstream != "" {
			e.ownPrincipal, e.peerID = own, c.upstream
		}
		return
	}
	if len(all) == 0 {
		return
	}
	e.peer = all[0].workload
	for _, o := range all[1:] {
		e.peer.agree(&o.workload)
	}
	servers := map[netip.AddrPort]*translate.OverlayEndpoint{}
	for _, o := range r.world.OverlayOf(c.cluster) {
		servers[o.Target] = o
	}
	for i, o := range all {
		server := servers[o.address]
		if !o.address.IsValid() || server == nil || server.TLS == nil || !server.TLS.Credential.Workload {
			e.peerID = ""
			return
		}
		if id := onlyIdentity(server.TLS.SANs); i == 0 {
			e.peerID = id
		} else if id != e.peerID {
			e.peerID = ""
		}
	}
	e.ownPrincipal = own
}
