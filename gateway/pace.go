package gateway

import (
	"sync"
	"time"
)

// What it costs to wake a stream and send one event, about (`make bench`, low rate), and the most that
// pacing may add to the way of an event.
const (
	wakeHTTP = 20 * time.Microsecond
	wakeGRPC = 50 * time.Microsecond
	maxPace  = 100 * time.Millisecond
	minPace  = time.Millisecond // below it pacing costs more than it saves
)

// pace holds streams back that were served a moment ago. Waking a stream and writing to its
// connection costs many times as much as another event in the same write, so while writers are busy
// each stream is served once per interval, with everything that came up in it. The interval is such
// that waking all watchers takes half of the processors: with few streams there is none, and the
// first event after a pause is never held back.
type pace struct {
	mu    sync.Mutex
	gate  chan struct{} // closes at the end of the current interval, nil outside of one; guarded by mu
	timer *time.Timer   // of the current interval; guarded by mu
}

// paceFor is the interval for a number of streams that each cost so much to wake.
func paceFor(streams int64, wake time.Duration, processors int) time.Duration {
	return min(2*time.Duration(streams)*wake/time.Duration(processors), maxPace)
}

// holdBack returns nil if a stream that was served last at the given time may be served again, and
// else a channel that closes when it may. All streams that are held back share it, and one timer.
func (p *pace) holdBack(served time.Time, interval time.Duration) <-chan struct{} {
	if interval < minPace || time.Since(served) >= interval {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gate == nil {
		gate := make(chan struct{})
		p.gate = gate
		p.timer = time.AfterFunc(interval, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.gate = nil
			close(gate)
		})
	}
	return p.gate
}

// stop ends the current interval without serving anybody. No stream may be left.
func (p *pace) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer != nil {
		p.timer.Stop()
	}
}
