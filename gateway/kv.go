package gateway

import (
	"context"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/protobuf/proto"

	"meshbridge/store"
)

// envelopeBytes is what etcd's replication wraps around a request; its size limit is over both.
const envelopeBytes = 18

// kvService implements etcdserverpb.KV.
type kvService struct {
	pb.UnimplementedKVServer
	*endpoint
}

// Range implements etcdserverpb.KV.
func (s *kvService) Range(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	result, err := s.readRange(ctx, r)
	if err != nil {
		return nil, err
	}
	return rangeResponse(s.header(result.Revision), &result), nil
}

// readRange is Range for both transports. Its error is a wire error.
func (e *endpoint) readRange(ctx context.Context, r *pb.RangeRequest) (store.RangeResult, error) {
	op := rangeOp(r)
	if err := op.Validate(); err != nil {
		return store.RangeResult{}, wireError(err)
	}
	if err := e.hold(ctx, op.Key, op.End); err != nil {
		return store.RangeResult{}, err
	}
	var result store.RangeResult
	permit := func(g grant) error { return g.read(op.Key, op.End) }
	err := e.reading(ctx, permit, func() (err error) {
		result, err = e.store.Range(op.Key, op.End, op.RangeOptions)
		return err
	})
	return result, wireError(err)
}

// Put implements etcdserverpb.KV.
func (s *kvService) Put(ctx context.Context, r *pb.PutRequest) (*pb.PutResponse, error) {
	if err := s.reserve(ctx, costOfPut(r)); err != nil {
		return nil, err
	}
	op := putOp(r)
	if err := op.Validate(); err != nil {
		return nil, wireError(err)
	}
	g, release, err := s.pin(ctx)
	defer release()
	if err != nil {
		return nil, err
	}
	if err := s.checkSize(r, g); err != nil {
		return nil, err
	}
	if err := s.alarms.mayGrow(); err != nil {
		return nil, err
	}
	if err := s.mayPut(g, r); err != nil {
		return nil, err
	}
	ignored, err := s.admit(Write{Key: op.Key})
	if err != nil {
		return nil, err
	}
	if ignored {
		return &pb.PutResponse{Header: s.header(s.store.Revision())}, nil
	}
	result, err := s.store.Put(op)
	if err != nil {
		return nil, wireError(err)
	}
	return putResponse(s.header(result.Revision), &result), nil
}

// DeleteRange implements etcdserverpb.KV.
func (s *kvService) DeleteRange(ctx context.Context, r *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	op := deleteOp(r)
	if err := op.Validate(); err != nil {
		return nil, wireError(err)
	}
	g, release, err := s.pin(ctx)
	defer release()
	if err != nil {
		return nil, err
	}
	if err := s.checkSize(r, g); err != nil {
		return nil, err
	}
	if err := s.alarms.mayWrite(); err != nil {
		return nil, err
	}
	if err := g.delete(r); err != nil {
		return nil, err
	}
	ignored, err := s.admit(Write{Delete: true, Key: op.Key, End: op.End})
	if err != nil {
		return nil, err
	}
	if ignored {
		return &pb.DeleteRangeResponse{Header: s.header(s.store.Revision())}, nil
	}
	result, err := s.store.Delete(op)
	if err != nil {
		return nil, wireError(err)
	}
	return deleteResponse(s.header(result.Revision), &result), nil
}

// Txn implements etcdserverpb.KV.
func (s *kvService) Txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	if err := s.reserve(ctx, costOfTxn(r)); err != nil {
		return nil, err
	}
	txn, admitted, err := s.txn(r, s.cfg.Limits.TxnOps)
	if err != nil {
		return nil, err
	}
	g, release, err := s.pin(ctx)
	defer release()
	if err == nil {
		err = s.permitTxn(g, r, admitted)
	}
	if err != nil {
		// etcd looks at what is asked before it looks at who asks.
		if invalid := txn.Validate(); invalid != nil {
			return nil, wireError(invalid)
		}
		return nil, err
	}
	result, err := s.store.Txn(txn)
	if err != nil {
		return nil, wireError(err)
	}
	return txnResponse(s.header(result.Revision), r, &result), nil
}

// permitTxn checks everything about a transaction but whether it is valid.
func (s *kvService) permitTxn(g grant, r *pb.TxnRequest, admitted bool) error {
	readOnly := isReadOnly(r)
	if !readOnly { // etcd replicates the others
		if err := s.checkSize(r, g); err != nil {
			return err
		}
		may := s.alarms.mayWrite
		if costOfTxn(r) > 0 {
			may = s.alarms.mayGrow
		}
		if err := may(); err != nil {
			return err
		}
	}
	if err := s.mayTxn(g, r); err != nil {
		return err
	}
	if readOnly {
		return g.current()
	}
	if !admitted {
		return rpctypes.ErrGRPCPermissionDenied
	}
	return nil
}

// isReadOnly tells whether a transaction has nothing but ranges, nested transactions excluded as in etcd.
func isReadOnly(r *pb.TxnRequest) bool {
	for _, branch := range [...][]*pb.RequestOp{r.GetSuccess(), r.GetFailure()} {
		for _, op := range branch {
			if op.GetRequestRange() == nil {
				return false
			}
		}
	}
	return true
}

// Compact implements etcdserverpb.KV. A physical compaction is no different from a logical one: the
// store is in memory.
func (s *kvService) Compact(ctx context.Context, r *pb.CompactionRequest) (*pb.CompactionResponse, error) {
	if err := s.requireRoot(ctx); err != nil {
		return nil, err
	}
	if err := s.alarms.mayWrite(); err != nil {
		return nil, err
	}
	revision, err := s.store.Compact(r.GetRevision())
	if err != nil {
		return nil, wireError(err)
	}
	return &pb.CompactionResponse{Header: s.header(revision)}, nil
}

// checkSize applies etcd's limit to a write.
func (s *Server) checkSize(m proto.Message, g grant) error {
	if proto.Size(m)+envelopeBytes+g.envelope() > s.cfg.Limits.RequestBytes {
		return rpctypes.ErrGRPCRequestTooLarge
	}
	return nil
}

// admit asks Config.Admit about a write. An error is a wire error.
func (s *Server) admit(w Write) (ignored bool, err error) {
	if s.cfg.Admit == nil {
		return false, nil
	}
	switch s.cfg.Admit(w) {
	case Admitted:
		return false, nil
	case Ignored:
		return true, nil
	default:
		return false, rpctypes.ErrGRPCPermissionDenied
	}
}

// hold waits while [key, end) is held. Its error is a wire error.
func (e *endpoint) hold(ctx context.Context, key, end []byte) error {
	if e.cfg.Hold == nil {
		return nil
	}
	released := e.cfg.Hold(key, end)
	if released == nil || e.mayRead(ctx, key, end) != nil {
		return nil // whoever may not read it is refused at once
	}
	timer := time.NewTimer(e.cfg.HoldTimeout)
	defer timer.Stop()
	select {
	case <-released:
		return nil
	case <-timer.C:
		return errHeld()
	case <-e.stopping:
		return rpctypes.ErrGRPCStopped
	case <-ctx.Done():
		return wireError(ctx.Err())
	}
}
