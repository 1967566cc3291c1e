package store

import (
	"bytes"
	"fmt"
)

// Cursor is a watcher's place in the log: it delivers the blocks that touch its range, in order, each
// once and without a gap. The store does not know its cursors; one that is read slowly or never costs
// nobody anything, until compaction overtakes it. A cursor is used by one goroutine.
type Cursor struct {
	store     *Store
	keys      keyRange
	start     int64
	next      int64         // the first revision not looked at
	something chan struct{} // what Wait returns
	closed    bool
}

// Watch returns a cursor over the changes of [key, end) from revision start on, or from after the
// current revision if start is 0. An empty key means the lowest one. A start in the future is waited
// for, unless Config.RefuseFuture is set.
//
// Errors are ErrEmptyWatchRange, ErrClosed and *CompactedError, also for a negative start.
func (s *Store) Watch(key, end []byte, start int64) (*Cursor, error) {
	keys := keyRange{key: bytes.Clone(key), end: bytes.Clone(end)}
	if len(key) == 0 {
		keys.key = []byte{0}
	}
	if !keys.single() && !keys.open() && bytes.Compare(keys.key, keys.end) >= 0 {
		return nil, fmt.Errorf("watch [%q, %q): %w", keys.key, keys.end, ErrEmptyWatchRange)
	}
	snap := s.current.Load()
	switch {
	case snap.closed:
		return nil, ErrClosed
	case start < 0, start > 0 && start < snap.compact:
		return nil, &CompactedError{CompactRevision: snap.compact}
	case s.config.RefuseFuture && start > snap.revision+1:
		return nil, &CompactedError{CompactRevision: snap.revision}
	case start == 0:
		start = snap.revision + 1
	}
	c := &Cursor{store: s, keys: keys, start: snap.revision, next: start}
	c.waitFor(snap)
	s.watchers.Add(1)
	return c, nil
}

// waitFor sets what Wait returns after snap has been looked at. A cursor does not hold on to the
// snapshot itself, which would keep old history alive.
func (c *Cursor) waitFor(snap *snapshot) {
	if c.next > snap.revision {
		c.something = snap.changed
	} else {
		c.something = c.store.ready
	}
}

// Start returns the store's revision when the cursor was made.
func (c *Cursor) Start() int64 { return c.start }

// Position returns the revision up to which Next has returned every change of the range. Before the
// first block it is the one before the revision that the watch starts at.
func (c *Cursor) Position() int64 { return c.next - 1 }

// Next returns the blocks that come next, at most maxRevisions of them or all there are if it is not
// positive. It does not wait: no blocks means there is nothing new. Blocks hold all events of their
// revision; Select those of the range. The result must not be modified.
//
// Errors are *CompactedError when history that the cursor has not delivered is gone, and ErrClosed.
func (c *Cursor) Next(maxRevisions int) ([]*Block, error) {
	snap := c.store.current.Load()
	switch {
	case c.closed || snap.closed:
		return nil, ErrClosed
	case c.next < snap.compact:
		return nil, &CompactedError{CompactRevision: snap.compact}
	}
	blocks := c.collect(snap, maxRevisions)
	c.waitFor(snap)
	return blocks, nil
}

// collect advances the cursor in snap. A run of blocks that all match is returned as a part of the log
// itself; as most watchers see every revision, they allocate nothing.
func (c *Cursor) collect(snap *snapshot, maxRevisions int) []*Block {
	if c.next > snap.revision {
		return nil
	}
	// The log ends at snap.revision. It starts above next where next is a store's first revision,
	// which nothing made.
	log := snap.log[max(int64(len(snap.log))-(snap.revision+1-c.next), 0):]
	var blocks []*Block
	adjacent := 0 // position in log after the run in blocks, as long as it is one
	copied := false
	for i, b := range log {
		if maxRevisions > 0 && len(blocks) == maxRevisions {
			c.next = b.Revision
			return blocks
		}
		if _, some := b.within(c.keys); !some {
			continue
		}
		switch {
		case len(blocks) == 0:
			blocks = log[i : i+1 : i+1]
		case !copied && adjacent == i:
			blocks = log[i-len(blocks) : i+1 : i+1]
		default:
			blocks = append(blocks, b) // the capacity above makes the first append copy
			copied = true
		}
		adjacent = i + 1
	}
	c.next = snap.revision + 1
	return blocks
}

// Wait returns a channel that is closed when Next may have something to say: after a commit or the
// store's end. It is closed already if the last Next left something behind, which is also the only
// cursor that a compaction can overtake. The channel is good until the next call of Next.
func (c *Cursor) Wait() <-chan struct{} { return c.something }

// Close ends the cursor. Next returns ErrClosed from then on.
func (c *Cursor) Close() {
	if !c.closed {
		c.closed = true
		c.store.watchers.Add(-1)
	}
}
