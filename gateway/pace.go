package gateway

import (
	"sync"
	"time"
)

// What it costs to wake the stream of one watcher and send it one event, about (make bench, low
// rate), and the most that pacing may add to an event's way.
const (
	wakeHTTP = 20 * time.Microsecond
	wakeGRPC = 50 * time.Microsecond
	maxPace  = 100 * time.Millisecond
	minPace  = time.Millisecond // below it pacing costs more than it saves
)

// pace holds streams back that were served a moment ago. Waking a stream and writing to its
// connection costs many times as much as another event in the same write, so while writers are busy
// each stream is served once per interval, with everything that came up in it. The interval is such
// that waking all watchers takes half of the processors: with few watchers there is none, and the
// first event after a pause is never held back.
type pace struct {
	mu    sync.Mutex
	gate  chan struct{} // closes at the end of the current interval, nil outside of one; guarded by mu
	timer *time.Timer   // of the current interval; guarded by mu
}

// paceFor is the interval for a number of watchers that each cost so much to wake, 0 for none.
func paceFor(watchers int64, wake time.Duration, processors int) time.Duration {
	interval := min(2*time.Duration(watchers)*wake/time.Duration(processors), maxPace)
	if interval < minPace {
		return 0
	}
	return interval
}

// holdBack returns nil if a stream that was served last at the given time may be served again, and
// else a channel that closes when it may. All streams that are held back share it, and one timer.
func (p *pace) holdBack(served time.Time, interval time.Duration) <-chan struct{} {
	if interval == 0 || time.Since(served) >= interval {
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
