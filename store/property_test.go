package store

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

func modelLeaseIDs() []int64 { return []int64{1, 2, 3, -7} }

func anyKey() *rapid.Generator[[]byte] {
	keys := rapid.SampledFrom([]string{"\x00", "a", "a\x00", "ab", "b", "ba", "c", "\xff"})
	return rapid.Map(keys, func(key string) []byte { return []byte(key) })
}

func anyRange() *rapid.Generator[keyRange] {
	return rapid.Custom(func(t *rapid.T) keyRange {
		r := keyRange{key: anyKey().Draw(t, "key")}
		switch rapid.IntRange(0, 3).Draw(t, "shape") {
		case 1:
			r.end = []byte{0}
		case 2:
			r.end = Prefix(r.key)
		case 3:
			r.end = anyKey().Draw(t, "end")
		}
		return r
	})
}

func anyPut() *rapid.Generator[PutOp] {
	return rapid.Custom(func(t *rapid.T) PutOp {
		op := PutOp{
			Key:         anyKey().Draw(t, "key"),
			PrevKV:      rapid.Bool().Draw(t, "prev"),
			IgnoreValue: rapid.IntRange(0, 7).Draw(t, "ignore value") == 7,
			IgnoreLease: rapid.IntRange(0, 7).Draw(t, "ignore lease") == 7,
		}
		if !op.IgnoreValue || rapid.IntRange(0, 7).Draw(t, "wrong value") == 7 {
			op.Value = []byte(rapid.SampledFrom([]string{"", "x", "y", "z"}).Draw(t, "value"))
		}
		if !op.IgnoreLease || rapid.IntRange(0, 7).Draw(t, "wrong lease") == 7 {
			op.Lease = rapid.SampledFrom(append([]int64{0, 0, 0, 0}, modelLeaseIDs()...)).Draw(t, "lease")
		}
		return op
	})
}

func anyDelete() *rapid.Generator[DeleteOp] {
	return rapid.Custom(func(t *rapid.T) DeleteOp {
		r := anyRange().Draw(t, "range")
		return DeleteOp{Key: r.key, End: r.end, PrevKV: rapid.Bool().Draw(t, "prev")}
	})
}

// anyRevision is 0, negative, or somewhere from before the compact revision to after the current one.
func anyRevision(m *model) *rapid.Generator[int64] {
	return rapid.OneOf(rapid.Just[int64](0), rapid.Int64Range(-3, -1), rapid.Int64Range(max(m.compact, m.base)-2, m.revision()+2))
}

func anyRead(m *model) *rapid.Generator[RangeOp] {
	return rapid.Custom(func(t *rapid.T) RangeOp {
		r := anyRange().Draw(t, "range")
		bound := rapid.OneOf(rapid.Just[int64](0), rapid.Just[int64](0), rapid.Int64Range(m.base, m.revision()))
		return RangeOp{Key: r.key, End: r.end, RangeOptions: RangeOptions{
			Revision:          anyRevision(m).Draw(t, "revision"),
			Limit:             rapid.Int64Range(-1, 4).Draw(t, "limit"),
			CountOnly:         rapid.IntRange(0, 5).Draw(t, "count only") == 5,
			KeysOnly:          rapid.IntRange(0, 3).Draw(t, "keys only") == 3,
			SortTarget:        SortTarget(rapid.IntRange(0, 4).Draw(t, "target")),
			SortOrder:         SortOrder(rapid.IntRange(0, 2).Draw(t, "order")),
			MinModRevision:    bound.Draw(t, "min mod"),
			MaxModRevision:    bound.Draw(t, "max mod"),
			MinCreateRevision: bound.Draw(t, "min create"),
			MaxCreateRevision: bound.Draw(t, "max create"),
		}}
	})
}

func anyCompare(m *model) *rapid.Generator[Compare] {
	return rapid.Custom(func(t *rapid.T) Compare {
		r := anyRange().Draw(t, "range")
		return Compare{
			Key: r.key, End: r.end,
			Target: CompareTarget(rapid.IntRange(0, 4).Draw(t, "target")),
			Result: CompareResult(rapid.IntRange(0, 3).Draw(t, "result")),
			Int:    rapid.OneOf(rapid.Int64Range(0, 3), rapid.Int64Range(m.base, m.revision())).Draw(t, "int"),
			Value:  []byte(rapid.SampledFrom([]string{"", "x", "y"}).Draw(t, "value")),
		}
	})
}

func anyTxn(m *model, depth int) *rapid.Generator[Txn] {
	return rapid.Custom(func(t *rapid.T) Txn {
		op := rapid.Custom(func(t *rapid.T) Op {
			switch rapid.IntRange(0, 3+min(depth, 1)).Draw(t, "op") {
			case 0:
				r := anyRead(m).Draw(t, "read")
				if rapid.IntRange(0, 3).Draw(t, "at revision") != 0 {
					r.Revision = 0
				}
				return Op{Range: &r}
			case 1:
				d := anyDelete().Draw(t, "delete")
				return Op{Delete: &d}
			case 4:
				n := anyTxn(m, depth-1).Draw(t, "nested")
				return Op{Txn: &n}
			default:
				p := anyPut().Draw(t, "put")
				return Op{Put: &p}
			}
		})
		return Txn{
			Compares: rapid.SliceOfN(anyCompare(m), 0, 2).Draw(t, "compares"),
			Success:  rapid.SliceOfN(op, 0, 3).Draw(t, "success"),
			Failure:  rapid.SliceOfN(op, 0, 3).Draw(t, "failure"),
		}
	})
}

// modelCursor is a cursor and where it should be.
type modelCursor struct {
	*Cursor
	keys keyRange
	next int64
}

func equal(t *rapid.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Fatalf("%s differs from the model (-model +store):\n%s", what, diff)
	}
}

func sameOutcome(t *rapid.T, what string, got any, err error, want any, wantErr error) {
	t.Helper()
	if !sameError(err, wantErr) {
		t.Fatalf("%s: the store's error is %v, the model's is %v", what, err, wantErr)
	}
	if wantErr == nil {
		equal(t, what, got, want)
	}
}

// Any sequence of requests gives what a naive copy-everything model gives: results, errors, history
// and what watchers see.
func TestStoreBehavesLikeTheModel(t *testing.T) { rapid.Check(t, checkAgainstModel) }

func FuzzStoreBehavesLikeTheModel(f *testing.F) { f.Fuzz(rapid.MakeFuzz(checkAgainstModel)) }

func checkAgainstModel(t *rapid.T) {
	m := newModel(rapid.SampledFrom([]int64{1, 1_790_000_000_000}).Draw(t, "base"))
	config := Config{BaseRevision: m.base, Now: func() time.Time { return m.now }}
	s, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	var cursors []*modelCursor
	lease := rapid.SampledFrom(modelLeaseIDs())

	t.Repeat(map[string]func(*rapid.T){
		"put": func(t *rapid.T) {
			op := anyPut().Draw(t, "put")
			want, wantErr := m.put(&op)
			got, err := s.Put(op)
			sameOutcome(t, "put", got, err, want, wantErr)
		},
		"delete": func(t *rapid.T) {
			op := anyDelete().Draw(t, "delete")
			want := m.delete(&op)
			got, err := s.Delete(op)
			sameOutcome(t, "delete", got, err, want, nil)
		},
		"txn": func(t *rapid.T) {
			op := anyTxn(m, 2).Draw(t, "txn")
			want, wantErr := m.txn(&op)
			got, err := s.Txn(op)
			if wantErr != nil && errors.Is(err, ErrKeyNotFound) {
				// A put after the deletion of its key is refused together with the other checks,
				// the model finds it while executing.
				return
			}
			sameOutcome(t, "txn", got, err, want, wantErr)
		},
		"range": func(t *rapid.T) {
			op := anyRead(m).Draw(t, "read")
			want, wantErr := m.rangeAt(&op)
			got, err := s.Range(op.Key, op.End, op.RangeOptions)
			sameOutcome(t, "range", got, err, want, wantErr)
		},
		"compact": func(t *rapid.T) {
			revision := anyRevision(m).Draw(t, "revision")
			wantErr := m.compactTo(revision)
			got, err := s.Compact(revision)
			sameOutcome(t, "compact", got, err, m.revision(), wantErr)
		},
		"grant": func(t *rapid.T) {
			id := lease.Draw(t, "id")
			ttl := rapid.SampledFrom([]int64{-1, 0, 2, 5, 100, 9_000_000_000, 9_000_000_001}).Draw(t, "ttl")
			wantErr := m.grant(id, ttl)
			gotID, gotTTL, err := s.Grant(id, ttl)
			sameOutcome(t, "grant", []int64{gotID, gotTTL}, err, []int64{id, max(ttl, 2)}, wantErr)
		},
		"revoke": func(t *rapid.T) {
			id := lease.Draw(t, "id")
			wantErr := m.revoke(id)
			got, err := s.Revoke(id)
			sameOutcome(t, "revoke", got, err, m.revision(), wantErr)
		},
		"keep alive": func(t *rapid.T) {
			id := lease.Draw(t, "id")
			ttl, revision := s.KeepAlive(id)
			equal(t, "keep alive", []int64{ttl, revision}, []int64{m.keepAlive(id), m.revision()})
		},
		"time passes": func(t *rapid.T) {
			m.now = m.now.Add(time.Duration(rapid.IntRange(0, 5000).Draw(t, "ms")) * time.Millisecond)
			m.expire()
			s.expireLeases()
		},
		"restore": func(t *rapid.T) {
			restored, err := Restore(config, s.Export())
			if err != nil {
				t.Fatal(err)
			}
			s = restored
			m.restore()
			resumed := cursors[:0]
			for _, c := range cursors {
				if c.next < m.compact {
					continue
				}
				if c.Cursor, err = s.Watch(c.keys.key, c.keys.end, c.next); err != nil {
					t.Fatalf("resuming a watch: %v", err)
				}
				resumed = append(resumed, c)
			}
			cursors = resumed
		},
		"watch": func(t *rapid.T) {
			r := anyRange().Draw(t, "range")
			start := anyRevision(m).Draw(t, "start")
			c, err := s.Watch(r.key, r.end, start)
			switch {
			case len(r.end) > 0 && string(r.end) != "\x00" && string(r.key) >= string(r.end):
				sameOutcome(t, "watch", nil, err, nil, ErrEmptyWatchRange)
			case start < 0 || start > 0 && start < m.compact:
				sameOutcome(t, "watch", nil, err, nil, ErrCompacted)
			case err != nil:
				t.Fatalf("watch: %v", err)
			default:
				if start == 0 {
					start = m.revision() + 1
				}
				equal(t, "start of a cursor", c.Start(), m.revision())
				cursors = append(cursors, &modelCursor{Cursor: c, keys: r, next: start})
			}
		},
		"next": func(t *rapid.T) {
			if len(cursors) == 0 {
				t.Skip("no cursor")
			}
			i := rapid.IntRange(0, len(cursors)-1).Draw(t, "cursor")
			c := cursors[i]
			limit := rapid.IntRange(0, 3).Draw(t, "limit")
			blocks, err := c.Next(limit)
			if c.next < m.compact {
				var compacted *CompactedError
				if !errors.As(err, &compacted) || compacted.CompactRevision != m.compact {
					t.Fatalf("next of an overtaken cursor: %v", err)
				}
				c.Close()
				cursors = slices.Delete(cursors, i, i+1)
				return
			}
			if err != nil {
				t.Fatalf("next: %v", err)
			}
			wantRevisions, wantEvents := m.blocks(c.keys.key, c.keys.end, c.next, limit)
			var revisions []int64
			var events [][]Event
			for _, b := range blocks {
				revisions = append(revisions, b.Revision)
				events = append(events, b.Select(c.keys.key, c.keys.end))
			}
			equal(t, "revisions of a watch", revisions, wantRevisions)
			equal(t, "events of a watch", events, wantEvents)
			if limit > 0 && len(blocks) == limit {
				c.next = max(c.next, revisions[limit-1]+1)
			} else {
				c.next = max(c.next, m.revision()+1)
			}
			equal(t, "position", c.Position(), c.next-1)
			equal(t, "something to wait for", isClosed(c.Wait()), c.next <= m.revision())
		},
		"": func(t *rapid.T) {
			equal(t, "revision", s.Revision(), m.revision())
			equal(t, "compact revision", s.CompactRevision(), m.compact)
			equal(t, "leases", s.Leases(), m.leaseOrder())
			for _, id := range modelLeaseIDs() {
				status, ok := s.TimeToLive(id, true)
				l := m.leases[id]
				equal(t, "lease exists", ok, l != nil)
				if l == nil {
					continue
				}
				want := LeaseStatus{ID: id, TTL: int64(l.expiry.Sub(m.now).Seconds()), GrantedTTL: l.ttl}
				for _, k := range m.leaseKeys(id) {
					want.Keys = append(want.Keys, []byte(k))
				}
				equal(t, "lease", status, want)
			}
			at := anyRevision(m).Draw(t, "history at")
			want, wantErr := m.history(at)
			got, err := s.History(at)
			sameOutcome(t, "history", got.Changes, err, want, wantErr)
			stats := s.Stats()
			equal(t, "keys", stats.Keys, int64(len(m.at(m.revision()))))
			equal(t, "bytes", stats.Bytes, m.bytes())
			equal(t, "watchers", stats.Watchers, int64(len(cursors)))
			equal(t, "leases", stats.Leases, int64(len(m.leases)))
		},
	})
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
