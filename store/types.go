package store

import "time"

// KeyValue is one version of a key. It is immutable and shared: neither it nor its slices may be modified.
type KeyValue struct {
	Key            []byte
	Value          []byte
	CreateRevision int64 // revision of the first put of this generation
	ModRevision    int64 // revision of this put
	Version        int64 // 1, 2, 3… within the generation
	Lease          int64 // 0 is none
}

// Event is one change. For a delete, KV holds only Key and ModRevision.
type Event struct {
	Delete bool
	KV     *KeyValue
	// Prev is the key as it was before the revision, nil if it did not exist, was created by the
	// event, or is forgotten because of a compaction at this revision. It is what etcd sends as
	// prev_kv, also when an earlier operation of the same transaction changed the key.
	Prev *KeyValue
}

// Config configures New. The zero value is a plain store that starts at revision 1, like a fresh etcd.
type Config struct {
	// BaseRevision is the first revision; 0 means 1. With a base above 1, everything before it
	// counts as compacted: a reader or watcher that asks for it gets ErrCompacted.
	BaseRevision int64
	// RefuseFuture makes a watch from beyond the next revision fail like a compacted one. It is
	// for stores whose revisions are not continued from a log: such a watcher remembers a
	// revision that this store never had.
	RefuseFuture bool
	// KeepRevisions and KeepFor bound the history: automatic compaction keeps at least the last
	// KeepRevisions revisions and everything younger than KeepFor. Zero KeepRevisions means no
	// automatic compaction, and KeepFor must be zero too. The newest event is never compacted.
	KeepRevisions int64
	KeepFor       time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// RangeOptions narrows a Range, with the meaning that etcd's RangeRequest gives each field.
type RangeOptions struct {
	Revision                             int64 // 0 or less: current
	Limit                                int64
	CountOnly, KeysOnly                  bool
	SortTarget                           SortTarget
	SortOrder                            SortOrder
	MinModRevision, MaxModRevision       int64
	MinCreateRevision, MaxCreateRevision int64
}

// SortTarget is what a Range sorts by.
type SortTarget int

// Sort targets, numbered as in etcd's RangeRequest.
const (
	SortByKey SortTarget = iota
	SortByVersion
	SortByCreate
	SortByMod
	SortByValue
)

// SortOrder is the direction of a sort.
type SortOrder int

// Sort orders, numbered as in etcd's RangeRequest. With SortNone a target other than the key ascends.
const (
	SortNone SortOrder = iota
	SortAscend
	SortDescend
)

// RangeResult is the answer to a Range. Revision is the store's revision when it was read.
type RangeResult struct {
	Revision int64
	KVs      []*KeyValue
	Count    int64 // keys in the range, whatever Limit and the revision filters say
	More     bool
}

// Op is one operation of a Txn: exactly one field is set.
type Op struct {
	Range  *RangeOp
	Put    *PutOp
	Delete *DeleteOp
	Txn    *Txn
}

// RangeOp reads [Key, End).
type RangeOp struct {
	Key, End []byte
	RangeOptions
}

// PutOp sets a key. The store keeps Key and Value as they are.
type PutOp struct {
	Key, Value               []byte
	Lease                    int64
	PrevKV                   bool
	IgnoreValue, IgnoreLease bool
}

// DeleteOp deletes [Key, End).
type DeleteOp struct {
	Key, End []byte
	PrevKV   bool
}

// Compare is one condition of a Txn. With End set, every key in the range must satisfy it.
type Compare struct {
	Key, End []byte
	Target   CompareTarget
	Result   CompareResult
	Int      int64  // for every target but CompareValue
	Value    []byte // for CompareValue
}

// CompareTarget is what a Compare looks at.
type CompareTarget int

// Compare targets, numbered as in etcd's Compare.
const (
	CompareVersion CompareTarget = iota
	CompareCreate
	CompareMod
	CompareValue
	CompareLease
)

// CompareResult is how what a Compare looks at must relate to its operand.
type CompareResult int

// Compare results, numbered as in etcd's Compare.
const (
	CompareEqual CompareResult = iota
	CompareGreater
	CompareLess
	CompareNotEqual
)

// Txn executes Success if every Compare holds, else Failure, as one revision.
type Txn struct {
	Compares         []Compare
	Success, Failure []Op
}

// TxnResult is the answer to a Txn. Results are in the order of the operations that ran.
type TxnResult struct {
	Revision  int64 // the store's revision after the Txn; 0 in a nested one, as in etcd
	Succeeded bool
	Results   []OpResult
}

// OpResult is the result of one Op; the field that matches the Op is set.
type OpResult struct {
	Range  *RangeResult
	Put    *PutResult
	Delete *DeleteResult
	Txn    *TxnResult
}

// PutResult is the result of a put. Prev is set when it was asked for.
type PutResult struct {
	Revision int64
	Prev     *KeyValue
}

// DeleteResult is the result of a delete. Prevs is set when they were asked for.
type DeleteResult struct {
	Revision int64
	Deleted  int64
	Prevs    []*KeyValue
}
