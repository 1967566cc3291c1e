package store

import (
	"sync/atomic"
	"time"
)

// Stats describes what a store holds, and has done since it was made.
type Stats struct {
	Revision        int64
	CompactRevision int64
	Keys            int64 // keys that exist now
	Revisions       int64 // revisions whose changes can still be watched
	Bytes           int64 // memory of all keys and values, current and past, and of leases, within a quarter
	Watchers        int64 // cursors that are not closed
	Leases          int64

	// Operations that were executed, those of transactions included. Txns are those of more than one
	// operation.
	Ranges, Puts, Deletes, Txns int64
	PutBytes                    int64 // of the keys and values that were put

	Compacted   int64     // changes that compactions have dropped
	CompactedAt time.Time // when the last compaction was; zero if there was none

	// What became of leases. Those that expired are among the revoked.
	LeasesGranted, LeasesRenewed, LeasesRevoked, LeasesExpired int64
}

// Stats returns the store's figures. It does not take the writer's lock.
func (s *Store) Stats() Stats {
	snap, c := s.current.Load(), &s.counters
	stats := Stats{
		Revision:        snap.revision,
		CompactRevision: snap.compact,
		Keys:            snap.keys,
		Revisions:       int64(len(snap.log)),
		Bytes:           snap.bytes + s.leases.bytes.Load(),
		Watchers:        s.watchers.Load(),
		Leases:          s.leaseNum.Load(),
		Ranges:          c.ranges.Load(),
		Puts:            c.puts.Load(),
		Deletes:         c.deletes.Load(),
		Txns:            c.txns.Load(),
		PutBytes:        c.putBytes.Load(),
		Compacted:       c.compacted.Load(),
		LeasesGranted:   c.leasesGranted.Load(),
		LeasesRenewed:   c.leasesRenewed.Load(),
		LeasesRevoked:   c.leasesRevoked.Load(),
		LeasesExpired:   c.leasesExpired.Load(),
	}
	if at := c.compactedAt.Load(); at != nil {
		stats.CompactedAt = *at
	}
	return stats
}

// Bytes is Stats().Bytes, for those who want nothing else.
func (s *Store) Bytes() int64 { return s.current.Load().bytes + s.leases.bytes.Load() }

// counters are what Stats counts. A write changes them with the writer's lock held, so that they cost it
// next to nothing.
type counters struct {
	ranges, puts, deletes, txns                                atomic.Int64
	putBytes                                                   atomic.Int64
	compacted                                                  atomic.Int64
	compactedAt                                                atomic.Pointer[time.Time]
	leasesGranted, leasesRenewed, leasesRevoked, leasesExpired atomic.Int64
}
