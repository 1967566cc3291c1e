package console_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"

	"meshbridge/cmd/internal/admin"
	"meshbridge/cmd/internal/console"
	"meshbridge/cmd/internal/logscope"
	"meshbridge/gateway"
	"meshbridge/store"
	"meshbridge/translate"
	"meshbridge/translate/apisix"
	"meshbridge/xds"
	"meshbridge/xds/xdstest"
)

// recorded is what a real istiod sent.
const recorded = "../../../testdata/istiod/bookinfo-client/xds"

// bridge is what the pages of a test show.
type bridge struct {
	http.Handler

	world    console.World
	status   *xds.Status
	watchers []gateway.Watcher
	journal  *console.Journal
	levels   *logscope.Levels
	store    *store.Store
	objects  []apisix.Object
	// restart forgets what was read before.
	restart func()
}

// newBridge translates a snapshot and serves the objects, as the bridge does.
func newBridge(tb testing.TB, profile translate.Profile, snapshot *xds.Snapshot, change ...func(*console.Config)) *bridge {
	tb.Helper()
	state, _, err := translate.Translate(translate.Options{Profile: profile, NodeID: "sidecar~10.9.0.1~client.default~x"}, snapshot, translate.Inputs{})
	if err != nil {
		tb.Fatal(err)
	}
	b := &bridge{
		status:  &xds.Status{Connected: true, Since: time.Now().Add(-time.Minute), Target: "istiod:15010", ControlPlane: xdstest.ControlPlane},
		journal: console.NewJournal(),
	}
	if b.store, err = store.New(store.Config{}); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(b.store.Close)
	ops := []store.Op{{Put: &store.PutOp{Key: []byte("/apisix/routes/"), Value: []byte("init_dir")}}}
	for o := range state.Objects() {
		b.objects = append(b.objects, o)
		ops = append(ops, store.Op{Put: &store.PutOp{Key: []byte("/apisix/" + o.Key()), Value: o.Value}})
	}
	result, err := b.store.Txn(store.Txn{Success: ops})
	if err != nil {
		tb.Fatal(err)
	}
	b.world = console.World{
		Ready: true, Revision: result.Revision, Committed: time.Now(), Received: time.Now(), Snapshot: snapshot,
		Chains: state.Chains(), Diagnostics: state.Diagnostics(),
	}
	log := slog.New(logscope.NewHandler(slog.DiscardHandler, slog.LevelInfo))
	b.levels = logscope.LevelsOf(log)
	config := console.Config{
		Version: "1.2.3", Profile: profile, APISIX: apisix.Version{}.OrDefault(),
		Node:  &corepb.Node{Id: "sidecar~10.9.0.1~client.default~default.svc.cluster.local"},
		World: func() console.World { return b.world }, Source: func() xds.Status { return *b.status },
		Store: b.store, Prefix: "/apisix", Watchers: func() []gateway.Watcher { return b.watchers },
		Changes: b.journal, Levels: b.levels, Ports: map[string]string{"listen": "127.0.0.1:2379"},
	}
	for _, c := range change {
		c(&config)
	}
	b.restart = func() {
		mux := http.NewServeMux()
		console.New(config).Register(mux, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("the text list\n")) }))
		b.Handler = admin.Guard(mux)
	}
	b.restart()
	return b
}

func load(tb testing.TB, path string) *xds.Snapshot {
	tb.Helper()
	snapshot, rejected, err := xds.LoadFiles(path)
	if err != nil || len(rejected) > 0 {
		tb.Fatal(err, rejected)
	}
	return snapshot
}

// snapshotOf holds resources as xds does.
func snapshotOf(tb testing.TB, resources ...proto.Message) *xds.Snapshot {
	tb.Helper()
	var list []*xds.Resource
	for _, m := range resources {
		body := xdstest.Any(m)
		name := ""
		if named, ok := m.(interface{ GetName() string }); ok {
			name = named.GetName()
		} else if assignment, ok := m.(interface{ GetClusterName() string }); ok {
			name = assignment.GetClusterName()
		}
		list = append(list, &xds.Resource{Key: xds.Key{Type: body.GetTypeUrl(), Name: name}, Body: body, Received: time.Now()})
	}
	var none *xds.Snapshot
	return none.With(list, nil)
}

// do sends a request as a browser on this host does.
func (b *bridge) do(method, path, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://127.0.0.1:15000"+path, strings.NewReader(body))
	r.RemoteAddr = "127.0.0.1:4711"
	r.Header.Set("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	b.ServeHTTP(w, r)
	return w
}

func (b *bridge) get(tb testing.TB, path string) string {
	tb.Helper()
	w := b.do(http.MethodGet, path, "")
	if w.Code != http.StatusOK {
		tb.Fatalf("GET %s: %d\n%s", path, w.Code, w.Body)
	}
	return w.Body.String()
}

// twin reads a JSON twin.
func (b *bridge) twin(tb testing.TB, path string, into any) {
	tb.Helper()
	if err := json.Unmarshal([]byte(b.get(tb, path)), into); err != nil {
		tb.Fatalf("%s: %v", path, err)
	}
}

func contains(tb testing.TB, text string, parts ...string) {
	tb.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			tb.Errorf("no %q in\n%s", p, text)
		}
	}
}
