package capture

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"time"
	"weak"

	"github.com/prometheus/client_golang/prometheus"

	"meshbridge/translate"
)

// defaultHandshakeTimeout bounds handshakes for which the configuration has no timeout.
const defaultHandshakeTimeout = 15 * time.Second

// The directions of TLS connections, as labels.
const (
	inboundTLS  = "inbound"
	outboundTLS = "outbound"
)

// tlsState is what TLS keeps between connections.
type tlsState struct {
	clients

	servers compiled[translate.DownstreamTLS, serverTLS]

	handshakes *prometheus.CounterVec
	refused    *prometheus.CounterVec
}

func newTLSState(config Config) (*tlsState, error) {
	t := &tlsState{
		clients: clients{credentials: credentials{identity: config.Identity, log: config.Log}},
		handshakes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "meshbridge_capture_tls_handshakes_total",
			Help: "TLS connections that capture has terminated (inbound) or originated (outbound).",
		}, []string{"direction", "resumed"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "meshbridge_capture_tls_refused_total",
			Help: "TLS connections that did not come about, or that the peer has refused, by reason.",
		}, []string{"direction", "reason"}),
	}
	for _, metric := range []prometheus.Collector{t.handshakes, t.refused} {
		if err := config.Registerer.Register(metric); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// succeeded counts a handshake.
func (t *tlsState) succeeded(direction string, resumed bool) {
	text := "false"
	if resumed {
		text = "true"
	}
	t.handshakes.WithLabelValues(direction, text).Inc()
}

// failedTLS counts and logs a connection that did not come about, with what tells which.
func (s *Server) failedTLS(ctx context.Context, direction string, err error, which ...slog.Attr) {
	why := reasonOf(err)
	s.tls.refused.WithLabelValues(direction, string(why)).Inc()
	if errors.Is(ctx.Err(), context.Canceled) {
		return // we are stopping
	}
	which = append(which, slog.String("reason", string(why)), slog.Any("error", err))
	if why == tlsClosed {
		s.log.LogAttrs(ctx, slog.LevelDebug, "TLS connection closed by its peer during the handshake", which...)
		return
	}
	s.say.warn(ctx, direction+" TLS "+string(why), "TLS connection refused", which...)
}

// compiled keeps what was made of parts of the tables for as long as the part itself is in use: the
// parts are immutable and replaced with the table, so that their address stands for their content.
// What is made must not refer to the part.
type compiled[K, V any] struct {
	mu  sync.Mutex
	all map[weak.Pointer[K]]*V
}

// get returns what build made of the part when it was first asked for.
func (c *compiled[K, V]) get(part *K, build func(K) *V) *V {
	key := weak.Make(part)
	c.mu.Lock()
	defer c.mu.Unlock()
	if made, ok := c.all[key]; ok {
		return made
	}
	if c.all == nil {
		c.all = make(map[weak.Pointer[K]]*V)
	}
	made := build(*part)
	c.all[key] = made
	runtime.AddCleanup(part, c.forget, key)
	return made
}

func (c *compiled[K, V]) forget(key weak.Pointer[K]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.all, key)
}
