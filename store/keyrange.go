package store

import "bytes"

// Prefix returns the end of the range that holds every key with the given prefix: the prefix with its
// last byte below 0xff incremented and everything after it cut. Where there is no such byte the range
// is open, which etcd writes as "\x00".
func Prefix(prefix []byte) (end []byte) {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] < 0xff {
			end = bytes.Clone(prefix[:i+1])
			end[i]++
			return end
		}
	}
	return []byte{0}
}

// keyRange is etcd's (key, range_end): no end is the single key, "\x00" everything from key on, and
// anything else [key, end), which is empty when end is not above key.
type keyRange struct {
	key, end []byte
}

func (r keyRange) single() bool { return len(r.end) == 0 }

func (r keyRange) open() bool { return len(r.end) == 1 && r.end[0] == 0 }

func (r keyRange) contains(key []byte) bool {
	if r.single() {
		return bytes.Equal(r.key, key)
	}
	return bytes.Compare(r.key, key) <= 0 && (r.open() || bytes.Compare(key, r.end) < 0)
}

// disjoint reports that no key in [lowest, highest] is in the range.
func (r keyRange) disjoint(lowest, highest []byte) bool {
	if bytes.Compare(highest, r.key) < 0 {
		return true
	}
	if r.single() {
		return bytes.Compare(r.key, lowest) < 0
	}
	return !r.open() && bytes.Compare(r.end, lowest) <= 0
}
