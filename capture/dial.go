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

// dial opens a plain TCP connection from source, which may be invalid for any. A timeout of 0 is
// defaultConnectTimeout.
func (s *Server) dial(ctx context.Context, to netip.AddrPort, source netip.Addr, timeout time.Duration) (net.Conn, error) {
	if timeout <= 0 {
		timeout = defaultConnectTimeout
	}
	d := net.Dialer{Timeout: timeout}
	if source.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
	}
	return d.DialContext(ctx, "tcp", to.String())
}
