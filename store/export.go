package store

import (
	"cmp"
	"iter"
	"slices"
)

// State is everything that a store holds at one moment: what Export gives and Restore takes.
type State struct {
	Revision        int64 // 0 counts as 1, the first revision
	CompactRevision int64 // -1: never compacted
	Leases          []Lease
	// Changes yields every stored change in order of revision and position: all that is above the
	// compact revision, and of what is below the newest put of each key. An error is the last that
	// it yields. It may be used several times, also while the store goes on.
	Changes iter.Seq2[Change, error]
}

// Lease is a lease as it was granted.
type Lease struct {
	ID  int64
	TTL int64 // seconds
}

// Export returns what the store holds. Writers wait while the leases are copied, and for nothing else.
// Iterating takes the memory of one pointer per key beside the store's own.
func (s *Store) Export() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.export()
}

// export is Export with mu held.
func (s *Store) export() State {
	snap := s.current.Load()
	leases := make([]Lease, 0, len(s.leases.byID))
	for _, le := range s.leases.byID {
		leases = append(leases, Lease{ID: le.id, TTL: le.ttl})
	}
	slices.SortFunc(leases, func(a, b Lease) int { return cmp.Compare(a.ID, b.ID) })
	return State{
		Revision: snap.revision, CompactRevision: snap.compact, Leases: leases,
		Changes: func(yield func(Change, error) bool) { snap.export(yield) },
	}
}

// export yields what a compaction has left of old changes, which only the index knows, and then the log.
func (s *snapshot) export(yield func(Change, error) bool) {
	var old []version
	s.index.ascend(keyRange{key: []byte{0}, end: []byte{0}}, func(c *chain) bool {
		versions := *c.versions.Load()
		old = append(old, versions[:newest(versions, s.compact)+1]...)
		return true
	})
	slices.SortFunc(old, func(a, b version) int {
		return cmp.Or(cmp.Compare(a.kv.ModRevision, b.kv.ModRevision), cmp.Compare(a.sub, b.sub))
	})
	for _, v := range old {
		if !yield(Change{Revision: v.kv.ModRevision, Sub: int64(v.sub), Delete: v.deleted, KV: v.kv}, nil) {
			return
		}
	}
	for _, b := range s.log {
		if b.Revision <= s.compact {
			continue
		}
		for i, e := range b.Events {
			if !yield(Change{Revision: b.Revision, Sub: int64(i), Delete: e.Delete, KV: e.KV}, nil) {
				return
			}
		}
	}
}
