package etcd

import (
	"context"
	"fmt"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// grpcCaller is a caller over gRPC.
type grpcCaller struct {
	client *clientv3.Client
	leases *leaseNames
}

func newGRPCCaller(client *clientv3.Client) *grpcCaller {
	return &grpcCaller{client: client, leases: newLeaseNames()}
}

func (c *grpcCaller) call(t *testing.T, request proto.Message) answer {
	t.Helper()
	response, err := c.send(t.Context(), c.leases.requested(request))
	if err != nil {
		return answer{failure: status.Convert(err).Code().String() + ": " + status.Convert(err).Message()}
	}
	c.leases.answered(request, response)
	withoutChoices(response)
	return answer{response: response}
}

func (c *grpcCaller) send(ctx context.Context, request proto.Message) (proto.Message, error) {
	conn := c.client.ActiveConnection()
	kv, lease, maintenance := pb.NewKVClient(conn), pb.NewLeaseClient(conn), pb.NewMaintenanceClient(conn)
	switch r := request.(type) {
	case *pb.PutRequest:
		return sent(ctx, kv.Put, r)
	case *pb.RangeRequest:
		return sent(ctx, kv.Range, r)
	case *pb.DeleteRangeRequest:
		return sent(ctx, kv.DeleteRange, r)
	case *pb.TxnRequest:
		return sent(ctx, kv.Txn, r)
	case *pb.CompactionRequest:
		return sent(ctx, kv.Compact, r)
	case *pb.HashKVRequest:
		return sent(ctx, maintenance.HashKV, r)
	case *pb.LeaseGrantRequest:
		return sent(ctx, lease.LeaseGrant, r)
	case *pb.LeaseRevokeRequest:
		return sent(ctx, lease.LeaseRevoke, r)
	case *pb.LeaseTimeToLiveRequest:
		return sent(ctx, lease.LeaseTimeToLive, r)
	case *pb.LeaseLeasesRequest:
		return sent(ctx, lease.LeaseLeases, r)
	case *pb.LeaseKeepAliveRequest:
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := lease.LeaseKeepAlive(ctx)
		if err != nil {
			return nil, err
		}
		if err := stream.Send(r); err != nil {
			return nil, err
		}
		return stream.Recv()
	default:
		return nil, fmt.Errorf("no call for %T", request)
	}
}

// sent makes a unary call. It returns no typed nil.
func sent[Q any, R proto.Message](ctx context.Context, call func(context.Context, Q, ...grpc.CallOption) (R, error), request Q) (proto.Message, error) {
	response, err := call(ctx, request)
	if err != nil {
		return nil, err
	}
	return response, nil
}
