package store

import "errors"

// Suspension is a store whose writers wait, so that another store can go on where it stopped (Adopt). It
// ends with Resume or Seal.
type Suspension struct {
	// State is what the store holds.
	State State
	store *Store
}

// Suspend makes writers wait until the Suspension ends. Reads and watches go on.
func (s *Store) Suspend() *Suspension {
	s.mu.Lock()
	return &Suspension{State: s.export(), store: s}
}

// Resume lets writers go on, as if nothing had been.
func (u *Suspension) Resume() { u.store.mu.Unlock() }

// Seal ends the store for writers, those that wait included: they get ErrClosed, and leases expire no
// more. What it holds can still be read and watched: unlike with Close, cursors wait for what will
// never come.
func (u *Suspension) Seal() {
	u.store.sealed = true
	u.store.mu.Unlock()
}

// Adopt makes a store that nobody has used yet go on with the state of another one: its revisions, its
// history and its leases, which get their full TTL. BaseRevision does not count. A state that Restore
// would refuse is refused, and leaves the store unusable.
func (s *Store) Adopt(state State) error {
	before := s.current.Load()
	if before.revision != s.config.BaseRevision || before.keys > 0 {
		return errors.New("store: adopting: the store has been written to")
	}
	r := &restoration{store: s, now: s.config.Now()}
	r.next.revision = max(state.Revision, state.CompactRevision, 1)
	r.next.compact = max(state.CompactRevision, -1)
	r.until = r.next.revision
	return r.restore(state)
}
