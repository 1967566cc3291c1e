package translate

import (
	"bytes"
	"iter"
	"maps"
	"slices"

	"github.com/google/btree"

	"meshbridge/translate/apisix"
)

// encode returns an object unless it is invalid: APISIX would refuse it, or worse.
func encode(kind apisix.Kind, id string, v any, invalid error) (apisix.Object, error) {
	if invalid != nil {
		return apisix.Object{}, invalid
	}
	return apisix.Marshal(kind, id, v)
}

// objectSet holds the objects in the order of their keys, and finds out what a step changes.
type objectSet struct {
	tree *btree.BTreeG[*ownedObject]
	// owned has the keys of each owner's objects.
	owned map[string][]string
	// before has what the objects that a step touched were before it; nil for none.
	before map[string]*ownedObject
}

// ownedObject is an object and the part of the translation that it belongs to.
type ownedObject struct {
	key    string
	owner  string
	object apisix.Object
}

const objectDegree = 32

func newObjectSet() *objectSet {
	return &objectSet{
		tree:  btree.NewG(objectDegree, func(a, b *ownedObject) bool { return a.key < b.key }),
		owned: map[string][]string{},
	}
}

func (s *objectSet) all() iter.Seq[apisix.Object] {
	return func(yield func(apisix.Object) bool) {
		s.tree.Ascend(func(o *ownedObject) bool { return yield(o.object) })
	}
}

func (s *objectSet) begin() { s.before = map[string]*ownedObject{} }

func (s *objectSet) touch(key string) {
	if _, touched := s.before[key]; !touched {
		s.before[key], _ = s.tree.Get(&ownedObject{key: key})
	}
}

// replace gives an owner other objects. It returns the keys that already belong to another one.
func (s *objectSet) replace(owner string, objects []apisix.Object) (collisions []string) {
	keys := make([]string, 0, len(objects))
	next := make(map[string]apisix.Object, len(objects))
	for _, o := range objects {
		key := o.Key()
		if _, twice := next[key]; twice {
			collisions = append(collisions, key)
			continue
		}
		if other, ok := s.tree.Get(&ownedObject{key: key}); ok && other.owner != owner {
			collisions = append(collisions, key)
			continue
		}
		next[key] = o
		keys = append(keys, key)
	}
	for _, key := range s.owned[owner] {
		if _, stays := next[key]; !stays {
			s.touch(key)
			s.tree.Delete(&ownedObject{key: key})
		}
	}
	for _, key := range keys {
		s.touch(key)
		s.tree.ReplaceOrInsert(&ownedObject{key, owner, next[key]})
	}
	if len(keys) == 0 {
		delete(s.owned, owner)
	} else {
		s.owned[owner] = keys
	}
	return collisions
}

// end returns what differs from begin.
func (s *objectSet) end() (put []apisix.Object, deleted []string) {
	for _, key := range slices.Sorted(maps.Keys(s.before)) {
		was := s.before[key]
		is, exists := s.tree.Get(&ownedObject{key: key})
		switch {
		case exists && (was == nil || !bytes.Equal(was.object.Value, is.object.Value)):
			put = append(put, is.object)
		case !exists && was != nil:
			deleted = append(deleted, key)
		}
	}
	s.before = nil
	return put, deleted
}
