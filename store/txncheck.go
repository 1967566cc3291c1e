package store

import (
	"fmt"
	"slices"
)

// Validate checks everything about a transaction that does not depend on the state, in both branches and
// all nested transactions, as Store.Txn does.
func (txn *Txn) Validate() error {
	if err := validateOps(txn); err != nil {
		return err
	}
	if _, err := collectChanges(txn.Success); err != nil {
		return err
	}
	_, err := collectChanges(txn.Failure)
	return err
}

func validateOps(txn *Txn) error {
	for i := range txn.Compares {
		if len(txn.Compares[i].Key) == 0 {
			return fmt.Errorf("compare %d: %w", i, ErrEmptyKey)
		}
	}
	for _, ops := range [][]Op{txn.Success, txn.Failure} {
		for i, op := range ops {
			var err error
			switch {
			case op.Range != nil:
				err = op.Range.Validate()
			case op.Put != nil:
				err = op.Put.Validate()
			case op.Delete != nil:
				err = op.Delete.Validate()
			case op.Txn != nil:
				err = validateOps(op.Txn)
			default:
				err = ErrKeyNotFound
			}
			if err != nil {
				return fmt.Errorf("operation %d: %w", i, err)
			}
		}
	}
	return nil
}

// changes is what a list of operations may put and delete.
type changes struct {
	puts    map[string]struct{}
	deletes map[string]struct{} // single keys
	ranges  []keyRange
}

// collectChanges fails with ErrDuplicateKey if a key may be put twice or both put and deleted. These
// are etcd's rules, order included: the deletes of a list count for all of its nested transactions,
// those of a nested transaction for the nested ones after it and for the list's own puts, and the two
// branches of a nested transaction exclude each other.
func collectChanges(ops []Op) (*changes, error) {
	all := &changes{puts: make(map[string]struct{}, len(ops)), deletes: map[string]struct{}{}}
	for _, op := range ops {
		if op.Delete != nil {
			all.addDelete(op.Delete)
		}
	}
	for _, op := range ops {
		if op.Txn == nil {
			continue
		}
		if err := all.addNested(op.Txn); err != nil {
			return nil, err
		}
	}
	for _, op := range ops {
		if op.Put == nil {
			continue
		}
		if err := all.addPut(string(op.Put.Key)); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (c *changes) addDelete(op *DeleteOp) {
	switch r := (keyRange{op.Key, op.End}); {
	case r.single():
		c.deletes[string(op.Key)] = struct{}{}
	case r.open(): // etcd takes this for an empty range, and its clients may rely on it
	default:
		c.ranges = append(c.ranges, r)
	}
}

func (c *changes) addNested(txn *Txn) error {
	success, err := collectChanges(txn.Success)
	if err != nil {
		return err
	}
	failure, err := collectChanges(txn.Failure)
	if err != nil {
		return err
	}
	for key := range success.puts {
		if err := c.addPut(key); err != nil {
			return err
		}
	}
	for key := range failure.puts {
		if _, ok := success.puts[key]; ok {
			continue // was checked above
		}
		if err := c.addPut(key); err != nil {
			return err
		}
	}
	for _, branch := range []*changes{success, failure} {
		for key := range branch.deletes {
			c.deletes[key] = struct{}{}
		}
		c.ranges = append(c.ranges, branch.ranges...)
	}
	return nil
}

func (c *changes) addPut(key string) error {
	_, put := c.puts[key]
	_, deleted := c.deletes[key]
	if put || deleted || slices.ContainsFunc(c.ranges, func(r keyRange) bool { return r.contains([]byte(key)) }) {
		return fmt.Errorf("put %q: %w", key, ErrDuplicateKey)
	}
	c.puts[key] = struct{}{}
	return nil
}
