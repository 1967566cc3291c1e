package capture

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"meshbridge/translate"
)

// forward sends an arrival where its filter chain leads.
func (s *Server) forward(ctx context.Context, a *arrival) {
	chain := a.match()
	a.chain = chain
	switch {
	case chain == nil:
		s.refuse(ctx, a, reasonNoChain, nil)
		return
	case chain.Refused != "":
		s.refuse(ctx, a, reasonChain, errors.New(chain.Refused))
		return
	}
	client := net.Conn(a.conn)
	if len(a.head) > 0 {
		client = &peekedConn{Conn: a.conn, head: a.head}
	}
	if chain.TLS != nil {
		terminated, who, err := s.terminate(ctx, client, chain, a.hello)
		if err != nil {
			s.refuse(ctx, a, reasonTLS, err)
			return
		}
		client, a.peer = terminated, who
	}
	if err := a.allowedBy(chain); err != nil {
		s.refuse(ctx, a, reasonPolicy, err)
		return
	}
	switch {
	case chain.HTTP != nil && chain.HTTP.TLS:
		s.toAPISIX(ctx, a, client, chain, s.config.HTTPS, 0)
	case chain.HTTP != nil:
		s.toAPISIX(ctx, a, client, chain, s.config.HTTP, 0)
	case chain.TCP != nil:
		s.toCluster(ctx, a, client, chain)
	default:
		s.refuse(ctx, a, reasonChain, errors.New("filter chain leads nowhere"))
	}
}

// match returns the filter chain for what is known of an arrival; nil where none matches.
func (a *arrival) match() *translate.FilterChain {
	return a.listener.matcher.Match(Connection{
		Destination: a.destination, Source: a.source, DirectSource: a.direct,
		ServerName: a.hello.serverName, TransportProtocol: a.hello.transport, ApplicationProtocols: a.hello.protocols,
	})
}

// allowedBy asks the chain's policies in their order.
func (a *arrival) allowedBy(chain *translate.FilterChain) error {
	if len(chain.Policies) == 0 {
		return nil
	}
	who := translate.NetworkPeer{
		Source: a.source, DirectSource: a.direct, Destination: a.destination, ServerName: a.hello.serverName,
		TLS: chain.TLS != nil, MutualTLS: a.peer.mutualTLS, URIs: a.peer.uris, DNSNames: a.peer.dnsNames, Subject: a.peer.subject,
	}
	for _, policy := range chain.Policies {
		if allowed, name := policy.Allows(who); !allowed {
			return &policyError{name}
		}
	}
	return nil
}

// policyError tells which policy refused a connection; empty where none allows it.
type policyError struct{ policy string }

func (e *policyError) Error() string {
	if e.policy == "" {
		return "no policy allows it"
	}
	return fmt.Sprintf("policy %q", e.policy)
}

// toCluster sends a connection to one of a chain's TCP clusters.
func (s *Server) toCluster(ctx context.Context, a *arrival, client net.Conn, chain *translate.FilterChain) {
	cluster := choose(chain.TCP.Clusters)
	if cluster != nil {
		a.cluster = cluster.Name
	}
	switch {
	case cluster == nil:
		s.refuse(ctx, a, reasonChain, errors.New("filter chain has no cluster"))
	case cluster.OriginalDestination != nil:
		s.toOriginal(ctx, a, client, cluster, chain.TCP.IdleTimeout)
	case cluster.Port != 0:
		s.toAPISIX(ctx, a, client, chain, netip.AddrPortFrom(s.config.Stream, cluster.Port), chain.TCP.IdleTimeout)
	default:
		s.refuse(ctx, a, reasonChain, fmt.Errorf("cluster %q: %s", cluster.Name, cluster.Refused))
	}
}

// choose draws a cluster by weight.
func choose(clusters []translate.TCPCluster) *translate.TCPCluster {
	if len(clusters) == 1 {
		return &clusters[0]
	}
	total := uint64(0)
	for i := range clusters {
		total += uint64(clusters[i].Weight)
	}
	if total == 0 {
		return nil
	}
	drawn := rand.Uint64N(total) //nolint:gosec // a share of connections is no secret
	for i := range clusters {
		weight := uint64(clusters[i].Weight)
		if drawn < weight {
			return &clusters[i]
		}
		drawn -= weight
	}
	return nil
}

// toAPISIX sends a connection to a port of APISIX, with a header that tells what is known of it.
func (s *Server) toAPISIX(ctx context.Context, a *arrival, client net.Conn, chain *translate.FilterChain, port netip.AddrPort, idle time.Duration) {
	if !port.IsValid() {
		s.refuse(ctx, a, reasonDial, errors.New("APISIX has no port for it"))
		return
	}
	transport := "raw"
	if a.hello.transport == transportTLS {
		transport = "tls"
	}
	header := proxyHeader{
		source: a.source, destination: a.destination, chain: chain.Key,
		principal: a.peer.principal, forwarded: a.peer.forwarded, sni: a.hello.serverName, transportTLV: transport,
	}
	first, err := header.append(make([]byte, 0, firstRead))
	if err != nil {
		s.refuse(ctx, a, reasonHeaderTooLong, err)
		return
	}
	upstream, err := s.dial(ctx, port, netip.Addr{}, 0)
	if err != nil {
		s.refuseUnreachable(ctx, a, err)
		return
	}
	early := 0
	if u := unwrap(client); u.plain != nil && len(u.head) == 0 {
		// The first bytes have often come in the meantime: one write for both.
		n := receive(u.plain, first[len(first):cap(first)])
		first = first[:len(first)+n]
		s.metrics.bytes(a.conn.direction, 0, int64(n))
		early = n
	}
	s.observeOpened(a, nil, early)
	s.relayAfter(ctx, lead{header: first, clientFirst: chain.HTTP != nil}, client, upstream, idle)
}

// toOriginal sends a connection where it was going.
func (s *Server) toOriginal(ctx context.Context, a *arrival, client net.Conn, cluster *translate.TCPCluster, idle time.Duration) {
	if a.destination == addrPort(a.conn.LocalAddr()) && !a.listener.Transparent || s.isReserved(a) {
		s.refuse(ctx, a, reasonLoop, nil)
		return
	}
	if !a.destination.IsValid() {
		s.refuse(ctx, a, reasonNoOriginal, fmt.Errorf("cluster %q: the connection has no address", cluster.Name))
		return
	}
	upstream, err := s.dialOriginal(ctx, a.destination, cluster.OriginalDestination)
	if err != nil {
		s.refuseUnreachable(ctx, a, err)
		return
	}
	s.observeOpened(a, upstream, 0)
	s.relay(ctx, client, upstream, idle)
}

// refuseUnreachable refuses a connection whose destination cannot be reached.
func (s *Server) refuseUnreachable(ctx context.Context, a *arrival, err error) {
	reason := reasonDial
	if outOfPorts(err) {
		reason = reasonPorts
	}
	s.refuse(ctx, a, reason, err)
}
