package store

import (
	"fmt"
	"strconv"
	"sync"
	"testing"
)

// oneKiB is the size of a typical route.
func oneKiB() []byte { return make([]byte, 1024) }

func keysOfRoutes(n int) [][]byte {
	keys := make([][]byte, n)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "/apisix/routes/r.%08d", i)
	}
	return keys
}

func fill(b *testing.B, s *Store, keys [][]byte) {
	b.Helper()
	value := oneKiB()
	ops := make([]Op, len(keys))
	for i, k := range keys {
		ops[i].Put = &PutOp{Key: k, Value: value}
	}
	if _, err := s.Txn(Txn{Success: ops}); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkPut(b *testing.B) {
	value := oneKiB()
	keys := keysOfRoutes(10_000)
	b.Run("new key", func(b *testing.B) {
		s := newStore(b, Config{})
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if _, err := s.Put(PutOp{Key: fmt.Appendf(nil, "/apisix/routes/r.%08d", i), Value: value}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("existing key", func(b *testing.B) {
		s := newStore(b, Config{KeepRevisions: 1000})
		fill(b, s, keys)
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if _, err := s.Put(PutOp{Key: keys[i%len(keys)], Value: value}); err != nil {
				b.Fatal(err)
			}
			if i%1000 == 999 {
				s.compactOldHistory() // its price belongs to the puts
			}
		}
	})
}

func BenchmarkTxnOf20000Puts(b *testing.B) {
	keys := keysOfRoutes(20_000)
	b.ReportAllocs()
	for b.Loop() {
		fill(b, newStore(b, Config{}), keys)
	}
}

func BenchmarkRangeOf10000(b *testing.B) {
	s := newStore(b, Config{})
	fill(b, s, keysOfRoutes(10_000))
	prefix := []byte("/apisix/")
	b.ReportAllocs()
	for b.Loop() {
		result, err := s.Range(prefix, Prefix(prefix), RangeOptions{})
		if err != nil || result.Count != 10_000 {
			b.Fatal(result.Count, err)
		}
	}
}

// One operation is a put that 1,000 waiting cursors have received.
func BenchmarkWatchFanOut1000(b *testing.B) {
	s := newStore(b, Config{KeepRevisions: 1000})
	prefix := []byte("/apisix/")
	var received, running sync.WaitGroup
	for range 1000 {
		c, err := s.Watch(prefix, Prefix(prefix), 0)
		if err != nil {
			b.Fatal(err)
		}
		running.Go(func() {
			defer c.Close()
			for {
				<-c.Wait()
				blocks, err := c.Next(0)
				if err != nil {
					return
				}
				for range blocks {
					received.Done()
				}
			}
		})
	}
	key, value := []byte("/apisix/routes/1"), oneKiB()
	b.ReportAllocs()
	for b.Loop() {
		received.Add(1000)
		if _, err := s.Put(PutOp{Key: key, Value: value}); err != nil {
			b.Fatal(err)
		}
		received.Wait()
	}
	s.Close()
	running.Wait()
}

// The cost of a put must not depend on how many cursors there are.
func BenchmarkPutBesideIdleCursors(b *testing.B) {
	value := oneKiB()
	for _, cursors := range []int{0, 10_000} {
		b.Run(strconv.Itoa(cursors), func(b *testing.B) {
			s := newStore(b, Config{KeepRevisions: 1000})
			for range cursors {
				if _, err := s.Watch([]byte("/"), []byte{0}, 0); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := s.Put(PutOp{Key: []byte("/a"), Value: value}); err != nil {
					b.Fatal(err)
				}
				if i%1000 == 999 {
					s.compactOldHistory()
				}
			}
		})
	}
}
