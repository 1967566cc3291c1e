package soak

import (
	"sync"
	"time"
)

// health tells when something was out of order.
type health struct {
	since time.Time

	mu      sync.Mutex
	reasons map[string]bool // guarded by mu
	spells  []spell         // of disorder, in order; guarded by mu
	known   time.Time       // when everything was seen to be in effect; guarded by mu
}

// spell is a time of disorder; its end is zero while it lasts.
type spell struct{ from, until time.Time }

func newHealth() *health { return &health{since: time.Now(), reasons: map[string]bool{}} }

// impair says that something is out of order from now on.
func (h *health) impair(reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.reasons) == 0 {
		h.spells = append(h.spells, spell{from: time.Now()})
	}
	h.reasons[reason] = true
}

// heal says that it no longer is.
func (h *health) heal(reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.reasons[reason] {
		return
	}
	delete(h.reasons, reason)
	if len(h.reasons) == 0 {
		h.spells[len(h.spells)-1].until = time.Now()
	}
}

// during tells whether anything was out of order between two moments.
func (h *health) during(from, until time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.spells {
		if !s.from.After(until) && (s.until.IsZero() || !s.until.Before(from)) {
			return true
		}
	}
	return false
}

// settled returns the latest time of which everything that had been written by then must have been in
// effect at the given one: since then everything was in order for as long as that may take.
func (h *health) settled(at time.Time, within time.Duration) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	latest := h.ordered(at, within)
	if h.known.After(latest) && !h.known.After(at) {
		return h.known
	}
	return latest
}

// settle says that everything that has been written is in effect.
func (h *health) settle() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.known = time.Now()
}

// ordered is settled, by what was in order alone. The caller holds mu.
func (h *health) ordered(at time.Time, within time.Duration) (latest time.Time) {
	since := h.since // when it came to be in order
	for _, s := range h.spells {
		if s.from.After(at) {
			break
		}
		if s.from.Sub(since) >= within {
			latest = s.from.Add(-within)
		}
		if s.until.IsZero() || s.until.After(at) {
			return latest
		}
		since = s.until
	}
	if at.Sub(since) >= within {
		return at.Add(-within)
	}
	return latest
}
