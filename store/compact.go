package store

import "slices"

// Compact forgets what is older than revision: reads and watches from below it fail from now on, those
// at revision itself still work. It returns the current revision.
//
// Errors are *CompactedError if revision is not above what was compacted before, ErrFutureRevision and
// ErrClosed.
func (s *Store) Compact(revision int64) (current int64, err error) {
	if err := s.lock(); err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	snap := s.current.Load()
	switch {
	case revision <= snap.compact:
		return 0, &CompactedError{CompactRevision: snap.compact}
	case revision > snap.revision:
		return 0, ErrFutureRevision
	}
	s.compact(revision)
	return snap.revision, nil
}

// compactOldHistory compacts as Config.KeepRevisions and Config.KeepFor say.
func (s *Store) compactOldHistory() {
	if s.config.KeepRevisions == 0 || s.lock() != nil {
		return
	}
	defer s.mu.Unlock()
	snap := s.current.Load()
	target := snap.revision - s.config.KeepRevisions + 1
	if s.config.KeepFor > 0 {
		horizon := s.config.Now().Add(-s.config.KeepFor)
		for _, b := range snap.log {
			if b.Revision > target {
				break
			}
			if b.at.After(horizon) {
				// What this block replaced was current until then, so it is young too.
				target = b.Revision - 1
				break
			}
		}
	}
	if len(snap.log) > 0 && target > snap.log[0].Revision {
		s.compact(target)
	}
}

// compact drops all history before revision. The caller holds mu.
func (s *Store) compact(revision int64) {
	next := *s.current.Load()
	next.compact = revision
	now := s.config.Now()
	s.counters.compactedAt.Store(&now)
	changed := false
	dropped := 0
	for _, b := range next.log {
		if b.Revision > revision {
			break
		}
		if b.Revision < revision {
			dropped++
		}
		for _, e := range b.Events {
			if c := s.index.get(e.KV.Key); c != nil {
				freed := s.compactChain(c, revision)
				next.bytes -= freed
				changed = changed || freed > 0
			}
		}
	}
	// A new array, because the old one is shared with readers and keeps the dropped blocks alive.
	next.log = slices.Clone(next.log[dropped:])
	next.bytes -= int64(dropped) * blockSize
	if len(next.log) > 0 && next.log[0].Revision == revision {
		next.log[0] = next.log[0].compacted()
	}
	if changed {
		next.index = s.index.clone()
	}
	// No cursor is woken: one that waits has everything up to the current revision, so a compaction
	// does not overtake it, and next keeps the channel that it waits on.
	s.current.Store(&next)
}

// compactChain forgets the versions of a key that nobody at revision or later can see, and the key
// when nothing is left. As in etcd a tombstone at revision itself stays. It returns the bytes freed.
func (s *Store) compactChain(c *chain, revision int64) (freed int64) {
	versions := *c.versions.Load()
	first := newest(versions, revision)
	if first < 0 {
		return 0
	}
	if versions[first].deleted && versions[first].kv.ModRevision < revision {
		first++
	}
	if first == 0 {
		return 0
	}
	for _, v := range versions[:first] {
		freed += versionSize + int64(len(v.kv.Value))
	}
	s.counters.compacted.Add(int64(first))
	if first == len(versions) {
		s.index.remove(c.key)
		return freed + chainSize + int64(len(c.key))
	}
	s.index.set(newChain(c.key, slices.Clone(versions[first:])...))
	return freed
}
