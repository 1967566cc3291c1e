package store

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func put(key, value string) Op { return Op{Put: &PutOp{Key: []byte(key), Value: []byte(value)}} }

func del(key, end string) Op { return Op{Delete: &DeleteOp{Key: []byte(key), End: []byte(end)}} }

func get(key, end string, revision int64) Op {
	return Op{Range: &RangeOp{Key: []byte(key), End: []byte(end), RangeOptions: RangeOptions{Revision: revision}}}
}

func nested(success, failure []Op, compares ...Compare) Op {
	return Op{Txn: &Txn{Compares: compares, Success: success, Failure: failure}}
}

// never is a compare that does not hold.
func never() Compare {
	return Compare{Key: []byte("never"), Target: CompareVersion, Result: CompareGreater}
}

func TestCompares(t *testing.T) {
	s := newStore(t, Config{})
	if _, _, err := s.Grant(9, 60); err != nil {
		t.Fatal(err)
	}
	mustPut(t, s, "k", "m") // 2
	if _, err := s.Put(PutOp{Key: []byte("k"), Value: []byte("m"), Lease: 9}); err != nil {
		t.Fatal(err)
	}
	mustPut(t, s, "k2", "n") // 4
	mustPut(t, s, "empty", "")
	is := func(key, end string, target CompareTarget, result CompareResult, n int64, v string) Compare {
		return Compare{Key: []byte(key), End: []byte(end), Target: target, Result: result, Int: n, Value: []byte(v)}
	}
	for name, test := range map[string]struct {
		compare Compare
		want    bool
	}{
		"version":                            {is("k", "", CompareVersion, CompareEqual, 2, ""), true},
		"create":                             {is("k", "", CompareCreate, CompareEqual, 2, ""), true},
		"mod":                                {is("k", "", CompareMod, CompareEqual, 3, ""), true},
		"lease":                              {is("k", "", CompareLease, CompareEqual, 9, ""), true},
		"value":                              {is("k", "", CompareValue, CompareEqual, 0, "m"), true},
		"value greater":                      {is("k", "", CompareValue, CompareGreater, 0, "l"), true},
		"value not less":                     {is("k", "", CompareValue, CompareLess, 0, "m"), false},
		"not equal":                          {is("k", "", CompareMod, CompareNotEqual, 2, ""), true},
		"greater":                            {is("k", "", CompareMod, CompareGreater, 2, ""), true},
		"less":                               {is("k", "", CompareMod, CompareLess, 2, ""), false},
		"absent key has version 0":           {is("none", "", CompareVersion, CompareEqual, 0, ""), true},
		"absent key has create revision 0":   {is("none", "", CompareCreate, CompareLess, 1, ""), true},
		"absent key has no value":            {is("none", "", CompareValue, CompareEqual, 0, ""), false},
		"absent key has not another value":   {is("none", "", CompareValue, CompareNotEqual, 0, "x"), false},
		"empty value is a value":             {is("empty", "", CompareValue, CompareEqual, 0, ""), true},
		"every key of the range":             {is("k", "l", CompareMod, CompareGreater, 2, ""), true},
		"not every key of the range":         {is("k", "l", CompareMod, CompareGreater, 3, ""), false},
		"empty range is like an absent key":  {is("x", "\x00", CompareVersion, CompareEqual, 0, ""), true},
		"empty range has no value":           {is("x", "\x00", CompareValue, CompareNotEqual, 0, "v"), false},
		"inverted range is like an absent":   {is("l", "k", CompareVersion, CompareEqual, 0, ""), true},
		"unknown result passes":              {is("k", "", CompareMod, 9, 77, ""), true},
		"unknown target is equal":            {is("k", "", 9, CompareEqual, 77, ""), true},
		"unknown target is not greater":      {is("k", "", 9, CompareGreater, 0, ""), false},
		"from-key range":                     {is("k2", "\x00", CompareMod, CompareEqual, 4, ""), true},
		"missing operand counts as zero":     {is("k", "", CompareLease, CompareGreater, 0, ""), true},
		"range where the first key is false": {is("k", "l", CompareMod, CompareLess, 4, ""), false},
	} {
		t.Run(name, func(t *testing.T) {
			result, err := s.Txn(Txn{Compares: []Compare{test.compare}})
			if err != nil || result.Succeeded != test.want {
				t.Errorf("succeeded %v, %v", result.Succeeded, err)
			}
		})
	}
	all, err := s.Txn(Txn{Compares: []Compare{is("k", "", CompareVersion, CompareEqual, 2, ""), never()}})
	if err != nil || all.Succeeded {
		t.Error("a transaction succeeds with one compare that does not hold")
	}
}

// Operations see earlier ones, and each result carries the revision as the operation saw it.
func TestOperationsOfATxn(t *testing.T) {
	s := newStore(t, Config{})
	mustPut(t, s, "a", "old") // revision 2
	result, err := s.Txn(Txn{Success: []Op{
		get("\x00", "\x00", 0),
		del("none", ""),
		put("b", "new"),
		get("\x00", "\x00", 0),
		get("\x00", "\x00", 2),
		nested([]Op{get("b", "", 0), put("c", "newer")}, nil),
		del("a", ""),
		get("\x00", "\x00", -1),
		del("none", ""),
	}})
	if err != nil {
		t.Fatal(err)
	}
	if !result.Succeeded || result.Revision != 3 || s.Revision() != 3 {
		t.Errorf("succeeded %v, revision %d, store's %d", result.Succeeded, result.Revision, s.Revision())
	}
	var got []string
	for _, r := range result.Results {
		switch {
		case r.Range != nil:
			got = append(got, fmt.Sprintf("range %v @%d", keysOf(r.Range.KVs), r.Range.Revision))
		case r.Put != nil:
			got = append(got, fmt.Sprintf("put @%d", r.Put.Revision))
		case r.Delete != nil:
			got = append(got, fmt.Sprintf("delete %d @%d", r.Delete.Deleted, r.Delete.Revision))
		case r.Txn != nil:
			got = append(got, fmt.Sprintf("txn %v %s @%d", r.Txn.Succeeded, r.Txn.Results[0].Range.KVs[0].Value, r.Txn.Revision))
		}
	}
	want := []string{
		"range [a] @2", "delete 0 @2", "put @3", "range [a b] @3", "range [a] @3", "txn true new @0",
		"delete 1 @3", "range [b c] @3", "delete 0 @3",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	blocks, err := mustWatch(t, s, "\x00", "\x00", 3).Next(0)
	if err != nil || len(blocks) != 1 {
		t.Fatalf("%d blocks, %v", len(blocks), err)
	}
	var order []string
	for _, e := range blocks[0].Events {
		order = append(order, fmt.Sprintf("%s %v", e.KV.Key, e.Delete))
	}
	if diff := cmp.Diff([]string{"b false", "c false", "a true"}, order); diff != "" {
		t.Error(diff)
	}
}

func TestNestedComparesSeeTheStateBeforeTheTxn(t *testing.T) {
	s := newStore(t, Config{})
	absent := Compare{Key: []byte("a"), Target: CompareVersion, Result: CompareEqual}
	result, err := s.Txn(Txn{Success: []Op{
		put("a", "1"),
		nested([]Op{put("b", "then")}, []Op{put("b", "else")}, absent),
	}})
	if err != nil {
		t.Fatal(err)
	}
	if !result.Results[1].Txn.Succeeded {
		t.Error("a nested compare saw an earlier put")
	}
}

func TestTxnWithoutChangesKeepsTheRevision(t *testing.T) {
	s := newStore(t, Config{})
	mustPut(t, s, "a", "1")
	for _, txn := range []Txn{
		{},
		{Success: []Op{get("a", "", 0)}},
		{Success: []Op{del("b", "")}},
		{Compares: []Compare{never()}, Success: []Op{put("a", "2")}},
	} {
		if result, err := s.Txn(txn); err != nil || result.Revision != 2 || s.Revision() != 2 {
			t.Errorf("%+v: %+v, %v", txn, result, err)
		}
	}
}

func TestTxnValidation(t *testing.T) {
	a := []Op{put("a", "1")}
	keep := func(key string) Op { return Op{Put: &PutOp{Key: []byte(key), IgnoreValue: true}} }
	for name, test := range map[string]struct {
		txn  Txn
		want error
	}{
		"compare without a key":               {Txn{Compares: []Compare{{}}}, ErrEmptyKey},
		"put without a key":                   {Txn{Success: []Op{put("", "")}}, ErrEmptyKey},
		"range without a key":                 {Txn{Success: []Op{get("", "", 0)}}, ErrEmptyKey},
		"delete without a key, other branch":  {Txn{Failure: []Op{del("", "")}}, ErrEmptyKey},
		"nested in the branch not taken":      {Txn{Failure: []Op{nested(nil, []Op{put("", "")})}}, ErrEmptyKey},
		"invalid sort":                        {Txn{Success: []Op{{Range: &RangeOp{Key: []byte("a"), RangeOptions: RangeOptions{SortOrder: 7}}}}}, ErrInvalidSort},
		"operation with nothing set":          {Txn{Success: []Op{{}}}, ErrKeyNotFound},
		"the same key twice":                  {Txn{Success: []Op{put("a", "1"), put("a", "1")}}, ErrDuplicateKey},
		"the same key twice, branch not run":  {Txn{Failure: []Op{put("a", "1"), put("a", "1")}}, ErrDuplicateKey},
		"put and delete":                      {Txn{Success: []Op{put("a", "1"), del("a", "")}}, ErrDuplicateKey},
		"put into a deleted range":            {Txn{Success: []Op{del("a", "c"), put("b", "1")}}, ErrDuplicateKey},
		"put beside a deleted range":          {Txn{Success: []Op{del("a", "c"), put("c", "1")}}, nil},
		"one key in both branches":            {Txn{Success: a, Failure: a}, nil},
		"one key in both nested branches":     {Txn{Success: []Op{nested(a, a)}}, nil},
		"put in nested and outer":             {Txn{Success: []Op{nested(a, nil), put("a", "2")}}, ErrDuplicateKey},
		"put in two nested":                   {Txn{Success: []Op{nested(a, nil), nested(nil, a)}}, ErrDuplicateKey},
		"nested put, outer delete":            {Txn{Success: []Op{nested(nil, a), del("a", "")}}, ErrDuplicateKey},
		"nested delete, outer put":            {Txn{Success: []Op{put("a", "1"), nested(nil, []Op{del("a", "")})}}, ErrDuplicateKey},
		"nested delete, later nested put":     {Txn{Success: []Op{nested([]Op{del("a", "")}, nil), nested(a, nil)}}, ErrDuplicateKey},
		"nested put, later nested delete":     {Txn{Success: []Op{nested(a, nil), nested([]Op{del("a", "")}, nil)}}, nil},
		"nested range delete, later put":      {Txn{Success: []Op{nested([]Op{del("0", "z")}, nil), put("a", "1")}}, ErrDuplicateKey},
		"put into a from-key delete":          {Txn{Success: []Op{del("\x00", "\x00"), put("a", "1")}}, nil},
		"ignore_value after from-key delete":  {Txn{Success: []Op{del("\x00", "\x00"), keep("there")}}, ErrKeyNotFound},
		"ignore_value before from-key delete": {Txn{Success: []Op{keep("there"), del("\x00", "\x00")}}, nil},
		"ignore_value below from-key delete":  {Txn{Success: []Op{del("u", "\x00"), keep("there")}}, nil},
		"ignore_value after nested from-key": {
			Txn{Success: []Op{nested([]Op{del("z", "\x00"), del("t", "\x00")}, nil), keep("there")}}, ErrKeyNotFound,
		},
		"ignore_value after two from-key deletes": {
			Txn{Success: []Op{del("t", "\x00"), del("z", "\x00"), keep("there")}}, ErrKeyNotFound,
		},
		"future range":                     {Txn{Success: []Op{put("a", "1"), get("a", "", 5)}}, ErrFutureRevision},
		"compacted range":                  {Txn{Success: []Op{put("a", "1"), get("a", "", 1)}}, ErrCompacted},
		"negative revision counts as old":  {Txn{Success: []Op{get("a", "", -1)}}, ErrCompacted},
		"compacted range, branch not run":  {Txn{Failure: []Op{get("a", "", 1)}}, nil},
		"unknown lease, nested":            {Txn{Success: []Op{put("a", "1"), nested([]Op{{Put: &PutOp{Key: []byte("b"), Lease: 5}}}, nil)}}, ErrLeaseNotFound},
		"unknown lease, branch not run":    {Txn{Failure: []Op{{Put: &PutOp{Key: []byte("b"), Lease: 5}}}}, nil},
		"ignore_value of an absent key":    {Txn{Success: []Op{put("a", "1"), keep("absent")}}, ErrKeyNotFound},
		"ignore_value of a key put before": {Txn{Success: []Op{nested([]Op{put("b", "1")}, nil), keep("c")}}, ErrKeyNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t, Config{})
			mustPut(t, s, "there", "1")
			mustPut(t, s, "there", "2")
			mustPut(t, s, "there", "3")
			mustCompact(t, s, 3)
			before := mustRange(t, s, "\x00", "\x00", RangeOptions{})
			_, err := s.Txn(test.txn)
			if !sameError(err, test.want) {
				t.Fatalf("got %v, want %v", err, test.want)
			}
			if test.want == nil {
				return
			}
			after := mustRange(t, s, "\x00", "\x00", RangeOptions{})
			if diff := cmp.Diff(before, after); diff != "" {
				t.Errorf("a failed transaction had an effect:\n%s", diff)
			}
		})
	}
}

// etcd's duplicate check does not see a delete of everything from a key on, so this is accepted, and
// it makes two events of one key in one revision.
func TestDeleteFromKeyAndPutInOneTxn(t *testing.T) {
	s := newStore(t, Config{})
	mustPut(t, s, "a", "old")
	if _, err := s.Txn(Txn{Success: []Op{del("\x00", "\x00"), put("a", "new")}}); err != nil {
		t.Fatal(err)
	}
	blocks, err := mustWatch(t, s, "a", "", 3).Next(0)
	if err != nil || len(blocks) != 1 {
		t.Fatal(blocks, err)
	}
	old := &KeyValue{Key: []byte("a"), Value: []byte("old"), CreateRevision: 2, ModRevision: 2, Version: 1}
	want := []Event{
		{Delete: true, KV: &KeyValue{Key: []byte("a"), ModRevision: 3}, Prev: old},
		{KV: &KeyValue{Key: []byte("a"), Value: []byte("new"), CreateRevision: 3, ModRevision: 3, Version: 1}},
	}
	if diff := cmp.Diff(want, blocks[0].Events); diff != "" {
		t.Error(diff)
	}
}

// etcd reads prev_kv at the revision before, so a put that the same transaction deletes again is never
// a previous value. The response of the delete does carry it.
func TestPreviousValueIsFromBeforeTheTxn(t *testing.T) {
	s := newStore(t, Config{})
	mustPut(t, s, "a", "old")
	result, err := s.Txn(Txn{Success: []Op{
		nested([]Op{put("a", "passing"), put("b", "passing")}, nil),
		nested([]Op{{Delete: &DeleteOp{Key: []byte("a"), End: []byte("c"), PrevKV: true}}}, nil),
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, prev := range result.Results[1].Txn.Results[0].Delete.Prevs {
		if string(prev.Value) != "passing" {
			t.Errorf("the delete answers that %s was %s", prev.Key, prev.Value)
		}
	}
	blocks, err := mustWatch(t, s, "a", "c", 3).Next(0)
	if err != nil || len(blocks) != 1 {
		t.Fatal(blocks, err)
	}
	var got []string
	for _, e := range blocks[0].Events {
		before := "nothing"
		if e.Prev != nil {
			before = string(e.Prev.Value)
		}
		got = append(got, fmt.Sprintf("%s %v after %s", e.KV.Key, e.Delete, before))
	}
	want := []string{"a false after old", "b false after nothing", "a true after old", "b true after nothing"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// The first world of a bridge is one transaction, and so is what a mesh-wide change makes. The checks
// must not compare every put with every delete.
func TestTxnOfAnySize(t *testing.T) {
	s := newStore(t, Config{})
	const n = 20_000
	var first, second []Op
	for i := range n {
		first = append(first, put(fmt.Sprintf("/old/%d", i), "v"))
		second = append(second, put(fmt.Sprintf("/new/%d", i), "v"), del(fmt.Sprintf("/old/%d", i), ""))
	}
	for i, ops := range [][]Op{first, second} {
		result, err := s.Txn(Txn{Success: ops})
		if err != nil || result.Revision != int64(i+2) {
			t.Fatal(result.Revision, err)
		}
	}
	if got := mustRange(t, s, "\x00", "\x00", RangeOptions{CountOnly: true}).Count; got != n {
		t.Errorf("%d keys", got)
	}
}
