package store

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// everything is what a store holds, and its history.
func everything(t *testing.T, s *Store) (all []string) {
	t.Helper()
	state := s.Export()
	all = append(all, fmt.Sprint(state.Revision, state.CompactRevision, state.Leases))
	for c, err := range state.Changes {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, fmt.Sprintf("%d.%d %v %s=%s %d", c.Revision, c.Sub, c.Delete, c.KV.Key, c.KV.Value, c.KV.Version))
	}
	return all
}

func suspendable(t *testing.T, base int64) *Store {
	t.Helper()
	s, err := New(Config{BaseRevision: base, RefuseFuture: true, KeepRevisions: 100})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAStoreGoesOnWhereAnotherStopped(t *testing.T) {
	old := suspendable(t, 1000)
	if _, _, err := old.Grant(7, 60); err != nil {
		t.Fatal(err)
	}
	mustPut(t, old, "a", "1")
	if _, err := old.Put(PutOp{Key: []byte("b"), Value: []byte("1"), Lease: 7}); err != nil {
		t.Fatal(err)
	}
	mustPut(t, old, "a", "2")

	suspended := old.Suspend()
	wrote := make(chan error, 1)
	go func() {
		_, err := old.Put(PutOp{Key: []byte("late"), Value: []byte("1")})
		wrote <- err
	}()
	// Its base is far above: the clock went on.
	next := suspendable(t, 5000)
	if err := next.Adopt(suspended.State); err != nil {
		t.Fatal(err)
	}
	suspended.Seal()
	if err := <-wrote; !errors.Is(err, ErrClosed) {
		t.Errorf("a write that waited: %v, want ErrClosed", err)
	}
	if d := cmp.Diff(everything(t, old), everything(t, next)); d != "" {
		t.Error(d)
	}
	mustPut(t, next, "a", "3")
	if next.Revision() != old.Revision()+1 {
		t.Errorf("revisions %d after %d", next.Revision(), old.Revision())
	}
	// A watcher of the old store misses nothing.
	cursor := mustWatch(t, next, "", "\x00", old.Revision()+1)
	if got := mustNext(t, cursor, 10); !slices.Equal(got, []int64{old.Revision() + 1}) {
		t.Errorf("a watcher that resumes is told of %v", got)
	}
}

func TestASuspensionThatIsResumedHasNotBeen(t *testing.T) {
	s := suspendable(t, 1000)
	mustPut(t, s, "a", "1")
	suspended := s.Suspend()
	wrote := make(chan error, 1)
	go func() {
		_, err := s.Put(PutOp{Key: []byte("a"), Value: []byte("2")})
		wrote <- err
	}()
	if got := suspended.State.Revision; got != 1001 {
		t.Errorf("revision %d", got)
	}
	suspended.Resume()
	if err := <-wrote; err != nil || s.Revision() != 1002 {
		t.Errorf("revision %d, %v", s.Revision(), err)
	}
}

func TestAStoreThatIsInUseAdoptsNothing(t *testing.T) {
	s := suspendable(t, 1000)
	mustPut(t, s, "a", "1")
	if err := s.Adopt(State{Revision: 5}); err == nil {
		t.Error("adopted")
	}
}
