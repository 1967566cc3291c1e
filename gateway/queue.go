package gateway

import (
	"context"
	"errors"
	"strconv"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"meshbridge/store"
)

// sessionTTL is that of the lease of a caller who brings none, in seconds.
const sessionTTL = 60

// queue is what locks and elections are made of: the keys below a prefix, oldest first, each of which
// lives as long as its lease. The layout is that of etcd's client library, so that both take turns.
// Everything goes through the services that clients call, with the caller's context, and so is subject
// to the same rules.
type queue struct {
	*endpoint
	prefix string
}

// newQueue is the queue of a name. Any bytes are a name.
func (e *endpoint) newQueue(name []byte) queue {
	return queue{endpoint: e, prefix: string(name) + "/"}
}

// place is a key in a queue.
type place struct {
	key     string
	created int64 // its create revision
	first   bool  // it was the oldest when it was entered or found
	value   []byte
	header  *pb.ResponseHeader // of entering or finding it
}

// session gives the lease to enter a queue with: that of the caller, or a new one.
func (e *endpoint) session(ctx context.Context, lease int64) (int64, error) {
	if lease != 0 {
		return lease, nil
	}
	r, err := (&leaseService{endpoint: e}).LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: sessionTTL})
	return r.GetID(), err
}

// enter finds the place of a lease in the queue, or enters it with a value.
func (q queue) enter(ctx context.Context, lease int64, value []byte) (*place, error) {
	key := q.prefix + strconv.FormatInt(lease, 16)
	oldest := readOp(q.oldestFirst())
	response, err := q.kv().Txn(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{createdAt(key, 0)},
		Success: []*pb.RequestOp{putOfLease(key, value, lease), oldest},
		Failure: []*pb.RequestOp{readOp(&pb.RangeRequest{Key: []byte(key)}), oldest},
	})
	if err != nil {
		return nil, err
	}
	p := &place{key: key, created: response.GetHeader().GetRevision(), value: value, header: response.GetHeader()}
	if !response.GetSucceeded() {
		kv := response.GetResponses()[0].GetResponseRange().GetKvs()[0]
		p.created, p.value = kv.GetCreateRevision(), kv.GetValue()
	}
	owners := response.GetResponses()[1].GetResponseRange().GetKvs()
	if len(owners) == 0 {
		// The write was ignored, which is not for the caller to hear; but nobody may take
		// this for a lock.
		return nil, rpctypes.ErrGRPCPermissionDenied
	}
	p.first = owners[0].GetCreateRevision() == p.created
	return p, nil
}

// awaitTurn waits until no key in the queue is older than p.
func (q queue) awaitTurn(ctx context.Context, p *place) error {
	for {
		older := q.oldestFirst()
		older.SortOrder, older.MaxCreateRevision = pb.RangeRequest_DESCEND, p.created-1
		response, err := q.kv().Range(ctx, older)
		if err != nil {
			return err
		}
		if len(response.GetKvs()) == 0 {
			return nil
		}
		// Only the next older one is watched, so that each end of a turn wakes one waiter.
		predecessor := response.GetKvs()[0].GetKey()
		err = q.await(ctx, predecessor, nil, response.GetHeader().GetRevision(), func(event *store.Event, _ int64) (bool, error) {
			return event.Delete, nil
		})
		if err != nil {
			return err
		}
	}
}

// oldest returns the oldest key of the queue, or nil.
func (q queue) oldest(ctx context.Context) (*mvccpb.KeyValue, *pb.ResponseHeader, error) {
	response, err := q.kv().Range(ctx, q.oldestFirst())
	if err != nil || len(response.GetKvs()) == 0 {
		return nil, response.GetHeader(), err
	}
	return response.GetKvs()[0], response.GetHeader(), nil
}

// oldestFirst reads the oldest key.
func (q queue) oldestFirst() *pb.RangeRequest {
	return &pb.RangeRequest{
		Key: []byte(q.prefix), RangeEnd: q.end(),
		SortTarget: pb.RangeRequest_CREATE, SortOrder: pb.RangeRequest_ASCEND, Limit: 1,
	}
}

// end is the key after the last one of the queue.
func (q queue) end() []byte {
	end := []byte(q.prefix)
	end[len(end)-1]++ // it is a slash
	return end
}

// await watches [key, end) from revision start on until see has seen enough. The error is a wire error
// or that of see.
func (e *endpoint) await(ctx context.Context, key, end []byte, start int64, see func(event *store.Event, revision int64) (bool, error)) error {
	if err := e.hold(ctx, key, end); err != nil {
		return err
	}
	ended := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() { ended <- wireError(ctx.Err()) })
	defer stop()
	create := &pb.WatchCreateRequest{Key: key, RangeEnd: end, StartRevision: start}
	request := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}
	err := e.newWatchStream(ctx, eventSink{see}, formProto, &e.metrics.grpc).run([]*pb.WatchRequest{request}, nil, ended)
	if errors.Is(err, errSeen) {
		return nil
	}
	return err
}

// errSeen ends the stream of a sink that has seen enough.
var errSeen = errors.New("seen")

// eventSink passes the events of a watch to a function.
type eventSink struct {
	see func(event *store.Event, revision int64) (enough bool, err error)
}

// control implements watchSink.
func (s eventSink) control(r *pb.WatchResponse) error {
	switch {
	case !r.GetCanceled():
		return nil
	case r.GetCompactRevision() != 0:
		return rpctypes.ErrGRPCCompacted
	default:
		return status.Error(codes.Unknown, r.GetCancelReason())
	}
}

// events implements watchSink.
func (s eventSink) events(w *watcher, blocks []*store.Block) (total int, err error) {
	for _, b := range blocks {
		events := b.Select([]byte(w.class.key), []byte(w.class.end))
		for i := range events {
			enough, err := s.see(&events[i], b.Revision)
			if err != nil {
				return total, err
			}
			total++
			if enough {
				return total, errSeen
			}
		}
	}
	return total, nil
}

// flush implements watchSink.
func (s eventSink) flush() error { return nil }

func (e *endpoint) kv() *kvService { return &kvService{endpoint: e} }

// createdAt holds if a key has a create revision; that of a key that does not exist is 0.
func createdAt(key string, revision int64) *pb.Compare {
	return &pb.Compare{
		Key: []byte(key), Target: pb.Compare_CREATE, Result: pb.Compare_EQUAL,
		TargetUnion: &pb.Compare_CreateRevision{CreateRevision: revision},
	}
}

func readOp(r *pb.RangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
}

func putOfLease(key string, value []byte, lease int64) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{
		RequestPut: &pb.PutRequest{Key: []byte(key), Value: value, Lease: lease},
	}}
}

// callError is the error of a call to a lock or an election. In etcd these are clients of the server
// themselves, on whose way the code of an error gets lost, and whose own errors have none.
func callError(err error) error {
	switch code := status.Code(err); code {
	case codes.OK, codes.Canceled, codes.DeadlineExceeded, codes.Unavailable:
		return err
	default:
		return status.Error(codes.Unknown, status.Convert(err).Message())
	}
}
