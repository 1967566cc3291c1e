package etcd

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
)

// Random requests, valid and invalid, get the same answer from both servers;
// afterwards a watch of the history tells the same story.
func TestRandomRequestsGetTheAnswersOfEtcd(t *testing.T) {
	t.Parallel()
	const requests = 3000
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := requestMaker{rand.New(rand.NewPCG(seed, 0)), 1}
	etcd, meshbridge := startBoth(t)
	a, b := etcd.client(t), meshbridge.client(t)
	var (
		log       []string
		compacted int64
	)
	for range requests {
		request := random.next()
		log = append(log, fmt.Sprintf("%T %v", request, request))
		want, wantErr := do(t, a, request)
		got, gotErr := do(t, b, request)
		if diff := cmp.Diff(wantErr, gotErr); diff != "" {
			t.Fatalf("error after\n%s\n(-etcd +meshbridge):\n%s", tail(log), diff)
		}
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Fatalf("response after\n%s\n(-etcd +meshbridge):\n%s", tail(log), diff)
		}
		if c, ok := request.(*pb.CompactionRequest); ok && want != nil {
			compacted = c.GetRevision()
		}
		if want != nil {
			random.revision = max(random.revision, want.(interface{ GetHeader() *pb.ResponseHeader }).GetHeader().GetRevision())
		}
	}
	if diff := cmp.Diff(history(t, a, compacted, random.revision), history(t, b, compacted, random.revision), protocmp.Transform()); diff != "" {
		t.Errorf("events from revision %d (-etcd +meshbridge):\n%s", compacted, diff)
	}
}

func tail(log []string) string { return strings.Join(log[max(0, len(log)-10):], "\n") }

// do sends one request and returns the response without the identities of
// cluster and member, and the error's text.
func do(t *testing.T, client *clientv3.Client, request proto.Message) (response proto.Message, failure string) {
	t.Helper()
	kv := pb.NewKVClient(client.ActiveConnection())
	var (
		header *pb.ResponseHeader
		err    error
	)
	switch r := request.(type) {
	case *pb.PutRequest:
		var out *pb.PutResponse
		out, err = kv.Put(t.Context(), r)
		response, header = out, out.GetHeader()
	case *pb.RangeRequest:
		var out *pb.RangeResponse
		out, err = kv.Range(t.Context(), r)
		response, header = out, out.GetHeader()
	case *pb.DeleteRangeRequest:
		var out *pb.DeleteRangeResponse
		out, err = kv.DeleteRange(t.Context(), r)
		response, header = out, out.GetHeader()
	case *pb.TxnRequest:
		var out *pb.TxnResponse
		out, err = kv.Txn(t.Context(), r)
		response, header = out, out.GetHeader()
	case *pb.CompactionRequest:
		var out *pb.CompactionResponse
		out, err = kv.Compact(t.Context(), r)
		response, header = out, out.GetHeader()
	}
	if err != nil {
		return nil, status.Convert(err).Code().String() + ": " + status.Convert(err).Message()
	}
	header.ClusterId, header.MemberId, header.RaftTerm = 0, 0, 0
	return response, ""
}

// history watches everything from one revision up to another.
func history(t *testing.T, client *clientv3.Client, from, to int64) []*mvccpb.Event {
	t.Helper()
	var events []*mvccpb.Event
	for response := range client.Watch(t.Context(), "", clientv3.WithPrefix(), clientv3.WithRev(from), clientv3.WithPrevKV()) {
		if err := response.Err(); err != nil {
			t.Fatal(err)
		}
		for _, e := range response.Events {
			events = append(events, e)
		}
		if len(events) > 0 && events[len(events)-1].GetKv().GetModRevision() >= to {
			return events
		}
	}
	t.Fatal("the watch ended")
	return nil
}

// requestMaker makes requests about ten keys, so that they meet: within so few,
// equal sort keys keep the order of the keys.
type requestMaker struct {
	*rand.Rand

	revision int64 // the store's, as far as known
}

func (r requestMaker) next() proto.Message {
	switch n := r.IntN(100); {
	case n < 40:
		return r.put()
	case n < 60:
		return r.readRange()
	case n < 75:
		return r.deleteRange()
	case n < 98:
		return r.txn(0)
	default:
		return &pb.CompactionRequest{Revision: r.someRevision()}
	}
}

func (r requestMaker) key() []byte {
	if r.IntN(50) == 0 {
		return nil
	}
	return []byte{byte('a' + r.IntN(10))}
}

// span is a key and, often, the end of a range: a later or an earlier key, or
// "\x00" for everything from the key on.
func (r requestMaker) span() (key, end []byte) {
	switch r.IntN(4) {
	case 0:
		return r.key(), r.key()
	case 1:
		return r.key(), []byte{0}
	default:
		return r.key(), nil
	}
}

// someRevision is mostly one that exists; negative ones count as none.
func (r requestMaker) someRevision() int64 {
	return r.revision + 2 - r.Int64N(100)
}

func (r requestMaker) chance(percent int) bool { return r.IntN(100) < percent }

func (r requestMaker) put() *pb.PutRequest {
	p := &pb.PutRequest{Key: r.key(), PrevKv: r.chance(50)}
	if p.IgnoreValue = r.chance(10); !p.GetIgnoreValue() || r.chance(10) {
		p.Value = fmt.Append(nil, r.IntN(5))
	}
	return p
}

func (r requestMaker) readRange() *pb.RangeRequest {
	g := &pb.RangeRequest{
		SortOrder:    pb.RangeRequest_SortOrder(r.IntN(3)),
		SortTarget:   pb.RangeRequest_SortTarget(r.IntN(5)),
		KeysOnly:     r.chance(10),
		CountOnly:    r.chance(10),
		Serializable: r.chance(50),
	}
	g.Key, g.RangeEnd = r.span()
	if r.chance(30) {
		g.Revision = r.someRevision()
	}
	if r.chance(30) {
		g.Limit = r.Int64N(6) - 1
	}
	if r.chance(10) {
		g.MinModRevision, g.MaxCreateRevision = max(0, r.someRevision()), max(0, r.someRevision())
	}
	return g
}

func (r requestMaker) deleteRange() *pb.DeleteRangeRequest {
	d := &pb.DeleteRangeRequest{PrevKv: r.chance(50)}
	if d.Key, d.RangeEnd = r.span(); r.chance(70) {
		d.RangeEnd = nil
	}
	return d
}

func (r requestMaker) txn(depth int) *pb.TxnRequest {
	t := &pb.TxnRequest{}
	for range r.IntN(3) {
		t.Compare = append(t.Compare, r.compare())
	}
	for range r.IntN(4) {
		t.Success = append(t.Success, r.op(depth))
	}
	for range r.IntN(3) {
		t.Failure = append(t.Failure, r.op(depth))
	}
	return t
}

func (r requestMaker) op(depth int) *pb.RequestOp {
	switch n := r.IntN(10); {
	case n < 4:
		p := r.put()
		// A put that keeps the value, after a delete up to the last key in the
		// same transaction, stops etcd with a panic.
		if p.GetIgnoreValue() {
			p.IgnoreValue, p.Value = false, []byte("v")
		}
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: p}}
	case n < 7:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r.readRange()}}
	case n < 9 || depth > 1:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: r.deleteRange()}}
	default:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: r.txn(depth + 1)}}
	}
}

func (r requestMaker) compare() *pb.Compare {
	c := &pb.Compare{Key: r.key(), Result: pb.Compare_CompareResult(r.IntN(4)), Target: pb.Compare_CompareTarget(r.IntN(5))}
	if r.chance(30) {
		_, c.RangeEnd = r.span()
	}
	switch c.GetTarget() {
	case pb.Compare_VERSION:
		c.TargetUnion = &pb.Compare_Version{Version: r.Int64N(4)}
	case pb.Compare_CREATE:
		c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: r.someRevision()}
	case pb.Compare_MOD:
		c.TargetUnion = &pb.Compare_ModRevision{ModRevision: r.someRevision()}
	case pb.Compare_LEASE:
		c.TargetUnion = &pb.Compare_Lease{Lease: r.Int64N(2)}
	case pb.Compare_VALUE:
		c.TargetUnion = &pb.Compare_Value{Value: fmt.Append(nil, r.IntN(5))}
	}
	return c
}
