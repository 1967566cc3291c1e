package capture

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meshbridge/translate"
)

// headTimeout bounds how long the first bytes of a connection from APISIX are waited for. APISIX sends
// a request as soon as it has connected.
const headTimeout = 30 * time.Second

// overlay is the table of the endpoints for which capture stands.
type overlay struct {
	forward *forwarder
	failed  *prometheus.CounterVec

	mu        sync.RWMutex
	endpoints map[netip.Addr]*overlayEndpoint
}

// overlayEndpoint is an endpoint with what it keeps between connections.
type overlayEndpoint struct {
	*translate.OverlayEndpoint
	pools *forwardPools // nil unless its requests go to different destinations
}

func newOverlay(config Config) (*overlay, error) {
	o := &overlay{
		forward: newForwarder(config.Log),
		failed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "meshbridge_capture_overlay_failed_total",
			Help: "Connections from APISIX to endpoints of the overlay that were reset, by reason.",
		}, []string{"reason"}),
		endpoints: make(map[netip.Addr]*overlayEndpoint),
	}
	if err := config.Registerer.Register(o.failed); err != nil {
		return nil, err
	}
	return o, nil
}

// SetOverlay adds or replaces endpoints, and removes those that are gone. Open connections go on.
func (s *Server) SetOverlay(put []*translate.OverlayEndpoint, gone []netip.Addr) {
	o := s.overlay
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, address := range gone {
		o.endpoints[address].retire()
		delete(o.endpoints, address)
	}
	for _, endpoint := range put {
		o.endpoints[endpoint.Address].retire()
		o.endpoints[endpoint.Address] = s.newEndpoint(endpoint)
	}
}

func (s *Server) newEndpoint(of *translate.OverlayEndpoint) *overlayEndpoint {
	e := &overlayEndpoint{OverlayEndpoint: of}
	if of.OriginalDestination || of.Dynamic {
		e.pools = s.newPools(of)
	}
	return e
}

// retire closes what an endpoint keeps; nil has nothing.
func (e *overlayEndpoint) retire() {
	if e != nil && e.pools != nil {
		e.pools.retire()
	}
}

func (o *overlay) find(alias netip.Addr) *overlayEndpoint {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.endpoints[alias.Unmap()]
}

// runOverlay runs what belongs to the overlay as a whole, such as HTTP servers, until ctx ends. Run
// calls it once, in a goroutine of its own, and waits for it.
func (s *Server) runOverlay(ctx context.Context) error {
	err := s.overlay.forward.run(ctx)
	s.overlay.mu.Lock()
	defer s.overlay.mu.Unlock()
	for _, e := range s.overlay.endpoints {
		e.retire()
	}
	return err
}

// serveOverlay serves a connection from APISIX to the address alias until it has ended or been handed
// to relay. It closes conn. ctx ends when the server stops.
func (s *Server) serveOverlay(ctx context.Context, conn net.Conn, alias netip.Addr) {
	endpoint := s.overlay.find(alias)
	if endpoint == nil {
		s.failedOverlay(ctx, "unknown_address", errors.New("no endpoint has this address"), slog.String("address", alias.String()))
		reset(conn)
		return
	}
	if endpoint.pools != nil {
		s.overlay.forward.serve(ctx, conn, endpoint.pools)
		return
	}
	client, upstream, why, err := s.openEndpoint(ctx, conn, endpoint)
	if err != nil {
		s.failedOverlay(ctx, why, err, slog.String("cluster", endpoint.Cluster), slog.String("endpoint", endpoint.target()))
		// APISIX tries the next node when it is reset before it has a response.
		reset(conn)
		return
	}
	s.relay(ctx, client, upstream, 0)
}

// errNoRequest tells that APISIX has closed a connection without a request: a health check.
var errNoRequest = errors.New("the connection was closed before a request")

// openEndpoint reads what must be known of the first request and connects to the endpoint. It returns
// the connection from APISIX with what has been read, or why that failed.
func (s *Server) openEndpoint(ctx context.Context, conn net.Conn, e *overlayEndpoint) (client, upstream net.Conn, why string, err error) {
	o := origination{cluster: e.Cluster, endpoint: e.target(), protocol: speaksTCP}
	if !e.TCP && e.TLS != nil {
		var head requestHead
		if client, head, err = readHead(ctx, conn, e.TLS.AutoServerName); err != nil {
			return nil, nil, "request", err
		}
		conn, o.protocol, o.host = client, head.protocol, head.host
	}
	ctx, cancel := withConnectTimeout(ctx, e.ConnectTimeout)
	defer cancel()
	if upstream, err = s.dialEndpoint(ctx, e); err != nil {
		return nil, nil, "connect", err
	}
	if err := writeProxyHeader(upstream, e.ProxyProtocol); err != nil {
		_ = upstream.Close()
		return nil, nil, "connect", err
	}
	if e.TLS == nil {
		return conn, upstream, "", nil
	}
	if upstream, err = s.originate(ctx, upstream, e.TLS, o); err != nil {
		return nil, nil, "tls", err
	}
	return conn, upstream, "", nil
}

// target names where an endpoint's connections go, for messages.
func (e *overlayEndpoint) target() string {
	switch {
	case e.Target.IsValid():
		return e.Target.String()
	case e.Name != "":
		return e.Name
	default:
		return e.Path
	}
}

func (s *Server) dialEndpoint(ctx context.Context, e *overlayEndpoint) (net.Conn, error) {
	if e.Path == "" && e.Name == "" {
		return s.dial(ctx, e.Target, e.Source, e.ConnectTimeout)
	}
	return e.dial(ctx)
}

// failedOverlay counts and logs a connection, or a request, that did not reach its endpoint. Why TLS
// failed has been logged.
func (s *Server) failedOverlay(ctx context.Context, why string, err error, which ...slog.Attr) {
	if errors.Is(err, errNoRequest) || errors.Is(ctx.Err(), context.Canceled) {
		return
	}
	s.overlay.failed.WithLabelValues(why).Inc()
	if why != "tls" {
		s.say.warn(ctx, "overlay "+why, "connection to an endpoint failed", append(which, slog.String("reason", why), slog.Any("error", err))...)
	}
}

// readHead reads from a connection until it is known what it speaks and, if wanted, for which host. It
// returns the connection as if nothing had been read.
func readHead(ctx context.Context, conn net.Conn, wantHost bool) (net.Conn, requestHead, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := conn.SetReadDeadline(time.Now().Add(headTimeout)); err != nil {
		return nil, requestHead{}, err
	}
	parse := func(b []byte) (head requestHead, done bool, err error) {
		head.protocol, done = readProtocol(b)
		return head, done, nil
	}
	if wantHost {
		parse = readRequestHead
	}
	buffer := make([]byte, 0, 4096)
	for len(buffer) < maxRequestHead {
		if len(buffer) == cap(buffer) {
			buffer = slices.Grow(buffer, cap(buffer))
		}
		n, readErr := conn.Read(buffer[len(buffer):cap(buffer)])
		buffer = buffer[:len(buffer)+n]
		head, done, err := parse(buffer)
		switch {
		case err != nil:
			return nil, requestHead{}, err
		case done && n > 0:
			return &peekedConn{Conn: conn, head: buffer}, head, conn.SetReadDeadline(time.Time{})
		case readErr != nil && len(buffer) == 0 && isClosed(readErr):
			return nil, requestHead{}, errNoRequest
		case readErr != nil:
			return nil, requestHead{}, fmt.Errorf("read the request: %w", readErr)
		}
	}
	return nil, requestHead{}, fmt.Errorf("the head of the request is longer than %d bytes", maxRequestHead)
}
