package store

import (
	"encoding/binary"
	"runtime"
	"testing"
)

// memoryFactor is by how much Stats.Bytes may be off from what the runtime says.
const memoryFactor = 1.25

// A quota is of use only if the bytes that the store counts are those that it takes.
func TestBytesAreThoseOfTheRuntime(t *testing.T) {
	const number = 10_000
	key := func(i int) []byte { return binary.BigEndian.AppendUint64([]byte("/registry/"), uint64(i)) }
	for name, fill := range map[string]func(s *Store) error{
		"small values":    func(s *Store) error { return putEach(s, number, key, 16, 0) },
		"values of 1 KiB": func(s *Store) error { return putEach(s, number, key, 1024, 0) },
		"many versions of few keys": func(s *Store) error {
			return putEach(s, number, func(i int) []byte { return key(i % 10) }, 64, 0)
		},
		"a lease for each key": func(s *Store) error {
			for i := range number {
				if _, _, err := s.Grant(int64(i)+1, 3600); err != nil {
					return err
				}
			}
			return putEach(s, number, key, 64, 1)
		},
		"large transactions": func(s *Store) error {
			for batch := range number / 1000 {
				var txn Txn
				for i := range 1000 {
					txn.Success = append(txn.Success, Op{Put: &PutOp{Key: key(batch*1000 + i), Value: make([]byte, 64)}})
				}
				if _, err := s.Txn(txn); err != nil {
					return err
				}
			}
			return nil
		},
		"compacted": func(s *Store) error {
			for range 3 {
				if err := putEach(s, number, key, 64, 0); err != nil {
					return err
				}
			}
			_, err := s.Compact(s.Revision())
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := heapBytes()
			s, err := New(Config{})
			if err != nil {
				t.Fatal(err)
			}
			if err := fill(s); err != nil {
				t.Fatal(err)
			}
			taken, counted := float64(heapBytes()-before), float64(s.Stats().Bytes)
			t.Logf("%.0f bytes, of which %.2f are counted", taken, counted/taken)
			if ratio := counted / taken; ratio < 1/memoryFactor || ratio > memoryFactor {
				t.Errorf("%.0f bytes are counted, %.0f are taken: the factor is %.2f", counted, taken, ratio)
			}
			s.Close()
		})
	}
}

// putEach puts number keys, key i with the lease i+1 if lease is 1.
func putEach(s *Store, number int, key func(int) []byte, size int, lease int64) error {
	for i := range number {
		if _, err := s.Put(PutOp{Key: key(i), Value: make([]byte, size), Lease: lease * int64(i+1)}); err != nil {
			return err
		}
	}
	return nil
}

func heapBytes() int64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}
