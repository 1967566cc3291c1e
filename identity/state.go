package identity

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// state is the part that all sources share: what is current, and who hears of it.
type state struct {
	logger  *slog.Logger
	metrics *metrics

	mu      sync.Mutex
	current *Identity     // guarded by mu
	changed chan struct{} // guarded by mu: closed when current changes next
}

func newState(logger *slog.Logger, m *metrics) *state {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &state{logger: logger, metrics: m, changed: make(chan struct{})}
}

// Current implements Source.
func (s *state) Current() *Identity {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

// Changed implements Source.
func (s *state) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// set makes an identity current, tells log and metrics, and then whoever waits.
func (s *state) set(ctx context.Context, next *Identity, more ...slog.Attr) {
	s.metrics.renewals.Inc()
	s.metrics.expiry.Set(float64(next.NotAfter.Unix()))
	s.logger.LogAttrs(ctx, slog.LevelInfo, "workload identity is current", append([]slog.Attr{
		slog.String("id", next.ID),
		slog.String("serial", next.Certificate.Leaf.SerialNumber.Text(16)),
		slog.Time("not_after", next.NotAfter),
	}, more...)...)

	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = next
	close(s.changed)
	s.changed = make(chan struct{})
}

// failed counts and logs an attempt that led to no identity. retry is when the next one comes; 0
// where that is up to others.
func (s *state) failed(ctx context.Context, from string, err error, retry time.Duration) {
	s.metrics.failures.WithLabelValues(reason(err)).Inc()
	attrs := []slog.Attr{slog.String("source", from), slog.String("reason", reason(err)), slog.Any("error", err)}
	if retry > 0 {
		attrs = append(attrs, slog.Duration("retry_in", retry))
	}
	// The difference between a mishap and an outage.
	current := s.Current()
	valid := current != nil && time.Now().Before(current.NotAfter)
	if current != nil {
		attrs = append(attrs, slog.Time("not_after", current.NotAfter))
	}
	if valid {
		s.logger.LogAttrs(ctx, slog.LevelWarn, "no new workload identity, keeping the last", attrs...)
		return
	}
	s.logger.LogAttrs(ctx, slog.LevelError, "no valid workload identity", attrs...)
}
