package capture

import (
	"context"
	"sync"
)

// connections keeps account of what is open.
type connections struct {
	metrics  *metrics
	observer Observer // nil where there is none
	limit    int      // 0: none

	mu      sync.Mutex
	open    [directions]int
	held    map[*acceptedConn]struct{} // those that goroutines have; event loops have the others
	stopped bool
	ended   chan struct{} // closed when one that is drained ends; nil where nobody waits
}

func newConnections(m *metrics, observer Observer, limit int) *connections {
	return &connections{metrics: m, observer: observer, limit: limit, held: make(map[*acceptedConn]struct{})}
}

// begin enters a connection. It is false where the server has stopped, or has as many as it may have.
func (cs *connections) begin(c *acceptedConn) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.stopped || cs.limit > 0 && cs.total() >= cs.limit {
		return false
	}
	cs.open[c.direction]++
	cs.held[c] = struct{}{}
	cs.metrics.accepted[c.direction].Inc()
	cs.metrics.open[c.direction].Inc()
	return true
}

// move makes a connection one of another direction, once it is known where it goes.
func (cs *connections) move(c *acceptedConn, to direction) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.open[c.direction]--
	cs.metrics.open[c.direction].Dec()
	cs.open[to]++
	cs.metrics.open[to].Inc()
	c.direction = to
	cs.notify()
}

// handOver leaves a connection to an event loop.
func (cs *connections) handOver(c *acceptedConn) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	delete(cs.held, c)
}

// end ends a connection.
func (cs *connections) end(c *acceptedConn, outcome string) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	delete(cs.held, c)
	cs.open[c.direction]--
	cs.metrics.open[c.direction].Dec()
	cs.metrics.ended.WithLabelValues(c.direction.String(), outcome).Inc()
	cs.notify()
}

// notify wakes who waits for connections to end. The caller holds mu.
func (cs *connections) notify() {
	if cs.ended != nil {
		close(cs.ended)
		cs.ended = nil
	}
}

// total returns how many are open. The caller holds mu.
func (cs *connections) total() int {
	total := 0
	for _, n := range cs.open {
		total += n
	}
	return total
}

// Len returns how many are open.
func (cs *connections) Len() int {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return cs.total()
}

// drained returns how many are open of those that a drain waits for, and a channel that is closed when one
// has ended. Those of the overlay are not waited for: APISIX keeps them for later requests.
func (cs *connections) drained() (open int, ended <-chan struct{}) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.ended == nil {
		cs.ended = make(chan struct{})
	}
	return cs.total() - cs.open[toOverlay], cs.ended
}

// wait waits until those that are drained have ended, and returns how many have not when ctx ends.
func (cs *connections) wait(ctx context.Context) int {
	for {
		open, ended := cs.drained()
		if open == 0 {
			return 0
		}
		select {
		case <-ended:
		case <-ctx.Done():
			return open
		}
	}
}

// stop lets no connection begin any more and resets those that goroutines have.
func (cs *connections) stop() {
	cs.mu.Lock()
	cs.stopped = true
	held := make([]*acceptedConn, 0, len(cs.held))
	for c := range cs.held {
		held = append(held, c)
	}
	cs.mu.Unlock()
	for _, c := range held {
		c.endsAs(outcomeStopped)
		reset(c)
	}
}
