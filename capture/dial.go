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
