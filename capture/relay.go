package capture

import (
	"context"
	"net"
	"time"
)

// relay copies bytes between two connections in both directions until both have ended, and closes
// them. The end of one direction is passed on as such; a reset of one side resets the other. idle
// closes both when no byte has passed in either direction for so long; 0 is without limit. Where
// both are plain, an event loop takes them over and relay returns at once: the connections must not
// be used any more. A *peekedConn is plain if what it wraps is.
func (s *Server) relay(ctx context.Context, client, upstream net.Conn, idle time.Duration) {
	_ = ctx
	_ = idle
	_ = client.Close()
	_ = upstream.Close()
}

// reset closes a connection such that its peer sees a reset.
func reset(conn net.Conn) {
	_ = conn.Close()
}
