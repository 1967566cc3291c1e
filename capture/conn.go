package capture

import (
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
)

// acceptedConn is a connection that the server has accepted. It counts as open until Close, or until an
// event loop that took it over has ended it.
type acceptedConn struct {
	net.Conn
	connections *connections
	direction   direction              // changed by connections.move only
	outcome     atomic.Pointer[string] // nil: closed by its ends
	ended       atomic.Bool
	observed    atomic.Pointer[Connected] // what the observer knows of; nil before, and where it is to know nothing
}

// Close closes the connection; the first time, it counts as ended.
func (c *acceptedConn) Close() error {
	err := c.Conn.Close()
	c.end()
	return err
}

// end ends the accounting.
func (c *acceptedConn) end() {
	if !c.ended.CompareAndSwap(false, true) {
		return
	}
	outcome := outcomeClosed
	if o := c.outcome.Load(); o != nil {
		outcome = *o
	}
	if o := c.observed.Load(); o != nil {
		o.close(c.connections.observer, outcome)
	}
	c.connections.end(c, outcome)
}

// endsAs sets how the connection ends; the first that says so holds.
func (c *acceptedConn) endsAs(outcome string) { c.outcome.CompareAndSwap(nil, &outcome) }

// CloseWrite ends our side of the connection.
func (c *acceptedConn) CloseWrite() error { return closeWrite(c.Conn) }

// peekedConn is a connection whose first bytes have been read already: Read returns them first. Only
// one goroutine reads.
type peekedConn struct {
	net.Conn
	head []byte // what has been read and is not yet consumed
}

func (c *peekedConn) Read(b []byte) (int, error) {
	if len(c.head) == 0 {
		return c.Conn.Read(b)
	}
	n := copy(b, c.head)
	c.head = c.head[n:]
	return n, nil
}

// CloseWrite ends our side of the connection.
func (c *peekedConn) CloseWrite() error { return closeWrite(c.Conn) }

// closeWrite ends our side of a connection, where it can be ended alone.
func closeWrite(conn net.Conn) error {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// plainConn is a connection whose bytes are those of a socket.
type plainConn interface {
	net.Conn
	syscall.Conn
	CloseWrite() error
}

// unwrapped is what is inside of a connection.
type unwrapped struct {
	plain    plainConn     // nil where there is more than a socket, such as TLS
	accepted *acceptedConn // nil for those that were dialled
	head     []byte        // what has been read and is not yet consumed
}

func unwrap(conn net.Conn) unwrapped {
	var u unwrapped
	for {
		switch c := conn.(type) {
		case *peekedConn:
			u.head = append(u.head, c.head...)
			conn = c.Conn
		case *acceptedConn:
			u.accepted = c
			conn = c.Conn
		case plainConn:
			u.plain = c
			return u
		default:
			return u
		}
	}
}

// reset closes a connection such that its peer sees a reset, TLS or not.
func reset(conn net.Conn) {
	inner := conn
	if wrapper, ok := inner.(interface{ NetConn() net.Conn }); ok {
		inner = wrapper.NetConn()
	}
	u := unwrap(inner)
	if tcp, ok := u.plain.(interface{ SetLinger(seconds int) error }); ok {
		_ = tcp.SetLinger(0)
	}
	if u.accepted != nil {
		u.accepted.endsAs(outcomeReset)
	}
	// TLS would say goodbye first, and wait for a peer that takes nothing.
	_ = inner.Close()
}

// inspected is what the first bytes of a connection tell.
type inspected struct {
	// transport is the transport protocol: "tls" or "raw_buffer".
	transport string
	// serverName is TLS's server name in lower case, empty without one.
	serverName string
	// protocols are the application protocols: those of TLS's ALPN, or the one that the first
	// bytes of plain text show ("http/1.0", "http/1.1", "h2c").
	protocols []string
}

// peer is who is at the other end of a connection, as far as its certificate tells. The zero value is
// a peer without TLS.
type peer struct {
	// mutualTLS tells that a certificate was shown and verified.
	mutualTLS bool
	// principal is the certificate's SPIFFE ID, empty without one.
	principal string
	// uris and dnsNames are the certificate's subject alternative names, subject its
	// distinguished name.
	uris, dnsNames []string
	subject        string
	// forwarded is the element of x-forwarded-client-cert that tells of the certificate, empty
	// where APISIX is not to be told.
	forwarded string
}

// addrPort returns the address of a TCP connection, with IPv4 addresses as such; invalid for others.
func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := tcp.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}
