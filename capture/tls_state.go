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
	credentials

	servers compiled[translate.DownstreamTLS, serverTLS]
	clients compiled[translate.UpstreamTLS, clientTLS]

	handshakes *prometheus.CounterVec
	refused    *prometheus.CounterVec
	lines      limitedLog
}

func newTLSState(config Config) (*tlsState, error) {
	t := &tlsState{
		credentials: credentials{identity: config.Identity, log: config.Log},
		handshakes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "meshbridge_capture_tls_handshakes_total",
			Help: "TLS connections that capture has terminated (inbound) or originated (outbound).",
		}, []string{"direction", "resumed"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "meshbridge_capture_tls_refused_total",
			Help: "TLS connections that did not come about, or that the peer has refused, by reason.",
		}, []string{"direction", "reason"}),
		lines: limitedLog{log: config.Log},
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

// failed counts and logs a connection that did not come about, with what tells which.
func (t *tlsState) failed(ctx context.Context, direction string, err error, which ...slog.Attr) {
	why := reasonOf(err)
	t.refused.WithLabelValues(direction, string(why)).Inc()
	if errors.Is(ctx.Err(), context.Canceled) {
		return // we are stopping
	}
	attrs := append(which, slog.String("reason", string(why)), slog.Any("error", err))
	if why == tlsClosed {
		t.log.LogAttrs(ctx, slog.LevelDebug, "TLS connection closed by its peer during the handshake", attrs...)
		return
	}
	t.lines.warn(ctx, direction+" "+string(why), "TLS connection refused", attrs...)
}

// limitedLog writes a line of each kind at most once per second, and then how many it left out.
type limitedLog struct {
	log *slog.Logger

	mu    sync.Mutex
	kinds map[string]*limitedLine
}

type limitedLine struct {
	last    time.Time
	leftOut int
}

func (l *limitedLog) warn(ctx context.Context, kind, message string, attrs ...slog.Attr) {
	leftOut, ok := l.allow(kind, time.Now())
	if !ok {
		return
	}
	if leftOut > 0 {
		attrs = append(attrs, slog.Int("suppressed", leftOut))
	}
	l.log.LogAttrs(ctx, slog.LevelWarn, message, attrs...)
}

func (l *limitedLog) allow(kind string, now time.Time) (leftOut int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	line := l.kinds[kind]
	switch {
	case line == nil:
		if l.kinds == nil {
			l.kinds = make(map[string]*limitedLine)
		}
		l.kinds[kind] = &limitedLine{last: now}
		return 0, true
	case now.Sub(line.last) < time.Second:
		line.leftOut++
		return 0, false
	default:
		leftOut, line.last, line.leftOut = line.leftOut, now, 0
		return leftOut, true
	}
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
