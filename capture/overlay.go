package capture

import (
	"context"
	"net"
	"net/netip"

	"meshbridge/translate"
)

// overlay is the table of the endpoints for which capture stands.
type overlay struct{}

func newOverlay(Config) (*overlay, error) { return &overlay{}, nil }

// SetOverlay adds or replaces endpoints, and removes those that are gone. Open connections go on.
func (s *Server) SetOverlay(_ []*translate.OverlayEndpoint, _ []netip.Addr) {}

// runOverlay runs what belongs to the overlay as a whole, such as HTTP servers, until ctx ends. Run
// calls it once, in a goroutine of its own, and waits for it.
func (s *Server) runOverlay(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// serveOverlay serves a connection from APISIX to the address alias until it has ended or been handed
// to relay. It closes conn. ctx ends when the server stops.
func (s *Server) serveOverlay(_ context.Context, conn net.Conn, _ netip.Addr) {
	reset(conn)
}
