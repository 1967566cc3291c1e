package store

import (
	"errors"
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func restored(t *testing.T, config Config, state State) *Store {
	t.Helper()
	s, err := Restore(config, state)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// An export is of one moment, whatever is written while it is read.
func TestExportIsConsistent(t *testing.T) {
	s := newStore(t, Config{})
	mustPut(t, s, "a", "1") // 2
	mustPut(t, s, "b", "1") // 3
	mustPut(t, s, "a", "2") // 4
	if _, _, err := s.Grant(7, 60); err != nil {
		t.Fatal(err)
	}
	state := s.Export()
	mustPut(t, s, "a", "3")
	mustPut(t, s, "c", "1")
	mustCompact(t, s, 6)
	if _, err := s.Revoke(7); err != nil {
		t.Fatal(err)
	}
	r := restored(t, Config{}, state)
	if got := r.Revision(); got != 4 {
		t.Errorf("revision %d", got)
	}
	if got := keysOf(mustRange(t, r, "a", "z", RangeOptions{Revision: 2}).KVs); !slices.Equal(got, []string{"a"}) {
		t.Errorf("keys at revision 2: %q", got)
	}
	if got := mustNext(t, mustWatch(t, r, "a", "z", 1), 0); !slices.Equal(got, []int64{2, 3, 4}) {
		t.Errorf("history %v", got)
	}
	if got, ok := r.TimeToLive(7, false); !ok || got.GrantedTTL != 60 {
		t.Errorf("lease %+v, %v", got, ok)
	}
	// It can be read again, and in part.
	for range state.Changes {
		break
	}
	if diff := cmp.Diff(mustExport(t, r), mustExport(t, restored(t, Config{}, state))); diff != "" {
		t.Error(diff)
	}
}

func mustExport(t *testing.T, s *Store) []Change {
	t.Helper()
	var all []Change
	for c, err := range s.Export().Changes {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	return all
}

// After the end of one server, clients may know revisions that its last export has not got.
func TestRestoreAtALaterBase(t *testing.T) {
	s := newStore(t, Config{})
	mustPut(t, s, "deleted", "1")
	mustPut(t, s, "a", "1") // 3
	mustPut(t, s, "a", "2") // 4
	mustDelete(t, s, "deleted", "")
	r := restored(t, Config{BaseRevision: 1000, RefuseFuture: true}, s.Export())
	if r.Revision() != 1000 || r.CompactRevision() != 1000 {
		t.Errorf("revision %d, compact revision %d", r.Revision(), r.CompactRevision())
	}
	got := mustRange(t, r, "\x00", "\x00", RangeOptions{})
	if len(got.KVs) != 1 || string(got.KVs[0].Value) != "2" || got.KVs[0].ModRevision != 4 || got.KVs[0].CreateRevision != 3 {
		t.Errorf("%+v", got)
	}
	if stats := r.Stats(); stats.Keys != 1 || stats.Revisions != 0 {
		t.Errorf("%+v", stats)
	}
	for _, start := range []int64{4, 999, 1002} {
		if _, err := r.Watch([]byte("a"), nil, start); !errors.Is(err, ErrCompacted) {
			t.Errorf("watch from %d: %v", start, err)
		}
	}
	c := mustWatch(t, r, "a", "", 1000)
	if got := mustPut(t, r, "a", "3"); got != 1001 {
		t.Errorf("put at %d", got)
	}
	if got := mustNext(t, c, 0); !slices.Equal(got, []int64{1001}) {
		t.Errorf("watched %v", got)
	}
	for c := range r.Export().Changes {
		if c.Revision != 4 {
			t.Errorf("the oldest change is of revision %d", c.Revision)
		}
		break
	}
	// The next restart is at an earlier time than the last revision.
	again := restored(t, Config{BaseRevision: 500}, r.Export())
	if again.Revision() != 1001 || again.CompactRevision() != 1000 {
		t.Errorf("revision %d, compact revision %d", again.Revision(), again.CompactRevision())
	}
}

// etcd stores what a compaction will remove until it gets to it.
func TestRestoreFinishesACompaction(t *testing.T) {
	state := State{Revision: 6, CompactRevision: 5, Changes: history(
		change(2, 0, "a", 2, 1), change(3, 0, "a", 2, 2), change(3, 1, "b", 3, 1),
		deletion(4, 0, "b"), deletion(5, 0, "a"), change(5, 1, "c", 5, 1), change(6, 0, "c", 5, 2),
	)}
	r := restored(t, Config{}, state)
	var got []string
	for _, c := range mustExport(t, r) {
		got = append(got, string(c.KV.Key))
	}
	if diff := cmp.Diff([]string{"a", "c", "c"}, got); diff != "" {
		t.Error(diff)
	}
	c := mustWatch(t, r, "\x00", "\x00", 5)
	blocks, err := c.Next(0)
	if err != nil || len(blocks) != 2 || len(blocks[0].Events) != 2 || blocks[0].Events[0].Prev != nil {
		t.Errorf("%+v, %v", blocks, err)
	}
	if prev := blocks[1].Events[0].Prev; prev == nil || prev.Version != 1 {
		t.Errorf("previous version %+v", prev)
	}
}

func TestRestoreOfNothing(t *testing.T) {
	r := restored(t, Config{}, State{CompactRevision: -1, Changes: history()})
	if r.Revision() != 1 || r.CompactRevision() != -1 || mustPut(t, r, "a", "1") != 2 {
		t.Errorf("%+v", r.Stats())
	}
}

func TestRestoreRefusesWhatIsNoHistory(t *testing.T) {
	for want, state := range map[string]State{
		"no id":                             {Leases: []Lease{{TTL: 5}}},
		"lease 3: lease already exists":     {Leases: []Lease{{ID: 3, TTL: 5}, {ID: 3, TTL: 5}}},
		"too large lease TTL":               {Leases: []Lease{{ID: 3, TTL: maxLeaseTTL + 1}}},
		"disk on fire":                      {Revision: 2, Changes: broken},
		"key is not provided":               {Revision: 2, Changes: history(change(2, 0, "", 2, 1))},
		"modified at revision 9":            {Revision: 2, Changes: history(Change{Revision: 2, KV: &KeyValue{Key: []byte("a"), ModRevision: 9}})},
		`key "a" has version 0`:             {Revision: 2, Changes: history(change(2, 0, "a", 2, 0))},
		"was created at revision 3":         {Revision: 2, Changes: history(change(2, 0, "a", 3, 1))},
		"comes after change 0":              {Revision: 2, Changes: history(change(2, 0, "a", 2, 1), change(2, 0, "a", 2, 2))},
		"the last revision is 2":            {Revision: 2, Changes: history(change(2, 0, "a", 2, 1), change(3, 0, "a", 2, 2))},
		"change 0 of revision 2 is missing": {Revision: 3, Changes: history(change(3, 0, "a", 3, 1))},
		"change 1 of revision 2 is missing": {Revision: 2, Changes: history(change(2, 0, "a", 2, 1), change(2, 2, "b", 2, 1))},
		"revision 3 has no changes":         {Revision: 4, Changes: history(change(2, 0, "a", 2, 1))},
	} {
		if state.Changes == nil {
			state.Changes = history()
		}
		if _, err := Restore(Config{}, state); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if _, err := Restore(Config{BaseRevision: -1}, State{Changes: history()}); err == nil {
		t.Error("a negative base is accepted")
	}
}

func change(revision, sub int64, key string, created, version int64) Change {
	return Change{Revision: revision, Sub: sub, KV: &KeyValue{
		Key: []byte(key), ModRevision: revision, CreateRevision: created, Version: version,
	}}
}

func deletion(revision, sub int64, key string) Change {
	return Change{Revision: revision, Sub: sub, Delete: true, KV: &KeyValue{Key: []byte(key), ModRevision: revision}}
}

func history(all ...Change) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		for _, c := range all {
			if !yield(c, nil) {
				return
			}
		}
	}
}

func broken(yield func(Change, error) bool) { yield(Change{}, errors.New("disk on fire")) }
