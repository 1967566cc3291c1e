package store

import (
	"sort"
	"sync/atomic"
)

// version is one change of a key. The kv of a tombstone holds only Key and ModRevision.
type version struct {
	kv      *KeyValue
	sub     int32 // position of the change within its revision
	deleted bool
}

// chain is the history of one key, oldest version first, for example
//
//	put@5  put@8  delete@9  put@12
//
// of which a reader at revision 8 sees put@8, one at 10 nothing and one at 12 put@12.
//
// A chain that is in a published index only ever grows at its end, so a reader that knows its
// revision skips what was added later and needs no lock. Compaction does not cut a chain: it puts a
// shorter one in its place in the next index, and a reader of the previous index still finds what it
// came for.
type chain struct {
	key      []byte // set once
	versions atomic.Pointer[[]version]
}

func newChain(key []byte, versions ...version) *chain {
	c := &chain{key: key}
	c.versions.Store(&versions)
	return c
}

// add appends the newest version. Only the writer calls it. Appending in place is safe because every
// reader keeps to the length that it loaded.
func (c *chain) add(v version) {
	versions := append(*c.versions.Load(), v)
	c.versions.Store(&versions)
}

// at returns the key as of revision, nil if it did not exist then.
func (c *chain) at(revision int64) *KeyValue {
	versions := *c.versions.Load()
	i := newest(versions, revision)
	if i < 0 || versions[i].deleted {
		return nil
	}
	return versions[i].kv
}

// newest returns the position of the last version that is not above revision, -1 if there is none.
func newest(versions []version, revision int64) int {
	// Nearly every reader wants the last version or the one before.
	for i := len(versions) - 1; i >= 0 && i >= len(versions)-2; i-- {
		if versions[i].kv.ModRevision <= revision {
			return i
		}
	}
	return sort.Search(len(versions), func(i int) bool { return versions[i].kv.ModRevision > revision }) - 1
}
