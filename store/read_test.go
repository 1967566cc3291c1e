package store

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPrefixEndIsTheNextKeyAfterThePrefix(t *testing.T) {
	for prefix, want := range map[string]string{
		"/apisix/":     "/apisix0",
		"a":            "b",
		"a\xff":        "b",
		"a\xffb":       "a\xffc",
		"\xff":         "\x00",
		"\xff\xff\xff": "\x00",
		"":             "\x00",
	} {
		given := []byte(prefix)
		if got := string(Prefix(given)); got != want {
			t.Errorf("Prefix(%q) = %q, want %q", prefix, got, want)
		}
		if string(given) != prefix {
			t.Errorf("Prefix changed its argument %q to %q", prefix, given)
		}
	}
}

// readable is a store with a@2, ab@3, b@4 (b twice, at 5), c@6 deleted at 7, and z@8.
func readable(t *testing.T) *Store {
	t.Helper()
	s := newStore(t, Config{})
	mustPut(t, s, "a", "3")
	mustPut(t, s, "ab", "1")
	mustPut(t, s, "b", "2")
	mustPut(t, s, "b", "2")
	mustPut(t, s, "c", "gone")
	mustDelete(t, s, "c", "")
	mustPut(t, s, "z", "0")
	return s
}

func TestRangeEndRules(t *testing.T) {
	s := readable(t)
	for _, test := range []struct {
		key, end string
		want     []string
	}{
		{"a", "", []string{"a"}},
		{"c", "", nil},
		{"unknown", "", nil},
		{"a", "b", []string{"a", "ab"}},
		{"ab", "\x00", []string{"ab", "b", "z"}},
		{"\x00", "\x00", []string{"a", "ab", "b", "z"}},
		{"b", "a", nil},
		{"b", "b", nil},
		{"a", string(Prefix([]byte("a"))), []string{"a", "ab"}},
	} {
		result := mustRange(t, s, test.key, test.end, RangeOptions{})
		if diff := cmp.Diff(test.want, keysOf(result.KVs)); diff != "" {
			t.Errorf("[%q, %q): %s", test.key, test.end, diff)
		}
		if result.Count != int64(len(test.want)) || result.Revision != 8 {
			t.Errorf("[%q, %q): count %d at revision %d", test.key, test.end, result.Count, result.Revision)
		}
	}
}

func TestRangeOptions(t *testing.T) {
	s := readable(t)
	for name, test := range map[string]struct {
		options RangeOptions
		want    []string
		count   int64
		more    bool
	}{
		"limit below the count":           {RangeOptions{Limit: 2}, []string{"a", "ab"}, 4, true},
		"limit of exactly the count":      {RangeOptions{Limit: 4}, []string{"a", "ab", "b", "z"}, 4, false},
		"negative limit is none":          {RangeOptions{Limit: -1}, []string{"a", "ab", "b", "z"}, 4, false},
		"count only":                      {RangeOptions{CountOnly: true, Limit: 1}, nil, 4, false},
		"filters do not change the count": {RangeOptions{MinModRevision: 5}, []string{"b", "z"}, 4, false},
		"filters are inclusive":           {RangeOptions{MinCreateRevision: 3, MaxCreateRevision: 4}, []string{"ab", "b"}, 4, false},
		"limit after filter":              {RangeOptions{MaxModRevision: 5, Limit: 2}, []string{"a", "ab"}, 4, true},
		"limit after filter, no more":     {RangeOptions{MinModRevision: 5, Limit: 2}, []string{"b", "z"}, 4, false},
		"limit after sort":                {RangeOptions{SortTarget: SortByValue, SortOrder: SortAscend, Limit: 1}, []string{"z"}, 4, true},
		"limit plus one before no order":  {RangeOptions{SortTarget: SortByValue, Limit: 1}, []string{"ab"}, 4, true},
		"target without order ascends":    {RangeOptions{SortTarget: SortByValue}, []string{"z", "ab", "b", "a"}, 4, false},
		"descending keys":                 {RangeOptions{SortOrder: SortDescend}, []string{"z", "b", "ab", "a"}, 4, false},
		"descending versions":             {RangeOptions{SortTarget: SortByVersion, SortOrder: SortDescend, Limit: 1}, []string{"b"}, 4, true},
		"by creation":                     {RangeOptions{SortTarget: SortByCreate, SortOrder: SortDescend}, []string{"z", "b", "ab", "a"}, 4, false},
		"by modification":                 {RangeOptions{SortTarget: SortByMod, SortOrder: SortAscend}, []string{"a", "ab", "b", "z"}, 4, false},
		"old revision":                    {RangeOptions{Revision: 6}, []string{"a", "ab", "b", "c"}, 4, false},
		"first revision":                  {RangeOptions{Revision: 1}, nil, 0, false},
		"negative revision is current":    {RangeOptions{Revision: -9}, []string{"a", "ab", "b", "z"}, 4, false},
	} {
		t.Run(name, func(t *testing.T) {
			result := mustRange(t, s, "\x00", "\x00", test.options)
			if diff := cmp.Diff(test.want, keysOf(result.KVs)); diff != "" {
				t.Error(diff)
			}
			if result.Count != test.count || result.More != test.more {
				t.Errorf("count %d, more %v", result.Count, result.More)
			}
			if result.Revision != 8 {
				t.Errorf("the revision is %d, it should be the current one", result.Revision)
			}
		})
	}
}

func TestKeysOnlyKeepsEverythingButTheValue(t *testing.T) {
	s := newStore(t, Config{})
	if _, _, err := s.Grant(7, 60); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(PutOp{Key: []byte("k"), Value: []byte("v"), Lease: 7}); err != nil {
		t.Fatal(err)
	}
	got := mustRange(t, s, "k", "", RangeOptions{KeysOnly: true}).KVs
	want := []*KeyValue{{Key: []byte("k"), CreateRevision: 2, ModRevision: 2, Version: 1, Lease: 7}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if v := mustRange(t, s, "k", "", RangeOptions{}).KVs[0].Value; string(v) != "v" {
		t.Errorf("the stored value is %q after a read without values", v)
	}
}

// The order of equal elements is what Go's sort makes of them, as in etcd: for more than a dozen it is
// neither the key order nor its reverse, but it is always the same.
func TestSortIsRepeatable(t *testing.T) {
	s := newStore(t, Config{})
	for i := range 100 {
		mustPut(t, s, fmt.Sprintf("%03d", i), strconv.Itoa(i%3))
	}
	options := RangeOptions{SortTarget: SortByValue, SortOrder: SortDescend}
	first := mustRange(t, s, "\x00", "\x00", options).KVs
	if !slices.IsSortedFunc(first, func(a, b *KeyValue) int { return -SortByValue.compare()(a, b) }) {
		t.Error("values do not descend")
	}
	if diff := cmp.Diff(keysOf(first), keysOf(mustRange(t, s, "\x00", "\x00", options).KVs)); diff != "" {
		t.Error(diff)
	}
}

// Checks come in etcd's order: the key, the sort options, the revision.
func TestRangeErrors(t *testing.T) {
	s := readable(t)
	mustCompact(t, s, 5)
	for name, test := range map[string]struct {
		key     string
		options RangeOptions
		want    error
	}{
		"no key":              {"", RangeOptions{SortOrder: 9}, ErrEmptyKey},
		"unknown order":       {"a", RangeOptions{SortOrder: 3, Revision: 99}, ErrInvalidSort},
		"negative order":      {"a", RangeOptions{SortOrder: -1}, ErrInvalidSort},
		"unknown target":      {"a", RangeOptions{SortTarget: 5}, ErrInvalidSort},
		"future":              {"a", RangeOptions{Revision: 9}, ErrFutureRevision},
		"compacted":           {"a", RangeOptions{Revision: 4}, ErrCompacted},
		"compact revision":    {"a", RangeOptions{Revision: 5}, nil},
		"current, explicitly": {"a", RangeOptions{Revision: 8}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.Range([]byte(test.key), nil, test.options)
			if !sameError(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			var compacted *CompactedError
			if errors.As(err, &compacted) && compacted.CompactRevision != 5 {
				t.Errorf("the error says that history starts at %d", compacted.CompactRevision)
			}
		})
	}
}
