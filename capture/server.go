package capture

import (
	"context"
	"errors"
	"log/slog"

	"meshbridge/translate"
)

// Server accepts connections and relays them. Its methods are safe for concurrent use.
type Server struct {
	config Config
	log    *slog.Logger

	tls     *tlsState // in tls_inbound.go
	overlay *overlay  // in overlay.go
}

// New returns a server that serves nothing until Run.
func New(config Config) (*Server, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{config: config, log: config.Log}
	if s.tls, err = newTLSState(config); err != nil {
		return nil, err
	}
	if s.overlay, err = newOverlay(config); err != nil {
		return nil, err
	}
	return s, nil
}

// Run serves until ctx ends, closes everything that is open and returns nil then. It is called once.
func (s *Server) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// SetListeners replaces the table of listeners. Sockets that the new table has, too, stay open;
// connections of listeners that are gone go on. A listener that cannot be bound is logged, counted
// and tried again.
func (s *Server) SetListeners([]*translate.Listener) {}

// Drain stops accepting connections and waits until those that are open have ended. When ctx ends
// first, it closes the rest and returns the context's error.
func (s *Server) Drain(context.Context) error { return errors.New("drain: not built yet") }

// Connections returns how many connections are open.
func (s *Server) Connections() int { return 0 }
