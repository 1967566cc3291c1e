package store

import "fmt"

// Rough sizes of what is kept for a key, for one of its versions and for a revision, beside the bytes
// of keys and values.
const (
	chainSize   = 64
	versionSize = 128
	blockSize   = 192
)

// Put sets a key and makes a new revision, also when the value is the one it has. The store keeps
// op.Key and op.Value as they are; the caller must not modify them afterwards.
//
// Errors are ErrEmptyKey, ErrValueProvided, ErrLeaseProvided, ErrLeaseNotFound, ErrKeyNotFound (with
// IgnoreValue or IgnoreLease) and ErrClosed.
func (s *Store) Put(op PutOp) (PutResult, error) {
	if err := op.Validate(); err != nil {
		return PutResult{}, err
	}
	if err := s.lock(); err != nil {
		return PutResult{}, err
	}
	defer s.mu.Unlock()
	w := s.begin()
	if err := w.checkLease(&op); err != nil {
		return PutResult{}, err
	}
	if err := w.checkKept(&op); err != nil {
		return PutResult{}, err
	}
	result := w.put(&op)
	w.commit()
	return result, nil
}

// Delete deletes the keys in [op.Key, op.End). It makes a new revision if there were any.
//
// Errors are ErrEmptyKey and ErrClosed.
func (s *Store) Delete(op DeleteOp) (DeleteResult, error) {
	if err := op.Validate(); err != nil {
		return DeleteResult{}, err
	}
	if err := s.lock(); err != nil {
		return DeleteResult{}, err
	}
	defer s.mu.Unlock()
	w := s.begin()
	result := w.delete(&op)
	w.commit()
	return result, nil
}

// Validate checks what does not depend on the state, as Put does.
func (op *PutOp) Validate() error {
	switch {
	case len(op.Key) == 0:
		return fmt.Errorf("put: %w", ErrEmptyKey)
	case op.IgnoreValue && len(op.Value) != 0:
		return fmt.Errorf("put %q: %w", op.Key, ErrValueProvided)
	case op.IgnoreLease && op.Lease != 0:
		return fmt.Errorf("put %q: %w", op.Key, ErrLeaseProvided)
	}
	return nil
}

// Validate checks what does not depend on the state, as Delete does.
func (op *DeleteOp) Validate() error {
	if len(op.Key) == 0 {
		return fmt.Errorf("delete: %w", ErrEmptyKey)
	}
	return nil
}

// write is one revision in the making. The writer's lock is held from begin to commit. Everything that
// can fail is checked before the first change, so a write is never undone.
type write struct {
	store    *Store
	before   *snapshot
	revision int64 // of the changes
	events   []Event
	ops      int  // operations that were executed
	born     bool // the index has keys that before.index has not
	keys     int64
	bytes    int64
}

func (s *Store) begin() *write {
	before := s.current.Load()
	return &write{store: s, before: before, revision: before.revision + 1}
}

// visible is the revision that an operation sees: the one in the making once something has changed.
func (w *write) visible() int64 {
	if len(w.events) > 0 {
		return w.revision
	}
	return w.before.revision
}

// checkLease fails if the lease that op names does not exist.
func (w *write) checkLease(op *PutOp) error {
	if op.Lease != 0 && !w.store.leases.exists(op.Lease) {
		return fmt.Errorf("put %q: lease %d: %w", op.Key, op.Lease, ErrLeaseNotFound)
	}
	return nil
}

// checkKept fails if op is to keep something of a key that does not exist before the write.
func (w *write) checkKept(op *PutOp) error {
	if (op.IgnoreValue || op.IgnoreLease) && w.get(op.Key) == nil {
		return fmt.Errorf("put %q: %w", op.Key, ErrKeyNotFound)
	}
	return nil
}

func (w *write) get(key []byte) *KeyValue {
	c := w.store.index.get(key)
	if c == nil {
		return nil
	}
	return c.at(w.revision)
}

func (w *write) put(op *PutOp) PutResult {
	w.ops++
	w.store.counters.puts.Add(1)
	w.store.counters.putBytes.Add(int64(len(op.Key) + len(op.Value)))
	c := w.store.index.get(op.Key)
	var prev *KeyValue
	kv := &KeyValue{Key: op.Key, Value: op.Value, ModRevision: w.revision, Lease: op.Lease}
	if c != nil {
		kv.Key = c.key // all versions share one copy
		prev = c.at(w.revision)
	}
	if prev == nil {
		kv.CreateRevision, kv.Version = w.revision, 1
		w.keys++
	} else {
		kv.CreateRevision, kv.Version = prev.CreateRevision, prev.Version+1
		if op.IgnoreValue {
			kv.Value = prev.Value
		}
		if op.IgnoreLease {
			kv.Lease = prev.Lease
		}
		w.store.leases.detach(prev)
	}
	w.store.leases.attach(kv)
	event := Event{KV: kv}
	if kv.Version > 1 {
		event.Prev = c.at(w.before.revision)
	}
	w.record(c, event)
	result := PutResult{Revision: w.revision}
	if op.PrevKV {
		result.Prev = prev
	}
	return result
}

func (w *write) delete(op *DeleteOp) DeleteResult {
	w.ops++
	w.store.counters.deletes.Add(1)
	var result DeleteResult
	w.store.index.ascend(keyRange{op.Key, op.End}, func(c *chain) bool {
		prev := c.at(w.revision)
		if prev == nil {
			return true
		}
		w.deleteKey(c, prev)
		result.Deleted++
		if op.PrevKV {
			result.Prevs = append(result.Prevs, prev)
		}
		return true
	})
	result.Revision = w.visible()
	return result
}

// deleteKey deletes the key of c, whose value is prev.
func (w *write) deleteKey(c *chain, prev *KeyValue) {
	w.store.leases.detach(prev)
	w.keys--
	w.record(c, Event{
		Delete: true,
		KV:     &KeyValue{Key: c.key, ModRevision: w.revision},
		Prev:   c.at(w.before.revision),
	})
}

// record adds a change to the history of its key, c, which is nil for a key that has none.
func (w *write) record(c *chain, event Event) {
	v := version{kv: event.KV, sub: int32(len(w.events)), deleted: event.Delete}
	if c == nil {
		w.store.index.set(newChain(event.KV.Key, v))
		w.born = true
		w.bytes += chainSize + int64(len(event.KV.Key))
	} else {
		c.add(v)
	}
	w.bytes += versionSize + int64(len(event.KV.Value))
	w.events = append(w.events, event)
}

// commit publishes the changes as one revision, and does nothing if there are none.
func (w *write) commit() {
	if len(w.events) == 0 {
		return
	}
	s := w.store
	next := *w.before
	next.revision = w.revision
	next.log = append(next.log, newBlock(w.revision, w.events, s.config.Now(), &s.encodings))
	next.keys += w.keys
	next.bytes += w.bytes + blockSize
	if w.born {
		next.index = s.index.clone()
	}
	s.publish(&next)
}
