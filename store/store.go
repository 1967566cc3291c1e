package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// maintenanceInterval is how often Run looks for expired leases and old history; etcd looks for
// expired leases as often.
const maintenanceInterval = 500 * time.Millisecond

// Store is a revisioned key-value store. All methods may be called concurrently.
type Store struct {
	// Set once.
	config Config
	ready  chan struct{} // always closed

	current   atomic.Pointer[snapshot] // stored with mu held
	watchers  atomic.Int64
	leaseNum  atomic.Int64
	encodings encodings
	counters  counters

	mu     sync.Mutex // the writer's lock; guards what follows
	index  index      // the writer's own; snapshots hold clones of it
	leases *leases
	sealed bool // another store goes on with what this one holds
}

// snapshot is one published state of the store. It is immutable, except that chains in its index grow
// by versions above its revision and its log shares its memory with longer ones.
type snapshot struct {
	index    index
	log      []*Block // contiguous revisions, the last is revision
	revision int64
	compact  int64 // -1: never compacted
	keys     int64
	bytes    int64
	closed   bool
	changed  chan struct{} // closed when there is a later revision, or the store is closed
}

// New returns a store with nothing in it.
func New(config Config) (*Store, error) {
	switch {
	case config.BaseRevision < 0:
		return nil, fmt.Errorf("store: BaseRevision %d is negative", config.BaseRevision)
	case config.KeepRevisions < 0:
		return nil, fmt.Errorf("store: KeepRevisions %d is negative", config.KeepRevisions)
	case config.KeepFor < 0:
		return nil, fmt.Errorf("store: KeepFor %v is negative", config.KeepFor)
	case config.KeepFor > 0 && config.KeepRevisions == 0:
		return nil, errors.New("store: KeepFor has no effect without KeepRevisions")
	}
	if config.BaseRevision == 0 {
		config.BaseRevision = 1
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	s := &Store{config: config, ready: make(chan struct{}), index: newIndex(), leases: newLeases()}
	close(s.ready)
	first := &snapshot{
		index:    s.index.clone(),
		revision: config.BaseRevision,
		compact:  -1,
		changed:  make(chan struct{}),
	}
	if config.BaseRevision > 1 {
		first.compact = config.BaseRevision
	}
	s.current.Store(first)
	return s, nil
}

// Run expires leases, compacts the history as configured and frees what watchers no longer use, until
// ctx ends or the store is closed. Without it leases and history stay until they are revoked and
// compacted by a caller.
func (s *Store) Run(ctx context.Context) error {
	ticker := time.NewTicker(maintenanceInterval)
	defer ticker.Stop()
	for !s.current.Load().closed {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			s.expireLeases()
			s.compactOldHistory()
			s.encodings.sweep()
		}
	}
	return nil
}

// Close ends the store: Next of every cursor returns ErrClosed, and so does every write. What is in
// the store can still be read.
func (s *Store) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := *s.current.Load()
	if next.closed {
		return
	}
	next.closed = true
	s.publish(&next)
}

// Revision returns the revision of the last change.
func (s *Store) Revision() int64 { return s.current.Load().revision }

// CompactRevision returns the oldest revision that can be read, or -1 when every revision can.
func (s *Store) CompactRevision() int64 { return s.current.Load().compact }

// lock takes the writer's lock, unless the store is closed or sealed.
func (s *Store) lock() error {
	s.mu.Lock()
	if s.sealed || s.current.Load().closed {
		s.mu.Unlock()
		return ErrClosed
	}
	return nil
}

// publish makes next, a later revision or the store's end, the current snapshot and wakes whoever waits
// for it. This is all that a commit costs for its watchers. The caller holds mu.
func (s *Store) publish(next *snapshot) {
	if next.closed {
		next.changed = s.ready
	} else {
		next.changed = make(chan struct{})
	}
	close(s.current.Swap(next).changed)
}
