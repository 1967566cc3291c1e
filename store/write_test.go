package store

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestFreshStoreIsAtRevisionOneAndWasNeverCompacted(t *testing.T) {
	s := newStore(t, Config{})
	if s.Revision() != 1 || s.CompactRevision() != -1 {
		t.Errorf("revision %d, compact revision %d", s.Revision(), s.CompactRevision())
	}
}

func TestConfigIsValidated(t *testing.T) {
	for name, config := range map[string]Config{
		"negative base":              {BaseRevision: -1},
		"negative revisions":         {KeepRevisions: -1},
		"negative duration":          {KeepRevisions: 1, KeepFor: -time.Second},
		"duration without revisions": {KeepFor: time.Second},
	} {
		if _, err := New(config); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func TestGenerations(t *testing.T) {
	s := newStore(t, Config{})
	mustPut(t, s, "k", "1")
	mustPut(t, s, "k", "1")
	mustPut(t, s, "other", "")
	mustPut(t, s, "k", "2")
	mustDelete(t, s, "k", "")
	mustPut(t, s, "k", "3")

	type at struct{ Create, Mod, Version int64 }
	want := map[int64]at{2: {2, 2, 1}, 3: {2, 3, 2}, 4: {2, 3, 2}, 5: {2, 5, 3}, 7: {7, 7, 1}}
	got := map[int64]at{}
	for revision := int64(1); revision <= s.Revision(); revision++ {
		for _, kv := range mustRange(t, s, "k", "", RangeOptions{Revision: revision}).KVs {
			got[revision] = at{kv.CreateRevision, kv.ModRevision, kv.Version}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestPutReturnsThePreviousVersionWhenAsked(t *testing.T) {
	s := newStore(t, Config{})
	op := PutOp{Key: []byte("k"), Value: []byte("1"), PrevKV: true}
	first, err := s.Put(op)
	if err != nil || first.Prev != nil || first.Revision != 2 {
		t.Errorf("first put: %+v, %v", first, err)
	}
	second, err := s.Put(op)
	if err != nil || second.Prev == nil || second.Prev.ModRevision != 2 || second.Revision != 3 {
		t.Errorf("second put: %+v, %v", second, err)
	}
	op.PrevKV = false
	third, err := s.Put(op)
	if err != nil || third.Prev != nil {
		t.Errorf("a put that did not ask: %+v, %v", third, err)
	}
}

func TestPutErrors(t *testing.T) {
	key, value := []byte("k"), []byte("v")
	for name, test := range map[string]struct {
		op   PutOp
		want error
	}{
		"no key":                        {PutOp{}, ErrEmptyKey},
		"value beside ignore_value":     {PutOp{Key: key, Value: value, IgnoreValue: true}, ErrValueProvided},
		"lease beside ignore_lease":     {PutOp{Key: key, Lease: 1, IgnoreLease: true}, ErrLeaseProvided},
		"unknown lease":                 {PutOp{Key: key, Lease: 1}, ErrLeaseNotFound},
		"ignore_value of an absent key": {PutOp{Key: key, IgnoreValue: true}, ErrKeyNotFound},
		"ignore_lease of an absent key": {PutOp{Key: key, IgnoreLease: true}, ErrKeyNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t, Config{})
			if _, err := s.Put(test.op); !sameError(err, test.want) {
				t.Errorf("put: got %v, want %v", err, test.want)
			}
			if _, err := s.Txn(Txn{Success: []Op{{Put: &test.op}}}); !sameError(err, test.want) {
				t.Errorf("txn: got %v, want %v", err, test.want)
			}
			if s.Revision() != 1 {
				t.Errorf("the revision is %d after failed requests", s.Revision())
			}
		})
	}
}

// etcd 3.6 looks for the lease first in a put, and for the key first in a transaction.
func TestPutWithUnknownLeaseOfAnAbsentKey(t *testing.T) {
	s := newStore(t, Config{})
	op := PutOp{Key: []byte("k"), Lease: 1, IgnoreValue: true}
	if _, err := s.Put(op); !sameError(err, ErrLeaseNotFound) {
		t.Errorf("put: got %v, want %v", err, ErrLeaseNotFound)
	}
	if _, err := s.Txn(Txn{Success: []Op{{Put: &op}}}); !sameError(err, ErrKeyNotFound) {
		t.Errorf("txn: got %v, want %v", err, ErrKeyNotFound)
	}
}

func TestIgnoreValueAndIgnoreLeaseKeepWhatIsThere(t *testing.T) {
	s := newStore(t, Config{})
	for id := int64(1); id <= 2; id++ {
		if _, _, err := s.Grant(id, 60); err != nil {
			t.Fatal(err)
		}
	}
	key := []byte("k")
	for _, op := range []PutOp{
		{Key: key, Value: []byte("old"), Lease: 1},
		{Key: key, Value: []byte("new"), IgnoreLease: true},
		{Key: key, Lease: 2, IgnoreValue: true},
	} {
		if _, err := s.Put(op); err != nil {
			t.Fatal(err)
		}
	}
	got := mustRange(t, s, "k", "", RangeOptions{}).KVs
	want := []*KeyValue{{Key: key, Value: []byte("new"), CreateRevision: 2, ModRevision: 4, Version: 3, Lease: 2}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestDeleteIsOneRevisionInKeyOrder(t *testing.T) {
	s := newStore(t, Config{})
	mustPut(t, s, "b", "2")
	mustPut(t, s, "c", "3")
	mustPut(t, s, "a", "1")
	result, err := s.Delete(DeleteOp{Key: []byte("a"), End: []byte("c"), PrevKV: true})
	if err != nil {
		t.Fatal(err)
	}
	if result.Revision != 5 || result.Deleted != 2 {
		t.Errorf("deleted %d at revision %d", result.Deleted, result.Revision)
	}
	if diff := cmp.Diff([]string{"a", "b"}, keysOf(result.Prevs)); diff != "" {
		t.Error(diff)
	}
	blocks, err := mustWatch(t, s, "\x00", "\x00", 5).Next(0)
	if err != nil || len(blocks) != 1 {
		t.Fatal(blocks, err)
	}
	want := []Event{
		{Delete: true, KV: &KeyValue{Key: []byte("a"), ModRevision: 5}, Prev: result.Prevs[0]},
		{Delete: true, KV: &KeyValue{Key: []byte("b"), ModRevision: 5}, Prev: result.Prevs[1]},
	}
	if diff := cmp.Diff(want, blocks[0].Events); diff != "" {
		t.Error(diff)
	}
}

func TestDeleteOfNothingChangesNothing(t *testing.T) {
	s := newStore(t, Config{})
	mustPut(t, s, "a", "1")
	c := mustWatch(t, s, "\x00", "\x00", 0)
	if revision := mustDelete(t, s, "b", "\x00"); revision != 2 {
		t.Errorf("the revision is %d", revision)
	}
	if isClosed(c.Wait()) {
		t.Error("a watcher was woken")
	}
	if _, err := s.Delete(DeleteOp{}); !sameError(err, ErrEmptyKey) {
		t.Errorf("delete without a key: %v", err)
	}
}

func TestClosedStoreRefusesWritesAndCanBeRead(t *testing.T) {
	s := newStore(t, Config{})
	mustPut(t, s, "a", "1")
	c := mustWatch(t, s, "a", "", 0)
	s.Close()
	s.Close()

	if !isClosed(c.Wait()) {
		t.Error("a watcher was not woken")
	}
	_, putErr := s.Put(PutOp{Key: []byte("a")})
	_, deleteErr := s.Delete(DeleteOp{Key: []byte("a")})
	_, txnErr := s.Txn(Txn{})
	_, compactErr := s.Compact(2)
	_, _, grantErr := s.Grant(1, 10)
	_, revokeErr := s.Revoke(1)
	_, watchErr := s.Watch([]byte("a"), nil, 0)
	_, nextErr := c.Next(0)
	for name, err := range map[string]error{
		"put": putErr, "delete": deleteErr, "txn": txnErr, "compact": compactErr,
		"grant": grantErr, "revoke": revokeErr, "watch": watchErr, "next": nextErr,
	} {
		if !sameError(err, ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := keysOf(mustRange(t, s, "a", "", RangeOptions{}).KVs); !cmp.Equal(got, []string{"a"}) {
		t.Errorf("read %v", got)
	}
}

func TestStats(t *testing.T) {
	s := newStore(t, Config{})
	empty := s.Stats()
	if diff := cmp.Diff(Stats{Revision: 1, CompactRevision: -1}, empty); diff != "" {
		t.Error(diff)
	}
	mustPut(t, s, "a", "1")
	mustPut(t, s, "a", "2")
	mustPut(t, s, "b", "1")
	mustDelete(t, s, "b", "")
	c := mustWatch(t, s, "a", "", 0)
	if _, _, err := s.Grant(1, 10); err != nil {
		t.Fatal(err)
	}
	got := s.Stats()
	want := Stats{
		Revision: 5, CompactRevision: -1, Keys: 1, Revisions: 4, Watchers: 1, Leases: 1,
		Puts: 3, Deletes: 1, PutBytes: 6, LeasesGranted: 1,
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Stats{}, "Bytes")); diff != "" {
		t.Error(diff)
	}
	if got.Bytes < 4*versionSize || got.Bytes != s.Bytes() {
		t.Errorf("4 versions take %d bytes", got.Bytes)
	}
	c.Close()
	c.Close()
	mustDelete(t, s, "a", "")
	mustCompact(t, s, 6)
	mustPut(t, s, "x", "")
	mustDelete(t, s, "x", "")
	mustCompact(t, s, 8)
	got = s.Stats()
	want = Stats{
		Revision: 8, CompactRevision: 8, Revisions: 1, Leases: 1,
		Puts: 4, Deletes: 3, PutBytes: 7, Compacted: 6, LeasesGranted: 1,
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Stats{}, "Bytes", "CompactedAt")); diff != "" {
		t.Error(diff)
	}
	if one := int64(blockSize + versionSize + chainSize + len("x") + leaseSize); got.Bytes != one {
		t.Errorf("a lease, a tombstone and its revision take %d bytes, it should be %d", got.Bytes, one)
	}
}
