package bridge

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	http_connection_managerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"
	statspb "istio.io/api/envoy/extensions/stats"

	"meshbridge/xds/xdstest"
)

// counting adds Istio's filter to the listeners of a mesh.
func counting(t *testing.T, resources []proto.Message) []proto.Message {
	t.Helper()
	return withFilter(t, resources, &http_connection_managerpb.HttpFilter{
		Name: "istio.stats", ConfigType: &http_connection_managerpb.HttpFilter_TypedConfig{TypedConfig: xdstest.Any(&statspb.PluginConfig{})},
	})
}

// routeTo returns the id of a route to a cluster, and that of its upstream.
func routeTo(t *testing.T, client *clientv3.Client, cluster string) (route, upstream string) {
	t.Helper()
	upstreams, err := client.Get(t.Context(), "/apisix/upstreams/u.", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range upstreams.Kvs {
		if strings.Contains(string(kv.GetValue()), `"name":"`+cluster+`"`) {
			upstream = strings.TrimPrefix(string(kv.GetKey()), "/apisix/upstreams/")
		}
	}
	routes, err := client.Get(t.Context(), "/apisix/routes/r.", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range routes.Kvs {
		if strings.Contains(string(kv.GetValue()), `"upstream_id":"`+upstream+`"`) {
			return strings.TrimPrefix(string(kv.GetKey()), "/apisix/routes/"), upstream
		}
	}
	t.Fatalf("no route leads to %s", cluster)
	return "", ""
}

func TestWhatAPISIXReportsIsInIstiosMetrics(t *testing.T) {
	istiod := xdstest.NewServer(t)
	mesh := xdstest.Mesh(3, 1).Resources()
	istiod.Set(counting(t, mesh)...)
	config := testConfig(istiod)
	config.Internal, config.Node = "127.0.0.1:0", xdstest.Node()
	r := startBridge(t, config)
	r.waitReady(t)
	client := r.client(t)
	rule, err := client.Get(t.Context(), "/apisix/global_rules/g.requests")
	if err != nil || len(rule.Kvs) != 1 {
		t.Fatalf("APISIX is not told to report: %v %v", rule, err)
	}
	internal := r.config.Translate.Internal.String()
	if !strings.Contains(string(rule.Kvs[0].GetValue()), "http://"+internal+"/log") {
		t.Errorf("it is told to report elsewhere: %s", rule.Kvs[0].GetValue())
	}

	route, upstream := routeTo(t, client, xdstest.ClusterName(1))
	distribution, err := json.Marshal(append([]int{70, 0, 0, 0, 5}, make([]int, 16)...))
	if err != nil {
		t.Fatal(err)
	}
	report := fmt.Sprintf(`{"worker": "1", "sequence": 1, "series": [{"route": %q, "upstream": %q, "node": "10.0.1.1:8080", "status": 200, `+
		`"count": 5, "duration": %[3]s, "received": %[3]s, "sent": %[3]s}]}`, route, upstream, distribution)
	for range 2 { // it may come again
		if code, body := post(t, internal, "/log", report); code != http.StatusNoContent {
			t.Fatalf("%d %s", code, body)
		}
	}
	_, text := get(t, "http://"+r.servers[len(r.servers)-1].listener.Addr().String()+"/stats/prometheus")
	found := false
	for line := range strings.Lines(text) {
		found = found || strings.HasPrefix(line, "istio_requests_total{") && strings.Contains(line, `reporter="source"`) &&
			strings.Contains(line, `destination_service="`+xdstest.Service(1)+`"`) && strings.HasSuffix(line, "} 5\n")
	}
	if !found {
		t.Errorf("no such requests in %s", text)
	}

	// Telemetry is switched off.
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	watch := client.Watch(ctx, "/apisix/global_rules/", clientv3.WithPrefix(), clientv3.WithRev(rule.Header.GetRevision()+1))
	istiod.Set(mesh...)
	if update := <-watch; len(update.Events) != 1 || update.Events[0].IsCreate() || update.Events[0].IsModify() {
		t.Errorf("APISIX still reports: %v", update)
	}
}

func TestRequestsAreNotReportedUnlessThatIsAskedFor(t *testing.T) {
	for name, c := range map[string]struct {
		metrics  RequestMetrics
		counting bool
		want     int64
	}{
		"auto, and istiod does not ask": {RequestMetricsAuto, false, 0},
		"off, although istiod asks":     {RequestMetricsOff, true, 0},
		"on, although istiod does not":  {RequestMetricsOn, false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			istiod := xdstest.NewServer(t)
			mesh := xdstest.Mesh(1, 1).Resources()
			if c.counting {
				mesh = counting(t, mesh)
			}
			istiod.Set(mesh...)
			config := testConfig(istiod)
			config.Internal, config.RequestMetrics = "127.0.0.1:0", c.metrics
			r := startBridge(t, config)
			r.waitReady(t)
			rule, err := r.client(t).Get(t.Context(), "/apisix/global_rules/g.requests")
			if err != nil || rule.Count != c.want {
				t.Errorf("%d rules, %v", rule.Count, err)
			}
		})
	}
}
