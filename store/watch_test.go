package store

import (
	"errors"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWatchStarts(t *testing.T) {
	for name, test := range map[string]struct {
		start int64
		want  []int64 // after another put, at 7
		err   error
	}{
		"from now":                  {0, []int64{7}, nil},
		"from the past":             {5, []int64{5, 6, 7}, nil},
		"from the current revision": {6, []int64{6, 7}, nil},
		"from the compact revision": {3, []int64{3, 4, 5, 6, 7}, nil},
		"from before it":            {2, nil, ErrCompacted},
		"from a negative revision":  {-1, nil, ErrCompacted},
		"from the next revision":    {7, []int64{7}, nil},
		"from the far future":       {8, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t, Config{})
			for i := range 5 {
				mustPut(t, s, "a", strconv.Itoa(i)) // 2 to 6
			}
			mustCompact(t, s, 3)
			c, err := s.Watch([]byte("a"), nil, test.start)
			if !sameError(err, test.err) {
				t.Fatalf("got %v, want %v", err, test.err)
			}
			if err != nil {
				var compacted *CompactedError
				if !errors.As(err, &compacted) || compacted.CompactRevision != 3 {
					t.Errorf("the error does not say where history starts: %v", err)
				}
				return
			}
			if c.Start() != 6 {
				t.Errorf("the watch was made at %d", c.Start())
			}
			if history := test.start != 0 && test.start <= 6; isClosed(c.Wait()) != history {
				t.Errorf("there is something to wait for: %v, want %v", !history, history)
			}
			mustPut(t, s, "a", "last")
			if got := mustNext(t, c, 0); !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestWatchRanges(t *testing.T) {
	for _, test := range []struct {
		key, end string
		want     []string
		err      error
	}{
		{"b", "", []string{"b"}, nil},
		{"a", "c", []string{"a", "b"}, nil},
		{"b", "\x00", []string{"b", "c"}, nil},
		{"", "", nil, nil}, // the lowest key
		{"", "\x00", []string{"a", "b", "c"}, nil},
		{"", "b", []string{"a"}, nil},
		{"b", "b", nil, ErrEmptyWatchRange},
		{"b", "a", nil, ErrEmptyWatchRange},
	} {
		s := newStore(t, Config{})
		c, err := s.Watch([]byte(test.key), []byte(test.end), 0)
		if !sameError(err, test.err) {
			t.Errorf("[%q, %q): got %v, want %v", test.key, test.end, err, test.err)
		}
		if err != nil {
			continue
		}
		for _, key := range []string{"c", "b", "a"} {
			mustPut(t, s, key, "")
		}
		blocks, err := c.Next(0)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, b := range blocks {
			for _, e := range b.Events {
				got = append(got, string(e.KV.Key))
			}
		}
		slices.Sort(got)
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("[%q, %q): %s", test.key, test.end, diff)
		}
	}
}

func TestNextSkipsWhatIsOutsideTheRange(t *testing.T) {
	s := newStore(t, Config{})
	c := mustWatch(t, s, "a", "", 0)
	for _, key := range []string{"x", "a", "a", "x", "a", "x", "a"} { // 2 to 8
		mustPut(t, s, key, "")
	}
	for _, step := range []struct {
		limit    int
		want     []int64
		position int64
	}{
		{2, []int64{3, 4}, 4},
		{1, []int64{6}, 6},
		{5, []int64{8}, 8},
		{0, nil, 8},
	} {
		if got := mustNext(t, c, step.limit); !slices.Equal(got, step.want) || c.Position() != step.position {
			t.Errorf("Next(%d) = %v at position %d, want %v at %d", step.limit, got, c.Position(), step.want, step.position)
		}
		if more := c.Position() < s.Revision(); isClosed(c.Wait()) != more {
			t.Errorf("at position %d of %d there is something to wait for: %v", c.Position(), s.Revision(), more)
		}
	}
	// A change elsewhere moves the position without a block.
	mustPut(t, s, "x", "")
	if !isClosed(c.Wait()) {
		t.Error("the watcher was not woken")
	}
	if got := mustNext(t, c, 0); got != nil || c.Position() != 9 {
		t.Errorf("got %v at position %d", got, c.Position())
	}
}

func TestPositionBeforeTheFirstBlock(t *testing.T) {
	s := newStore(t, Config{})
	mustPut(t, s, "a", "")
	if got := mustWatch(t, s, "a", "", 0).Position(); got != 2 {
		t.Errorf("the position of a watch from now is %d", got)
	}
	if got := mustWatch(t, s, "a", "", 2).Position(); got != 1 {
		t.Errorf("the position of a watch from 2 is %d", got)
	}
	if got := mustWatch(t, s, "a", "", 9).Position(); got != 8 {
		t.Errorf("the position of a watch from 9 is %d", got)
	}
}

func TestCompactionEndsOnlyAnOvertakenWatch(t *testing.T) {
	s := newStore(t, Config{})
	c := mustWatch(t, s, "a", "", 0)
	caughtUp := mustWatch(t, s, "a", "", 0)
	for range 5 {
		mustPut(t, s, "a", "") // 2 to 6
	}
	mustNext(t, caughtUp, 0)
	mustNext(t, c, 1)
	mustCompact(t, s, 4)
	if isClosed(caughtUp.Wait()) {
		t.Error("the compaction woke a watch that has everything")
	}
	if got := mustNext(t, caughtUp, 0); got != nil {
		t.Errorf("the watch that had everything got %v", got)
	}
	if !isClosed(c.Wait()) {
		t.Error("the overtaken watch is not told")
	}
	var compacted *CompactedError
	if _, err := c.Next(0); !errors.As(err, &compacted) || compacted.CompactRevision != 4 {
		t.Errorf("the overtaken watch got %v", err)
	}
	wait := caughtUp.Wait()
	mustCompact(t, s, 6)
	mustPut(t, s, "a", "") // 7
	if !isClosed(wait) {
		t.Error("a watch that waited through a compaction was not woken by the put after it")
	}
	if got := mustNext(t, caughtUp, 0); !slices.Equal(got, []int64{7}) {
		t.Errorf("it got %v", got)
	}
}

func TestClosedCursor(t *testing.T) {
	s := newStore(t, Config{})
	c := mustWatch(t, s, "a", "", 0)
	mustPut(t, s, "a", "")
	c.Close()
	if _, err := c.Next(0); !errors.Is(err, ErrClosed) {
		t.Errorf("next: %v", err)
	}
}

// In epoch mode nothing is known from before the base, and a client that remembers a revision from
// beyond the next one followed another life of the store. Both must read again. apisix-mesh-agent and
// etcd-adapter keep silent instead: APISIX then never sees another change.
func TestEpochMode(t *testing.T) {
	const base = 1_790_000_000_000
	s := newStore(t, Config{BaseRevision: base, RefuseFuture: true})
	if s.Revision() != base || s.CompactRevision() != base {
		t.Errorf("revision %d, compact revision %d", s.Revision(), s.CompactRevision())
	}
	first := mustPut(t, s, "a", "1")
	if first != base+1 {
		t.Errorf("the first put is revision %d", first)
	}
	for start, want := range map[int64]int64{
		1: base, base - 1: base, base: 0, base + 1: 0, base + 2: 0, base + 3: base + 1, base + 1000: base + 1,
	} {
		c, err := s.Watch([]byte("a"), nil, start)
		if want == 0 {
			if err != nil {
				t.Errorf("watch from %d: %v", start, err)
			}
			c.Close()
			continue
		}
		var compacted *CompactedError
		if !errors.As(err, &compacted) || compacted.CompactRevision != want {
			t.Errorf("watch from %d: %v, it should be compacted at %d", start, err, want)
		}
	}
	for _, revision := range []int64{1, base - 1} {
		if _, err := s.Range([]byte("a"), nil, RangeOptions{Revision: revision}); !errors.Is(err, ErrCompacted) {
			t.Errorf("range at %d: %v", revision, err)
		}
	}
	if got := mustRange(t, s, "a", "", RangeOptions{Revision: base}); got.Count != 0 || got.Revision != base+1 {
		t.Errorf("range at the base: %+v", got)
	}
	if got := mustNext(t, mustWatch(t, s, "a", "", base), 0); !slices.Equal(got, []int64{base + 1}) {
		t.Errorf("a watch from the base gets %v", got)
	}
	if _, err := s.Compact(base); !errors.Is(err, ErrCompacted) {
		t.Errorf("compact at the base: %v", err)
	}
}

// A watch from the base of a store with nothing in it waits; it must not spin.
func TestWatchFromTheBaseOfAnEmptyStoreWaits(t *testing.T) {
	s := newStore(t, Config{BaseRevision: 1000})
	c := mustWatch(t, s, "a", "", 1000)
	if got := mustNext(t, c, 0); got != nil {
		t.Errorf("got %v", got)
	}
	if isClosed(c.Wait()) {
		t.Error("there is something to wait for")
	}
	mustPut(t, s, "a", "")
	if got := mustNext(t, c, 0); !slices.Equal(got, []int64{1001}) {
		t.Errorf("got %v", got)
	}
}

// Without RefuseFuture a watch from the future waits for its revision, as in etcd.
func TestWatchFromTheFutureWaits(t *testing.T) {
	s := newStore(t, Config{})
	c := mustWatch(t, s, "a", "", 4)
	for range 4 {
		mustPut(t, s, "a", "") // 2 to 5
	}
	if got := mustNext(t, c, 0); !slices.Equal(got, []int64{4, 5}) {
		t.Errorf("got %v", got)
	}
}
