package store

import (
	"bytes"
	"cmp"
	"fmt"
)

// Txn executes a transaction. Its compares, and those of nested transactions, look at the state before
// it; its operations see what earlier ones wrote. All changes make one revision. If anything in the
// branch that would run cannot be executed, nothing is. A transaction may be of any size.
//
// Errors are those of Range and Put, ErrDuplicateKey when a branch puts a key twice or also deletes
// it, and ErrKeyNotFound for an Op with nothing set, as etcd has it.
func (s *Store) Txn(txn Txn) (TxnResult, error) {
	if err := txn.Validate(); err != nil {
		return TxnResult{}, fmt.Errorf("txn: %w", err)
	}
	if err := s.lock(); err != nil {
		return TxnResult{}, err
	}
	defer s.mu.Unlock()
	w := s.begin()
	plan := w.plan(&txn)
	if err := (&planCheck{write: w}).check(plan); err != nil {
		return TxnResult{}, fmt.Errorf("txn: %w", err)
	}
	result := w.execute(plan)
	w.commit()
	if w.ops > 1 {
		s.counters.txns.Add(1)
	}
	result.Revision = w.visible()
	return result, nil
}

// txnPlan is a transaction whose compares have been decided.
type txnPlan struct {
	succeeded bool
	ops       []Op
	nested    []*txnPlan // of the nested transactions among ops, in order
}

func (w *write) plan(txn *Txn) *txnPlan {
	plan := &txnPlan{succeeded: true, ops: txn.Success}
	for i := range txn.Compares {
		if !w.holds(&txn.Compares[i]) {
			plan.succeeded, plan.ops = false, txn.Failure
			break
		}
	}
	for _, op := range plan.ops {
		if op.Txn != nil {
			plan.nested = append(plan.nested, w.plan(op.Txn))
		}
	}
	return plan
}

// holds evaluates a compare. A range without keys is treated like an absent key: its value equals
// nothing, and everything else about it is zero.
func (w *write) holds(c *Compare) bool {
	holds, found := true, false
	w.store.index.ascend(keyRange{c.Key, c.End}, func(ch *chain) bool {
		kv := ch.at(w.before.revision)
		if kv == nil {
			return true
		}
		found = true
		holds = c.holds(kv)
		return holds
	})
	if !found {
		return c.Target != CompareValue && c.holds(&KeyValue{})
	}
	return holds
}

func (c *Compare) holds(kv *KeyValue) bool {
	var order int
	switch c.Target {
	case CompareVersion:
		order = cmp.Compare(kv.Version, c.Int)
	case CompareCreate:
		order = cmp.Compare(kv.CreateRevision, c.Int)
	case CompareMod:
		order = cmp.Compare(kv.ModRevision, c.Int)
	case CompareValue:
		order = bytes.Compare(kv.Value, c.Value)
	case CompareLease:
		order = cmp.Compare(kv.Lease, c.Int)
	}
	switch c.Result {
	case CompareEqual:
		return order == 0
	case CompareGreater:
		return order > 0
	case CompareLess:
		return order < 0
	case CompareNotEqual:
		return order != 0
	}
	return true // etcd lets an unknown result pass
}

// planCheck checks, on the state before the transaction, that every operation that will run can.
type planCheck struct {
	write *write
	// cleared is the lowest key from which an operation so far deletes everything. Such a delete
	// may share its branch with a put of a key it deletes (etcd's duplicate check does not see it),
	// and where that put wants to keep what is no longer there, etcd crashes.
	cleared []byte
}

func (p *planCheck) check(plan *txnPlan) error {
	nested := plan.nested
	for i, op := range plan.ops {
		var err error
		switch {
		case op.Range != nil:
			err = p.checkRange(op.Range)
		case op.Put != nil:
			err = p.checkPut(op.Put)
		case op.Delete != nil:
			if r := (keyRange{op.Delete.Key, op.Delete.End}); r.open() && (p.cleared == nil || bytes.Compare(r.key, p.cleared) < 0) {
				p.cleared = r.key
			}
		case op.Txn != nil:
			err = p.check(nested[0])
			nested = nested[1:]
		}
		if err != nil {
			return fmt.Errorf("operation %d: %w", i, err)
		}
	}
	return nil
}

// checkRange is stricter than Range: here a negative revision is an old one.
func (p *planCheck) checkRange(op *RangeOp) error {
	before := p.write.before
	switch {
	case op.Revision > before.revision:
		return ErrFutureRevision
	case op.Revision != 0 && op.Revision < before.compact:
		return &CompactedError{CompactRevision: before.compact}
	}
	return nil
}

// checkPut differs from Put in the order of its checks, as in etcd 3.6.
func (p *planCheck) checkPut(op *PutOp) error {
	if err := p.write.checkKept(op); err != nil {
		return err
	}
	if (op.IgnoreValue || op.IgnoreLease) && p.cleared != nil && bytes.Compare(op.Key, p.cleared) >= 0 {
		return fmt.Errorf("put %q after its deletion: %w", op.Key, ErrKeyNotFound)
	}
	return p.write.checkLease(op)
}

func (w *write) execute(plan *txnPlan) TxnResult {
	result := TxnResult{Succeeded: plan.succeeded, Results: make([]OpResult, len(plan.ops))}
	nested := plan.nested
	for i, op := range plan.ops {
		switch {
		case op.Range != nil:
			w.ops++
			w.store.counters.ranges.Add(1)
			r := op.Range.read(w.store.index, w.visible())
			result.Results[i].Range = &r
		case op.Put != nil:
			r := w.put(op.Put)
			result.Results[i].Put = &r
		case op.Delete != nil:
			r := w.delete(op.Delete)
			result.Results[i].Delete = &r
		case op.Txn != nil:
			r := w.execute(nested[0])
			nested = nested[1:]
			result.Results[i].Txn = &r
		}
	}
	return result
}
