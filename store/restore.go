package store

import (
	"cmp"
	"errors"
	"fmt"
	"time"
)

// Restore returns a store that holds the state: the same keys at every revision, and the same history for
// watchers. Leases get their full TTL. A state whose changes have gaps above its compact revision, or
// are out of order, is refused, and so is an error of Changes.
//
// A Config.BaseRevision above the state's revision becomes the store's revision, and everything before
// it counts as compacted; the keys keep their mod revisions. It is for clients that may have seen
// revisions after the state was taken: to them the restored store looks compacted and not rewound.
func Restore(config Config, state State) (*Store, error) {
	s, err := New(config)
	if err != nil {
		return nil, err
	}
	r := &restoration{store: s, now: s.config.Now()}
	r.next.revision = max(state.Revision, state.CompactRevision, 1)
	r.next.compact = max(state.CompactRevision, -1)
	r.until = r.next.revision
	if s.config.BaseRevision > r.next.revision {
		r.next.revision, r.next.compact = s.config.BaseRevision, s.config.BaseRevision
	}
	if err := r.restore(state); err != nil {
		return nil, err
	}
	return s, nil
}

// restoration builds the index and the log of a store that nobody else has yet.
type restoration struct {
	store  *Store
	now    time.Time
	until  int64 // the last revision that may have changes
	next   snapshot
	last   Change  // the one added last
	events []Event // of the revision of last, unless that is before the compact revision
}

// restore adds everything.
func (r *restoration) restore(state State) error {
	if err := r.addLeases(state.Leases); err != nil {
		return fmt.Errorf("store: restoring: %w", err)
	}
	for change, err := range state.Changes {
		if err != nil {
			return fmt.Errorf("store: restoring: %w", err)
		}
		if err := r.add(change); err != nil {
			return fmt.Errorf("store: restoring: change %d of revision %d: %w", change.Sub, change.Revision, err)
		}
	}
	if err := r.finish(); err != nil {
		return fmt.Errorf("store: restoring: %w", err)
	}
	return nil
}

func (r *restoration) addLeases(leases []Lease) error {
	s := r.store
	for _, granted := range leases {
		switch {
		case granted.ID == 0:
			return errors.New("a lease has no id")
		case s.leases.exists(granted.ID):
			return fmt.Errorf("lease %d: %w", granted.ID, ErrLeaseExists)
		case granted.TTL > maxLeaseTTL:
			return fmt.Errorf("lease %d of %d s: %w", granted.ID, granted.TTL, ErrLeaseTTL)
		}
		le := &lease{id: granted.ID, ttl: max(granted.TTL, minLeaseTTL), keys: make(map[string]struct{})}
		le.expiry = s.leaseExpiry(le)
		s.leases.add(le)
	}
	s.leaseNum.Store(int64(len(leases)))
	return nil
}

// add takes the next change.
func (r *restoration) add(change Change) error {
	if err := r.check(change); err != nil {
		return err
	}
	if change.Revision > r.last.Revision {
		r.endRevision()
	}
	r.last = change
	kv := change.KV
	c := r.store.index.get(kv.Key)
	if c != nil {
		shared := *kv
		shared.Key = c.key // all versions share one copy
		kv = &shared
	}
	v := version{kv: kv, sub: int32(change.Sub), deleted: change.Delete}
	event := Event{Delete: change.Delete, KV: kv}
	switch {
	case change.Revision < r.next.compact && change.Delete:
		r.store.index.remove(kv.Key)
		return nil
	case change.Revision <= r.next.compact || c == nil:
		// What a compaction has forgotten may still have been stored: nobody sees it any more.
		r.store.index.set(newChain(kv.Key, v))
	default:
		if change.Delete || kv.Version > 1 {
			event.Prev = c.at(change.Revision - 1)
		}
		c.add(v)
	}
	if change.Revision >= r.next.compact {
		r.events = append(r.events, event)
	}
	return nil
}

func (r *restoration) check(change Change) error {
	kv := change.KV
	inOrder := cmp.Or(cmp.Compare(change.Revision, r.last.Revision), cmp.Compare(change.Sub, r.last.Sub)) > 0
	switch {
	case len(kv.Key) == 0:
		return ErrEmptyKey
	case kv.ModRevision != change.Revision:
		return fmt.Errorf("key %q says that it was modified at revision %d", kv.Key, kv.ModRevision)
	case !change.Delete && (kv.Version < 1 || kv.CreateRevision < 1 || kv.CreateRevision > kv.ModRevision):
		return fmt.Errorf("key %q has version %d and was created at revision %d", kv.Key, kv.Version, kv.CreateRevision)
	case change.Revision < 1 || change.Sub < 0 || !inOrder:
		return fmt.Errorf("it comes after change %d of revision %d", r.last.Sub, r.last.Revision)
	case change.Revision > r.until:
		return fmt.Errorf("the last revision is %d", r.until)
	case change.Revision <= r.next.compact:
		return nil
	}
	// Above the compact revision everything is there.
	expected := Change{Revision: r.last.Revision, Sub: r.last.Sub + 1}
	if change.Revision != r.last.Revision {
		expected = Change{Revision: max(r.last.Revision, r.next.compact, 1) + 1}
	}
	if change.Revision != expected.Revision || change.Sub != expected.Sub {
		return fmt.Errorf("change %d of revision %d is missing", expected.Sub, expected.Revision)
	}
	return nil
}

// endRevision appends the events so far to the log.
func (r *restoration) endRevision() {
	if len(r.events) == 0 {
		return
	}
	b := newBlock(r.last.Revision, r.events, r.now, &r.store.encodings)
	if b.Revision == r.next.compact {
		b = b.compacted()
	}
	r.next.log = append(r.next.log, b)
	r.events = nil
}

// finish publishes what was added.
func (r *restoration) finish() error {
	r.endRevision()
	s := r.store
	if last := max(r.last.Revision, r.next.compact, 1); last < r.next.revision {
		return fmt.Errorf("revision %d has no changes, and %d is the last", last+1, r.next.revision)
	}
	s.index.ascend(keyRange{key: []byte{0}, end: []byte{0}}, func(c *chain) bool {
		r.next.bytes += chainSize + int64(len(c.key))
		for _, v := range *c.versions.Load() {
			r.next.bytes += versionSize + int64(len(v.kv.Value))
		}
		if kv := c.at(r.next.revision); kv != nil {
			r.next.keys++
			s.leases.attach(kv)
		}
		return true
	})
	r.next.bytes += blockSize * int64(len(r.next.log))
	r.next.index = s.index.clone()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.publish(&r.next)
	return nil
}
