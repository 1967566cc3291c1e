package store

import (
	"bytes"

	"github.com/google/btree"
)

// index is the ordered set of keys that have a history. One goroutine at a time changes an index; an
// index that nobody changes any more may be read by many.
type index interface {
	// get returns the key's history, nil if there is none.
	get(key []byte) *chain
	// set adds a history, in place of the one that its key had.
	set(c *chain)
	// remove forgets a key.
	remove(key []byte)
	// ascend visits the histories in the range, in key order, until visit returns false.
	ascend(r keyRange, visit func(*chain) bool)
	// clone returns a copy in constant time. Changes to the one are not seen by the other.
	clone() index
}

// indexDegree trades the height of the tree for the bytes that are copied when a key is born after a
// clone; each node holds up to twice as many pointers.
const indexDegree = 16

type treeIndex struct {
	tree *btree.BTreeG[*chain]
}

func newIndex() index {
	return &treeIndex{tree: btree.NewG(indexDegree, func(a, b *chain) bool {
		return bytes.Compare(a.key, b.key) < 0
	})}
}

func (t *treeIndex) get(key []byte) *chain {
	c, _ := t.tree.Get(&chain{key: key})
	return c
}

func (t *treeIndex) set(c *chain) { t.tree.ReplaceOrInsert(c) }

func (t *treeIndex) remove(key []byte) { t.tree.Delete(&chain{key: key}) }

func (t *treeIndex) ascend(r keyRange, visit func(*chain) bool) {
	switch {
	case r.single():
		if c := t.get(r.key); c != nil {
			visit(c)
		}
	case r.open():
		t.tree.AscendGreaterOrEqual(&chain{key: r.key}, visit)
	default:
		t.tree.AscendRange(&chain{key: r.key}, &chain{key: r.end}, visit)
	}
}

func (t *treeIndex) clone() index { return &treeIndex{tree: t.tree.Clone()} }
