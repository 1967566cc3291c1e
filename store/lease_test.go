package store

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// clock is a time that passes when a test says so.
type clock struct{ now time.Time }

func newClock() *clock { return &clock{time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)} }

func (c *clock) pass(d time.Duration) { c.now = c.now.Add(d) }

func newLeaseStore(t *testing.T) (*Store, *clock) {
	t.Helper()
	c := newClock()
	return newStore(t, Config{Now: func() time.Time { return c.now }}), c
}

func mustGrant(t *testing.T, s *Store, id, ttl int64) {
	t.Helper()
	if _, _, err := s.Grant(id, ttl); err != nil {
		t.Fatal(err)
	}
}

func mustAttach(t *testing.T, s *Store, id int64, keys ...string) {
	t.Helper()
	for _, key := range keys {
		if _, err := s.Put(PutOp{Key: []byte(key), Lease: id}); err != nil {
			t.Fatal(err)
		}
	}
}

func attached(s *Store, id int64) []string {
	status, _ := s.TimeToLive(id, true)
	var keys []string
	for _, key := range status.Keys {
		keys = append(keys, string(key))
	}
	return keys
}

func TestGrant(t *testing.T) {
	s, _ := newLeaseStore(t)
	for name, test := range map[string]struct {
		id, ttl, want int64
		err           error
	}{
		"given id":              {1, 60, 60, nil},
		"negative id":           {-5, 60, 60, nil},
		"minimum":               {2, 1, 2, nil},
		"zero":                  {3, 0, 2, nil},
		"negative":              {4, -60, 2, nil},
		"maximum":               {5, 9_000_000_000, 9_000_000_000, nil},
		"more than the limit":   {6, 9_000_000_001, 0, ErrLeaseTTL},
		"limit before conflict": {100, 9_000_000_001, 0, ErrLeaseTTL},
		"existing":              {100, 60, 0, ErrLeaseExists},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := newLeaseStore(t)
			mustGrant(t, s, 100, 10)
			id, ttl, err := s.Grant(test.id, test.ttl)
			if !sameError(err, test.err) {
				t.Fatalf("got %v, want %v", err, test.err)
			}
			if err == nil && (id != test.id || ttl != test.want) {
				t.Errorf("lease %d of %d s", id, ttl)
			}
		})
	}
	seen := map[int64]bool{}
	for range 100 {
		id, _, err := s.Grant(0, 60)
		if err != nil || id <= 0 || seen[id] {
			t.Fatalf("the store picked the id %d, %v", id, err)
		}
		seen[id] = true
	}
	if s.Revision() != 1 {
		t.Error("a grant made a revision")
	}
}

func TestRevokeDeletesAttachedKeysInOneRevision(t *testing.T) {
	s, _ := newLeaseStore(t)
	mustGrant(t, s, 1, 60)
	mustAttach(t, s, 1, "c", "a", "b") // 2 to 4
	mustPut(t, s, "other", "")         // 5
	revision, err := s.Revoke(1)
	if err != nil || revision != 6 {
		t.Errorf("revoked at %d, %v", revision, err)
	}
	blocks, err := mustWatch(t, s, "\x00", "\x00", 6).Next(0)
	if err != nil || len(blocks) != 1 {
		t.Fatal(blocks, err)
	}
	if got := selected(blocks[0].Events); got != "a b c" {
		t.Errorf("deleted %q", got)
	}
	for _, e := range blocks[0].Events {
		if !e.Delete || e.Prev.Lease != 1 || e.KV.Lease != 0 {
			t.Errorf("%s: %+v", e.KV.Key, e)
		}
	}
	if _, err := s.Revoke(1); !sameError(err, ErrLeaseNotFound) {
		t.Errorf("revoke of an unknown lease: %v", err)
	}
	mustGrant(t, s, 1, 60)
	if revision, err := s.Revoke(1); err != nil || revision != 6 {
		t.Errorf("revoke of a lease without keys: revision %d, %v", revision, err)
	}
}

func TestAttachment(t *testing.T) {
	s, _ := newLeaseStore(t)
	mustGrant(t, s, 1, 60)
	mustGrant(t, s, 2, 60)
	mustAttach(t, s, 1, "replaced", "detached", "kept", "deleted", "same")
	mustAttach(t, s, 2, "replaced")
	mustAttach(t, s, 1, "same")
	mustPut(t, s, "detached", "")
	if _, err := s.Put(PutOp{Key: []byte("kept"), IgnoreLease: true}); err != nil {
		t.Fatal(err)
	}
	mustDelete(t, s, "deleted", "")
	if diff := cmp.Diff([]string{"kept", "same"}, attached(s, 1)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"replaced"}, attached(s, 2)); diff != "" {
		t.Error(diff)
	}
}

func TestExpiry(t *testing.T) {
	s, clock := newLeaseStore(t)
	mustGrant(t, s, 1, 10)
	mustGrant(t, s, 2, 5)
	mustGrant(t, s, 3, 20)
	mustAttach(t, s, 1, "one")
	mustAttach(t, s, 2, "two")
	mustAttach(t, s, 3, "three")
	if got := s.Leases(); !slices.Equal(got, []int64{2, 1, 3}) {
		t.Errorf("leases %v are not in the order of their expiry", got)
	}

	clock.pass(5*time.Second - 1)
	s.expireLeases()
	if status, ok := s.TimeToLive(2, false); !ok || status.TTL != 0 || status.GrantedTTL != 5 {
		t.Errorf("just before its end: %+v, %v", status, ok)
	}
	if ttl, revision := s.KeepAlive(1); ttl != 10 || revision != 4 {
		t.Errorf("keep alive: TTL %d at revision %d", ttl, revision)
	}

	clock.pass(1)
	if ttl, _ := s.KeepAlive(2); ttl != 0 {
		t.Errorf("a lease whose time is up is kept alive for %d s", ttl)
	}
	s.expireLeases()
	if _, ok := s.TimeToLive(2, false); ok {
		t.Error("the lease is there after its end")
	}
	if got := keysOf(mustRange(t, s, "\x00", "\x00", RangeOptions{}).KVs); !slices.Equal(got, []string{"one", "three"}) {
		t.Errorf("keys %v are left", got)
	}

	clock.pass(6500 * time.Millisecond) // 11.5 s in all, but lease 1 was renewed at 5 s
	s.expireLeases()
	if status, ok := s.TimeToLive(1, false); !ok || status.TTL != 3 {
		t.Errorf("after a renewal: %+v, %v", status, ok)
	}
	if ttl, _ := s.KeepAlive(99); ttl != 0 {
		t.Errorf("an unknown lease has a TTL of %d", ttl)
	}
	if _, ok := s.TimeToLive(99, true); ok {
		t.Error("an unknown lease has a status")
	}
}

func TestExpiryOfACrowdIsSpread(t *testing.T) {
	s, clock := newLeaseStore(t)
	for id := int64(1); id <= 1200; id++ {
		mustGrant(t, s, id, 10)
	}
	clock.pass(time.Minute)
	for _, want := range []int64{700, 200, 0} {
		s.expireLeases()
		if got := s.Stats().Leases; got != want {
			t.Errorf("%d leases are left, want %d", got, want)
		}
	}
}
