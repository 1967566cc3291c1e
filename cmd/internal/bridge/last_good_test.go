package bridge

import (
	"context"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"

	"meshbridge/cmd/internal/dns"
	"meshbridge/cmd/internal/lastgood"
	"meshbridge/translate"
	"meshbridge/xds"
	"meshbridge/xds/xdstest"
)

func keepsLastGood(c Config, path string) Config {
	c.LastGood = &lastgood.Config{Path: path, Identity: lastgood.Identity{Node: xdstest.Node().GetId()}, After: time.Millisecond}
	return c
}

// gauge reads a metric off the metrics port.
func (r *running) gauge(t *testing.T, name string) string {
	t.Helper()
	_, body := get(t, "http://"+r.address(2)+"/metrics")
	for line := range strings.Lines(body) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s", what)
		case <-tick.C:
		}
	}
}

func (r *running) objects(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	response, err := r.client(t).Get(t.Context(), "/apisix/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range response.Kvs {
		all[string(kv.GetKey())] = string(kv.GetValue())
	}
	return all
}

func TestABridgeThatStartsWithoutIstiodServesTheLastGoodStateAndThenExactlyWhatChanged(t *testing.T) {
	istiod := xdstest.NewServer(t)
	istiod.Set(xdstest.Mesh(5, 1).Resources()...)
	path := filepath.Join(t.TempDir(), "world")
	first := startBridge(t, keepsLastGood(testConfig(istiod), path))
	first.waitReady(t)
	before := first.objects(t)
	if first.gauge(t, "meshbridge_world_stale") != "0" {
		t.Error("the world of istiod is called stale")
	}
	first.stop()
	istiod.Stop()

	second := startBridge(t, keepsLastGood(testConfig(istiod), path))
	second.waitReady(t)
	if after := second.objects(t); len(after) != len(before) {
		t.Errorf("%d objects are served, %d before", len(after), len(before))
	} else {
		for key, value := range before {
			if after[key] != value {
				t.Errorf("%s was\n%s and is\n%s", key, value, after[key])
			}
		}
	}
	if code, text := get(t, "http://"+second.address(1)+"/healthz/ready"); code != 200 || !strings.Contains(text, "last good state of 20") {
		t.Errorf("ready: %d %s, want the mark", code, text)
	}
	if _, text := get(t, "http://"+second.address(0)+"/diagnostics"); !strings.Contains(text, `"last_good_state"`) {
		t.Errorf("diagnostics: %s", text)
	}
	if second.gauge(t, "meshbridge_world_stale") != "1" || second.gauge(t, `meshbridge_diagnostics{code="last_good_state",severity="warning"}`) != "1" {
		t.Error("no metric tells that the world is stale")
	}

	// istiod comes back: one service has another endpoint.
	client := second.client(t)
	watch := client.Watch(t.Context(), "/apisix/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	<-watch
	istiod.Set(withEndpoint(3, 2))
	istiod.Start()
	response := <-watch
	if len(response.Events) != 1 {
		t.Fatalf("%d events, want one", len(response.Events))
	}
	event := response.Events[0]
	if key, value := string(event.GetKv().GetKey()), string(event.GetKv().GetValue()); !strings.HasPrefix(key, "/apisix/upstreams/") || !strings.Contains(value, "10.0.3.2") {
		t.Errorf("event: %s of %s, want a put of the upstream of service 3", event.GetType(), key)
	}
	eventually(t, "the end of the mark", func() bool {
		_, text := get(t, "http://"+second.address(1)+"/healthz/ready")
		_, diagnostics := get(t, "http://"+second.address(0)+"/diagnostics")
		return text == "ready\n" && !strings.Contains(diagnostics, "last_good_state") && second.gauge(t, "meshbridge_world_stale") == "0"
	})
	// And nothing but that was committed.
	if now := second.objects(t); len(now) != len(before) {
		t.Errorf("%d objects, %d before", len(now), len(before))
	}
	last, err := client.Get(t.Context(), "/apisix/", clientv3.WithPrefix())
	if err != nil || last.Header.GetRevision() != response.Header.GetRevision() {
		t.Errorf("revision %d, want %d (%v)", last.Header.GetRevision(), response.Header.GetRevision(), err)
	}
}

// The answers of an earlier process stand in for a DNS server that does not answer, either.
func TestAddressesOfNamesAreKept(t *testing.T) {
	kept, own := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	a := &answering{answers: dns.Answers{Errors: map[string]string{"kept.example": "timeout"}}}
	n := newNames(a)
	n.keep(map[string][]netip.Addr{"kept.example": {kept}, "both.example": {kept}})
	a.answers.Addresses = map[string][]netip.Addr{"both.example": {own}}
	n.load()
	want := map[string][]netip.Addr{"kept.example": {kept}, "both.example": {own}}
	if d := cmp.Diff(want, n.answers.Addresses, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
		t.Error(d)
	}
}

func TestStaleUpdatesAreNeverKept(t *testing.T) {
	bubble(t, 2, func(t *testing.T, p *pipelineTest) {
		t.Helper()
		p.pipeline.lastGood = &lastGood{state: lastgood.New(lastgood.Config{Path: filepath.Join(t.TempDir(), "world")})}
		p.pipeline.inbox.put(xds.Update{Snapshot: p.snapshot, Stale: true, Received: time.Unix(1000, 0)})
		if got := p.pass(time.Second); len(got) != 1 {
			t.Fatalf("the first world is %d revisions", len(got))
		}
		v := p.pipeline.view.Load()
		if !v.Stale || !slices.ContainsFunc(v.Diagnostics, isLastGood) || p.pipeline.lastGood.world != nil {
			t.Errorf("stale %v, kept %v, diagnostics %v", v.Stale, p.pipeline.lastGood.world != nil, v.Diagnostics)
		}
		// The same world, from istiod: no event, and no mark.
		p.deliver(nil, nil)
		v = p.pipeline.view.Load()
		if got := p.pass(time.Minute); len(got) != 0 || v.Stale || slices.ContainsFunc(v.Diagnostics, isLastGood) || p.pipeline.lastGood.world == nil {
			t.Errorf("stale %v, events %q, diagnostics %v", v.Stale, got, v.Diagnostics)
		}
	})
}

func isLastGood(d translate.Diagnostic) bool { return d.Code == "last_good_state" }
