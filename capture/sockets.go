package capture

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"meshbridge/translate"
)

// sockets are those that are open. Their zero value has none, and opens none before start.
type sockets struct {
	accepting sync.WaitGroup // goroutines that accept
	mu        sync.Mutex
	open      map[socketKey]*socket
	failed    map[socketKey]bool // those that could not be bound when they were last tried
	// begin accepts a socket's connections; nil before start and after stop.
	begin func(*socket)
	// listen opens a socket.
	listen func(socketKey) (*socket, error)
}

// start opens the sockets of the table.
func (ss *sockets) start(ctx context.Context, s *Server) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.open, ss.failed = make(map[socketKey]*socket), make(map[socketKey]bool)
	ss.listen = func(k socketKey) (*socket, error) { return k.open(ctx, s.config.Listen) }
	ss.begin = func(opened *socket) { ss.accepting.Go(func() { s.accept(ctx, opened) }) }
	ss.reconcile(s)
}

// retry tries again what could not be bound, until ctx ends.
func (ss *sockets) retry(ctx context.Context, s *Server) {
	ticker := time.NewTicker(retryInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		ss.mu.Lock()
		if len(ss.failed) > 0 {
			ss.reconcile(s)
		}
		ss.mu.Unlock()
	}
}

// stop closes all, for good.
func (ss *sockets) stop() {
	ss.mu.Lock()
	for key, opened := range ss.open {
		_ = opened.Close()
		delete(ss.open, key)
	}
	ss.begin = nil
	ss.mu.Unlock()
	ss.accepting.Wait()
}

// wanted is a socket that is to be open.
type wanted struct {
	key      socketKey
	listener *listener // nil: the overlay's
}

// wanted returns the sockets of the table, in its order.
func (s *Server) wanted() []wanted {
	var list []wanted
	if s.config.Overlay.IsValid() {
		list = append(list, wanted{key: tcpKey(s.config.Overlay, false)})
	}
	for _, l := range s.table.Load().listeners {
		// The overlay's connections may arrive where those to the workload do.
		mayCarryOverlay := l.OriginalDestination && s.config.Overlay.IsValid()
		if s.draining.Load() && l.direction != outbound && !mayCarryOverlay {
			continue
		}
		for _, key := range s.config.socketKeys(l) {
			list = append(list, wanted{key, l})
		}
	}
	return list
}

// reconcile closes what the table does not have any more, and opens what it has. The caller holds mu.
func (ss *sockets) reconcile(s *Server) {
	if ss.begin == nil {
		return
	}
	want := make(map[socketKey]*listener)
	list := s.wanted()
	for _, w := range list {
		if _, taken := want[w.key]; !taken {
			want[w.key] = w.listener
		}
	}
	// What closes may hold an address that something else is to have.
	for key, opened := range ss.open {
		if _, ok := want[key]; !ok {
			_ = opened.Close()
			delete(ss.open, key)
			s.log.Info("listener is closed", slog.String("address", key.address))
		}
	}
	for key := range ss.failed {
		if _, ok := want[key]; !ok {
			delete(ss.failed, key)
		}
	}
	for _, w := range list {
		ss.bind(s, w.key, want[w.key])
	}
	s.metrics.listeners.WithLabelValues("open").Set(float64(len(ss.open)))
	s.metrics.listeners.WithLabelValues("failed").Set(float64(len(ss.failed)))
}

// bind opens a socket, or gives one that is open to its listener.
func (ss *sockets) bind(s *Server, key socketKey, l *listener) {
	if opened, ok := ss.open[key]; ok {
		opened.listener.Store(l)
		return
	}
	opened, err := ss.listen(key)
	if err != nil {
		s.metrics.bindFailures.Inc()
		if !ss.failed[key] {
			s.log.Warn("listener cannot be bound, and is tried again", slog.String("listener", nameOf(l)),
				slog.String("address", key.address), slog.Any("error", err))
		}
		ss.failed[key] = true
		return
	}
	delete(ss.failed, key)
	opened.listener.Store(l)
	ss.open[key] = opened
	ss.begin(opened)
	s.log.Info("listener is open", slog.String("listener", nameOf(l)), slog.String("address", opened.Addr().String()))
}

// nameOf returns a listener's name for log lines.
func nameOf(l *listener) string {
	if l == nil {
		return "(overlay)"
	}
	return l.Name
}

// reserved returns the ports that connections may not go to on this host.
func (c *Config) reserved() []translate.PortRange {
	list := slices.Clone(c.Reserved)
	for _, a := range slices.Concat(c.Outbound, c.Inbound, []netip.AddrPort{c.Overlay, c.HTTP, c.HTTPS}) {
		if a.IsValid() {
			list = append(list, translate.PortRange{First: a.Port(), Last: a.Port()})
		}
	}
	return list
}
