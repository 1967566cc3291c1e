package allocate

import (
	"hash/fnv"
	"iter"
	"maps"
	"slices"
	"time"
)

// pool gives numbers below size to names.
type pool struct {
	size    uint32
	numbers map[string]uint32
	holders map[uint32]*holder
}

// holder is who has a number, or had it last.
type holder struct {
	name string
	// released is when it was given back; zero while it is in use.
	released time.Time
}

func newPool(size uint32) *pool {
	return &pool{size: size, numbers: map[string]uint32{}, holders: map[uint32]*holder{}}
}

// take returns the number of a name. fresh tells that it did not have it before.
func (p *pool) take(name string, now time.Time) (number uint32, fresh, ok bool) {
	if number, ok := p.numbers[name]; ok {
		p.holders[number].released = time.Time{}
		return number, false, true
	}
	first := preferred(name, p.size)
	for i := range p.size {
		number := uint32((uint64(first) + uint64(i)) % uint64(p.size))
		h := p.holders[number]
		if h != nil && (h.released.IsZero() || now.Sub(h.released) < Quarantine) {
			continue
		}
		if h != nil {
			delete(p.numbers, h.name)
		}
		p.numbers[name], p.holders[number] = number, &holder{name: name}
		return number, true, true
	}
	return 0, false, false
}

// release starts the rest of a number.
func (p *pool) release(number uint32, now time.Time) {
	if h := p.holders[number]; h != nil && h.released.IsZero() {
		h.released = now
	}
}

// restore tells of a number that was given out by an earlier process. It rests until its name asks for
// it.
func (p *pool) restore(name string, number uint32, now time.Time) {
	if number >= p.size {
		return // of another configuration
	}
	if h := p.holders[number]; h != nil {
		delete(p.numbers, h.name)
	}
	if old, ok := p.numbers[name]; ok {
		delete(p.holders, old)
	}
	p.numbers[name], p.holders[number] = number, &holder{name: name, released: now}
}

func (p *pool) len() int { return len(p.numbers) }

// all yields the names, sorted, with their numbers.
func (p *pool) all() iter.Seq2[string, uint32] {
	return func(yield func(string, uint32) bool) {
		for _, name := range slices.Sorted(maps.Keys(p.numbers)) {
			if !yield(name, p.numbers[name]) {
				return
			}
		}
	}
}

// preferred spreads names over the numbers, the same way in every process.
func preferred(name string, size uint32) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name)) // never fails
	return h.Sum32() % size
}
