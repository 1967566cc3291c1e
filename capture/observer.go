package capture

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"meshbridge/translate"
)

// Observer is told of connections that carry no HTTP: APISIX tells of requests. Its methods are safe for
// concurrent use, and return soon: event loops call Closed.
type Observer interface {
	// Opened is told of a connection that is about to be relayed.
	Opened(*Connected)
	// Closed is told when it has ended, once however it does. Of connections that are refused, it is all that
	// is told. The bytes are final where it was not the server that ended the connection.
	Closed(*Connected)
}

// Connected is a connection that carries no HTTP, or one that no filter chain takes. All but the bytes is
// immutable once Opened has been called, and what it says about the end once Closed has.
type Connected struct {
	// Chain is the key of the filter chain, empty where none matches.
	Chain    string
	Listener *translate.Listener
	// Cluster is the one that was chosen; empty where none was.
	Cluster string
	// Source is the client and Direct whom the connection came from, if a PROXY protocol header named another
	// client. Destination is the original one.
	Source, Direct, Destination netip.AddrPort
	// Upstream is where capture has connected to, and Local from where; invalid where APISIX chooses the
	// endpoint. UpstreamPrincipal is the SPIFFE ID of the certificate that was shown there, empty without mesh
	// TLS.
	Upstream, Local   netip.AddrPort
	UpstreamPrincipal string
	// ServerName is the TLS server name, empty without one.
	ServerName string
	// MutualTLS tells that the client has shown a certificate, and Principal is its SPIFFE ID.
	MutualTLS bool
	Principal string
	// Started is when the connection was accepted, Ended when it was over.
	Started, Ended time.Time
	// Outcome is how it ended: "closed", "reset", "idle", "refused" or "stopped". Where it was refused, Reason
	// is that of meshbridge_capture_refused_total, and Detail says more in words. Policy is the name of the
	// policy that did, if one by name did.
	Outcome, Reason, Detail, Policy string
	// Sent are bytes to the client, Received those from it: of the plain text where TLS is terminated here.
	// They grow while the connection is open.
	Sent, Received atomic.Int64

	closed atomic.Bool // the observer has been told
}

// count adds bytes; nil is a connection that nobody is told of.
func (c *Connected) count(sent, received int) {
	if c == nil {
		return
	}
	if sent > 0 {
		c.Sent.Add(int64(sent))
	}
	if received > 0 {
		c.Received.Add(int64(received))
	}
}

// close tells the observer of the end, the first time.
func (c *Connected) close(observer Observer, outcome string) {
	if !c.closed.CompareAndSwap(false, true) {
		return
	}
	c.Ended = time.Now()
	if c.Outcome == "" {
		c.Outcome = outcome
	}
	observer.Closed(c)
}

// Values of Connected.Reason that tell observers why a connection never got to a cluster.
const (
	// ReasonNoChain is that of connections that no filter chain takes.
	ReasonNoChain = reasonNoChain
	// ReasonChain is that of filter chains and clusters that take none.
	ReasonChain = reasonChain
	// ReasonTLS is a failed handshake, and ReasonPolicy a NetworkPolicy that refused.
	ReasonTLS    = reasonTLS
	ReasonPolicy = reasonPolicy
)

// observed returns what an observer is told of an arrival.
func (a *arrival) observed() *Connected {
	c := &Connected{
		Listener: a.listener.Listener, Cluster: a.cluster, Source: a.source, Direct: a.direct, Destination: a.destination,
		ServerName: a.hello.serverName, MutualTLS: a.peer.mutualTLS, Principal: a.peer.principal, Started: a.started,
	}
	if a.chain != nil {
		c.Chain = a.chain.Key
	}
	return c
}

// observeOpened tells the observer of a connection to a cluster. upstream is nil where APISIX connects to the
// endpoint; read is how much of the client has been read for it already.
func (s *Server) observeOpened(a *arrival, upstream net.Conn, read int) {
	if s.config.Observer == nil || a.chain.TCP == nil {
		return
	}
	c := a.observed()
	if upstream != nil {
		c.Upstream, c.Local, c.UpstreamPrincipal = a.destination, localAddr(upstream), principalOf(upstream)
	}
	c.count(0, read)
	s.config.Observer.Opened(c)
	s.observe(a.conn, c)
}

// observeRefused tells the observer of a connection that is refused, unless it is one of HTTP. The connection
// is reset next.
func (s *Server) observeRefused(a *arrival, reason string, err error) {
	if s.config.Observer == nil || a.chain == nil && reason != reasonNoChain || a.chain != nil && a.chain.HTTP != nil {
		return
	}
	c := a.observed()
	c.Outcome, c.Reason = outcomeRefused, reason
	if err != nil {
		c.Detail = err.Error()
	}
	if refused, ok := errors.AsType[*policyError](err); ok {
		c.Policy = refused.policy
	}
	s.observe(a.conn, c)
}

// observe has the observer told when a connection ends, which it may have done already.
func (s *Server) observe(conn *acceptedConn, c *Connected) {
	conn.observed.Store(c)
	if conn.ended.Load() {
		c.close(s.config.Observer, outcomeStopped)
	}
}

// localAddr returns our own address of a connection.
func localAddr(conn net.Conn) netip.AddrPort {
	if c, ok := conn.(interface{ localAddr() netip.AddrPort }); ok {
		return c.localAddr()
	}
	return addrPort(conn.LocalAddr())
}

// principalOf returns the SPIFFE ID of the server at the other end, empty where there is none.
func principalOf(conn net.Conn) string {
	c, ok := conn.(interface{ ConnectionState() tls.ConnectionState })
	if !ok {
		return ""
	}
	if shown := c.ConnectionState().PeerCertificates; len(shown) > 0 {
		return spiffeID(shown[0])
	}
	return ""
}
