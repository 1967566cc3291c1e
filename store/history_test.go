package store

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func changesOf(t *testing.T, s *Store, revision int64) []string {
	t.Helper()
	h, err := s.History(revision)
	if err != nil {
		t.Fatal(err)
	}
	var changes []string
	for _, c := range h.Changes {
		kind := "put"
		if c.Delete {
			kind = "delete"
		}
		changes = append(changes, fmt.Sprintf("%d.%d %s %s", c.Revision, c.Sub, kind, c.KV.Key))
	}
	return changes
}

func TestHistory(t *testing.T) {
	s := newStore(t, Config{})
	mustPut(t, s, "b", "1") // 2
	if _, err := s.Txn(Txn{Success: []Op{put("c", "1"), put("a", "1")}}); err != nil {
		t.Fatal(err)
	}
	mustDelete(t, s, "b", "") // 4
	mustPut(t, s, "a", "2")   // 5
	mustPut(t, s, "b", "2")   // 6

	all := []string{"2.0 put b", "3.0 put c", "3.1 put a", "4.0 delete b", "5.0 put a", "6.0 put b"}
	if diff := cmp.Diff(all, changesOf(t, s, 0)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(all[:4], changesOf(t, s, 4)); diff != "" {
		t.Error(diff)
	}
	mustCompact(t, s, 4)
	for revision, want := range map[int64][]string{
		4: {"3.0 put c", "3.1 put a"},
		5: {"3.0 put c", "5.0 put a"},
		6: {"3.0 put c", "5.0 put a", "6.0 put b"},
	} {
		if diff := cmp.Diff(want, changesOf(t, s, revision)); diff != "" {
			t.Errorf("at %d: %s", revision, diff)
		}
	}
	mustDelete(t, s, "a", "\x00") // 7
	if diff := cmp.Diff([]string{"3.0 put c", "3.1 put a", "5.0 put a", "6.0 put b", "7.0 delete a", "7.1 delete b", "7.2 delete c"},
		changesOf(t, s, 0)); diff != "" {
		t.Errorf("with nothing left: %s", diff)
	}
	if _, err := s.History(3); !sameError(err, ErrCompacted) {
		t.Errorf("before the compact revision: %v", err)
	}
	if _, err := s.History(8); !sameError(err, ErrFutureRevision) {
		t.Errorf("in the future: %v", err)
	}
	h, err := s.History(5)
	if err != nil || h.Current != 7 || h.Revision != 5 || h.CompactRevision != 4 {
		t.Errorf("%+v, %v", h, err)
	}
}
