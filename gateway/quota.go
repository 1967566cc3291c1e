package gateway

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// DefaultQuotaBytes is etcd's default for Config.QuotaBytes.
const DefaultQuotaBytes = 2 << 30

// What etcd reckons a key or a lease to cost, beside the bytes of a key and its value.
const (
	kvCost    = 256
	leaseCost = 64
)

// minDBSize is the size of an empty etcd database; clients take zero for a member that is not up.
const minDBSize = 20 << 10

// dbSize is what the server says the size of its database is.
func (s *Server) dbSize() int64 { return minDBSize + s.store.Bytes() }

// reserve fails if the store has no room for something of a cost, and raises the alarm that keeps it from
// growing until an operator has made room. As in etcd it comes before everything else about a request,
// and something without a cost always fits. Its error is a wire error.
func (s *Server) reserve(ctx context.Context, cost int) error {
	if cost == 0 || s.cfg.QuotaBytes < 0 || s.dbSize()+int64(cost) < s.cfg.QuotaBytes {
		return nil
	}
	if !s.alarms.noSpace.Load() {
		s.raise(ctx, alarm{kind: pb.AlarmType_NOSPACE, member: s.cfg.MemberID})
	}
	return rpctypes.ErrGRPCNoSpace
}

func costOfPut(r *pb.PutRequest) int { return kvCost + len(r.GetKey()) + len(r.GetValue()) }

// costOfTxn is that of its dearer branch.
func costOfTxn(r *pb.TxnRequest) int {
	return max(costOfBranch(r.GetSuccess()), costOfBranch(r.GetFailure()))
}

func costOfBranch(ops []*pb.RequestOp) (cost int) {
	for _, op := range ops {
		switch {
		case op.GetRequestPut() != nil:
			cost += costOfPut(op.GetRequestPut())
		case op.GetRequestTxn() != nil:
			cost += costOfTxn(op.GetRequestTxn())
		}
	}
	return cost
}
