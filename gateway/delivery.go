package gateway

import (
	"context"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// delivery knows the live watch streams.
type delivery struct {
	count   atomic.Int64  // of streams; changed with mu held
	watched chan struct{} // closed when the first stream joins

	mu      sync.Mutex
	streams map[*deliveryMark]struct{} // guarded by mu
}

// join adds a stream that has at least one watch.
func (d *delivery) join(m *deliveryMark) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.streams == nil {
		d.streams = make(map[*deliveryMark]struct{})
		close(d.watched)
	}
	d.streams[m] = struct{}{}
	d.count.Store(int64(len(d.streams)))
}

// leave takes a stream out.
func (d *delivery) leave(m *deliveryMark) {
	d.mu.Lock()
	delete(d.streams, m)
	d.count.Store(int64(len(d.streams)))
	d.mu.Unlock()
	m.advance(math.MaxInt64)
}

// behind returns a stream that has not been sent the revision.
func (d *delivery) behind(revision int64) *deliveryMark {
	d.mu.Lock()
	defer d.mu.Unlock()
	for m := range d.streams {
		if m.reached(revision) != nil {
			return m
		}
	}
	return nil
}

// Watched returns a channel that is closed once the server has had a watcher.
func (s *Server) Watched() <-chan struct{} { return s.delivery.watched }

// WaitDelivered waits until every live watcher has been sent the revision, which is at once when there
// is none. Sent means handed to the connection; a watcher that ends meanwhile is not waited for, one
// that has stopped reading is, so ctx should have a deadline. The error is that of ctx.
func (s *Server) WaitDelivered(ctx context.Context, revision int64) error {
	for {
		m := s.delivery.behind(revision)
		if m == nil {
			return nil
		}
		for changed := m.reached(revision); changed != nil; changed = m.reached(revision) {
			select {
			case <-changed:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// deliveryMark is the revision up to which a stream has been sent everything that its watches asked
// for.
type deliveryMark struct {
	// Set once.
	peer  string // address of the client
	form  form
	since time.Time

	mu       sync.Mutex
	revision int64         // guarded by mu
	changed  chan struct{} // nil unless somebody waits; guarded by mu
	watches  []watchedKeys // guarded by mu
}

// watchedKeys are what one watch of a stream is about.
type watchedKeys struct {
	id       int64
	key, end string
}

// include takes a new watch into account that was sent everything up to the revision.
func (m *deliveryMark) include(w *watcher, revision int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.watches) == 0 || revision < m.revision {
		m.revision = revision
	}
	m.watches = append(m.watches, watchedKeys{w.id, w.class.key, w.class.end})
}

// exclude forgets a watch.
func (m *deliveryMark) exclude(id int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.watches = slices.DeleteFunc(m.watches, func(w watchedKeys) bool { return w.id == id })
}

// advance sets the revision.
func (m *deliveryMark) advance(revision int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.revision = revision
	if m.changed != nil {
		close(m.changed)
		m.changed = nil
	}
}

// reached returns nil if the revision is reached, else a channel that closes at the next advance.
func (m *deliveryMark) reached(revision int64) <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.revision >= revision {
		return nil
	}
	if m.changed == nil {
		m.changed = make(chan struct{})
	}
	return m.changed
}
