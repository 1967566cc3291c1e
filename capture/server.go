package capture

import (
	"context"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"meshbridge/translate"
)

// Server accepts connections and relays them. Its methods are safe for concurrent use.
type Server struct {
	config   Config
	log      *slog.Logger
	metrics  *metrics
	reserved []translate.PortRange // those of config, and its own ports

	tls     *tlsState // in tls_inbound.go
	overlay *overlay  // in overlay.go

	say         *say
	connections *connections
	loops       *loops
	copyBuffers sync.Pool      // of *copyBuffer
	serving     sync.WaitGroup // goroutines of connections
	table       atomic.Pointer[table]
	draining    atomic.Bool

	sockets sockets
}

// New returns a server that serves nothing until Run, which must be called: it releases what the server
// has.
func New(config Config) (*Server, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{config: config, log: config.Log, say: newSay(config.Log), reserved: config.reserved()}
	s.table.Store(newTable(nil))
	if s.metrics, err = newMetrics(config.Registerer); err != nil {
		return nil, err
	}
	s.connections = newConnections(s.metrics, config.Observer, config.MaxConnections)
	if s.tls, err = newTLSState(config); err != nil {
		return nil, err
	}
	if s.overlay, err = newOverlay(config); err != nil {
		return nil, err
	}
	if s.loops, err = newLoops(s.log, s.metrics); err != nil {
		return nil, err
	}
	return s, nil
}

// Run serves until ctx ends, closes everything that is open and returns nil then. It is called once.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var parts sync.WaitGroup
	parts.Go(s.loops.run)
	var failed error
	parts.Go(func() {
		if err := s.runOverlay(ctx); err != nil {
			failed = err
			cancel()
		}
	})
	s.sockets.start(ctx, s)
	s.sockets.retry(ctx, s)

	s.sockets.stop()
	s.connections.stop()
	s.serving.Wait()
	s.loops.stop()
	parts.Wait()
	return failed
}

// SetListeners replaces the table of listeners. Sockets that the new table has, too, stay open;
// connections of listeners that are gone go on. A listener that cannot be bound is logged, counted
// and tried again.
func (s *Server) SetListeners(listeners []*translate.Listener) {
	t := newTable(listeners)
	s.sockets.mu.Lock()
	defer s.sockets.mu.Unlock()
	s.table.Store(t)
	s.sockets.reconcile(s)
}

// StopAccepting closes the sockets to the workload and of gateways, for good. Connections that are open go
// on, and the workload may connect to others.
func (s *Server) StopAccepting() {
	s.draining.Store(true)
	s.sockets.mu.Lock()
	defer s.sockets.mu.Unlock()
	s.sockets.reconcile(s)
}

// Leave closes all sockets, for good: another process accepts what comes to them. Connections that are
// open go on.
func (s *Server) Leave() {
	s.draining.Store(true)
	s.sockets.stop()
}

// Drain lets the workload end in peace. It closes the sockets to the workload and of gateways, waits until
// all connections but those of the overlay have ended, and closes everything else: the workload may connect
// to others in the meantime, and APISIX to endpoints. When ctx ends first, Drain resets what is left and
// returns the context's error. Run goes on until its own context ends.
func (s *Server) Drain(ctx context.Context) error {
	before, _ := s.connections.drained()
	s.StopAccepting()
	left := s.connections.wait(ctx)
	s.sockets.stop()
	s.connections.stop()
	s.loops.stop()
	s.metrics.drained.WithLabelValues("ended").Add(math.Max(float64(before-left), 0))
	s.metrics.drained.WithLabelValues("reset").Add(float64(left))
	s.log.LogAttrs(ctx, slog.LevelInfo, "connections are drained", slog.Int("open", before), slog.Int("reset", left))
	if left > 0 {
		return ctx.Err()
	}
	return nil
}

// Connections returns how many connections are open.
func (s *Server) Connections() int { return s.connections.Len() }

// retryInterval is how long after a failure to bind a socket it is tried again.
const retryInterval = time.Second
