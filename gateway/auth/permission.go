package auth

import (
	"cmp"
	"slices"

	"go.etcd.io/etcd/api/v3/authpb"
)

// interval is [begin, end). An end of "" is beyond every key.
type interval struct{ begin, end string }

// endsBefore tells whether i ends before other does.
func (i interval) endsBefore(other interval) bool {
	return i.end != "" && (other.end == "" || i.end < other.end)
}

// newInterval gives the interval of a range as etcd writes it: an end of nothing is the single key, and
// "\x00" is everything from key on.
func newInterval(key, end []byte) interval {
	switch {
	case len(end) == 0:
		return interval{string(key), string(key) + "\x00"}
	case isFromKey(end):
		return interval{begin: string(key)}
	}
	return interval{string(key), string(end)}
}

func isFromKey(end []byte) bool { return len(end) == 1 && end[0] == 0 }

// intervals are disjoint, not adjacent, and in ascending order.
type intervals []interval

// newIntervals joins intervals that overlap or touch. It reorders what it is given.
func newIntervals(list []interval) intervals {
	slices.SortFunc(list, func(a, b interval) int { return cmp.Compare(a.begin, b.begin) })
	var out intervals
	for _, i := range list {
		last := len(out) - 1
		if last < 0 || out[last].end != "" && out[last].end < i.begin {
			out = append(out, i)
			continue
		}
		if out[last].endsBefore(i) {
			out[last].end = i.end
		}
	}
	return out
}

// cover tells whether all keys of a range are in the intervals. As in etcd, a range that is empty because
// it ends where it begins, or before, counts as the key it begins with.
func (s intervals) cover(key, end []byte) bool {
	// The last interval that begins at key or before is the only one that can cover it.
	n, found := slices.BinarySearchFunc(s, key, func(i interval, key []byte) int { return cmp.Compare(i.begin, string(key)) })
	if !found {
		n--
	}
	if n < 0 {
		return false
	}
	limit := s[n].end
	switch {
	case limit == "":
		return true
	case isFromKey(end):
		return false
	case len(end) == 0 || string(end) <= string(key):
		return string(key) < limit
	}
	return string(end) <= limit
}

// permissions are what a user may do by all of its roles.
type permissions struct{ read, write intervals }

func newPermissions(granted []*authpb.Permission) permissions {
	var read, write []interval
	for _, p := range granted {
		i := newInterval(p.GetKey(), p.GetRangeEnd())
		if p.GetPermType() == authpb.Permission_READ || p.GetPermType() == authpb.Permission_READWRITE {
			read = append(read, i)
		}
		if p.GetPermType() == authpb.Permission_WRITE || p.GetPermType() == authpb.Permission_READWRITE {
			write = append(write, i)
		}
	}
	return permissions{newIntervals(read), newIntervals(write)}
}

// isValidRange tells whether a permission can be granted on a range: it has a key, and is not empty.
func isValidRange(key, end []byte) bool {
	return len(key) > 0 && (len(end) == 0 || isFromKey(end) || string(key) < string(end))
}
