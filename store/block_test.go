package store

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// blockOf returns the block of one transaction that puts the keys in the given order.
func blockOf(tb testing.TB, s *Store, keys ...string) *Block {
	tb.Helper()
	var ops []Op
	for _, key := range keys {
		ops = append(ops, put(key, "v"))
	}
	result, err := s.Txn(Txn{Success: ops})
	if err != nil {
		tb.Fatal(err)
	}
	blocks, err := mustWatch(tb, s, "\x00", "\x00", result.Revision).Next(0)
	if err != nil || len(blocks) != 1 {
		tb.Fatal(blocks, err)
	}
	return blocks[0]
}

func selected(events []Event) string {
	var keys []string
	for _, e := range events {
		keys = append(keys, string(e.KV.Key))
	}
	return strings.Join(keys, " ")
}

func TestSelectKeepsTheOrderOfEvents(t *testing.T) {
	b := blockOf(t, newStore(t, Config{}), "m", "c", "d", "z", "a", "e")
	for _, test := range []struct{ key, end, want string }{
		{"\x00", "\x00", "m c d z a e"},
		{"a", "", "a"},
		{"c", "f", "c d e"},
		{"b", "e", "c d"},
		{"e", "\x00", "m z e"},
		{"n", "p", ""},
		{"0", "1", ""},
		{"zz", "\x00", ""},
		{"f", "b", ""},
	} {
		if got := selected(b.Select([]byte(test.key), []byte(test.end))); got != test.want {
			t.Errorf("[%q, %q): %q, want %q", test.key, test.end, got, test.want)
		}
	}
}

func TestSelectAllocatesNothingForAdjacentEvents(t *testing.T) {
	b := blockOf(t, newStore(t, Config{}), "m", "c", "d", "z")
	for _, r := range []keyRange{{key: []byte("a"), end: []byte("\x00")}, {key: []byte("c"), end: []byte("e")}, {key: []byte("x"), end: []byte("y")}} {
		b.Select(r.key, r.end) // builds the key order
		if n := testing.AllocsPerRun(100, func() { b.Select(r.key, r.end) }); n != 0 {
			t.Errorf("[%q, %q): %v allocations", r.key, r.end, n)
		}
	}
	part := b.Select([]byte("c"), []byte("e"))
	_ = append(part, Event{KV: &KeyValue{Key: []byte("x")}})
	if got := selected(b.Events); got != "m c d z" {
		t.Errorf("appending to a selection changed the block to %q", got)
	}
}

func TestSelectIsAFilter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keys := rapid.SliceOfNDistinct(anyKey(), 1, 8, func(k []byte) string { return string(k) }).Draw(t, "keys")
		var events []Event
		for _, k := range keys {
			events = append(events, Event{KV: &KeyValue{Key: k}})
		}
		b := newBlock(2, events, newModel(1).now, &encodings{})
		r := anyRange().Draw(t, "range")
		want := slices.DeleteFunc(slices.Clone(events), func(e Event) bool { return !modelMatches(r.key, r.end, string(e.KV.Key)) })
		if diff := cmp.Diff(selected(want), selected(b.Select(r.key, r.end))); diff != "" {
			t.Error(diff)
		}
	})
}

func TestEncodedIsSharedPerClass(t *testing.T) {
	b := blockOf(t, newStore(t, Config{}), "a", "b")
	type class struct{ prefix, transport string }
	var encodes atomic.Int64
	var readers sync.WaitGroup
	for i := range 40 {
		readers.Go(func() {
			transport := strconv.Itoa(i % 2)
			got := b.Encoded(class{"/", transport}, func() []byte {
				encodes.Add(1)
				return []byte(transport)
			})
			if string(got) != transport {
				t.Errorf("the encoding of class %s is %s", transport, got)
			}
		})
	}
	readers.Wait()
	if n := encodes.Load(); n != 2 {
		t.Errorf("2 classes were encoded %d times", n)
	}
}

// Encodings are about as large as all values together, so history must not hold on to them.
func TestUnusedEncodingsAreForgotten(t *testing.T) {
	s := newStore(t, Config{})
	b := blockOf(t, s, "a")
	encodes := 0
	use := func() {
		got := b.Encoded("class", func() []byte {
			encodes++
			return []byte("bytes")
		})
		if !bytes.Equal(got, []byte("bytes")) {
			t.Errorf("got %q", got)
		}
	}
	for range 3 {
		use()
		use()
		s.encodings.sweep()
	}
	if encodes != 1 {
		t.Errorf("an encoding in use was made %d times", encodes)
	}
	s.encodings.sweep()
	if len(s.encodings.blocks) != 0 || b.memory != nil {
		t.Error("an encoding that nobody uses is kept")
	}
	use()
	if encodes != 2 {
		t.Errorf("made %d times", encodes)
	}
}
