package store

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/google/btree"
)

// etcd's limits, in seconds and per look for expired leases. The minimum is one and a half election
// timeouts of an etcd with default settings, rounded up.
const (
	minLeaseTTL   = 2
	maxLeaseTTL   = 9_000_000_000
	expiriesAtOne = 500
)

// Rough sizes of a lease and of a key attached to it, beside the bytes of the key.
const (
	leaseSize    = 256
	attachedSize = 64
)

// LeaseStatus describes a lease. TTLs are in seconds.
type LeaseStatus struct {
	ID         int64
	TTL        int64    // remaining, rounded down
	GrantedTTL int64    // what a keep-alive restores
	Keys       [][]byte // attached keys in key order, if they were asked for
}

type lease struct {
	id     int64
	ttl    int64 // seconds
	expiry time.Time
	keys   map[string]struct{}
}

// leases is every lease by id and by expiry. The writer's lock guards it.
type leases struct {
	byID     map[int64]*lease
	byExpiry *btree.BTreeG[*lease]
	bytes    atomic.Int64 // may be read without the lock
}

func newLeases() *leases {
	return &leases{
		byID: make(map[int64]*lease),
		byExpiry: btree.NewG(indexDegree, func(a, b *lease) bool {
			return cmp.Or(a.expiry.Compare(b.expiry), cmp.Compare(a.id, b.id)) < 0
		}),
	}
}

func (l *leases) exists(id int64) bool { return l.byID[id] != nil }

func (l *leases) add(le *lease) {
	l.byID[le.id] = le
	l.bytes.Add(leaseSize)
	l.byExpiry.ReplaceOrInsert(le)
}

func (l *leases) remove(le *lease) {
	delete(l.byID, le.id)
	l.bytes.Add(-leaseSize)
	l.byExpiry.Delete(le)
}

func (l *leases) attach(kv *KeyValue) {
	if le := l.byID[kv.Lease]; le != nil {
		le.keys[string(kv.Key)] = struct{}{}
		l.bytes.Add(attachedSize + int64(len(kv.Key)))
	}
}

func (l *leases) detach(kv *KeyValue) {
	if le := l.byID[kv.Lease]; le != nil {
		delete(le.keys, string(kv.Key))
		l.bytes.Add(-attachedSize - int64(len(kv.Key)))
	}
}

// Grant creates a lease that lives for ttl seconds, at least 2, unless it is kept alive. With id 0 the
// store picks a positive one. It returns the lease's id and TTL.
//
// Errors are ErrLeaseTTL, ErrLeaseExists and ErrClosed.
func (s *Store) Grant(id, ttl int64) (grantedID, grantedTTL int64, err error) {
	if ttl > maxLeaseTTL {
		return 0, 0, fmt.Errorf("grant lease %d for %d s: %w", id, ttl, ErrLeaseTTL)
	}
	if err := s.lock(); err != nil {
		return 0, 0, err
	}
	defer s.mu.Unlock()
	if s.leases.exists(id) {
		return 0, 0, fmt.Errorf("grant lease %d: %w", id, ErrLeaseExists)
	}
	for id == 0 || s.leases.exists(id) {
		id = rand.Int64() //nolint:gosec // an id names a lease and gives no access to it
	}
	le := &lease{id: id, ttl: max(ttl, minLeaseTTL), keys: make(map[string]struct{})}
	le.expiry = s.leaseExpiry(le)
	s.leases.add(le)
	s.leaseNum.Add(1)
	s.counters.leasesGranted.Add(1)
	return le.id, le.ttl, nil
}

func (s *Store) leaseExpiry(le *lease) time.Time {
	return s.config.Now().Add(time.Duration(le.ttl) * time.Second)
}

// Revoke ends a lease and deletes the keys attached to it, in key order and as one revision. It
// returns the revision after that.
//
// Errors are ErrLeaseNotFound and ErrClosed.
func (s *Store) Revoke(id int64) (revision int64, err error) {
	if err := s.lock(); err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	le := s.leases.byID[id]
	if le == nil {
		return 0, fmt.Errorf("revoke lease %d: %w", id, ErrLeaseNotFound)
	}
	return s.revoke(le), nil
}

// revoke is Revoke with mu held.
func (s *Store) revoke(le *lease) (revision int64) {
	w := s.begin()
	s.counters.leasesRevoked.Add(1)
	s.counters.deletes.Add(int64(len(le.keys)))
	for _, key := range slices.Sorted(maps.Keys(le.keys)) {
		c := s.index.get([]byte(key))
		w.deleteKey(c, c.at(w.revision))
	}
	s.leases.remove(le)
	s.leaseNum.Add(-1)
	w.commit()
	return w.visible()
}

// KeepAlive gives a lease its full TTL again and returns that, in seconds, with the revision of the
// store at the time. The TTL of an unknown or expired lease is 0.
func (s *Store) KeepAlive(id int64) (ttl, revision int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	revision = s.Revision()
	le := s.leases.byID[id]
	if le == nil || s.expired(le) {
		return 0, revision
	}
	s.leases.byExpiry.Delete(le)
	le.expiry = s.leaseExpiry(le)
	s.leases.byExpiry.ReplaceOrInsert(le)
	s.counters.leasesRenewed.Add(1)
	return le.ttl, revision
}

func (s *Store) expired(le *lease) bool { return !s.config.Now().Before(le.expiry) }

// TimeToLive describes a lease, and reports false if there is none with that id.
func (s *Store) TimeToLive(id int64, withKeys bool) (LeaseStatus, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	le := s.leases.byID[id]
	if le == nil {
		return LeaseStatus{}, false
	}
	remaining := int64(le.expiry.Sub(s.config.Now()) / time.Second)
	status := LeaseStatus{ID: id, TTL: max(remaining, 0), GrantedTTL: le.ttl}
	if withKeys {
		for _, key := range slices.Sorted(maps.Keys(le.keys)) {
			status.Keys = append(status.Keys, []byte(key))
		}
	}
	return status, true
}

// Leases returns the ids of all leases, the one that expires first in front.
func (s *Store) Leases() []int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := make([]int64, 0, len(s.leases.byID))
	s.leases.byExpiry.Ascend(func(le *lease) bool {
		ids = append(ids, le.id)
		return true
	})
	return ids
}

// expireLeases revokes leases whose time is up. Each takes the lock on its own, so that a crowd of
// them does not keep writers waiting.
func (s *Store) expireLeases() {
	for range expiriesAtOne {
		if !s.expireLease() {
			return
		}
	}
}

func (s *Store) expireLease() bool {
	if s.lock() != nil {
		return false
	}
	defer s.mu.Unlock()
	le, ok := s.leases.byExpiry.Min()
	if !ok || !s.expired(le) {
		return false
	}
	s.counters.leasesExpired.Add(1)
	s.revoke(le)
	return true
}
