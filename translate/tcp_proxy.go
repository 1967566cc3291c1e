package translate

import (
	"time"

	tcp_proxypb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	typepb "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// defaultTCPIdleTimeout is Envoy's idle_timeout of tcp_proxy.
const defaultTCPIdleTimeout = time.Hour

// tcpDraft is a tcp_proxy before it is known what its clusters are.
type tcpDraft struct {
	destinations []tcpDestination
	idleTimeout  time.Duration
	attempts     uint32
	// hashesSource tells that the client's address chooses the endpoint.
	hashesSource bool
	// unserved says why connections are closed; empty where they are not.
	unserved string
}

type tcpDestination struct {
	cluster string
	weight  uint32
}

func (d *chainDraft) parseTCPProxy(config *anypb.Any, share reporter) {
	const field = "tcp_proxy"
	d.tcp = &tcpDraft{idleTimeout: defaultTCPIdleTimeout, attempts: 1}
	c := decode[tcp_proxypb.TcpProxy](config)
	if c == nil {
		d.broken = "its TCP proxy does not decode"
		return
	}
	reportUnknown(c, share, field+".")
	switch to := c.GetClusterSpecifier().(type) {
	case *tcp_proxypb.TcpProxy_Cluster:
		d.tcp.destinations = []tcpDestination{{to.Cluster, 1}}
	case *tcp_proxypb.TcpProxy_WeightedClusters:
		for _, w := range to.WeightedClusters.GetClusters() {
			reportUnknown(w, share, field+".weighted_clusters.")
			if w.GetWeight() > 0 {
				d.tcp.destinations = append(d.tcp.destinations, tcpDestination{w.GetName(), w.GetWeight()})
			}
		}
	}
	if c.GetIdleTimeout() != nil {
		d.tcp.idleTimeout = positive(c.GetIdleTimeout())
	}
	d.tcp.attempts = max(valueOr(c.GetMaxConnectAttempts(), 1), 1)
	d.parseTCPHash(c.GetHashPolicy(), share)
	if c.GetTunnelingConfig() != nil {
		d.tcp.unserved = "they would have to be tunnelled over HTTP"
		share(codeTCPClosed, field+".tunneling_config", d.tcp.unserved)
	}
	if c.GetMaxDownstreamConnectionDuration() != nil {
		share(codeSettingIgnored, field+".max_downstream_connection_duration", "max_downstream_connection_duration")
	}
}

// parseTCPHash reads by what an endpoint is chosen. Envoy takes the first of the policies.
func (d *chainDraft) parseTCPHash(policies []*typepb.HashPolicy, share reporter) {
	if len(policies) == 0 {
		return
	}
	if policies[0].GetSourceIp() == nil {
		share(codeHashPolicy, "tcp_proxy.hash_policy", "of connections, capture tells APISIX the client's address only")
		return
	}
	d.tcp.hashesSource = true
}
