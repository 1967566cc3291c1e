package store

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"
)

// observed remembers the content of every (key, mod_revision) that anybody saw.
type observed struct {
	contents sync.Map // string to string
}

func (o *observed) check(kv *KeyValue) error {
	id := fmt.Sprintf("%q@%d", kv.Key, kv.ModRevision)
	content := fmt.Sprintf("value %q, created at %d, version %d", kv.Value, kv.CreateRevision, kv.Version)
	if before, loaded := o.contents.LoadOrStore(id, content); loaded && before != content {
		return fmt.Errorf("%s is %s and %s", id, before, content)
	}
	return nil
}

// replica follows a range with a cursor, the way a client does: it reads the range, watches from the
// revision after it, applies events, resumes from where it was and reads again when told that history
// is gone. It fails when a delivery breaks a guarantee.
type replica struct {
	store    *Store
	observed *observed
	keys     keyRange
	random   *rand.Rand
	everyOne bool // the range holds every key, so no revision may be missing
	state    map[string]string
	revision int64 // the state is that of this revision
	reloads  int
}

func (r *replica) reload() error {
	result, err := r.store.Range(r.keys.key, r.keys.end, RangeOptions{})
	if err != nil {
		return err
	}
	if result.Revision < r.revision {
		return fmt.Errorf("the revision went back from %d to %d", r.revision, result.Revision)
	}
	r.state = map[string]string{}
	for _, kv := range result.KVs {
		if err := r.observed.check(kv); err != nil {
			return err
		}
		r.state[string(kv.Key)] = string(kv.Value)
	}
	r.revision = result.Revision
	r.reloads++
	return r.consistent()
}

// consistent checks that both halves of a pair, which writers only change together, are the same.
func (r *replica) consistent() error {
	for _, prefix := range []string{"a", "b"} {
		left, right := prefix+"/left", prefix+"/right"
		if r.keys.contains([]byte(left)) && r.keys.contains([]byte(right)) && r.state[left] != r.state[right] {
			return fmt.Errorf("at revision %d %s is %q and %s is %q", r.revision, left, r.state[left], right, r.state[right])
		}
	}
	return nil
}

func (r *replica) apply(b *Block) error {
	if b.Revision <= r.revision {
		return fmt.Errorf("revision %d was delivered after %d", b.Revision, r.revision)
	}
	if r.everyOne && b.Revision != r.revision+1 {
		return fmt.Errorf("revision %d was delivered right after %d", b.Revision, r.revision)
	}
	events := b.Select(r.keys.key, r.keys.end)
	if len(events) == 0 {
		return fmt.Errorf("revision %d was delivered without an event in the range", b.Revision)
	}
	for _, e := range events {
		switch {
		case e.KV.ModRevision != b.Revision:
			return fmt.Errorf("revision %d holds a change of revision %d", b.Revision, e.KV.ModRevision)
		case e.Prev != nil && string(e.Prev.Value) != r.state[string(e.KV.Key)]:
			return fmt.Errorf("the value before revision %d of %s is %q, it should be %q", b.Revision, e.KV.Key, e.Prev.Value, r.state[string(e.KV.Key)])
		case e.Delete:
			delete(r.state, string(e.KV.Key))
		default:
			if err := r.observed.check(e.KV); err != nil {
				return err
			}
			r.state[string(e.KV.Key)] = string(e.KV.Value)
		}
	}
	r.revision = b.Revision
	return r.consistent()
}

// follow runs until it has everything up to the revision that last gives once it is closed.
func (r *replica) follow(finished <-chan struct{}) error {
	if err := r.reload(); err != nil {
		return err
	}
	for {
		done, err := r.session(finished)
		switch {
		case errors.Is(err, ErrCompacted):
			if err := r.reload(); err != nil {
				return err
			}
		case err != nil || done:
			return err
		}
	}
}

// session is the life of one cursor, which ends at random.
func (r *replica) session(finished <-chan struct{}) (done bool, err error) {
	c, err := r.store.Watch(r.keys.key, r.keys.end, r.revision+1)
	if err != nil {
		return false, err
	}
	defer c.Close()
	for range 1 + r.random.IntN(200) {
		select {
		case <-c.Wait():
		case <-finished:
			// All writes are visible now, so a Next that finds nothing has seen the last.
			done = true
		}
		blocks, err := c.Next(r.random.IntN(5))
		if err != nil {
			return false, err
		}
		for _, b := range blocks {
			if err := r.apply(b); err != nil {
				return false, err
			}
		}
		if done && len(blocks) == 0 && c.Position() >= r.store.Revision() {
			return true, nil
		}
		if c.Position() < r.revision {
			return false, fmt.Errorf("the position is %d after revision %d was delivered", c.Position(), r.revision)
		}
	}
	return false, nil
}

// However writers, compactions, slow readers and reconnects interleave, a watch is ordered, unique,
// atomic per revision, free of gaps and resumable from any position, a revision never goes back, and a
// (key, mod_revision) pair never has two contents. apisix-mesh-agent and etcd-adapter lost, repeated
// and re-used revisions here, and APISIX then kept stale routes.
func TestWatchGuaranteesHoldUnderConcurrency(t *testing.T) {
	s, err := New(Config{BaseRevision: 1_790_000_000_000, KeepRevisions: 50})
	if err != nil {
		t.Fatal(err)
	}
	const writers, writes = 4, 1500
	finished := make(chan struct{})
	var seen observed
	var writing, reading errgroup.Group

	for w := range writers {
		random := rand.New(rand.NewPCG(1, uint64(w)))
		writing.Go(func() error {
			for i := range writes {
				if err := randomWrite(s, random, fmt.Sprintf("%d-%d", w, i)); err != nil {
					return err
				}
				if i%100 == 0 {
					s.compactOldHistory()
					s.encodings.sweep()
				}
			}
			return nil
		})
	}
	ranges := []keyRange{
		{key: []byte{0}, end: []byte{0}},
		{key: []byte("a"), end: []byte("b")},
		{key: []byte("b/"), end: []byte{0}},
		{key: []byte("a/left")},
	}
	replicas := make([]*replica, 3*len(ranges))
	for i := range replicas {
		r := &replica{
			store: s, observed: &seen, keys: ranges[i%len(ranges)], everyOne: i%len(ranges) == 0,
			random: rand.New(rand.NewPCG(2, uint64(i))),
		}
		replicas[i] = r
		reading.Go(func() error {
			if err := r.follow(finished); err != nil {
				return fmt.Errorf("watch of [%q, %q): %w", r.keys.key, r.keys.end, err)
			}
			return nil
		})
	}
	reading.Go(func() error { return readHistory(s, finished) })

	if err := writing.Wait(); err != nil {
		t.Error(err)
	}
	close(finished)
	if err := reading.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, r := range replicas {
		result, err := s.Range(r.keys.key, r.keys.end, RangeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if len(result.KVs) != len(r.state) {
			t.Errorf("the watch of [%q, %q) ended with %d keys, the store has %d", r.keys.key, r.keys.end, len(r.state), len(result.KVs))
		}
		for _, kv := range result.KVs {
			if r.state[string(kv.Key)] != string(kv.Value) {
				t.Errorf("the watch ended with %s = %q, the store has %q", kv.Key, r.state[string(kv.Key)], kv.Value)
			}
		}
	}
	if n := s.Stats().Watchers; n != 0 {
		t.Errorf("%d watchers are left", n)
	}
}

// randomWrite changes a pair of keys in one transaction, or a key of its own.
func randomWrite(s *Store, random *rand.Rand, value string) error {
	prefix := string(rune('a' + random.IntN(2)))
	left, right := []byte(prefix+"/left"), []byte(prefix+"/right")
	var err error
	switch random.IntN(6) {
	case 0:
		_, err = s.Delete(DeleteOp{Key: left, End: append(bytes.Clone(right), 0)})
	case 1, 2:
		_, err = s.Put(PutOp{Key: []byte(prefix + "/" + value), Value: []byte(value)})
	case 3:
		_, err = s.Delete(DeleteOp{Key: []byte(prefix + "/0"), End: []byte(fmt.Sprintf("%s/%d", prefix, random.IntN(9)))})
	default:
		_, err = s.Txn(Txn{Success: []Op{
			{Put: &PutOp{Key: left, Value: []byte(value)}},
			{Put: &PutOp{Key: right, Value: []byte(value)}},
		}})
	}
	return err
}

// readHistory checks that what was read at a revision stays the same until it is compacted.
func readHistory(s *Store, finished <-chan struct{}) error {
	all := []byte{0}
	for {
		first, err := s.Range(all, all, RangeOptions{})
		if err != nil {
			return err
		}
		again, err := s.Range(all, all, RangeOptions{Revision: first.Revision})
		switch {
		case errors.Is(err, ErrCompacted):
		case err != nil:
			return err
		case len(again.KVs) != len(first.KVs):
			return fmt.Errorf("revision %d has %d keys, and %d when it is read later", first.Revision, len(first.KVs), len(again.KVs))
		default:
			for i, kv := range first.KVs {
				if again.KVs[i] != kv {
					return fmt.Errorf("revision %d has two versions of %q", first.Revision, kv.Key)
				}
			}
		}
		if isClosed(finished) {
			return nil
		}
	}
}

// etcd-adapter sent events to its watchers under the store's lock: one that stopped reading blocked
// the next writer, and then everybody, for ever.
func TestSlowWatcherBlocksNobody(t *testing.T) {
	s := newStore(t, Config{KeepRevisions: 10})
	prefix := []byte("/apisix/")
	slow, err := s.Watch(prefix, Prefix(prefix), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	live, err := s.Watch(prefix, Prefix(prefix), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()

	const writes = 10_000
	var received int
	for i := range writes {
		mustPut(t, s, fmt.Sprintf("/apisix/routes/%d", i%100), "v")
		blocks, err := live.Next(0)
		if err != nil {
			t.Fatal(err)
		}
		received += len(blocks)
		if i%1000 == 0 {
			s.compactOldHistory()
		}
	}
	if received != writes {
		t.Errorf("the live watcher received %d of %d revisions", received, writes)
	}
	s.compactOldHistory()
	if n := s.Stats().Revisions; n != 10 {
		t.Errorf("%d revisions are kept for the slow watcher, it should be 10", n)
	}
	var compacted *CompactedError
	if _, err := slow.Next(0); !errors.As(err, &compacted) || compacted.CompactRevision != s.CompactRevision() {
		t.Errorf("the slow watcher got %v, it should be told that history starts at %d", err, s.CompactRevision())
	}
}
