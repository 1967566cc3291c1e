package etcd

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

// What clients see that read and write a few keys at the same time, over gRPC
// and HTTP, could have happened one request after the other: values, versions
// and revisions included, and each request between its start and its end.
func TestConcurrentRequestsAreLinearizable(t *testing.T) {
	t.Parallel()
	t.Run("meshbridge", func(t *testing.T) {
		t.Parallel()
		checkLinearizable(t, startMeshbridge(t))
	})
	t.Run("etcd", func(t *testing.T) { // which shows that the model is right
		t.Parallel()
		checkLinearizable(t, startEtcd(t))
	})
}

func checkLinearizable(t *testing.T, s server) {
	t.Helper()
	const clients, requests = 8, 150
	random := randomness(t)
	begin := time.Now()
	histories := make([][]porcupine.Operation, clients)
	var all sync.WaitGroup
	for i := range clients {
		random := rand.New(rand.NewPCG(random.Uint64(), random.Uint64()))
		var c caller = newGRPCCaller(s.client(t))
		if i%2 == 1 {
			c = newHTTPCaller(t, s, random)
		}
		all.Go(func() {
			var seen int64 // a revision, to compare with
			for n := range requests {
				request := linearRequest(random, fmt.Append(nil, i, " ", n), seen)
				op := porcupine.Operation{ClientId: i, Input: request, Call: time.Since(begin).Nanoseconds()}
				answer := c.call(t, request)
				op.Return = time.Since(begin).Nanoseconds()
				if answer.response == nil {
					t.Errorf("%v: %s", request, answer.failure)
					return
				}
				op.Output = answer.response
				histories[i] = append(histories[i], op)
				if r, ok := answer.response.(*pb.RangeResponse); ok && len(r.GetKvs()) > 0 {
					seen = r.GetKvs()[0].GetModRevision()
				}
			}
		})
	}
	all.Wait()
	if t.Failed() {
		return
	}
	history := slices.Concat(histories...)
	if result := porcupine.CheckOperationsTimeout(linearModel(), history, patience); result != porcupine.Ok {
		t.Errorf("%d requests: %s", len(history), result)
	}
	// The model is of use only if it rejects what cannot have happened.
	history[len(history)/2].Output = &pb.PutResponse{Header: &pb.ResponseHeader{Revision: 1}}
	if result := porcupine.CheckOperationsTimeout(linearModel(), history, patience); result != porcupine.Illegal {
		t.Errorf("a wrong answer is %s", result)
	}
}

// linearRequest is about one of three keys, or all.
func linearRequest(random *rand.Rand, value []byte, seen int64) proto.Message {
	key := []byte{byte('a' + random.IntN(3))}
	switch random.IntN(10) {
	case 0, 1, 2:
		return &pb.PutRequest{Key: key, Value: value}
	case 3:
		return &pb.DeleteRangeRequest{Key: key}
	case 4, 5, 6: // put what nobody else has changed, or read it
		return &pb.TxnRequest{
			Compare: []*pb.Compare{{Key: key, Target: pb.Compare_MOD, TargetUnion: &pb.Compare_ModRevision{ModRevision: seen}}},
			Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: value}}}},
			Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: key}}}},
		}
	case 7:
		return &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte{0}}
	default:
		return &pb.RangeRequest{Key: key}
	}
}

// linearState is the store as the model has it.
type linearState struct {
	revision int64
	keys     keyspace
}

func linearModel() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return linearState{revision: 1, keys: keyspace{}} },
		Step: func(state, input, output any) (bool, any) {
			before, ok := state.(linearState)
			response, after := before.step(input.(proto.Message))
			return ok && proto.Equal(response, output.(proto.Message)), after
		},
		Equal: func(a, b any) bool {
			x, y := a.(linearState), b.(linearState)
			return x.revision == y.revision && maps.EqualFunc(x.keys, y.keys, sameKeyValue)
		},
		DescribeOperation: func(input, output any) string { return fmt.Sprint(input, " => ", output) },
	}
}

func sameKeyValue(a, b *mvccpb.KeyValue) bool { return proto.Equal(a, b) }

// step executes a request of linearRequest.
func (s linearState) step(request proto.Message) (response proto.Message, after linearState) {
	header := &pb.ResponseHeader{Revision: s.revision}
	switch r := request.(type) {
	case *pb.RangeRequest:
		return s.read(r), s
	case *pb.DeleteRangeRequest:
		deleted := s.keys[string(r.GetKey())] != nil
		if !deleted {
			return &pb.DeleteRangeResponse{Header: header}, s
		}
		after = s.apply(r)
		return &pb.DeleteRangeResponse{Header: &pb.ResponseHeader{Revision: after.revision}, Deleted: 1}, after
	case *pb.TxnRequest:
		condition := r.GetCompare()[0]
		if s.keys[string(condition.GetKey())].GetModRevision() != condition.GetModRevision() {
			read := s.read(r.GetFailure()[0].GetRequestRange())
			return &pb.TxnResponse{Header: header, Responses: []*pb.ResponseOp{
				{Response: &pb.ResponseOp_ResponseRange{ResponseRange: read}},
			}}, s
		}
		put, after := s.step(r.GetSuccess()[0].GetRequestPut())
		return &pb.TxnResponse{Header: &pb.ResponseHeader{Revision: after.revision}, Succeeded: true, Responses: []*pb.ResponseOp{
			{Response: &pb.ResponseOp_ResponsePut{ResponsePut: put.(*pb.PutResponse)}},
		}}, after
	default:
		after = s.apply(r)
		return &pb.PutResponse{Header: &pb.ResponseHeader{Revision: after.revision}}, after
	}
}

func (s linearState) apply(request proto.Message) linearState {
	after := linearState{revision: s.revision + 1, keys: maps.Clone(s.keys)}
	after.keys.apply(write{request: request}, after.revision)
	return after
}

func (s linearState) read(r *pb.RangeRequest) *pb.RangeResponse {
	out := &pb.RangeResponse{Header: &pb.ResponseHeader{Revision: s.revision}}
	for _, key := range slices.Sorted(maps.Keys(s.keys)) {
		if len(r.GetRangeEnd()) > 0 || key == string(r.GetKey()) {
			out.Kvs = append(out.Kvs, s.keys[key])
		}
	}
	out.Count = int64(len(out.GetKvs()))
	return out
}
