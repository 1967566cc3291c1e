package etcd

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"
)

// Random requests, valid and invalid, get the same answer from both servers;
// afterwards a watch of the history tells the same story.
func TestRandomRequestsGetTheAnswersOfEtcd(t *testing.T) {
	t.Parallel()
	for name, chooseLeases := range map[string]bool{"leases named by the client": false, "leases named by the server": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			etcd, meshbridge := startBoth(t)
			a, b := newGRPCCaller(etcd.client(t)), newGRPCCaller(meshbridge.client(t))
			compacted := compareCalls(t, newRequestMaker(randomness(t), chooseLeases), *opsFlag, a, b)
			if diff := cmp.Diff(a.history(t, compacted), b.history(t, compacted), protocmp.Transform()); diff != "" {
				t.Errorf("events from revision %d (-etcd +meshbridge):\n%s", compacted, diff)
			}
		})
	}
}

// caller sends requests to one server.
type caller interface {
	// call returns the answer without what the server is free to choose: the
	// identities of cluster, member and leases.
	call(t *testing.T, request proto.Message) answer
}

// answer is what a call is told.
type answer struct {
	response proto.Message // nil if the call failed
	failure  string
	text     string // of the answer, if it is one
}

// compareCalls makes random requests to both servers and fails at the first
// that is answered differently. It returns the revision compacted last.
func compareCalls(t *testing.T, random *requestMaker, requests int, etcd, meshbridge caller) (compacted int64) {
	t.Helper()
	var log []string
	for range requests {
		request := random.next()
		log = append(log, fmt.Sprintf("%T %v", request, request))
		want, got := etcd.call(t, request), meshbridge.call(t, request)
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(answer{}), protocmp.Transform()); diff != "" {
			t.Fatalf("request %d is answered differently (-etcd +meshbridge):\n%s\nthe last requests:\n%s",
				len(log), diff, strings.Join(log[max(0, len(log)-10):], "\n"))
		}
		if want.response == nil {
			continue
		}
		random.saw(request, want.response)
		if c, ok := request.(*pb.CompactionRequest); ok {
			compacted = c.GetRevision()
		}
	}
	return compacted
}

// leaseNames gives leases whose ids a server has chosen the names 1e9+1, 1e9+2
// and so on, in the order in which they were granted.
type leaseNames struct {
	chosen  map[int64]int64 // id by name
	nameFor map[int64]int64
}

func newLeaseNames() *leaseNames {
	return &leaseNames{chosen: map[int64]int64{}, nameFor: map[int64]int64{}}
}

func (l *leaseNames) granted(id int64) {
	name := int64(1e9) + int64(len(l.chosen)) + 1
	l.chosen[name], l.nameFor[id] = id, name
}

// requested is request with the server's ids.
func (l *leaseNames) requested(request proto.Message) proto.Message {
	if len(l.chosen) == 0 {
		return request
	}
	request = proto.Clone(request)
	renameLeases(request.ProtoReflect(), l.chosen)
	return request
}

// answered gives the leases in response their names.
func (l *leaseNames) answered(request, response proto.Message) {
	if grant, ok := request.(*pb.LeaseGrantRequest); ok && grant.GetID() == 0 {
		l.granted(response.(*pb.LeaseGrantResponse).GetID())
	}
	renameLeases(response.ProtoReflect(), l.nameFor)
}

// renameLeases replaces ids of leases wherever there are any in m.
func renameLeases(m protoreflect.Message, names map[int64]int64) {
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.IsList() && field.Message() != nil:
			for i := range value.List().Len() {
				renameLeases(value.List().Get(i).Message(), names)
			}
		case field.IsList():
		case field.Message() != nil:
			renameLeases(value.Message(), names)
		case field.Name() == "ID", field.Name() == "lease":
			if name, ok := names[value.Int()]; ok {
				m.Set(field, protoreflect.ValueOfInt64(name))
			}
		}
		return true
	})
}

// leaseStep divides every TTL that is granted; no test lasts as long.
const leaseStep = 1000

// withoutChoices removes from response what two servers may answer differently.
func withoutChoices(response proto.Message) {
	if h, ok := response.(interface{ GetHeader() *pb.ResponseHeader }); ok && h.GetHeader() != nil {
		header := h.GetHeader()
		header.ClusterId, header.MemberId, header.RaftTerm = 0, 0, 0
	}
	if r, ok := response.(*pb.LeaseTimeToLiveResponse); ok {
		if r.GetTTL() > 0 { // the time that has passed since the grant
			r.TTL = (r.GetTTL() + leaseStep - 1) / leaseStep * leaseStep
		}
		slices.SortFunc(r.GetKeys(), bytes.Compare)
	}
}

// history watches everything from one revision up to the current one.
func (c *grpcCaller) history(t *testing.T, from int64) []*mvccpb.Event {
	t.Helper()
	current, err := c.client.Get(t.Context(), "absent")
	if err != nil {
		t.Fatal(err)
	}
	var events []*mvccpb.Event
	for response := range c.client.Watch(t.Context(), "", clientv3.WithPrefix(), clientv3.WithRev(from), clientv3.WithPrevKV()) {
		if err := response.Err(); err != nil {
			t.Fatal(err)
		}
		for _, e := range response.Events {
			events = append(events, e)
		}
		if len(events) > 0 && events[len(events)-1].GetKv().GetModRevision() >= current.Header.GetRevision() {
			for _, e := range events {
				renameLeases(e.ProtoReflect(), c.leases.nameFor)
			}
			return events
		}
	}
	t.Fatal("the watch ended")
	return nil
}

// The same requests as JSON, in every spelling that clients use, get the same
// statuses and the same texts.
func TestRandomRequestsOverHTTPGetTheAnswersOfEtcd(t *testing.T) {
	t.Parallel()
	for name, chooseLeases := range map[string]bool{"leases named by the client": false, "leases named by the server": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			etcd, meshbridge := startBoth(t)
			compareCalls(t, newRequestMaker(randomness(t), chooseLeases), *opsFlag,
				newHTTPCaller(t, etcd, randomness(t)),
				newHTTPCaller(t, meshbridge, randomness(t), errorOfOldGateway, streamErrorOfOldGateway))
		})
	}
}
