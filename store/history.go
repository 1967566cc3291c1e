package store

import (
	"cmp"
	"slices"
)

// Change is one change of a key as it is stored. For a delete, KV holds only Key and ModRevision.
type Change struct {
	Revision int64
	Sub      int64 // position within the revision
	Delete   bool
	KV       *KeyValue
}

// History is the input of etcd's HashKV.
type History struct {
	Current         int64 // the store's revision when it was read
	Revision        int64 // the revision it was read at
	CompactRevision int64
	Changes         []Change // in order of revision and position
}

// History returns every stored change up to revision, 0 being the current one, that etcd hashes: all that
// is above the compact revision, and of the rest the puts that a compaction at revision would keep. Where
// it would keep nothing at all, etcd hashes every put that is still there.
//
// Errors are ErrFutureRevision and *CompactedError.
func (s *Store) History(revision int64) (History, error) {
	snap := s.current.Load()
	switch {
	case revision > snap.revision:
		return History{}, ErrFutureRevision
	case revision > 0 && revision < snap.compact:
		return History{}, &CompactedError{CompactRevision: snap.compact}
	case revision == 0:
		revision = snap.revision
	}
	history := History{Current: snap.revision, Revision: revision, CompactRevision: snap.compact}
	var old []Change // puts up to the compact revision that a compaction at revision would drop
	keeps := false
	snap.index.ascend(keyRange{key: []byte{0}, end: []byte{0}}, func(c *chain) bool {
		versions := *c.versions.Load()
		last := newest(versions, revision)
		for i, v := range versions[:last+1] {
			change := Change{Revision: v.kv.ModRevision, Sub: int64(v.sub), Delete: v.deleted, KV: v.kv}
			kept := i == last && !v.deleted
			keeps = keeps || kept
			switch {
			case kept || change.Revision > snap.compact:
				history.Changes = append(history.Changes, change)
			case !v.deleted:
				old = append(old, change)
			}
		}
		return true
	})
	if !keeps {
		history.Changes = append(history.Changes, old...)
	}
	slices.SortFunc(history.Changes, func(a, b Change) int {
		return cmp.Or(cmp.Compare(a.Revision, b.Revision), cmp.Compare(a.Sub, b.Sub))
	})
	return history, nil
}
