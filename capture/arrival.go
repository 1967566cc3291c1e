package capture

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"meshbridge/translate"
)

// arrival is a connection of which it is not yet known where it goes.
type arrival struct {
	conn        *acceptedConn
	listener    *listener
	source      netip.AddrPort // after a PROXY protocol header
	direct      netip.AddrPort // before
	destination netip.AddrPort
	head        []byte // what has been read
	hello       inspected
	peer        peer
	started     time.Time
	chain       *translate.FilterChain // nil before it is known
	cluster     string                 // the one that was chosen, if any
}

// serve decides where an accepted connection goes, and sends it there. It ends when the connection has, or
// when an event loop has it.
func (s *Server) serve(ctx context.Context, from *socket, accepted net.Conn) {
	l := from.listener.Load()
	conn := &acceptedConn{Conn: accepted, connections: s.connections, direction: toOverlay}
	if l != nil {
		conn.direction = l.direction
	}
	if !s.connections.begin(conn) {
		reset(accepted)
		s.metrics.refused.WithLabelValues(conn.direction.String(), reasonLimit).Inc()
		s.say.warn(ctx, reasonLimit, "connection is one too many", slog.Int("maximum", s.config.MaxConnections))
		return
	}
	a := &arrival{conn: conn, listener: l, direct: addrPort(accepted.RemoteAddr()), destination: addrPort(accepted.LocalAddr())}
	if s.config.Observer != nil {
		a.started = time.Now()
	}
	a.source = a.direct
	if l == nil {
		s.toOverlay(ctx, a)
		return
	}
	if l.OriginalDestination {
		if !s.redirected(ctx, a) {
			return
		}
	}
	if s.draining.Load() && a.listener.direction != outbound {
		s.refuse(ctx, a, reasonDraining, nil)
		return
	}
	if s.inspect(ctx, a) {
		s.forward(ctx, a)
	}
}

// redirected finds the listener of a connection's original destination. It is false where the connection
// goes elsewhere, or nowhere.
func (s *Server) redirected(ctx context.Context, a *arrival) bool {
	to, err := s.destinationOf(a)
	if err != nil {
		s.refuse(ctx, a, reasonNoOriginal, err)
		return false
	}
	a.destination = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	if s.isOverlay(a.destination) {
		s.connections.move(a.conn, toOverlay)
		s.toOverlay(ctx, a)
		return false
	}
	if s.isReserved(a) {
		s.refuse(ctx, a, reasonLoop, nil)
		return false
	}
	a.listener = s.table.Load().find(a.destination, a.listener)
	return true
}

// destinationOf returns a redirected connection's original destination.
func (s *Server) destinationOf(a *arrival) (netip.AddrPort, error) {
	switch {
	case s.config.OriginalDestination != nil:
		return s.config.OriginalDestination(a.conn.Conn)
	case a.listener.Transparent:
		return a.destination, nil
	default:
		return originalDestination(a.conn.Conn)
	}
}

// isOverlay tells whether an address is one that stands for an endpoint: a loopback one, which no other
// host can connect to.
func (s *Server) isOverlay(a netip.AddrPort) bool {
	return s.config.Overlay.IsValid() && a.Port() == s.config.Overlay.Port() && a.Addr().IsLoopback() && a != s.config.Overlay
}

// toOverlay leaves a connection of APISIX to the overlay.
func (s *Server) toOverlay(ctx context.Context, a *arrival) {
	if !s.isOverlay(a.destination) {
		s.refuse(ctx, a, reasonOverlay, nil)
		return
	}
	s.serveOverlay(ctx, a.conn, a.destination.Addr())
}

// isReserved tells whether a connection goes to a port of this host that leads back here, or past what the
// listeners require to APISIX. Connections to the workload go to this host whatever their address is.
func (s *Server) isReserved(a *arrival) bool {
	to := a.destination
	if !slices.ContainsFunc(s.reserved, func(r translate.PortRange) bool { return r.First <= to.Port() && to.Port() <= r.Last }) {
		return false
	}
	return a.listener.direction == inbound || to.Addr().IsLoopback() || to.Addr().IsUnspecified() ||
		to.Addr() == a.direct.Addr() || to == addrPort(a.conn.LocalAddr())
}

// firstRead is how much is read at first of connections that are looked at.
const firstRead = 2 << 10

// inspect reads and looks at the first bytes, as far as the listener asks. It is false when the connection
// was refused or has ended.
func (s *Server) inspect(ctx context.Context, a *arrival) bool {
	look := newInspection(a.listener.Listener, a.source, a.destination)
	defer func() { a.source, a.destination, a.hello = look.source, look.destination, look.result }()
	if look.done() {
		return true
	}
	if timeout := a.listener.InspectionTimeout; timeout > 0 {
		_ = a.conn.SetReadDeadline(time.Now().Add(timeout))
		defer func() { _ = a.conn.SetReadDeadline(time.Time{}) }()
	}
	buffer := make([]byte, 0, firstRead)
	for !look.done() && len(buffer) < maxInspected {
		buffer = slices.Grow(buffer, 1)
		n, err := a.conn.Read(buffer[len(buffer):min(cap(buffer), maxInspected)])
		buffer = buffer[:len(buffer)+n]
		if err := look.look(buffer); err != nil {
			s.refuse(ctx, a, reasonProxyHeader, err)
			return false
		}
		if err == nil || look.done() {
			continue
		}
		if !s.maySayNoMore(ctx, a, look, len(buffer), err) {
			return false
		}
		break
	}
	a.head = buffer[look.consumed:]
	s.metrics.inspected.WithLabelValues(a.conn.direction.String(), look.outcome()).Inc()
	return true
}

// maySayNoMore decides about a connection whose first bytes were read in part when a read failed: whether
// it goes on with what is known.
func (s *Server) maySayNoMore(ctx context.Context, a *arrival, look *inspection, read int, err error) bool {
	mayGoOn := look.proxy != undecided || a.listener.ProxyProtocolOptional
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		if a.listener.ContinueOnTimeout && mayGoOn {
			return true
		}
		s.refuse(ctx, a, reasonTimeout, nil)
		return false
	case errors.Is(err, io.EOF) && read > 0 && mayGoOn:
		return true
	case errors.Is(err, io.EOF):
		_ = a.conn.Close() // a client that only looked whether somebody is there
		return false
	default:
		reset(a.conn)
		return false
	}
}

// refuse resets a connection and says why.
func (s *Server) refuse(ctx context.Context, a *arrival, reason string, err error) {
	s.metrics.refused.WithLabelValues(a.conn.direction.String(), reason).Inc()
	attrs := []slog.Attr{
		slog.String("reason", reason), slog.String("source", a.source.String()),
		slog.String("destination", a.destination.String()),
	}
	if a.listener != nil {
		attrs = append(attrs, slog.String("listener", a.listener.Name))
	}
	if err != nil {
		attrs = append(attrs, slog.Any("error", err))
	}
	if isExpected(reason) {
		s.log.LogAttrs(ctx, slog.LevelDebug, "connection refused", attrs...)
	} else {
		s.say.warn(ctx, reason, "connection refused", attrs...)
	}
	a.conn.endsAs(outcomeRefused)
	s.observeRefused(a, reason, err)
	reset(a.conn)
}

// isExpected tells whether connections are refused for a reason that is no fault: clients do what the
// configuration forbids.
func isExpected(reason string) bool {
	switch reason {
	case reasonChain, reasonNoChain, reasonPolicy, reasonTimeout, reasonDraining, reasonTLS:
		return true
	default:
		return false
	}
}
