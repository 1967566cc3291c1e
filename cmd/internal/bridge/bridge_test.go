package bridge

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	clientv3 "go.etcd.io/etcd/client/v3"

	"meshbridge/translate"
	"meshbridge/xds"
	"meshbridge/xds/xdstest"
)

// patience bounds what only a failing test waits for.
const patience = 30 * time.Second

// running is a bridge with all its ports, connected to a scripted istiod.
type running struct {
	*Bridge
	stop func()
}

func testConfig(istiod *xdstest.Server) Config {
	return Config{
		NewSource: func(r prometheus.Registerer) (xds.Source, error) {
			return xds.New(xds.Config{
				Address: istiod.Addr(), Node: xdstest.Node(), Registerer: r,
				Backoff: xds.Backoff{Base: time.Millisecond, Max: 10 * time.Millisecond},
			})
		},
		Translate: translate.Options{Profile: translate.Mesh()},
		Prefix:    "/apisix",
		Listen:    "127.0.0.1:0", Admin: "127.0.0.1:0", Status: "127.0.0.1:0", Metrics: "127.0.0.1:0",
		KeepRevisions: 1000, HoldTimeout: 10 * time.Second,
		Logger: slog.New(slog.DiscardHandler),
	}
}

func startBridge(t *testing.T, c Config) *running {
	t.Helper()
	b, err := New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	r := &running{Bridge: b}
	stopped := false
	r.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	t.Cleanup(r.stop)
	return r
}

func (r *running) etcd() string { return r.listener.Addr().String() }

// address of the HTTP server with that index: admin, status, metrics.
func (r *running) address(i int) string { return r.servers[i].listener.Addr().String() }

func (r *running) waitReady(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	select {
	case <-r.Ready():
	case <-ctx.Done():
		t.Fatal("not ready")
	}
}

func (r *running) client(t *testing.T) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{r.etcd()}, DialTimeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// open sends a POST; the caller reads and closes the body.
func open(t *testing.T, address, path, body string) *http.Response {
	t.Helper()
	// No keep-alive, so that no idle connection outlives the test.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+address+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	return response
}

func post(t *testing.T, address, path, body string) (code int, answer string) {
	t.Helper()
	response := open(t, address, path, body)
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(data)
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

func rangeBody(prefix string) string {
	end := []byte(prefix)
	end[len(end)-1]++
	return fmt.Sprintf(`{"key":%q,"range_end":%q}`, base64.StdEncoding.EncodeToString([]byte(prefix)), base64.StdEncoding.EncodeToString(end))
}

func watchBody(prefix string, start int64) string {
	return fmt.Sprintf(`{"create_request":%s,"start_revision":%d}}`, strings.TrimSuffix(rangeBody(prefix), "}"), start)
}

func TestADeadIstiodMeansHeldRequestsAndNotAnEmptyWorld(t *testing.T) {
	istiod := xdstest.NewServer(t)
	istiod.Set(xdstest.Mesh(3, 1).Resources()...)
	istiod.Stop()
	config := testConfig(istiod)
	config.HoldTimeout = time.Millisecond
	r := startBridge(t, config)

	if code, body := post(t, r.etcd(), "/v3/kv/range", rangeBody("/apisix/")); code != http.StatusServiceUnavailable {
		t.Errorf("range before the first world: %d %s, want 503", code, body)
	}
	code, body := post(t, r.etcd(), "/v3/watch", watchBody("/apisix/", 1))
	// APISIX compares http_code, and fails in Lua where it is missing.
	if code != http.StatusServiceUnavailable || !strings.Contains(body, `"http_code":503`) {
		t.Errorf("watch before the first world: %d %s, want 503 with http_code", code, body)
	}
	if code, _ := get(t, "http://"+r.etcd()+"/version"); code != http.StatusOK {
		t.Errorf("/version: %d, want 200: APISIX's start-up asks for it", code)
	}
	if code, text := get(t, "http://"+r.address(1)+"/healthz/ready"); code != http.StatusServiceUnavailable {
		t.Errorf("ready: %d %s", code, text)
	}
	istiod.Start()
	r.waitReady(t)
	if code, text := get(t, "http://"+r.address(1)+"/healthz/ready"); code != http.StatusOK {
		t.Errorf("ready: %d %s", code, text)
	}
}

func TestAHeldRangeIsAnsweredWithTheWholeWorld(t *testing.T) {
	istiod := xdstest.NewServer(t)
	istiod.Set(xdstest.Mesh(3, 1).Resources()...)
	istiod.Stop()
	r := startBridge(t, testConfig(istiod))
	answer := make(chan int64, 1)
	client := r.client(t)
	go func() {
		response, err := client.Get(context.Background(), "/apisix/routes/r.", clientv3.WithPrefix())
		if err != nil {
			t.Errorf("range: %v", err)
			answer <- 0
			return
		}
		answer <- response.Count
	}()
	istiod.Start()
	r.waitReady(t)
	if count := <-answer; count < 3 {
		t.Errorf("the held range got %d routes", count)
	}
}

// In mesh-agent and Amesh, all services lost their endpoints for ever when istiod restarted.
func TestLosingIstiodChangesNothing(t *testing.T) {
	istiod := xdstest.NewServer(t)
	istiod.Set(xdstest.Mesh(5, 2).Resources()...)
	r := startBridge(t, testConfig(istiod))
	r.waitReady(t)
	client := r.client(t)
	before, err := client.Get(t.Context(), "/apisix/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	streams := istiod.Streams()
	istiod.Stop()
	if code, _ := get(t, "http://"+r.address(1)+"/healthz/ready"); code != http.StatusOK {
		t.Errorf("not ready (%d) while istiod is away", code)
	}
	istiod.Start()
	istiod.WaitStreams(streams + 1)
	istiod.WaitAnswered(xds.ClusterType, xds.EndpointType, xds.ListenerType, xds.RouteType)

	// A later edit arrives, and nothing else has happened in between.
	istiod.Set(xdstest.Endpoints(2, 3))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	watch := client.Watch(ctx, "/apisix/", clientv3.WithPrefix(), clientv3.WithRev(before.Header.GetRevision()+1))
	update := <-watch
	if len(update.Events) != 1 || !strings.Contains(string(update.Events[0].GetKv().GetValue()), "10.0.2.3") {
		t.Errorf("after the restart: %d events %q, want one with the new endpoint", len(update.Events), update.Events)
	}
	if update.Header.GetRevision() != before.Header.GetRevision()+1 {
		t.Errorf("revision %d, want %d: something was committed in between", update.Header.GetRevision(), before.Header.GetRevision()+1)
	}
}

// APISIX resumes at the revision it knows, and reloads only if it is told that this one is gone.
func TestAfterARestartAnOldWatcherIsToldToReload(t *testing.T) {
	istiod := xdstest.NewServer(t)
	istiod.Set(xdstest.Mesh(3, 1).Resources()...)
	first := startBridge(t, testConfig(istiod))
	first.waitReady(t)
	known := first.store.Revision()
	first.stop()

	istiod.Stop() // the second one starts without istiod: still no word before the first world
	second := startBridge(t, testConfig(istiod))
	frames := make(chan map[string]any, 2)
	go func() {
		response := open(t, second.etcd(), "/v3/watch", watchBody("/apisix/", known+1))
		defer response.Body.Close()
		lines := bufio.NewScanner(response.Body)
		for range 2 {
			lines.Scan()
			var frame struct{ Result map[string]any }
			if err := json.Unmarshal(lines.Bytes(), &frame); err != nil {
				t.Errorf("frame %q: %v", lines.Text(), err)
			}
			frames <- frame.Result
		}
	}()
	istiod.Start()
	second.waitReady(t)
	if created := <-frames; created["created"] != true || created["canceled"] == true {
		t.Errorf("first frame %v, want created", created)
	}
	canceled := <-frames
	compact, err := strconv.ParseInt(fmt.Sprint(canceled["compact_revision"]), 10, 64)
	if canceled["canceled"] != true || err != nil || compact <= known {
		t.Errorf("second frame %v, want canceled with a compact_revision above %d", canceled, known)
	}
}

func TestClientsMayWriteWhatIsNotTheBridges(t *testing.T) {
	istiod := xdstest.NewServer(t)
	istiod.Set(xdstest.Mesh(2, 1).Resources()...)
	r := startBridge(t, testConfig(istiod))
	r.waitReady(t)
	client := r.client(t)
	owned := fmt.Sprintf(`{"key":%q,"value":"e30="}`, base64.StdEncoding.EncodeToString([]byte("/apisix/routes/r.80.x")))
	if code, body := post(t, r.etcd(), "/v3/kv/put", owned); code != http.StatusForbidden {
		t.Errorf("put of an id of the bridge: %d %s, want 403", code, body)
	}
	if code, body := post(t, r.etcd(), "/v3/kv/deleterange", rangeBody("/apisix/")); code != http.StatusForbidden {
		t.Errorf("delete of everything: %d %s, want 403", code, body)
	}
	before := r.store.Revision()
	if _, err := client.Put(t.Context(), "/apisix/routes/", "init_dir"); err != nil {
		t.Errorf("put of a directory: %v", err)
	}
	if after := r.store.Revision(); after != before {
		t.Errorf("the put of a directory made revision %d of %d", after, before)
	}
	if _, err := client.Put(t.Context(), "/apisix/consumers/bob", "{}"); err != nil {
		t.Errorf("put of a user's object: %v", err)
	}
	got, err := client.Get(t.Context(), "/apisix/consumers/bob")
	if err != nil || len(got.Kvs) != 1 {
		t.Errorf("the user's object: %v %v", got, err)
	}
}

func TestAdminExplainsWhatIsServed(t *testing.T) {
	istiod := xdstest.NewServer(t)
	istiod.Set(xdstest.Mesh(2, 1).Resources()...)
	r := startBridge(t, testConfig(istiod))
	r.waitReady(t)
	_, explained := post(t, r.address(0), "/explain", `{"url":"http://svc-1.default:8001/x"}`)
	var answer struct {
		RouteName string `json:"route_name"`
		Upstream  string `json:"upstream_name"`
	}
	if err := json.Unmarshal([]byte(explained), &answer); err != nil {
		t.Fatal(err)
	}
	if answer.Upstream != xdstest.ClusterName(1) {
		t.Errorf("answer %+v, want the upstream %s", answer, xdstest.ClusterName(1))
	}
	if code, body := get(t, "http://"+r.address(0)+"/diagnostics"); code != http.StatusOK || !strings.HasPrefix(body, "[") {
		t.Errorf("diagnostics: %d %s", code, body)
	}
	if code, body := get(t, "http://"+r.address(2)+"/metrics"); code != http.StatusOK || !strings.Contains(body, "meshbridge_revision") {
		t.Errorf("metrics: %d", code)
	}
	for _, bad := range []string{`{`, `{"url":"http://svc-1:1/"}`, `{"nope":1}`} {
		if code, _ := post(t, r.address(0), "/explain", bad); code != http.StatusBadRequest {
			t.Errorf("query %s: %d, want 400", bad, code)
		}
	}
}

func TestPortsThatCannotBeServedAreNamed(t *testing.T) {
	istiod := xdstest.NewServer(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, c := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"etcd port in use", func(c *Config) { c.Listen = taken.Addr().String() }, "--listen " + taken.Addr().String()},
		{"status port in use", func(c *Config) { c.Status = taken.Addr().String() }, "--status " + taken.Addr().String()},
		{"no etcd port", func(c *Config) { c.Listen = Off }, "cannot be off"},
		{"open to the network", func(c *Config) { c.Listen = "0.0.0.0:0" }, "--insecure-listen"},
		{"open to the network by name", func(c *Config) { c.Listen = ":0" }, "--insecure-listen"},
		{"no port", func(c *Config) { c.Listen = "127.0.0.1" }, "127.0.0.1"},
		{"prefix without slash", func(c *Config) { c.Prefix = "apisix" }, `"apisix"`},
		{"prefix with a slash too many", func(c *Config) { c.Prefix = "/apisix/" }, `"/apisix/"`},
	} {
		config := testConfig(istiod)
		c.change(&config)
		_, err := New(t.Context(), config)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one that says %q", c.name, err, c.want)
		}
	}
}
