package gateway_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"meshbridge/gateway"
	"meshbridge/store"
)

// openWatch opens a gRPC watch stream and sends requests.
func openWatch(tb testing.TB, s *server, requests ...*pb.WatchRequest) pb.Watch_WatchClient {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	tb.Cleanup(cancel)
	stream, err := pb.NewWatchClient(etcdClient(tb, s).ActiveConnection()).Watch(ctx, grpc.MaxCallRecvMsgSize(math.MaxInt32))
	if err != nil {
		tb.Fatal(err)
	}
	for _, r := range requests {
		if err := stream.Send(r); err != nil {
			tb.Fatal(err)
		}
	}
	return stream
}

func create(r *pb.WatchCreateRequest) *pb.WatchRequest {
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}}
}

func cancelWatch(id int64) *pb.WatchRequest {
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}}
}

func askProgress() *pb.WatchRequest {
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}
}

func receive(tb testing.TB, stream pb.Watch_WatchClient) *pb.WatchResponse {
	tb.Helper()
	r, err := stream.Recv()
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// describe is a response in one line.
func describe(r *pb.WatchResponse) string {
	var out strings.Builder
	fmt.Fprintf(&out, "id %d rev %d", r.GetWatchId(), r.GetHeader().GetRevision())
	for _, flag := range []struct {
		name string
		set  bool
	}{{"created", r.GetCreated()}, {"canceled", r.GetCanceled()}, {"fragment", r.GetFragment()}} {
		if flag.set {
			fmt.Fprintf(&out, " %s", flag.name)
		}
	}
	if r.GetCompactRevision() != 0 {
		fmt.Fprintf(&out, " compact %d", r.GetCompactRevision())
	}
	if r.GetCancelReason() != "" {
		fmt.Fprintf(&out, " %s", r.GetCancelReason())
	}
	for _, e := range r.GetEvents() {
		fmt.Fprintf(&out, " %s %s@%d", e.GetType(), e.GetKv().GetKey(), e.GetKv().GetModRevision())
		if e.GetPrevKv() != nil {
			fmt.Fprintf(&out, " was %s@%d", e.GetPrevKv().GetValue(), e.GetPrevKv().GetModRevision())
		}
	}
	return out.String()
}

func TestWatchOverGRPC(t *testing.T) {
	a, b := []byte("/a"), []byte("/b")
	for name, test := range map[string]struct {
		requests []*pb.WatchRequest
		then     func(*store.Store)
		want     []string
	}{
		"from now": {
			[]*pb.WatchRequest{create(&pb.WatchCreateRequest{Key: a})},
			func(s *store.Store) { put(t, s, "/b", "x"); put(t, s, "/a", "x") },
			[]string{"id 0 rev 4 created", "id 0 rev 6 PUT /a@6"},
		},
		"history, batched": {
			[]*pb.WatchRequest{create(&pb.WatchCreateRequest{Key: a, RangeEnd: []byte("/c"), StartRevision: 1})},
			nil,
			[]string{"id 0 rev 4 created", "id 0 rev 4 PUT /a@2 PUT /b@3 DELETE /a@4"},
		},
		"previous values": {
			[]*pb.WatchRequest{create(&pb.WatchCreateRequest{Key: a, StartRevision: 2, PrevKv: true})},
			nil,
			[]string{"id 0 rev 4 created", "id 0 rev 4 PUT /a@2 DELETE /a@4 was 1@2"},
		},
		"no puts": {
			[]*pb.WatchRequest{create(&pb.WatchCreateRequest{Key: a, StartRevision: 2, Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT}})},
			nil,
			[]string{"id 0 rev 4 created", "id 0 rev 4 DELETE /a@4"},
		},
		"no deletes": {
			[]*pb.WatchRequest{create(&pb.WatchCreateRequest{Key: a, StartRevision: 2, Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NODELETE}})},
			nil,
			[]string{"id 0 rev 4 created", "id 0 rev 2 PUT /a@2"},
		},
		"everything": {
			[]*pb.WatchRequest{create(&pb.WatchCreateRequest{RangeEnd: []byte{0}, StartRevision: 3})},
			nil,
			[]string{"id 0 rev 4 created", "id 0 rev 4 PUT /b@3 DELETE /a@4"},
		},
		"the future": {
			[]*pb.WatchRequest{create(&pb.WatchCreateRequest{Key: b, StartRevision: 6})},
			func(s *store.Store) { put(t, s, "/b", "x"); put(t, s, "/b", "x") },
			[]string{"id 0 rev 4 created", "id 0 rev 6 PUT /b@6"},
		},
		"an empty range": {
			[]*pb.WatchRequest{create(&pb.WatchCreateRequest{Key: b, RangeEnd: a}), create(&pb.WatchCreateRequest{Key: b})},
			nil,
			[]string{"id -1 rev 4 created canceled mvcc: watcher range is empty", "id 0 rev 4 created"},
		},
		"a negative start": {
			[]*pb.WatchRequest{create(&pb.WatchCreateRequest{Key: b, StartRevision: -1}), create(&pb.WatchCreateRequest{Key: b})},
			nil,
			[]string{"id -1 rev 4 created canceled etcdserver: mvcc: required revision has been compacted", "id 0 rev 4 created"},
		},
		"a duplicate id": {
			[]*pb.WatchRequest{create(&pb.WatchCreateRequest{Key: b, WatchId: 1}), create(&pb.WatchCreateRequest{Key: a, WatchId: 1})},
			nil,
			[]string{"id 1 rev 4 created", "id -1 rev 4 created canceled mvcc: duplicate watch ID provided on the WatchStream"},
		},
		"ids of both kinds": {
			[]*pb.WatchRequest{create(&pb.WatchCreateRequest{Key: b, WatchId: 1}), create(&pb.WatchCreateRequest{Key: b}), create(&pb.WatchCreateRequest{Key: b})},
			nil,
			[]string{"id 1 rev 4 created", "id 0 rev 4 created", "id 2 rev 4 created"},
		},
		"cancel": {
			[]*pb.WatchRequest{create(&pb.WatchCreateRequest{Key: b}), cancelWatch(7), cancelWatch(0), create(&pb.WatchCreateRequest{Key: a})},
			func(s *store.Store) { put(t, s, "/b", "x"); put(t, s, "/a", "x") },
			[]string{"id 0 rev 4 created", "id 0 rev 4 canceled", "id 1 rev 4 created", "id 1 rev 6 PUT /a@6"},
		},
		"progress": {
			[]*pb.WatchRequest{askProgress(), create(&pb.WatchCreateRequest{Key: b, StartRevision: 1}), askProgress()},
			nil,
			[]string{"id 0 rev 4 created", "id 0 rev 3 PUT /b@3", "id -1 rev 4"},
		},
		"no progress while one waits for the future": {
			[]*pb.WatchRequest{create(&pb.WatchCreateRequest{Key: a}), create(&pb.WatchCreateRequest{Key: b, StartRevision: 6}), askProgress()},
			func(s *store.Store) { put(t, s, "/b", "x"); put(t, s, "/b", "x") },
			[]string{"id 0 rev 4 created", "id 1 rev 4 created", "id 1 rev 6 PUT /b@6"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, gateway.Config{})
			put(t, s.store, "/a", "1")
			put(t, s.store, "/b", "2")
			if _, err := s.store.Delete(store.DeleteOp{Key: a}); err != nil {
				t.Fatal(err)
			}
			stream := openWatch(t, s, test.requests...)
			var got []string
			for n := range test.want {
				if strings.Contains(test.want[n], "PUT") && test.then != nil {
					test.then(s.store)
					test.then = nil
				}
				got = append(got, describe(receive(t, stream)))
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// After a compaction cancelled one watch, etcd never again answers progress requests of the stream.
func TestProgressAfterACompactedWatch(t *testing.T) {
	s := start(t, gateway.Config{})
	for range 3 {
		put(t, s.store, "/a", "1")
	}
	if _, err := s.store.Compact(3); err != nil {
		t.Fatal(err)
	}
	stream := openWatch(t, s, create(&pb.WatchCreateRequest{Key: []byte("/b")}),
		create(&pb.WatchCreateRequest{Key: []byte("/a"), StartRevision: 2}), askProgress())
	var got []string
	for range 4 {
		got = append(got, describe(receive(t, stream)))
	}
	want := []string{"id 0 rev 4 created", "id 1 rev 4 created", "id 1 rev 0 canceled compact 3", "id -1 rev 4"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestProgressNotify(t *testing.T) {
	s := start(t, gateway.Config{ProgressInterval: time.Millisecond})
	put(t, s.store, "/a", "1")
	stream := openWatch(t, s, create(&pb.WatchCreateRequest{Key: []byte("/a"), ProgressNotify: true}))
	receive(t, stream)
	put(t, s.store, "/elsewhere", "1")
	for {
		r := receive(t, stream)
		if len(r.GetEvents()) > 0 || r.GetWatchId() != 0 {
			t.Fatalf("%s", describe(r))
		}
		if r.GetHeader().GetRevision() == 3 {
			return
		}
	}
}

// APISIX stops for seconds at a frame without events, so a watch that did not ask for progress gets none.
func TestNoProgressUnlessAsked(t *testing.T) {
	s := start(t, gateway.Config{ProgressInterval: time.Millisecond})
	w := watchRaw(t, s, `{"create_request":{"key":"L2E=","progress_notify":true}}{"create_request":{"key":"L2I="}}`)
	w.created()
	w.created()
	for range 20 {
		if f := w.frame().Result; f.WatchID != 0 {
			t.Fatalf("%+v", f)
		}
	}
}

func TestLargeRevisionIsFragmentedOnDemand(t *testing.T) {
	s := start(t, gateway.Config{})
	stream := openWatch(t, s, create(&pb.WatchCreateRequest{Key: []byte("/"), RangeEnd: []byte("0"), Fragment: true}),
		create(&pb.WatchCreateRequest{Key: []byte("/"), RangeEnd: []byte("0")}))
	receive(t, stream)
	receive(t, stream)
	var ops []store.Op
	for n := range 7 {
		ops = append(ops, store.Op{Put: &store.PutOp{Key: fmt.Appendf(nil, "/%d", n), Value: make([]byte, 600<<10)}})
	}
	if _, err := s.store.Txn(store.Txn{Success: ops}); err != nil {
		t.Fatal(err)
	}
	got := map[int64][]string{}
	for len(got[0]) < 3 || len(got[1]) < 1 {
		r := receive(t, stream)
		got[r.GetWatchId()] = append(got[r.GetWatchId()], describe(r))
	}
	want := map[int64][]string{
		0: {
			"id 0 rev 2 fragment PUT /0@2 PUT /1@2 PUT /2@2", "id 0 rev 2 fragment PUT /3@2 PUT /4@2 PUT /5@2",
			"id 0 rev 2 PUT /6@2",
		},
		1: {"id 1 rev 2 PUT /0@2 PUT /1@2 PUT /2@2 PUT /3@2 PUT /4@2 PUT /5@2 PUT /6@2"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Whatever a watch asks for, it sees exactly the changes that the store made, in order, with a header
// that never runs ahead of them, over both transports.
func TestWatchSeesEveryChange(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := start(t, gateway.Config{})
		defer func() {
			if err := s.stop(); err != nil {
				t.Error(err)
			}
		}()
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))
		for range rapid.IntRange(0, 40).Draw(rt, "before") {
			mutate(t, s.store, random, 4)
		}
		from := rapid.Int64Range(1, s.store.Revision()).Draw(rt, "start")
		withPrev := rapid.Bool().Draw(rt, "prev_kv")
		request := &pb.WatchCreateRequest{Key: []byte("/apisix/routes/"), RangeEnd: []byte("/apisix/upstreamt"), StartRevision: from, PrevKv: withPrev}
		stream := openWatch(t, s, create(request))
		w := watchRaw(t, s, fmt.Sprintf(`{"create_request":{"key":%q,"range_end":%q,"start_revision":%d,"prev_kv":%v}}`,
			b64(string(request.GetKey())), b64(string(request.GetRangeEnd())), from, withPrev))
		defer w.conn.Close()
		for range rapid.IntRange(0, 40).Draw(rt, "after") {
			mutate(t, s.store, random, 4)
		}
		put(t, s.store, "/apisix/routes/last", "{}")

		want := changes(t, s.store, request)
		var overGRPC, overHTTP []string
		receive(t, stream)
		for len(overGRPC) < len(want) {
			r := receive(t, stream)
			for _, e := range r.GetEvents() {
				if e.GetKv().GetModRevision() > r.GetHeader().GetRevision() {
					rt.Fatalf("header runs behind: %s", describe(r))
				}
				overGRPC = append(overGRPC, change(e.GetType().String(), e.GetKv().GetKey(), e.GetKv().GetValue(), e.GetKv().GetModRevision(), e.GetPrevKv().GetValue()))
			}
		}
		w.created()
		for len(overHTTP) < len(want) {
			f := w.frame().Result
			for _, e := range f.Events {
				if e.KV.ModRevision != f.Header.Revision {
					rt.Fatalf("frame of another revision: %+v", f)
				}
				if e.Type == "" {
					e.Type = "PUT"
				}
				overHTTP = append(overHTTP, change(e.Type, e.KV.Key, e.KV.Value, e.KV.ModRevision, e.Prev.Value))
			}
		}
		if diff := cmp.Diff(want, overGRPC); diff != "" {
			rt.Errorf("gRPC: %s", diff)
		}
		if diff := cmp.Diff(want, overHTTP); diff != "" {
			rt.Errorf("HTTP: %s", diff)
		}
	})
}

func change(kind string, key, value []byte, revision int64, prev []byte) string {
	return fmt.Sprintf("%s %s@%d=%s was %s", kind, key, revision, value, prev)
}

// changes reads from the store what a watch has to deliver.
func changes(tb testing.TB, s *store.Store, r *pb.WatchCreateRequest) (out []string) {
	tb.Helper()
	cursor, err := s.Watch(nil, []byte{0}, r.GetStartRevision())
	if err != nil {
		tb.Fatal(err)
	}
	defer cursor.Close()
	blocks, err := cursor.Next(0)
	if err != nil {
		tb.Fatal(err)
	}
	for _, b := range blocks {
		for _, e := range b.Events {
			if bytes.Compare(e.KV.Key, r.GetKey()) < 0 || bytes.Compare(e.KV.Key, r.GetRangeEnd()) >= 0 {
				continue
			}
			kind, prev := "PUT", []byte(nil)
			if e.Delete {
				kind = "DELETE"
			}
			if r.GetPrevKv() && e.Prev != nil {
				prev = e.Prev.Value
			}
			out = append(out, change(kind, e.KV.Key, e.KV.Value, e.KV.ModRevision, prev))
		}
	}
	return out
}

// etcd-adapter deadlocks for ever on one watcher that does not read, and apisix-mesh-agent queues for it
// until memory is gone.
func TestWatcherThatDoesNotReadIsFeltByNobody(t *testing.T) {
	s := start(t, gateway.Config{})
	var stuck *rawStream
	for range 40 {
		stuck = watchRaw(t, s, `{"create_request":{"key":"Lw==","range_end":"MA=="}}`)
		stuck.created()
	}
	stuckGRPC := openWatch(t, s, create(&pb.WatchCreateRequest{Key: []byte("/"), RangeEnd: []byte("0")}))
	receive(t, stuckGRPC)
	lively := watchRaw(t, s, `{"create_request":{"key":"Lw==","range_end":"MA=="}}`)
	lively.created()

	value := strings.Repeat("x", 32<<10)
	const rounds = 500 // 21 MB of JSON, more than the buffers on the way hold
	for n := range rounds {
		revision := put(t, s.store, fmt.Sprintf("/%d", n%10), value)
		if f := lively.frame().Result; f.Header.Revision != revision {
			t.Fatalf("after revision %d the other watcher got %+v", revision, f.Header)
		}
	}
	// The store's log, one encoding of it for each transport, and a buffer for each watcher.
	var memory runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&memory)
	if memory.HeapInuse > 200<<20 {
		t.Errorf("%d MB of heap", memory.HeapInuse>>20)
	}
	if _, err := s.store.Compact(s.store.Revision()); err != nil {
		t.Fatal(err)
	}
	// What they had been sent is whole; then they hear that the rest is gone.
	last := int64(1)
	for {
		f := stuck.frame().Result
		if f.Canceled {
			if f.CompactRevision != rounds+1 {
				t.Errorf("cancelled with %d", f.CompactRevision)
			}
			break
		}
		if f.Header.Revision != last+1 || len(f.Events) != 1 {
			t.Fatalf("after %d: revision %d with %d events", last, f.Header.Revision, len(f.Events))
		}
		last = f.Header.Revision
	}
	last = 1
	for {
		r := receive(t, stuckGRPC)
		if r.GetCanceled() {
			if r.GetCompactRevision() != rounds+1 {
				t.Errorf("cancelled with %s", describe(r))
			}
			break
		}
		for _, e := range r.GetEvents() {
			if e.GetKv().GetModRevision() != last+1 {
				t.Fatalf("after %d: %s", last, describe(r))
			}
			last++
		}
	}
}

func TestWaitDelivered(t *testing.T) {
	s := start(t, gateway.Config{})
	ctx := within(t)
	revision := put(t, s.store, "/a", "1")
	if err := s.WaitDelivered(ctx, revision); err != nil {
		t.Errorf("without a watcher: %v", err)
	}
	select {
	case <-s.Watched():
		t.Error("watched before there is a watcher")
	default:
	}
	// One that sees the range, one that does not, one over gRPC.
	w := watchRaw(t, s, `{"create_request":{"key":"L2E="}}`)
	w.created()
	watchRaw(t, s, `{"create_request":{"key":"L2I="}}`).created()
	receive(t, openWatch(t, s, create(&pb.WatchCreateRequest{Key: []byte("/a")})))
	<-s.Watched()
	for range 50 {
		revision = put(t, s.store, "/a", "2")
		if err := s.WaitDelivered(ctx, revision); err != nil {
			t.Fatal(err)
		}
	}
	// A revision that does not exist is waited for.
	short, cancel := context.WithCancel(ctx)
	waited := make(chan error)
	go func() { waited <- s.WaitDelivered(short, revision+1) }()
	cancel()
	if err := <-waited; !errors.Is(err, context.Canceled) {
		t.Errorf("beyond the last revision: %v", err)
	}
	go func() { waited <- s.WaitDelivered(ctx, revision+1) }()
	put(t, s.store, "/b", "2")
	if err := <-waited; err != nil {
		t.Errorf("with the next put: %v", err)
	}
}

func TestWaitDeliveredForgetsWatchersThatLeave(t *testing.T) {
	s := start(t, gateway.Config{})
	w := watchRaw(t, s, `{"create_request":{"key":"L2E="}}`)
	w.created()
	value := strings.Repeat("x", 1<<20)
	for range 20 { // the watcher does not read them all
		put(t, s.store, "/a", value)
	}
	waited := make(chan error)
	go func() { waited <- s.WaitDelivered(within(t), s.store.Revision()) }()
	select {
	case err := <-waited:
		t.Fatalf("delivered to a watcher that does not read: %v", err)
	default:
	}
	_ = w.conn.Close()
	if err := <-waited; err != nil {
		t.Error(err)
	}
}

// A client that has no more requests still wants events, until it goes away.
func TestHalfClosedWatchGoesOn(t *testing.T) {
	s := start(t, gateway.Config{})
	ctx, cancel := context.WithCancel(within(t))
	stream, err := pb.NewWatchClient(etcdClient(t, s).ActiveConnection()).Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(stream.Send(create(&pb.WatchCreateRequest{Key: []byte("/a")})), stream.CloseSend()); err != nil {
		t.Fatal(err)
	}
	receive(t, stream)
	revision := put(t, s.store, "/a", "1")
	if got := describe(receive(t, stream)); got != "id 0 rev 2 PUT /a@2" {
		t.Error(got)
	}
	cancel()
	if err := s.WaitDelivered(within(t), revision+1); err != nil { // when no watcher is left
		t.Error(err)
	}
}

func TestStreamsEndCleanlyWithTheServer(t *testing.T) {
	s := start(t, gateway.Config{})
	w := watchRaw(t, s, `{"create_request":{"key":"L2E="}}`)
	w.created()
	stream := openWatch(t, s, create(&pb.WatchCreateRequest{Key: []byte("/a")}))
	receive(t, stream)
	c := etcdClient(t, s)
	lease, err := c.Grant(within(t), 60)
	if err != nil {
		t.Fatal(err)
	}
	alive, err := pb.NewLeaseClient(c.ActiveConnection()).LeaseKeepAlive(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := alive.Send(&pb.LeaseKeepAliveRequest{ID: int64(lease.ID)}); err != nil {
		t.Fatal(err)
	}
	if r, err := alive.Recv(); err != nil || r.GetTTL() != 60 {
		t.Fatalf("%v, %v", r, err)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if chunk := w.chunk(); chunk != "" {
		t.Errorf("instead of the last chunk: %q", chunk)
	}
	if _, err := w.reader.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last chunk: %v", err)
	}
	for name, err := range map[string]error{
		"watch":      func() error { _, err := stream.Recv(); return err }(),
		"keep alive": func() error { _, err := alive.Recv(); return err }(),
	} {
		if want := status.Convert(rpctypes.ErrGRPCStopped).Message(); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), want) {
			t.Errorf("%s ended with %v", name, err)
		}
	}
}

// etcd's own client survives a restart of the server without missing anything.
func TestEtcdClientResumesItsWatch(t *testing.T) {
	s := start(t, gateway.Config{})
	c := etcdClient(t, s)
	events := c.Watch(within(t), "/", clientv3.WithPrefix())
	put(t, s.store, "/a", "0")
	seen := 0
	take := func() {
		for _, e := range (<-events).Events {
			if got := string(e.GetKv().GetValue()); got != strconv.Itoa(seen) {
				t.Fatalf("event %d is %s", seen, got)
			}
			seen++
		}
	}
	for seen < 1 {
		take()
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	put(t, s.store, "/a", "1")
	startOn(t, gateway.Config{Store: s.store}, s.addr)
	put(t, s.store, "/a", "2")
	for seen < 3 {
		take()
	}
}
