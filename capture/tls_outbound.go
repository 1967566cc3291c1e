package capture

import (
	"context"
	"errors"
	"net"
	"net/netip"

	"meshbridge/translate"
)

// dialOriginal connects to a connection's original destination, with TLS where how says so.
func (s *Server) dialOriginal(ctx context.Context, to netip.AddrPort, how *translate.OriginalDestination) (net.Conn, error) {
	if how.TLS != nil {
		return nil, errors.New("TLS to original destinations: not built yet")
	}
	return s.dial(ctx, to, how.Source, how.ConnectTimeout)
}
