package xds

import (
	"iter"
	"maps"
	"strings"

	"github.com/google/btree"
)

// Snapshot is an immutable set of resources, by type and name. Making the next Snapshot from one
// costs time proportional to the change, not to the size: the two share structure. The zero value
// and nil are empty Snapshots. A Snapshot is safe for concurrent readers.
type Snapshot struct {
	types map[string]*btree.BTreeG[*Resource]
}

const snapshotDegree = 8

// Get returns the resource, or nil.
func (s *Snapshot) Get(k Key) *Resource {
	if s == nil || s.types[k.Type] == nil {
		return nil
	}
	r, _ := s.types[k.Type].Get(&Resource{Key: k})
	return r
}

// All yields the resources of one type in the order of their names.
func (s *Snapshot) All(typeURL string) iter.Seq[*Resource] {
	return func(yield func(*Resource) bool) {
		if s == nil || s.types[typeURL] == nil {
			return
		}
		s.types[typeURL].Ascend(yield)
	}
}

// Len returns the number of resources of one type.
func (s *Snapshot) Len(typeURL string) int {
	if s == nil || s.types[typeURL] == nil {
		return 0
	}
	return s.types[typeURL].Len()
}

// Types returns the type URLs that have been seen, in no particular order.
func (s *Snapshot) Types() []string {
	if s == nil {
		return nil
	}
	types := make([]string, 0, len(s.types))
	for t := range s.types {
		types = append(types, t)
	}
	return types
}

// With returns a Snapshot with put added or replaced and remove taken out. It must not be called
// from two goroutines at once on the same Snapshot.
func (s *Snapshot) With(put []*Resource, remove []Key) *Snapshot {
	next := &Snapshot{types: map[string]*btree.BTreeG[*Resource]{}}
	if s != nil {
		maps.Copy(next.types, s.types)
	}
	cloned := map[string]bool{}
	tree := func(typeURL string) *btree.BTreeG[*Resource] {
		switch t := next.types[typeURL]; {
		case t == nil:
			next.types[typeURL] = btree.NewG(snapshotDegree, lessByName)
		case !cloned[typeURL]:
			next.types[typeURL] = t.Clone()
		}
		cloned[typeURL] = true
		return next.types[typeURL]
	}
	for _, k := range remove {
		tree(k.Type).Delete(&Resource{Key: k})
	}
	for _, r := range put {
		tree(r.Type).ReplaceOrInsert(r)
	}
	return next
}

func lessByName(a, b *Resource) bool { return a.Name < b.Name }

// ShortType returns the last part of a type URL, for example "Cluster".
func ShortType(typeURL string) string {
	return typeURL[strings.LastIndexByte(typeURL, '.')+1:]
}

func isTypeURL(s string) bool {
	slash := strings.LastIndexByte(s, '/')
	return slash > 0 && slash < len(s)-1
}
