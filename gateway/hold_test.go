package gateway_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"meshbridge/gateway"
	"meshbridge/gateway/apisixtest"
	"meshbridge/store"
)

// holder holds /apisix until it is released. asked counts who came for it.
type holder struct {
	released chan struct{}
	asked    atomic.Int64
	come     chan struct{} // receives one value per asker
}

func newHolder() *holder {
	return &holder{released: make(chan struct{}), come: make(chan struct{}, 1000)}
}

func (h *holder) hold(key, _ []byte) <-chan struct{} {
	if !strings.HasPrefix(string(key), "/apisix") {
		return nil
	}
	h.asked.Add(1)
	h.come <- struct{}{}
	return h.released
}

// APISIX takes an empty answer for an empty world and deletes everything it has.
func TestHeldAPISIXSeesNothingButTheWholeWorld(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		t.Helper()
		h := newHolder()
		st := newStore(t, store.Config{BaseRevision: 1000, RefuseFuture: true})
		s := start(t, gateway.Config{Store: st, Hold: h.hold})
		var seen []int
		c := runAPISIX(t, version, s.url)
		for range 1 + 3*btoi(version == apisixtest.V2_15) {
			<-h.come
		}
		if got := len(c.Snapshot()); got != 0 {
			t.Errorf("%d objects before the release", got)
		}
		seed(t, st)
		put(t, st, "/apisix/routes/1", `{}`)
		put(t, st, "/apisix/routes/2", `{}`)
		close(h.released)
		if err := c.WaitFor(within(t), func(objects map[string]string) bool {
			seen = append(seen, len(objects))
			return len(objects) == 2
		}); err != nil {
			t.Fatalf("%v: %v", err, c.Snapshot())
		}
		for _, n := range seen {
			if n == 1 {
				t.Errorf("a part of the world was visible: %v", seen)
			}
		}
		if r := c.Reloads(); len(r) > 0 {
			t.Errorf("reloads: %+v", r)
		}
	})
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// An old watcher that comes during the start hears nothing, neither created nor canceled, until the
// world is there.
func TestHeldWatchHasNotBegun(t *testing.T) {
	h := newHolder()
	st := newStore(t, store.Config{BaseRevision: 1000, RefuseFuture: true})
	s := start(t, gateway.Config{Store: st, Hold: h.hold})
	w := watchRaw(t, s, `{"create_request":{"key":"L2FwaXNpeC8=","range_end":"L2FwaXNpeDA=","start_revision":17}}`)
	<-h.come
	revision := put(t, st, "/apisix/routes/1", "{}")
	close(h.released)
	if f := w.created(); f.Result.Header.Revision != revision {
		t.Errorf("created at %d, the world is at %d", f.Result.Header.Revision, revision)
	}
	if f := w.frame().Result; !f.Canceled || f.CompactRevision != 1000 {
		t.Errorf("second frame: %+v", f)
	}
}

func TestOnlyReadsOfTheHeldRangeAreHeld(t *testing.T) {
	h := newHolder()
	s := start(t, gateway.Config{Hold: h.hold})
	if status, _ := post(t, s, "/v3/kv/put", `{"key":"`+b64("/apisix/routes/")+`","value":"aW5pdF9kaXI="}`); status != 200 {
		t.Errorf("put: %d", status)
	}
	if status, _ := post(t, s, "/v3/kv/range", `{"key":"`+b64("/other")+`"}`); status != 200 {
		t.Errorf("range elsewhere: %d", status)
	}
	for _, path := range []string{"/version", "/health"} {
		r, err := httpClient(t).Get(s.url + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = r.Body.Close()
		if r.StatusCode != http.StatusOK {
			t.Errorf("%s: %d", path, r.StatusCode)
		}
	}
	c := etcdClient(t, s)
	if _, err := c.Txn(within(t)).Then(clientv3.OpGet("/apisix/routes/")).Commit(); err != nil {
		t.Errorf("txn: %v", err)
	}
	if n := h.asked.Load(); n != 0 {
		t.Errorf("held %d times", n)
	}
}

// A stream whose first watch is held goes on with its others.
func TestHeldWatchDoesNotStopItsStream(t *testing.T) {
	h := newHolder()
	s := start(t, gateway.Config{Hold: h.hold})
	stream := openWatch(t, s, create(&pb.WatchCreateRequest{Key: []byte("/a")}), create(&pb.WatchCreateRequest{Key: []byte("/apisix/")}))
	receive(t, stream)
	<-h.come
	put(t, s.store, "/a", "1")
	if got := describe(receive(t, stream)); got != "id 0 rev 2 PUT /a@2" {
		t.Error(got)
	}
	close(h.released)
	if got := describe(receive(t, stream)); got != "id 1 rev 2 created" {
		t.Error(got)
	}
}

func TestHeldTooLongIsUnavailable(t *testing.T) {
	h := newHolder()
	s := start(t, gateway.Config{Hold: h.hold, HoldTimeout: time.Millisecond})
	const message = "etcdserver: not serving this range yet"
	code, body := post(t, s, "/v3/kv/range", `{"key":"L2FwaXNpeA=="}`)
	if want := `{"error":"` + message + `","code":14,"message":"` + message + `"}`; code != 503 || body != want {
		t.Errorf("range: %d %s", code, body)
	}
	code, body = post(t, s, "/v3/watch", `{"create_request":{"key":"L2FwaXNpeA=="}}`)
	if want := `{"error":{"grpc_code":14,"http_code":503,"message":"` + message + `","http_status":"Service Unavailable","code":14}}` + "\n"; code != 503 || body != want {
		t.Errorf("watch: %d %s", code, body)
	}
	kv := pb.NewKVClient(etcdClient(t, s).ActiveConnection())
	if _, err := kv.Range(within(t), &pb.RangeRequest{Key: []byte("/apisix")}); status.Code(err) != codes.Unavailable {
		t.Errorf("range over gRPC: %v", err)
	}
	if _, err := openWatch(t, s, create(&pb.WatchCreateRequest{Key: []byte("/apisix")})).Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("watch over gRPC: %v", err)
	}
}

// Requests that are held do not hold up the end of the server.
func TestHeldRequestsEndWithTheServer(t *testing.T) {
	h := newHolder()
	s := start(t, gateway.Config{Hold: h.hold})
	w := watchRaw(t, s, `{"create_request":{"key":"L2FwaXNpeC8="}}`)
	stream := openWatch(t, s, create(&pb.WatchCreateRequest{Key: []byte("/apisix/")}))
	<-h.come
	<-h.come
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if head := w.readHead(); !strings.HasPrefix(head, "HTTP/1.1 503 ") {
		t.Errorf("watch: %s", head)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("watch over gRPC: %v", err)
	}
}
