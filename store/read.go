package store

import (
	"bytes"
	"cmp"
	"sort"
)

// Range reads the keys in [key, end) at one revision, the current one unless options name another. An
// empty end is the single key, and "\x00" everything from key on. It never waits for a writer.
//
// Errors are ErrEmptyKey, ErrInvalidSort, ErrFutureRevision and *CompactedError.
func (s *Store) Range(key, end []byte, options RangeOptions) (RangeResult, error) {
	op := RangeOp{Key: key, End: end, RangeOptions: options}
	if err := op.Validate(); err != nil {
		return RangeResult{}, err
	}
	snap := s.current.Load()
	switch {
	case op.Revision > snap.revision:
		return RangeResult{}, ErrFutureRevision
	case op.Revision > 0 && op.Revision < snap.compact:
		return RangeResult{}, &CompactedError{CompactRevision: snap.compact}
	}
	s.counters.ranges.Add(1)
	return op.read(snap.index, snap.revision), nil
}

// Validate checks what does not depend on the state, as Range does.
func (op *RangeOp) Validate() error {
	switch {
	case len(op.Key) == 0:
		return ErrEmptyKey
	case op.SortOrder < SortNone || op.SortOrder > SortDescend,
		op.SortTarget < SortByKey || op.SortTarget > SortByValue:
		return ErrInvalidSort
	}
	return nil
}

// read executes the range on an index whose newest change is at revision current.
func (op *RangeOp) read(from index, current int64) RangeResult {
	result := RangeResult{Revision: current}
	revision := op.Revision
	if revision <= 0 {
		revision = current
	}
	// The limit comes after filters and sorting. Keys beyond it are still counted.
	ordered := op.SortTarget == SortByKey && op.SortOrder != SortDescend
	enough := int64(-1)
	switch {
	case op.Limit <= 0:
	case ordered:
		enough = op.Limit
	case op.SortOrder == SortNone && !op.filters():
		// etcd reads one key more than the limit, in the order of keys, and sorts only those.
		enough = op.Limit + 1
	}
	from.ascend(keyRange{op.Key, op.End}, func(c *chain) bool {
		kv := c.at(revision)
		if kv == nil {
			return true
		}
		result.Count++
		if op.CountOnly || !op.admits(kv) {
			return true
		}
		if int64(len(result.KVs)) == enough {
			result.More = true
			return true
		}
		result.KVs = append(result.KVs, kv)
		return true
	})
	if !ordered {
		op.sort(result.KVs)
	}
	if op.Limit > 0 && int64(len(result.KVs)) > op.Limit {
		result.KVs = result.KVs[:op.Limit]
		result.More = true
	}
	if op.KeysOnly {
		bare := make([]KeyValue, len(result.KVs))
		for i, kv := range result.KVs {
			bare[i] = *kv
			bare[i].Value = nil
			result.KVs[i] = &bare[i]
		}
	}
	return result
}

func (op *RangeOp) filters() bool {
	return op.MinModRevision != 0 || op.MaxModRevision != 0 || op.MinCreateRevision != 0 || op.MaxCreateRevision != 0
}

func (op *RangeOp) admits(kv *KeyValue) bool {
	return (op.MinModRevision == 0 || kv.ModRevision >= op.MinModRevision) &&
		(op.MaxModRevision == 0 || kv.ModRevision <= op.MaxModRevision) &&
		(op.MinCreateRevision == 0 || kv.CreateRevision >= op.MinCreateRevision) &&
		(op.MaxCreateRevision == 0 || kv.CreateRevision <= op.MaxCreateRevision)
}

// sort orders kvs, which are in key order. It is the sort that etcd uses, unstable and reversed for a
// descending order, so that equal elements come out in etcd's order too. A target other than the key
// without an order means ascending.
func (op *RangeOp) sort(kvs []*KeyValue) {
	var order sort.Interface = &byTarget{kvs: kvs, compare: op.SortTarget.compare()}
	if op.SortOrder == SortDescend {
		order = sort.Reverse(order)
	}
	sort.Sort(order)
}

func (t SortTarget) compare() func(a, b *KeyValue) int {
	switch t {
	case SortByVersion:
		return func(a, b *KeyValue) int { return cmp.Compare(a.Version, b.Version) }
	case SortByCreate:
		return func(a, b *KeyValue) int { return cmp.Compare(a.CreateRevision, b.CreateRevision) }
	case SortByMod:
		return func(a, b *KeyValue) int { return cmp.Compare(a.ModRevision, b.ModRevision) }
	case SortByValue:
		return func(a, b *KeyValue) int { return bytes.Compare(a.Value, b.Value) }
	default:
		return func(a, b *KeyValue) int { return bytes.Compare(a.Key, b.Key) }
	}
}

type byTarget struct {
	kvs     []*KeyValue
	compare func(a, b *KeyValue) int
}

func (t *byTarget) Len() int           { return len(t.kvs) }
func (t *byTarget) Less(i, j int) bool { return t.compare(t.kvs[i], t.kvs[j]) < 0 }
func (t *byTarget) Swap(i, j int)      { t.kvs[i], t.kvs[j] = t.kvs[j], t.kvs[i] }
