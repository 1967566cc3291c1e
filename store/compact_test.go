package store

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestCompact(t *testing.T) {
	s := newStore(t, Config{})
	if current, err := s.Compact(0); err != nil || current != 1 || s.CompactRevision() != 0 {
		t.Errorf("compact(0) of a fresh store: %d, %v", current, err)
	}
	if _, err := s.Compact(0); !errors.Is(err, ErrCompacted) {
		t.Errorf("compact(0) again: %v", err)
	}
	mustPut(t, s, "a", "1")   // 2
	mustPut(t, s, "a", "2")   // 3
	mustPut(t, s, "b", "1")   // 4
	mustDelete(t, s, "b", "") // 5
	mustPut(t, s, "a", "3")   // 6
	if _, err := s.Compact(7); !errors.Is(err, ErrFutureRevision) {
		t.Errorf("compact of a future revision: %v", err)
	}
	if current, err := s.Compact(5); err != nil || current != 6 {
		t.Errorf("compact(5): %d, %v", current, err)
	}
	if got := mustRange(t, s, "a", "", RangeOptions{Revision: 5}).KVs; string(got[0].Value) != "2" {
		t.Errorf("a@5 is %s", got[0].Value)
	}
	if got := mustRange(t, s, "b", "", RangeOptions{Revision: 5}).KVs; got != nil {
		t.Errorf("b@5 is %s", got[0].Value)
	}
	mustCompact(t, s, 6) // the current revision may be compacted
	if _, err := s.Range([]byte("a"), nil, RangeOptions{Revision: 5}); !errors.Is(err, ErrCompacted) {
		t.Errorf("range below the compact revision: %v", err)
	}
	if got := mustNext(t, mustWatch(t, s, "\x00", "\x00", 6), 0); !slices.Equal(got, []int64{6}) {
		t.Errorf("a watch from the compact revision gets %v", got)
	}
	if n := s.index.get([]byte("b")); n != nil {
		t.Error("a key that was deleted before the compact revision is still in the index")
	}
}

// etcd reads prev_kv at the revision before the event, which a compaction takes away.
func TestPreviousValueIsForgottenAtTheCompactRevision(t *testing.T) {
	s := newStore(t, Config{})
	mustPut(t, s, "a", "1")
	mustPut(t, s, "a", "2")
	mustPut(t, s, "a", "3")
	mustCompact(t, s, 3)
	blocks, err := mustWatch(t, s, "a", "", 3).Next(0)
	if err != nil || len(blocks) != 2 {
		t.Fatal(blocks, err)
	}
	if prev := blocks[0].Events[0].Prev; prev != nil {
		t.Errorf("the value before the compact revision is %s", prev.Value)
	}
	if prev := blocks[1].Events[0].Prev; prev == nil || string(prev.Value) != "2" {
		t.Errorf("the value before the revision after it is %v", prev)
	}
}

// What one compaction keeps, because it was current then, the next one frees.
func TestCompactionFreesWhatAnEarlierOneKept(t *testing.T) {
	s := newStore(t, Config{})
	var sizes []int64
	for range 5 {
		mustPut(t, s, "a", "value")
		mustCompact(t, s, s.Revision())
		sizes = append(sizes, s.Stats().Bytes)
	}
	if slices.Max(sizes) != slices.Min(sizes) {
		t.Errorf("the store's size went through %v", sizes)
	}
	if n := len(*s.index.get([]byte("a")).versions.Load()); n != 1 {
		t.Errorf("%d versions are left", n)
	}
}

// A reader that has its snapshot finds everything in it, whatever is compacted meanwhile.
func TestCompactionDoesNotDisturbARunningRead(t *testing.T) {
	s := newStore(t, Config{})
	for i := range 10 {
		mustPut(t, s, strconv.Itoa(i), "old")
	}
	snap := s.current.Load()
	for i := range 10 {
		mustPut(t, s, strconv.Itoa(i), "new")
	}
	mustDelete(t, s, "0", "5")
	mustCompact(t, s, s.Revision())
	mustPut(t, s, "0", "newer")
	got := (&RangeOp{Key: []byte("\x00"), End: []byte("\x00")}).read(snap.index, snap.revision)
	if got.Count != 10 {
		t.Errorf("%d keys", got.Count)
	}
	for _, kv := range got.KVs {
		if string(kv.Value) != "old" {
			t.Errorf("%s is %s", kv.Key, kv.Value)
		}
	}
}

func TestAutomaticCompaction(t *testing.T) {
	for name, test := range map[string]struct {
		config Config
		// puts is how many are made, one per second; the last one is idle seconds ago.
		puts int
		idle time.Duration
		want int64 // compact revision; put n is revision n+1
	}{
		"off":                                   {Config{}, 100, time.Hour, -1},
		"fewer than to keep":                    {Config{KeepRevisions: 200}, 100, time.Hour, -1},
		"exactly what is to keep":               {Config{KeepRevisions: 100}, 100, time.Hour, -1},
		"the last ten":                          {Config{KeepRevisions: 10}, 100, 0, 92},
		"the newest event is kept":              {Config{KeepRevisions: 1}, 100, time.Hour, 101},
		"everything is young":                   {Config{KeepRevisions: 10, KeepFor: time.Hour}, 100, 0, -1},
		"the last ten are not enough":           {Config{KeepRevisions: 10, KeepFor: 29500 * time.Millisecond}, 100, 0, 71},
		"all is old, the last ten are kept":     {Config{KeepRevisions: 10, KeepFor: time.Minute}, 100, time.Hour, 92},
		"with an epoch nothing is made up":      {Config{KeepRevisions: 200, BaseRevision: 5000}, 100, time.Hour, 5000},
		"with an epoch the last ten, of course": {Config{KeepRevisions: 10, BaseRevision: 5000}, 100, time.Hour, 5091},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			test.config.Now = func() time.Time { return now }
			s := newStore(t, test.config)
			for i := range test.puts {
				now = now.Add(time.Second)
				mustPut(t, s, strconv.Itoa(i), "v")
			}
			now = now.Add(test.idle)
			for range 2 { // the second time there is nothing to do
				s.compactOldHistory()
				if got := s.CompactRevision(); got != test.want {
					t.Fatalf("compacted up to %d, want %d", got, test.want)
				}
			}
			all := mustRange(t, s, "\x00", "\x00", RangeOptions{CountOnly: true})
			if all.Count != int64(test.puts) {
				t.Errorf("%d keys are left", all.Count)
			}
			if test.want > 0 && test.config.BaseRevision == 0 {
				if got := mustNext(t, mustWatch(t, s, "\x00", "\x00", test.want), 1); !cmp.Equal(got, []int64{test.want}) {
					t.Errorf("a watch from the compact revision begins with %v", got)
				}
			}
		})
	}
}

func TestHistoryIsBoundedUnderEndlessUpdates(t *testing.T) {
	s := newStore(t, Config{KeepRevisions: 100})
	var most int64
	for i := range 20_000 {
		mustPut(t, s, strconv.Itoa(i%10), "value")
		if i%7 == 0 {
			mustDelete(t, s, strconv.Itoa(i%10), "")
		}
		if i%100 == 0 {
			s.compactOldHistory()
			most = max(most, s.Stats().Bytes)
		}
	}
	if limit := int64(100_000); most > limit {
		t.Errorf("the store grew to %d bytes, more than %d", most, limit)
	}
}

func TestRunCompactsAndExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, Config{KeepRevisions: 2, KeepFor: time.Minute})
		ctx, stop := context.WithCancel(t.Context())
		stopped := make(chan error)
		go func() { stopped <- s.Run(ctx) }()

		if _, _, err := s.Grant(1, 10); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Put(PutOp{Key: []byte("leased"), Lease: 1}); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			mustPut(t, s, "a", "v")
		}
		c := mustWatch(t, s, "leased", "", 0)
		started := time.Now()
		<-c.Wait()
		if took := time.Since(started); took < 10*time.Second || took > 11*time.Second {
			t.Errorf("a lease of 10 s ended after %v", took)
		}
		if got := mustNext(t, c, 0); !slices.Equal(got, []int64{13}) {
			t.Errorf("its end is revision %v", got)
		}
		if got := s.CompactRevision(); got != -1 {
			t.Errorf("after %v history is compacted up to %d", time.Since(started), got)
		}
		<-time.NewTimer(time.Minute).C // everything is older than that now
		synctest.Wait()
		if got := s.CompactRevision(); got != 12 {
			t.Errorf("after %v history is compacted up to %d", time.Since(started), got)
		}
		stop()
		if err := <-stopped; err != nil {
			t.Errorf("run: %v", err)
		}
	})
}

func TestRunEndsWithTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, Config{})
		stopped := make(chan error)
		go func() { stopped <- s.Run(t.Context()) }()
		synctest.Wait()
		s.Close()
		if err := <-stopped; err != nil {
			t.Errorf("run: %v", err)
		}
	})
}
