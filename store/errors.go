package store

import (
	"errors"
	"fmt"
)

// Errors. The gateway maps each of them to etcd's code and text.
var (
	ErrEmptyKey        = errors.New("key is not provided")
	ErrKeyNotFound     = errors.New("key not found")
	ErrValueProvided   = errors.New("value is provided")
	ErrLeaseProvided   = errors.New("lease is provided")
	ErrTooManyOps      = errors.New("too many operations in txn request")
	ErrDuplicateKey    = errors.New("duplicate key given in txn request")
	ErrInvalidSort     = errors.New("invalid sort option")
	ErrFutureRevision  = errors.New("required revision is a future revision")
	ErrCompacted       = errors.New("required revision has been compacted")
	ErrEmptyWatchRange = errors.New("watcher range is empty")
	ErrLeaseNotFound   = errors.New("requested lease not found")
	ErrLeaseExists     = errors.New("lease already exists")
	ErrLeaseTTL        = errors.New("too large lease TTL")
	ErrClosed          = errors.New("store is closed")
)

// CompactedError is an ErrCompacted that says from which revision on history is available.
type CompactedError struct {
	// CompactRevision is the revision to read again at: everything before it is gone.
	CompactRevision int64
}

func (e *CompactedError) Error() string {
	return fmt.Sprintf("%v: history starts at %d", ErrCompacted, e.CompactRevision)
}

// Is makes errors.Is(err, ErrCompacted) hold.
func (e *CompactedError) Is(target error) bool { return target == ErrCompacted }
