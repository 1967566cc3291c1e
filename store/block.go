package store

import (
	"bytes"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Block is everything that one revision changed, in the order in which it happened. It is immutable
// and shared by all watchers. Only a Store makes blocks.
type Block struct {
	Revision int64
	Events   []Event

	lowest, highest []byte // the bounds of the keys
	at              time.Time
	encodings       *encodings // those of the store

	orderOnce sync.Once
	order     []int32 // positions of Events ordered by key; see keyOrder

	used   atomic.Bool // an encoding was asked for since the last sweep
	mu     sync.Mutex
	memory map[any]func() []byte // guarded by mu
}

func newBlock(revision int64, events []Event, at time.Time, encodings *encodings) *Block {
	b := &Block{Revision: revision, Events: events, at: at, encodings: encodings}
	b.lowest, b.highest = events[0].KV.Key, events[0].KV.Key
	for _, e := range events[1:] {
		if bytes.Compare(e.KV.Key, b.lowest) < 0 {
			b.lowest = e.KV.Key
		}
		if bytes.Compare(e.KV.Key, b.highest) > 0 {
			b.highest = e.KV.Key
		}
	}
	return b
}

// compacted returns the block as it is after a compaction at its revision: what was there before is no
// longer known, and of several changes of one key only the last is left.
func (b *Block) compacted() *Block {
	last := make(map[string]int, len(b.Events))
	for i, e := range b.Events {
		last[string(e.KV.Key)] = i
	}
	events := make([]Event, 0, len(last))
	for i, e := range b.Events {
		if last[string(e.KV.Key)] == i {
			e.Prev = nil
			events = append(events, e)
		}
	}
	return newBlock(b.Revision, events, b.at, b.encodings)
}

// keyOrder returns the positions of Events ordered by key. It is made when it is first needed.
func (b *Block) keyOrder() []int32 {
	b.orderOnce.Do(func() {
		b.order = make([]int32, len(b.Events))
		for i := range b.order {
			b.order[i] = int32(i)
		}
		slices.SortFunc(b.order, func(i, j int32) int {
			return bytes.Compare(b.Events[i].KV.Key, b.Events[j].KV.Key)
		})
	})
	return b.order
}

// within tells whether all, or at least some, of the block's events are in the range. A revision can
// hold tens of thousands of events and have thousands of watchers, so no watcher walks all of them.
func (b *Block) within(r keyRange) (all, some bool) {
	if r.disjoint(b.lowest, b.highest) {
		return false, false
	}
	if r.contains(b.lowest) && r.contains(b.highest) {
		return true, true
	}
	order := b.keyOrder()
	i, _ := slices.BinarySearchFunc(order, r.key, func(i int32, key []byte) int {
		return bytes.Compare(b.Events[i].KV.Key, key)
	})
	return false, i < len(order) && r.contains(b.Events[order[i]].KV.Key)
}

// Select returns the block's events within [key, end), in order. The result shares memory with the
// block and must not be modified; nothing is allocated when the matching events are adjacent.
func (b *Block) Select(key, end []byte) []Event {
	r := keyRange{key, end}
	all, some := b.within(r)
	if all {
		return b.Events
	}
	if !some {
		return nil
	}
	matches := func(e Event) bool { return r.contains(e.KV.Key) }
	first := slices.IndexFunc(b.Events, matches)
	last := first + 1
	for last < len(b.Events) && matches(b.Events[last]) {
		last++
	}
	rest := slices.IndexFunc(b.Events[last:], matches)
	if rest < 0 {
		return b.Events[first:last:last]
	}
	selected := slices.Clone(b.Events[first:last])
	for _, e := range b.Events[last+rest:] {
		if matches(e) {
			selected = append(selected, e)
		}
	}
	return selected
}

// Encoded returns what encode returns for the block, memoised per class, which is any comparable
// value: callers that share a class share one encoding, also when they call at the same time. The
// bytes must not be modified. A store that runs forgets an encoding about a second after its last
// use, so encode may be called again later and must give the same bytes.
func (b *Block) Encoded(class any, encode func() []byte) []byte {
	b.used.Store(true)
	b.mu.Lock()
	get, ok := b.memory[class]
	if !ok {
		get = sync.OnceValue(encode)
		if b.memory == nil {
			b.memory = make(map[any]func() []byte)
			b.encodings.add(b)
		}
		b.memory[class] = get
	}
	b.mu.Unlock()
	return get()
}

func (b *Block) forgetEncodings() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.memory = nil
}

// encodings is the set of blocks that hold encoded bytes. History is kept for long and encodings are
// as large as the values, so those that nobody asks for are dropped.
type encodings struct {
	mu     sync.Mutex
	blocks []*Block // guarded by mu
}

func (e *encodings) add(b *Block) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.blocks = append(e.blocks, b)
}

// sweep forgets the encodings that were not used since the sweep before.
func (e *encodings) sweep() {
	e.mu.Lock()
	blocks := e.blocks
	e.blocks = nil
	e.mu.Unlock()
	for _, b := range blocks {
		if b.used.Swap(false) {
			e.add(b)
		} else {
			b.forgetEncodings()
		}
	}
}
