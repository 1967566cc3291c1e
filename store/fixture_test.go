package store

import (
	"testing"
)

func newStore(tb testing.TB, config Config) *Store {
	tb.Helper()
	s, err := New(config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Close)
	return s
}

func mustPut(tb testing.TB, s *Store, key, value string) int64 {
	tb.Helper()
	result, err := s.Put(PutOp{Key: []byte(key), Value: []byte(value)})
	if err != nil {
		tb.Fatal(err)
	}
	return result.Revision
}

func mustDelete(tb testing.TB, s *Store, key, end string) int64 {
	tb.Helper()
	result, err := s.Delete(DeleteOp{Key: []byte(key), End: []byte(end)})
	if err != nil {
		tb.Fatal(err)
	}
	return result.Revision
}

func mustCompact(tb testing.TB, s *Store, revision int64) {
	tb.Helper()
	if _, err := s.Compact(revision); err != nil {
		tb.Fatal(err)
	}
}

func mustWatch(tb testing.TB, s *Store, key, end string, start int64) *Cursor {
	tb.Helper()
	c, err := s.Watch([]byte(key), []byte(end), start)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.Close)
	return c
}

func mustNext(tb testing.TB, c *Cursor, maxRevisions int) []int64 {
	tb.Helper()
	blocks, err := c.Next(maxRevisions)
	if err != nil {
		tb.Fatal(err)
	}
	var revisions []int64
	for _, b := range blocks {
		revisions = append(revisions, b.Revision)
	}
	return revisions
}

func mustRange(tb testing.TB, s *Store, key, end string, options RangeOptions) RangeResult {
	tb.Helper()
	result, err := s.Range([]byte(key), []byte(end), options)
	if err != nil {
		tb.Fatal(err)
	}
	return result
}

// keysOf is the keys of a result, in its order.
func keysOf(kvs []*KeyValue) []string {
	var keys []string
	for _, kv := range kvs {
		keys = append(keys, string(kv.Key))
	}
	return keys
}
