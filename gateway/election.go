package gateway

import (
	"bytes"
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"meshbridge/store"
)

// electionService implements v3electionpb.Election.
type electionService struct {
	v3electionpb.UnimplementedElectionServer
	*endpoint
}

// Campaign implements v3electionpb.Election: it returns when the caller leads. A caller that goes away
// while it waits leaves nothing behind.
func (s *electionService) Campaign(ctx context.Context, r *v3electionpb.CampaignRequest) (*v3electionpb.CampaignResponse, error) {
	lease, err := s.session(ctx, r.GetLease())
	if err != nil {
		return nil, callError(err)
	}
	q := s.newQueue(r.GetName())
	p, err := q.enter(ctx, lease, r.GetValue())
	if err != nil {
		return nil, callError(err)
	}
	leader := &v3electionpb.LeaderKey{Name: r.GetName(), Key: []byte(p.key), Rev: p.created, Lease: lease}
	if !bytes.Equal(p.value, r.GetValue()) {
		_, err = s.proclaim(ctx, leader, lease, r.GetValue())
	}
	if err == nil && !p.first {
		err = q.awaitTurn(ctx, p)
	}
	if err != nil {
		_, _ = s.resign(context.WithoutCancel(ctx), leader)
		return nil, callError(err)
	}
	return &v3electionpb.CampaignResponse{Header: p.header, Leader: leader}, nil
}

// Proclaim implements v3electionpb.Election.
func (s *electionService) Proclaim(ctx context.Context, r *v3electionpb.ProclaimRequest) (*v3electionpb.ProclaimResponse, error) {
	leader := r.GetLeader()
	if leader == nil {
		return nil, errNoLeaderKey()
	}
	lease, err := s.session(ctx, leader.GetLease())
	if err != nil {
		return nil, callError(err)
	}
	header, err := s.proclaim(ctx, leader, lease, r.GetValue())
	if err != nil {
		return nil, callError(err)
	}
	return &v3electionpb.ProclaimResponse{Header: header}, nil
}

// proclaim sets the value of a leader that still is in the queue.
func (s *electionService) proclaim(
	ctx context.Context, leader *v3electionpb.LeaderKey, lease int64, value []byte,
) (*pb.ResponseHeader, error) {
	response, err := s.kv().Txn(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{createdAt(string(leader.GetKey()), leader.GetRev())},
		Success: []*pb.RequestOp{putOfLease(string(leader.GetKey()), value, lease)},
	})
	switch {
	case err != nil:
		return nil, err
	case !response.GetSucceeded():
		return nil, status.Error(codes.Unknown, "election: not leader")
	}
	return response.GetHeader(), nil
}

// Leader implements v3electionpb.Election.
func (s *electionService) Leader(ctx context.Context, r *v3electionpb.LeaderRequest) (*v3electionpb.LeaderResponse, error) {
	kv, header, err := s.newQueue(r.GetName()).oldest(ctx)
	switch {
	case err != nil:
		return nil, callError(err)
	case kv == nil:
		return nil, status.Error(codes.Unknown, "election: no leader")
	}
	return &v3electionpb.LeaderResponse{Header: header, Kv: kv}, nil
}

// Observe implements v3electionpb.Election: it sends the leader, and then each new leader and each
// value that a leader proclaims. Where etcd ends the stream without a word because it may not read the
// election, the error is told.
func (s *electionService) Observe(r *v3electionpb.LeaderRequest, stream grpc.ServerStreamingServer[v3electionpb.LeaderResponse]) error {
	ctx := stream.Context()
	q := s.newQueue(r.GetName())
	for {
		kv, header, err := q.oldest(ctx)
		if err != nil {
			return callError(err)
		}
		if kv == nil {
			if kv, err = s.firstPut(ctx, q, header.GetRevision()); err != nil {
				return callError(err)
			}
			header = s.header(kv.GetModRevision())
		}
		if err := stream.Send(&v3electionpb.LeaderResponse{Header: header, Kv: kv}); err != nil {
			return err
		}
		err = s.await(ctx, kv.GetKey(), nil, header.GetRevision()+1, func(event *store.Event, revision int64) (bool, error) {
			if event.Delete {
				return true, nil
			}
			return false, stream.Send(&v3electionpb.LeaderResponse{Header: s.header(revision), Kv: keyValue(event.KV)})
		})
		if err != nil {
			return callError(err)
		}
	}
}

// firstPut waits for the first key that is put into the queue from a revision on.
func (s *electionService) firstPut(ctx context.Context, q queue, revision int64) (*mvccpb.KeyValue, error) {
	var kv *mvccpb.KeyValue
	err := s.await(ctx, []byte(q.prefix), q.end(), revision, func(event *store.Event, _ int64) (bool, error) {
		if !event.Delete {
			kv = keyValue(event.KV)
		}
		return kv != nil, nil
	})
	return kv, err
}

// Resign implements v3electionpb.Election.
func (s *electionService) Resign(ctx context.Context, r *v3electionpb.ResignRequest) (*v3electionpb.ResignResponse, error) {
	if r.GetLeader() == nil {
		return nil, errNoLeaderKey()
	}
	header, err := s.resign(ctx, r.GetLeader())
	if err != nil {
		return nil, callError(err)
	}
	return &v3electionpb.ResignResponse{Header: header}, nil
}

// resign takes a leader, or who wants to be one, out of the queue.
func (s *electionService) resign(ctx context.Context, leader *v3electionpb.LeaderKey) (*pb.ResponseHeader, error) {
	response, err := s.kv().Txn(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{createdAt(string(leader.GetKey()), leader.GetRev())},
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestDeleteRange{
			RequestDeleteRange: &pb.DeleteRangeRequest{Key: leader.GetKey()},
		}}},
	})
	return response.GetHeader(), err
}

func errNoLeaderKey() error {
	return status.Error(codes.Unknown, `"leader" field must be provided`)
}
