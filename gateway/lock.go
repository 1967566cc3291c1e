package gateway

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// lockService implements v3lockpb.Lock.
type lockService struct {
	v3lockpb.UnimplementedLockServer
	*endpoint
}

// Lock implements v3lockpb.Lock: it returns when the caller has the lock. A caller that goes away
// while it waits leaves nothing behind.
func (s *lockService) Lock(ctx context.Context, r *v3lockpb.LockRequest) (*v3lockpb.LockResponse, error) {
	lease, err := s.session(ctx, r.GetLease())
	if err != nil {
		return nil, callError(err)
	}
	q := s.newQueue(r.GetName())
	p, err := q.enter(ctx, lease, nil)
	if err != nil {
		return nil, callError(err)
	}
	if p.first {
		return &v3lockpb.LockResponse{Header: p.header, Key: []byte(p.key)}, nil
	}
	err = q.awaitTurn(ctx, p)
	var own *pb.RangeResponse
	if err == nil {
		own, err = s.kv().Range(ctx, &pb.RangeRequest{Key: []byte(p.key)})
	}
	if err != nil {
		_, _ = s.kv().DeleteRange(context.WithoutCancel(ctx), &pb.DeleteRangeRequest{Key: []byte(p.key)})
		return nil, callError(err)
	}
	if len(own.GetKvs()) == 0 {
		return nil, status.Error(codes.Unknown, "mutex: session is expired")
	}
	return &v3lockpb.LockResponse{Header: own.GetHeader(), Key: []byte(p.key)}, nil
}

// Unlock implements v3lockpb.Lock.
func (s *lockService) Unlock(ctx context.Context, r *v3lockpb.UnlockRequest) (*v3lockpb.UnlockResponse, error) {
	response, err := s.kv().DeleteRange(ctx, &pb.DeleteRangeRequest{Key: r.GetKey()})
	if err != nil {
		return nil, callError(err)
	}
	return &v3lockpb.UnlockResponse{Header: response.GetHeader()}, nil
}
