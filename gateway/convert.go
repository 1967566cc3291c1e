package gateway

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"meshbridge/store"
)

func rangeOp(r *pb.RangeRequest) store.RangeOp {
	return store.RangeOp{
		Key: r.GetKey(), End: r.GetRangeEnd(),
		RangeOptions: store.RangeOptions{
			Revision:          r.GetRevision(),
			Limit:             r.GetLimit(),
			CountOnly:         r.GetCountOnly(),
			KeysOnly:          r.GetKeysOnly(),
			SortTarget:        store.SortTarget(r.GetSortTarget()),
			SortOrder:         store.SortOrder(r.GetSortOrder()),
			MinModRevision:    r.GetMinModRevision(),
			MaxModRevision:    r.GetMaxModRevision(),
			MinCreateRevision: r.GetMinCreateRevision(),
			MaxCreateRevision: r.GetMaxCreateRevision(),
		},
	}
}

func putOp(r *pb.PutRequest) store.PutOp {
	return store.PutOp{
		Key: r.GetKey(), Value: r.GetValue(), Lease: r.GetLease(), PrevKV: r.GetPrevKv(),
		IgnoreValue: r.GetIgnoreValue(), IgnoreLease: r.GetIgnoreLease(),
	}
}

func deleteOp(r *pb.DeleteRangeRequest) store.DeleteOp {
	return store.DeleteOp{Key: r.GetKey(), End: r.GetRangeEnd(), PrevKV: r.GetPrevKv()}
}

// txn converts a transaction of at most budget operations in a branch, with all that is nested in it.
// Its operations and those of its results are in the same places: an ignored write becomes a read of no
// keys, whose result nobody looks at. What is wrong with an operation by itself is found in etcd's order:
// which of several mistakes a client hears of is visible. That a write is not admitted is none of them.
func (s *Server) txn(r *pb.TxnRequest, budget int) (txn store.Txn, admitted bool, err error) {
	c := txnConverter{Server: s}
	txn, err = c.txn(r, budget)
	return txn, !c.denied, err
}

// txnConverter converts one transaction.
type txnConverter struct {
	*Server
	denied bool // a write was not admitted
}

func (c *txnConverter) txn(r *pb.TxnRequest, budget int) (store.Txn, error) {
	ops := max(len(r.GetCompare()), len(r.GetSuccess()), len(r.GetFailure()))
	if ops > budget {
		return store.Txn{}, rpctypes.ErrGRPCTooManyOps
	}
	var t store.Txn
	for _, condition := range r.GetCompare() {
		if len(condition.GetKey()) == 0 {
			return store.Txn{}, rpctypes.ErrGRPCEmptyKey
		}
		t.Compares = append(t.Compares, compare(condition))
	}
	var err error
	if t.Success, err = c.ops(r.GetSuccess(), budget-ops); err != nil {
		return store.Txn{}, err
	}
	if t.Failure, err = c.ops(r.GetFailure(), budget-ops); err != nil {
		return store.Txn{}, err
	}
	return t, nil
}

func (c *txnConverter) ops(requests []*pb.RequestOp, budget int) ([]store.Op, error) {
	ops := make([]store.Op, 0, len(requests))
	for _, request := range requests {
		op, err := c.op(request, budget)
		if err != nil {
			return nil, err
		}
		ops = append(ops, op)
	}
	return ops, nil
}

func (c *txnConverter) op(request *pb.RequestOp, budget int) (store.Op, error) {
	switch r := request.GetRequest().(type) {
	case *pb.RequestOp_RequestRange:
		op := rangeOp(r.RequestRange)
		return store.Op{Range: &op}, wireError(op.Validate())
	case *pb.RequestOp_RequestPut:
		op := putOp(r.RequestPut)
		if err := op.Validate(); err != nil {
			return store.Op{}, wireError(err)
		}
		if c.ignores(Write{Key: op.Key}) {
			return noOp(op.Key), nil
		}
		return store.Op{Put: &op}, nil
	case *pb.RequestOp_RequestDeleteRange:
		op := deleteOp(r.RequestDeleteRange)
		if err := op.Validate(); err != nil {
			return store.Op{}, wireError(err)
		}
		if c.ignores(Write{Delete: true, Key: op.Key, End: op.End}) {
			return noOp(op.Key), nil
		}
		return store.Op{Delete: &op}, nil
	case *pb.RequestOp_RequestTxn:
		nested, err := c.txn(r.RequestTxn, budget)
		if err != nil {
			return store.Op{}, err
		}
		return store.Op{Txn: &nested}, nil
	default:
		// etcd's answer to an operation that says nothing.
		return store.Op{}, rpctypes.ErrGRPCKeyNotFound
	}
}

// ignores tells whether a write is to be left out, and notes if it is not admitted.
func (c *txnConverter) ignores(w Write) bool {
	ignored, err := c.admit(w)
	c.denied = c.denied || err != nil
	return ignored
}

// noOp stands for an ignored write of key.
func noOp(key []byte) store.Op {
	return store.Op{Range: &store.RangeOp{Key: key, RangeOptions: store.RangeOptions{CountOnly: true}}}
}

// compare converts a condition. A value of another kind than the target counts as zero, as in etcd.
func compare(c *pb.Compare) store.Compare {
	out := store.Compare{
		Key: c.GetKey(), End: c.GetRangeEnd(),
		Target: store.CompareTarget(c.GetTarget()), Result: store.CompareResult(c.GetResult()),
	}
	switch c.GetTarget() {
	case pb.Compare_VERSION:
		out.Int = c.GetVersion()
	case pb.Compare_CREATE:
		out.Int = c.GetCreateRevision()
	case pb.Compare_MOD:
		out.Int = c.GetModRevision()
	case pb.Compare_LEASE:
		out.Int = c.GetLease()
	case pb.Compare_VALUE:
		out.Value = c.GetValue()
	}
	return out
}

// keyValues converts in two allocations. The bytes are shared with the store.
func keyValues(kvs []*store.KeyValue) []*mvccpb.KeyValue {
	if len(kvs) == 0 {
		return nil
	}
	values, out := make([]mvccpb.KeyValue, len(kvs)), make([]*mvccpb.KeyValue, len(kvs))
	for i, kv := range kvs {
		v := &values[i]
		v.Key, v.Value = kv.Key, kv.Value
		v.CreateRevision, v.ModRevision, v.Version, v.Lease = kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease
		out[i] = v
	}
	return out
}

// keyValue converts one, nil to nil.
func keyValue(kv *store.KeyValue) *mvccpb.KeyValue {
	if kv == nil {
		return nil
	}
	return keyValues([]*store.KeyValue{kv})[0]
}

func rangeResponse(header *pb.ResponseHeader, r *store.RangeResult) *pb.RangeResponse {
	return &pb.RangeResponse{Header: header, Kvs: keyValues(r.KVs), More: r.More, Count: r.Count}
}

func putResponse(header *pb.ResponseHeader, r *store.PutResult) *pb.PutResponse {
	return &pb.PutResponse{Header: header, PrevKv: keyValue(r.Prev)}
}

func deleteResponse(header *pb.ResponseHeader, r *store.DeleteResult) *pb.DeleteRangeResponse {
	return &pb.DeleteRangeResponse{Header: header, Deleted: r.Deleted, PrevKvs: keyValues(r.Prevs)}
}

// txnResponse converts the result of a transaction. Inside it, headers carry the revision only.
func txnResponse(header *pb.ResponseHeader, request *pb.TxnRequest, result *store.TxnResult) *pb.TxnResponse {
	branch := request.GetFailure()
	if result.Succeeded {
		branch = request.GetSuccess()
	}
	out := &pb.TxnResponse{Header: header, Succeeded: result.Succeeded}
	for i, r := range result.Results {
		out.Responses = append(out.Responses, opResponse(branch[i], &r))
	}
	return out
}

func opResponse(request *pb.RequestOp, r *store.OpResult) *pb.ResponseOp {
	switch q := request.GetRequest().(type) {
	case *pb.RequestOp_RequestPut:
		result := r.Put
		if result == nil { // ignored
			result = &store.PutResult{Revision: r.Range.Revision}
		}
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{
			ResponsePut: putResponse(&pb.ResponseHeader{Revision: result.Revision}, result),
		}}
	case *pb.RequestOp_RequestDeleteRange:
		result := r.Delete
		if result == nil { // ignored
			result = &store.DeleteResult{Revision: r.Range.Revision}
		}
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseDeleteRange{
			ResponseDeleteRange: deleteResponse(&pb.ResponseHeader{Revision: result.Revision}, result),
		}}
	case *pb.RequestOp_RequestTxn:
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseTxn{
			ResponseTxn: txnResponse(&pb.ResponseHeader{}, q.RequestTxn, r.Txn),
		}}
	default:
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{
			ResponseRange: rangeResponse(&pb.ResponseHeader{Revision: r.Range.Revision}, r.Range),
		}}
	}
}
