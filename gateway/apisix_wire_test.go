package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"meshbridge/gateway"
	"meshbridge/store"
)

// fixed gives response headers that a test can spell out.
func fixed(cfg gateway.Config) gateway.Config {
	cfg.ClusterID, cfg.MemberID = 1, 2
	return cfg
}

// header is the JSON of a response header of a fixed server.
func header(revision int64) string {
	return fmt.Sprintf(`"header":{"cluster_id":"1","member_id":"2","revision":"%d","raft_term":"2"}`, revision)
}

// Each request as APISIX sends it, and the answer to the letter, in the order of one life.
func TestEveryRequestOfAPISIX(t *testing.T) {
	s := start(t, fixed(gateway.Config{}))
	key := b64("/apisix/routes/1")
	for _, step := range []struct {
		name, path, request string
		status              int
		response            string
	}{
		{
			"authentication when there are no users", "/v3/auth/authenticate", `{"name":"root","password":"pw"}`,
			400, `{"error":"etcdserver: authentication is not enabled","code":9,"message":"etcdserver: authentication is not enabled"}`,
		},
		{
			"init_dir, with a space and the value first", "/v3/kv/put", `{"value":"aW5pdF9kaXI=", "key":"` + b64("/apisix/routes/") + `"}`,
			200, `{` + header(2) + `}`,
		},
		{
			"snapshot with every field", "/v3/kv/range", `{"key":"` + b64("/apisix") + `","range_end":"` + b64("/apisiy") +
				`","limit":0,"revision":0,"sort_order":0,"sort_target":0,"serializable":false,"keys_only":false,"count_only":false,` +
				`"min_mod_revision":0,"max_mod_revision":0,"min_create_revision":0,"max_create_revision":0}`,
			200, `{` + header(2) + `,"kvs":[{"key":"` + b64("/apisix/routes/") + `","create_revision":"2","mod_revision":"2","version":"1","value":"aW5pdF9kaXI="}],"count":"1"}`,
		},
		{"a key that is not there", "/v3/kv/range", `{"key":"` + b64("/apisix/") + `"}`, 200, `{` + header(2) + `}`},
		{"admin PUT", "/v3/kv/put", `{"key":"` + key + `","prev_kv":true,"value":"e30="}`, 200, `{` + header(3) + `}`},
		{
			"admin PUT again", "/v3/kv/put", `{"key":"` + key + `","prev_kv":true,"value":"e30="}`,
			200, `{` + header(4) + `,"prev_kv":{"key":"` + key + `","create_revision":"3","mod_revision":"3","version":"1","value":"e30="}}`,
		},
		{
			"admin PATCH", "/v3/kv/txn", `{"compare":[{"target":"MOD","key":"` + key + `","mod_revision":4,"result":"EQUAL"}],"success":[{"requestPut":{"key":"` + key + `","value":"e30="}}]}`,
			200, `{` + header(5) + `,"succeeded":true,"responses":[{"response_put":{"header":{"revision":"5"}}}]}`,
		},
		{
			"admin PATCH of what has changed", "/v3/kv/txn", `{"compare":[{"target":"MOD","key":"` + key + `","mod_revision":"4","result":0}],"success":[{"requestPut":{"key":"` + key + `","value":"e30="}}]}`,
			200, `{` + header(5) + `}`,
		},
		{"admin POST", "/v3/kv/put", `{"key":"` + b64("/apisix/gen_id") + `","value":"MQ=="}`, 200, `{` + header(6) + `}`},
		{"lease", "/v3/lease/grant", `{"TTL":60,"ID":7}`, 200, `{` + header(6) + `,"ID":"7","TTL":"60"}`},
		{"put with a lease", "/v3/kv/put", `{"lease":"7","key":"` + key + `","value":"e30="}`, 200, `{` + header(7) + `}`},
		{"lease alive", "/v3/lease/keepalive", `{"ID":7}`, 200, `{"result":{` + header(7) + `,"ID":"7","TTL":"60"}}` + "\n"},
		{"unknown lease alive", "/v3/lease/keepalive", `{"ID":8}`, 200, `{"result":{` + header(7) + `,"ID":"8"}}` + "\n"},
		{
			"time to live under its other path", "/v3/kv/lease/timetolive", `{"ID":8}`,
			200, `{` + header(7) + `,"ID":"8","TTL":"-1"}`,
		},
		{"revoke under its other path", "/v3/kv/lease/revoke", `{"ID":"7"}`, 200, `{` + header(8) + `}`},
		{
			"revoke again", "/v3/kv/lease/revoke", `{"ID":"7"}`, 404,
			`{"error":"etcdserver: requested lease not found","code":5,"message":"etcdserver: requested lease not found"}`,
		},
		{"admin DELETE", "/v3/kv/deleterange", `{"key":"` + b64("/apisix/gen_id") + `"}`, 200, `{` + header(9) + `,"deleted":"1"}`},
		{"admin DELETE again", "/v3/kv/deleterange", `{"key":"` + b64("/apisix/gen_id") + `"}`, 200, `{` + header(9) + `}`},
		{"the old path", "/v3beta/kv/range", `{"key":"` + b64("/x") + `"}`, 200, `{` + header(9) + `}`},
		{"no key", "/v3/kv/range", `{}`, 400, `{"error":"etcdserver: key is not provided","code":3,"message":"etcdserver: key is not provided"}`},
		{
			"a future revision", "/v3/kv/range", `{"key":"` + key + `","revision":100}`, 400,
			`{"error":"etcdserver: mvcc: required revision is a future revision","code":11,"message":"etcdserver: mvcc: required revision is a future revision"}`,
		},
	} {
		status, response := post(t, s, step.path, step.request)
		if status != step.status || response != step.response {
			t.Errorf("%s:\n%s %s\ngot  %d %s\nwant %d %s", step.name, step.path, step.request, status, response, step.status, step.response)
		}
	}
}

func TestVersionIsWhatTheCLIWants(t *testing.T) {
	s := start(t, gateway.Config{})
	r, err := httpClient(t).Get(s.url + "/version")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	var version struct{ EtcdServer, EtcdCluster string }
	if err := json.NewDecoder(r.Body).Decode(&version); err != nil {
		t.Fatal(err)
	}
	if got := r.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("content type %q", got)
	}
	for _, v := range []string{version.EtcdServer, version.EtcdCluster} {
		var a, b, c int
		if n, err := fmt.Sscanf(v, "%d.%d.%d", &a, &b, &c); n != 3 || fmt.Sprintf("%d.%d.%d", a, b, c) != v {
			t.Errorf("version %q is not x.y.z: %v", v, err)
		}
	}
}

func TestWatchFramesAreLinesInChunksOfTheirOwn(t *testing.T) {
	s := start(t, fixed(gateway.Config{}))
	put(t, s.store, "/apisix/routes/1", "a")
	w := watchRaw(t, s, `{"create_request":{"key":"L2FwaXNpeC8=","range_end":"L2FwaXNpeDA=","start_revision":2}}`)
	if got, want := w.chunk(), `{"result":{`+header(2)+`,"created":true}}`+"\n"; got != want {
		t.Errorf("first chunk\n%s want\n%s", got, want)
	}
	for _, line := range []string{"HTTP/1.1 200 OK\r\n", "Transfer-Encoding: chunked\r\n", "Content-Type: application/json\r\n"} {
		if !strings.Contains(w.head, line) {
			t.Errorf("head without %q:\n%s", line, w.head)
		}
	}
	key := b64("/apisix/routes/1")
	want := `{"result":{` + header(2) + `,"events":[{"kv":{"key":"` + key + `","create_revision":"2","mod_revision":"2","version":"1","value":"YQ=="}}]}}` + "\n"
	if got := w.chunk(); got != want {
		t.Errorf("event\n%s want\n%s", got, want)
	}
	if _, err := s.store.Txn(store.Txn{Success: []store.Op{
		{Put: &store.PutOp{Key: []byte("/apisix/routes/1"), Value: []byte("b"), Lease: grant(t, s.store)}},
		{Put: &store.PutOp{Key: []byte("/other"), Value: []byte("b")}},
		{Delete: &store.DeleteOp{Key: []byte("/apisix/routes/2")}},
	}}); err != nil {
		t.Fatal(err)
	}
	want = `{"result":{` + header(3) + `,"events":[{"kv":{"key":"` + key + `","create_revision":"2","mod_revision":"3","version":"2","value":"Yg==","lease":"9"}}]}}` + "\n"
	if got := w.chunk(); got != want {
		t.Errorf("event\n%s want\n%s", got, want)
	}
	if _, err := s.store.Delete(store.DeleteOp{Key: []byte("/apisix/"), End: []byte("/apisix0")}); err != nil {
		t.Fatal(err)
	}
	want = `{"result":{` + header(4) + `,"events":[{"type":"DELETE","kv":{"key":"` + key + `","mod_revision":"4"}}]}}` + "\n"
	if got := w.chunk(); got != want {
		t.Errorf("event\n%s want\n%s", got, want)
	}
}

func grant(tb testing.TB, s *store.Store) int64 {
	tb.Helper()
	id, _, err := s.Grant(9, 60)
	if err != nil {
		tb.Fatal(err)
	}
	return id
}

// What APISIX does with frames holds only if each revision is one frame and revisions rise; frames that
// were waiting are no exception.
func TestEachRevisionIsOneFrameWithARisingRevision(t *testing.T) {
	s := start(t, gateway.Config{})
	for n := range 1000 {
		put(t, s.store, "/apisix/routes/1", strconv.Itoa(n))
		if n%3 == 0 {
			put(t, s.store, "/elsewhere", strconv.Itoa(n))
		}
	}
	w := watchRaw(t, s, `{"create_request":{"key":"L2FwaXNpeC8=","range_end":"L2FwaXNpeDA=","start_revision":1}}`)
	w.created()
	last := int64(0)
	for n := range 1000 {
		f := w.frame().Result
		if f.Header.Revision <= last || len(f.Events) != 1 || f.Events[0].KV.ModRevision != f.Header.Revision {
			t.Fatalf("frame %d after revision %d: %+v", n, last, f)
		}
		if string(f.Events[0].KV.Value) != strconv.Itoa(n) {
			t.Fatalf("frame %d has %s", n, f.Events[0].KV.Value)
		}
		last = f.Header.Revision
	}
}

func TestWatchFromACompactedRevision(t *testing.T) {
	s := start(t, fixed(gateway.Config{}))
	for range 5 {
		put(t, s.store, "/apisix/routes/1", "a")
	}
	if _, err := s.store.Compact(4); err != nil {
		t.Fatal(err)
	}
	w := watchRaw(t, s, `{"create_request":{"key":"L2FwaXNpeC8=","range_end":"L2FwaXNpeDA=","start_revision":3}}`)
	w.created()
	want := `{"result":{"header":{"cluster_id":"1","member_id":"2","raft_term":"2"},"canceled":true,"compact_revision":"4"}}` + "\n"
	if got := w.chunk(); got != want {
		t.Errorf("got  %s want %s", got, want)
	}
	// The revision that it names can be watched.
	w = watchRaw(t, s, `{"create_request":{"key":"L2FwaXNpeC8=","range_end":"L2FwaXNpeDA=","start_revision":4}}`)
	w.created()
	if f := w.frame().Result; f.Header.Revision != 4 || f.Canceled {
		t.Errorf("at the compact revision: %+v", f)
	}
}

// etcd-adapter answers 429 to a range above 4 MiB, and loses watch batches above it in silence.
func TestNoLimitOnResponses(t *testing.T) {
	s := start(t, gateway.Config{})
	value := strings.Repeat("v", 1<<10)
	var ops []store.Op
	for n := range 6000 {
		ops = append(ops, store.Op{Put: &store.PutOp{Key: fmt.Appendf(nil, "/apisix/routes/%05d", n), Value: []byte(value)}})
	}
	if _, err := s.store.Txn(store.Txn{Success: ops}); err != nil {
		t.Fatal(err)
	}
	status, body := post(t, s, "/v3/kv/range", `{"key":"L2FwaXNpeC8=","range_end":"L2FwaXNpeDA="}`)
	var answer struct {
		KVs   []jsonKV `json:"kvs"`
		Count string   `json:"count"`
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		t.Fatal(err)
	}
	if status != 200 || len(answer.KVs) != len(ops) || answer.Count != "6000" {
		t.Errorf("range: status %d, %d keys, count %s", status, len(answer.KVs), answer.Count)
	}
	for n, kv := range answer.KVs {
		if string(kv.Key) != string(ops[n].Put.Key) || string(kv.Value) != value {
			t.Fatalf("key %d is %s", n, kv.Key)
		}
	}
	w := watchRaw(t, s, `{"create_request":{"key":"L2FwaXNpeC8=","range_end":"L2FwaXNpeDA=","start_revision":2}}`)
	w.created()
	if f := w.frame().Result; len(f.Events) != len(ops) {
		t.Errorf("watch: %d events", len(f.Events))
	}
}

func TestSeveralRequestsInOneBody(t *testing.T) {
	s := start(t, gateway.Config{})
	put(t, s.store, "/a", "1")
	w := watchRaw(t, s, `{"create_request":{"key":"L2E=","start_revision":"2"}}`+"\n"+
		`{"createRequest":{"key":"L2I","watchId":7}} {"create_request":{"key":"L2M=","watch_id":"7"}}`+
		`{"cancel_request":{"watch_id":7}}{"progress_request":{}}`)
	type summary struct {
		ID                          int64
		Created, Canceled           bool
		Reason                      string
		Revision, Events, Compacted int64
	}
	var got []summary
	for range 6 {
		f := w.frame().Result
		got = append(got, summary{f.WatchID, f.Created, f.Canceled, f.CancelReason, f.Header.Revision, int64(len(f.Events)), f.CompactRevision})
	}
	want := []summary{
		{ID: 0, Created: true, Revision: 2},
		{ID: 7, Created: true, Revision: 2},
		{ID: -1, Created: true, Canceled: true, Revision: 2, Reason: "mvcc: duplicate watch ID provided on the WatchStream"},
		{ID: 7, Canceled: true, Revision: 2},
		{ID: 0, Revision: 2, Events: 1},
		{ID: -1, Revision: 2},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Lua writes numbers of 15 digits and more with an exponent.
func TestStartRevisionAsLuaWritesIt(t *testing.T) {
	for _, number := range []string{"1763800000123", `"1763800000123"`, "1.763800000123e+12", `"1.763800000123e+12"`, "1763800000123.0"} {
		s := start(t, gateway.Config{Store: newStore(t, store.Config{BaseRevision: 1_763_800_000_100, RefuseFuture: true})})
		for range 30 {
			put(t, s.store, "/a", "1")
		}
		w := watchRaw(t, s, `{"create_request":{"key":"L2E=","start_revision":`+number+`}}`)
		w.created()
		if f := w.frame().Result; f.Header.Revision != 1_763_800_000_123 {
			t.Errorf("start_revision %s: first frame %+v", number, f)
		}
		_ = w.conn.Close()
	}
}

// Connections are kept: a client that reuses one after any answer, also an error, finds it in order.
func TestConnectionIsKeptAcrossCalls(t *testing.T) {
	s := start(t, gateway.Config{})
	dials := 0
	var dialer net.Dialer
	transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		dials++
		return dialer.DialContext(ctx, network, addr)
	}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: patience}
	for _, request := range []struct{ path, body string }{
		{"/v3/kv/put", `{"key":"L2E=","value":"` + strings.Repeat("QUFB", 40_000) + `"}`},
		{"/v3/kv/range", `{"key":"L2E="}`},
		{"/v3/kv/range", `{}`},
		{"/v3/kv/range", `{"key":1}`},
		{"/v3/nothing", `{}`},
		{"/v3/lease/keepalive", `{"ID":1}`},
		{"/v3/watch", `{"create_request":{"key":"*"}}`},
		{"/v3/kv/range", `{"key":"L2E="}`},
	} {
		r, err := client.Post(s.url+request.path, "", strings.NewReader(request.body))
		if err != nil {
			t.Fatalf("%s: %v", request.path, err)
		}
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			t.Fatal(err)
		}
		_ = r.Body.Close()
	}
	if dials != 1 {
		t.Errorf("%d connections", dials)
	}
}

func TestCORSAndOptions(t *testing.T) {
	s := start(t, gateway.Config{})
	request, err := http.NewRequestWithContext(within(t), http.MethodOptions, s.url+"/v3/kv/range", nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := httpClient(t).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK || r.ContentLength != 0 {
		t.Errorf("status %d, length %d", r.StatusCode, r.ContentLength)
	}
	for name, want := range map[string]string{
		"Access-Control-Allow-Methods": "POST, GET, OPTIONS, PUT, DELETE",
		"Access-Control-Allow-Origin":  "*",
		"Access-Control-Allow-Headers": "accept, content-type, authorization",
	} {
		if got := r.Header.Get(name); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
}
