package capture

import (
	"context"
	"net"
	"net/netip"
	"time"
)

// defaultConnectTimeout bounds dials for which the configuration has no timeout: that of Envoy's
// clusters.
const defaultConnectTimeout = 5 * time.Second

// sourceFor returns the one of two local addresses, either of which may be invalid, that is of the family of
// a destination, and otherwise the first.
func sourceFor(to, source, other netip.Addr) netip.Addr {
	if other.IsValid() && other.Is4() == to.Unmap().Is4() {
		return other
	}
	return source
}

// dial opens a plain TCP connection from source, which may be invalid for any. A timeout of 0 is
// defaultConnectTimeout.
func (s *Server) dial(ctx context.Context, to netip.AddrPort, source netip.Addr, timeout time.Duration) (net.Conn, error) {
	if timeout <= 0 {
		timeout = defaultConnectTimeout
	}
	if to.Addr().IsLoopback() && (!source.IsValid() || source.Is4() == to.Addr().Is4()) {
		if conn, err := dialHere(to, source); conn != nil || err != nil {
			return conn, err
		}
	}
	return dialTCP(ctx, to, source, timeout)
}

// dial connects to an endpoint by Go's dialer.
func (e *overlayEndpoint) dial(ctx context.Context) (net.Conn, error) {
	switch {
	case e.Path != "":
		var d net.Dialer
		return d.DialContext(ctx, "unix", e.Path)
	case e.Name != "":
		return dialName(ctx, e.Name, e.Source)
	default:
		return dialTCP(ctx, e.Target, e.Source, e.ConnectTimeout)
	}
}

// dialName connects to "host:port", to the first address that answers.
func dialName(ctx context.Context, name string, source netip.Addr) (net.Conn, error) {
	d := net.Dialer{}
	if source.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
		d.Control = dialControl
	}
	return d.DialContext(ctx, "tcp", name)
}

// dialTCP is dial by Go's dialer.
func dialTCP(ctx context.Context, to netip.AddrPort, source netip.Addr, timeout time.Duration) (net.Conn, error) {
	dialer := net.Dialer{Timeout: timeout, KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: time.Minute, Interval: 15 * time.Second, Count: 4,
	}}
	if to.Addr().IsLoopback() {
		// Who is on this host cannot vanish without a word.
		dialer.KeepAliveConfig.Enable = false
		dialer.KeepAlive = -1
	}
	if source.IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
		dialer.Control = dialControl
	}
	return dialer.DialContext(ctx, "tcp", to.String())
}
