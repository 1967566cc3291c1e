package capture

import "net"

// Addr returns where a listener of the table, or of the overlay, has its first open socket; nil if none.
func (s *Server) Addr(listener string) net.Addr {
	s.sockets.mu.Lock()
	defer s.sockets.mu.Unlock()
	for _, opened := range s.sockets.open {
		if nameOf(opened.listener.Load()) == listener {
			return opened.Addr()
		}
	}
	return nil
}

// OriginalDestination asks the kernel.
var OriginalDestination = originalDestination
