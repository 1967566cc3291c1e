package store

import (
	"bytes"
	"cmp"
	"errors"
	"maps"
	"slices"
	"sort"
	"time"
)

// model is a store that is too simple to be wrong: it keeps a full copy of the state for every
// revision it ever had.
type model struct {
	base    int64
	compact int64
	states  []map[string]*KeyValue // states[i] is the state at revision base+i
	changes [][]Event              // changes[i] made revision base+i
	leases  map[int64]*modelLease
	now     time.Time
}

type modelLease struct {
	ttl    int64
	expiry time.Time
}

func newModel(base int64) *model {
	m := &model{
		base:    base,
		compact: -1,
		states:  []map[string]*KeyValue{{}},
		changes: [][]Event{nil},
		leases:  map[int64]*modelLease{},
		now:     time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	if base > 1 {
		m.compact = base
	}
	return m
}

func (m *model) revision() int64 { return m.base + int64(len(m.states)) - 1 }

func (m *model) at(revision int64) map[string]*KeyValue { return m.states[revision-m.base] }

func modelMatches(key, end []byte, k string) bool {
	switch string(end) {
	case "":
		return k == string(key)
	case "\x00":
		return k >= string(key)
	default:
		return k >= string(key) && k < string(end)
	}
}

func modelKeys(state map[string]*KeyValue, key, end []byte) []string {
	var keys []string
	for k := range state {
		if modelMatches(key, end, k) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys
}

// modelWrite is a change to the model that is kept only if it succeeds.
type modelWrite struct {
	m      *model
	before map[string]*KeyValue
	state  map[string]*KeyValue
	events []Event
}

func (m *model) begin() *modelWrite {
	before := m.at(m.revision())
	return &modelWrite{m: m, before: before, state: maps.Clone(before)}
}

func (w *modelWrite) revision() int64 { return w.m.revision() + 1 }

func (w *modelWrite) visible() int64 {
	if len(w.events) > 0 {
		return w.revision()
	}
	return w.m.revision()
}

func (w *modelWrite) commit() {
	if len(w.events) > 0 {
		w.m.states = append(w.m.states, w.state)
		w.m.changes = append(w.m.changes, w.events)
	}
}

func (w *modelWrite) checkLease(op *PutOp) error {
	if op.Lease != 0 && w.m.leases[op.Lease] == nil {
		return ErrLeaseNotFound
	}
	return nil
}

func (w *modelWrite) checkKept(op *PutOp) error {
	if (op.IgnoreValue || op.IgnoreLease) && w.before[string(op.Key)] == nil {
		return ErrKeyNotFound
	}
	return nil
}

func (w *modelWrite) put(op *PutOp) (PutResult, error) {
	prev := w.state[string(op.Key)]
	kv := &KeyValue{
		Key: op.Key, Value: op.Value, Lease: op.Lease,
		CreateRevision: w.revision(), ModRevision: w.revision(), Version: 1,
	}
	if prev == nil && (op.IgnoreValue || op.IgnoreLease) {
		return PutResult{}, ErrKeyNotFound
	}
	event := Event{KV: kv}
	if prev != nil {
		kv.CreateRevision = prev.CreateRevision
		kv.Version = prev.Version + 1
		if op.IgnoreValue {
			kv.Value = prev.Value
		}
		if op.IgnoreLease {
			kv.Lease = prev.Lease
		}
		event.Prev = w.before[string(op.Key)]
	}
	w.state[string(op.Key)] = kv
	w.events = append(w.events, event)
	result := PutResult{Revision: w.revision()}
	if op.PrevKV {
		result.Prev = prev
	}
	return result, nil
}

func (w *modelWrite) delete(op *DeleteOp) DeleteResult {
	var result DeleteResult
	for _, k := range modelKeys(w.state, op.Key, op.End) {
		if op.PrevKV {
			result.Prevs = append(result.Prevs, w.state[k])
		}
		result.Deleted++
		delete(w.state, k)
		w.events = append(w.events, Event{
			Delete: true,
			KV:     &KeyValue{Key: []byte(k), ModRevision: w.revision()},
			Prev:   w.before[k],
		})
	}
	result.Revision = w.visible()
	return result
}

func modelRange(state map[string]*KeyValue, current int64, op *RangeOp) RangeResult {
	result := RangeResult{Revision: current}
	for _, k := range modelKeys(state, op.Key, op.End) {
		kv := state[k]
		result.Count++
		outside := op.MinModRevision != 0 && kv.ModRevision < op.MinModRevision ||
			op.MaxModRevision != 0 && kv.ModRevision > op.MaxModRevision ||
			op.MinCreateRevision != 0 && kv.CreateRevision < op.MinCreateRevision ||
			op.MaxCreateRevision != 0 && kv.CreateRevision > op.MaxCreateRevision
		if !outside && !op.CountOnly {
			result.KVs = append(result.KVs, kv)
		}
	}
	unfiltered := op.MinModRevision == 0 && op.MaxModRevision == 0 && op.MinCreateRevision == 0 && op.MaxCreateRevision == 0
	if op.Limit > 0 && op.SortOrder == SortNone && unfiltered && int64(len(result.KVs)) > op.Limit {
		result.KVs = result.KVs[:op.Limit+1] // etcd sorts no more than this
	}
	compare := map[SortTarget]func(a, b *KeyValue) int{
		SortByKey:     func(a, b *KeyValue) int { return bytes.Compare(a.Key, b.Key) },
		SortByVersion: func(a, b *KeyValue) int { return cmp.Compare(a.Version, b.Version) },
		SortByCreate:  func(a, b *KeyValue) int { return cmp.Compare(a.CreateRevision, b.CreateRevision) },
		SortByMod:     func(a, b *KeyValue) int { return cmp.Compare(a.ModRevision, b.ModRevision) },
		SortByValue:   func(a, b *KeyValue) int { return bytes.Compare(a.Value, b.Value) },
	}[op.SortTarget]
	// The keys are so few that etcd's unstable sort is stable.
	sort.SliceStable(result.KVs, func(i, j int) bool {
		if op.SortOrder == SortDescend {
			i, j = j, i
		}
		return compare(result.KVs[i], result.KVs[j]) < 0
	})
	if op.Limit > 0 && int64(len(result.KVs)) > op.Limit {
		result.KVs = result.KVs[:op.Limit]
		result.More = true
	}
	if op.KeysOnly {
		for i, kv := range result.KVs {
			bare := *kv
			bare.Value = nil
			result.KVs[i] = &bare
		}
	}
	return result
}

func (m *model) rangeAt(op *RangeOp) (RangeResult, error) {
	revision := op.Revision
	switch {
	case revision > m.revision():
		return RangeResult{}, ErrFutureRevision
	case revision > 0 && revision < m.compact:
		return RangeResult{}, ErrCompacted
	case revision <= 0:
		revision = m.revision()
	case revision < m.base: // a store that starts at 1 has a revision 0 in theory
		return modelRange(nil, m.revision(), op), nil
	}
	return modelRange(m.at(revision), m.revision(), op), nil
}

func (m *model) put(op *PutOp) (PutResult, error) {
	if op.IgnoreValue && len(op.Value) > 0 {
		return PutResult{}, ErrValueProvided
	}
	if op.IgnoreLease && op.Lease != 0 {
		return PutResult{}, ErrLeaseProvided
	}
	w := m.begin()
	if err := cmp.Or(w.checkLease(op), w.checkKept(op)); err != nil {
		return PutResult{}, err
	}
	result, err := w.put(op)
	w.commit()
	return result, err
}

func (m *model) delete(op *DeleteOp) DeleteResult {
	w := m.begin()
	result := w.delete(op)
	w.commit()
	return result
}

func modelValidate(ops []Op) error {
	for _, op := range ops {
		switch {
		case op.Put != nil && op.Put.IgnoreValue && len(op.Put.Value) > 0:
			return ErrValueProvided
		case op.Put != nil && op.Put.IgnoreLease && op.Put.Lease != 0:
			return ErrLeaseProvided
		case op.Txn != nil:
			if err := cmp.Or(modelValidate(op.Txn.Success), modelValidate(op.Txn.Failure)); err != nil {
				return err
			}
		}
	}
	return nil
}

// modelOverlap finds a key that is put twice or put and deleted, looking at every pair.
func modelOverlap(ops []Op) (puts []string, deletes []DeleteOp, overlap bool) {
	for _, op := range ops {
		if op.Delete != nil && string(op.Delete.End) != "\x00" {
			deletes = append(deletes, *op.Delete)
		}
	}
	clash := func(k string) bool {
		return slices.Contains(puts, k) || slices.ContainsFunc(deletes, func(d DeleteOp) bool { return modelMatches(d.Key, d.End, k) })
	}
	for _, op := range ops {
		if op.Txn == nil {
			continue
		}
		thenPuts, thenDeletes, o1 := modelOverlap(op.Txn.Success)
		elsePuts, elseDeletes, o2 := modelOverlap(op.Txn.Failure)
		if o1 || o2 || slices.ContainsFunc(slices.Concat(thenPuts, elsePuts), clash) {
			return nil, nil, true
		}
		puts = slices.Concat(puts, thenPuts, elsePuts)
		deletes = slices.Concat(deletes, thenDeletes, elseDeletes)
	}
	for _, op := range ops {
		if op.Put != nil {
			if clash(string(op.Put.Key)) {
				return nil, nil, true
			}
			puts = append(puts, string(op.Put.Key))
		}
	}
	return puts, deletes, false
}

func (m *model) txn(txn *Txn) (TxnResult, error) {
	whole := []Op{{Txn: txn}}
	if err := modelValidate(whole); err != nil {
		return TxnResult{}, err
	}
	for _, branch := range [][]Op{txn.Success, txn.Failure} {
		if _, _, overlap := modelOverlap(branch); overlap {
			return TxnResult{}, ErrDuplicateKey
		}
	}
	w := m.begin()
	if err := w.check(whole); err != nil {
		return TxnResult{}, err
	}
	results, err := w.execute(whole)
	if err != nil {
		return TxnResult{}, err
	}
	w.commit()
	results[0].Txn.Revision = m.revision()
	return *results[0].Txn, nil
}

func (w *modelWrite) branch(txn *Txn) (bool, []Op) {
	for _, c := range txn.Compares {
		keys := modelKeys(w.before, c.Key, c.End)
		if len(keys) == 0 && (c.Target == CompareValue || !modelHolds(&c, &KeyValue{})) {
			return false, txn.Failure
		}
		for _, k := range keys {
			if !modelHolds(&c, w.before[k]) {
				return false, txn.Failure
			}
		}
	}
	return true, txn.Success
}

func modelHolds(c *Compare, kv *KeyValue) bool {
	field := map[CompareTarget]int64{
		CompareVersion: kv.Version, CompareCreate: kv.CreateRevision, CompareMod: kv.ModRevision, CompareLease: kv.Lease,
	}[c.Target]
	order := cmp.Compare(field, c.Int)
	if c.Target == CompareValue {
		order = bytes.Compare(kv.Value, c.Value)
	}
	return map[CompareResult]bool{
		CompareEqual: order == 0, CompareNotEqual: order != 0, CompareGreater: order > 0, CompareLess: order < 0,
	}[c.Result]
}

func (w *modelWrite) check(ops []Op) error {
	for _, op := range ops {
		var err error
		switch {
		case op.Put != nil:
			err = cmp.Or(w.checkKept(op.Put), w.checkLease(op.Put))
		case op.Range != nil && op.Range.Revision > w.m.revision():
			err = ErrFutureRevision
		case op.Range != nil && op.Range.Revision != 0 && op.Range.Revision < w.m.compact:
			err = ErrCompacted
		case op.Txn != nil:
			_, ops := w.branch(op.Txn)
			err = w.check(ops)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *modelWrite) execute(ops []Op) (results []OpResult, err error) {
	for _, op := range ops {
		var result OpResult
		switch {
		case op.Range != nil:
			state := w.state
			if op.Range.Revision >= w.m.base {
				state = w.m.at(op.Range.Revision)
			} else if op.Range.Revision > 0 {
				state = nil
			}
			r := modelRange(state, w.visible(), op.Range)
			result.Range = &r
		case op.Put != nil:
			r, err := w.put(op.Put)
			if err != nil {
				return nil, err
			}
			result.Put = &r
		case op.Delete != nil:
			r := w.delete(op.Delete)
			result.Delete = &r
		case op.Txn != nil:
			succeeded, ops := w.branch(op.Txn)
			nested, err := w.execute(ops)
			if err != nil {
				return nil, err
			}
			result.Txn = &TxnResult{Succeeded: succeeded, Results: nested}
		}
		results = append(results, result)
	}
	return results, nil
}

func (m *model) compactTo(revision int64) error {
	switch {
	case revision <= m.compact:
		return ErrCompacted
	case revision > m.revision():
		return ErrFutureRevision
	}
	m.compact = revision
	return nil
}

func (m *model) leaseKeys(id int64) []string {
	var keys []string
	for k, kv := range m.at(m.revision()) {
		if kv.Lease == id {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys
}

func (m *model) grant(id, ttl int64) error {
	if ttl > 9_000_000_000 {
		return ErrLeaseTTL
	}
	if m.leases[id] != nil {
		return ErrLeaseExists
	}
	m.leases[id] = &modelLease{ttl: max(ttl, 2)}
	m.keepAlive(id)
	return nil
}

func (m *model) keepAlive(id int64) int64 {
	l := m.leases[id]
	if l == nil {
		return 0
	}
	l.expiry = m.now.Add(time.Duration(l.ttl) * time.Second)
	return l.ttl
}

func (m *model) revoke(id int64) error {
	if m.leases[id] == nil {
		return ErrLeaseNotFound
	}
	w := m.begin()
	for _, k := range m.leaseKeys(id) {
		w.delete(&DeleteOp{Key: []byte(k)})
	}
	w.commit()
	delete(m.leases, id)
	return nil
}

// leaseOrder is the ids of all leases, the next to expire first.
func (m *model) leaseOrder() []int64 {
	return slices.SortedFunc(maps.Keys(m.leases), func(a, b int64) int {
		return cmp.Or(m.leases[a].expiry.Compare(m.leases[b].expiry), cmp.Compare(a, b))
	})
}

func (m *model) expire() {
	for _, id := range m.leaseOrder() {
		if !m.leases[id].expiry.After(m.now) {
			if err := m.revoke(id); err != nil {
				panic(err)
			}
		}
	}
}

// blocks is what a watch of the range from revision next on gets.
func (m *model) blocks(key, end []byte, next int64, limit int) (revisions []int64, events [][]Event) {
	for r := max(next, m.base+1); r <= m.revision(); r++ {
		var within []Event
		changes := m.changes[r-m.base]
		for i, e := range changes {
			if !modelMatches(key, end, string(e.KV.Key)) {
				continue
			}
			if r <= m.compact {
				// A compaction keeps of each key the last change only, and nothing before it.
				sameKey := func(later Event) bool { return string(later.KV.Key) == string(e.KV.Key) }
				if slices.ContainsFunc(changes[i+1:], sameKey) {
					continue
				}
				e.Prev = nil
			}
			within = append(within, e)
		}
		if len(within) > 0 && (limit <= 0 || len(revisions) < limit) {
			revisions = append(revisions, r)
			events = append(events, within)
		}
	}
	return revisions, events
}

// restore is what a restart from an export does.
func (m *model) restore() {
	for _, l := range m.leases {
		l.expiry = m.now.Add(time.Duration(l.ttl) * time.Second)
	}
}

// history is what HashKV at the revision hashes.
func (m *model) history(revision int64) ([]Change, error) {
	switch {
	case revision > m.revision():
		return nil, ErrFutureRevision
	case revision > 0 && revision < m.compact:
		return nil, ErrCompacted
	case revision == 0:
		revision = m.revision()
	}
	var all []Change
	last := map[string]int{}          // at revision
	lastCompacted := map[string]int{} // at the compact revision
	for r := m.base + 1; r <= revision; r++ {
		for sub, e := range m.changes[r-m.base] {
			last[string(e.KV.Key)] = len(all)
			if r <= m.compact {
				lastCompacted[string(e.KV.Key)] = len(all)
			}
			all = append(all, Change{Revision: r, Sub: int64(sub), Delete: e.Delete, KV: e.KV})
		}
	}
	empty := true
	for _, i := range last {
		empty = empty && all[i].Delete
	}
	if empty {
		last = lastCompacted
	}
	var kept []Change
	for i, c := range all {
		if c.Revision > m.compact || last[string(c.KV.Key)] == i && !c.Delete {
			kept = append(kept, c)
		}
	}
	return kept, nil
}

// bytes is the size of all versions that can still be seen, and of leases, as Stats counts it.
func (m *model) bytes() int64 {
	last := map[string]*Event{}
	var size int64
	keep := func(e *Event) { size += versionSize + int64(len(e.KV.Value)) }
	keys := map[string]bool{}
	for i, events := range m.changes {
		revision := m.base + int64(i)
		if revision >= m.compact && len(events) > 0 {
			size += blockSize
		}
		for _, e := range events {
			if revision <= m.compact {
				last[string(e.KV.Key)] = &e
				continue
			}
			keep(&e)
			keys[string(e.KV.Key)] = true
		}
	}
	for k, e := range last {
		if !e.Delete || e.KV.ModRevision == m.compact {
			keep(e)
			keys[k] = true
		}
	}
	for k := range keys {
		size += chainSize + int64(len(k))
	}
	for id := range m.leases {
		size += leaseSize
		for _, k := range m.leaseKeys(id) {
			size += attachedSize + int64(len(k))
		}
	}
	return size
}

// sameError reports whether an error of the store is the one that the model gives.
func sameError(got, want error) bool {
	if want == nil {
		return got == nil
	}
	return errors.Is(got, want)
}
