package capture

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// sayInterval is how often lines about the same thing are logged.
const sayInterval = 10 * time.Second

// say logs what may happen for each connection, at a bounded rate.
type say struct {
	log *slog.Logger

	mu   sync.Mutex
	said map[string]*said
}

// said is what was logged about a thing.
type said struct {
	at         time.Time
	suppressed int // since
}

func newSay(log *slog.Logger) *say { return &say{log: log, said: make(map[string]*said)} }

// warn logs a line, unless one about the same thing was logged a short while ago. The next that is logged
// tells how many were not.
func (s *say) warn(ctx context.Context, thing, message string, attrs ...slog.Attr) {
	s.mu.Lock()
	last, now := s.said[thing], time.Now()
	if last != nil && now.Sub(last.at) < sayInterval {
		last.suppressed++
		s.mu.Unlock()
		return
	}
	if last != nil && last.suppressed > 0 {
		attrs = append(attrs, slog.Int("suppressed", last.suppressed))
	}
	s.said[thing] = &said{at: now}
	s.mu.Unlock()
	s.log.LogAttrs(ctx, slog.LevelWarn, message, attrs...) //nolint:sloglint // constants of the callers
}
