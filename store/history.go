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

// History returns every stored change up to revision, 0 being the current one: all that is above the
// compact revision, and of what is below only what a compaction at revision would keep.
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
	snap.index.ascend(keyRange{key: []byte{0}, end: []byte{0}}, func(c *chain) bool {
		versions := *c.versions.Load()
		last := newest(versions, revision)
		for i, v := range versions[:last+1] {
			at := v.kv.ModRevision
			kept := i == last && (!v.deleted || at == revision)
			if at > snap.compact || kept {
				history.Changes = append(history.Changes, Change{Revision: at, Sub: int64(v.sub), Delete: v.deleted, KV: v.kv})
			}
		}
		return true
	})
	slices.SortFunc(history.Changes, func(a, b Change) int {
		return cmp.Or(cmp.Compare(a.Revision, b.Revision), cmp.Compare(a.Sub, b.Sub))
	})
	return history, nil
}
