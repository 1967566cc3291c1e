package capture

import (
	"net"
	"net/netip"
)

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
func (c *peekedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
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
