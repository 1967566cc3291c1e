package telemetry

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/protobuf/types/known/structpb"

	"meshbridge/translate"
	"meshbridge/translate/accesslog"
	"meshbridge/translate/apisix"
	"meshbridge/xds"
)

// fakeWorld is a World made of maps.
type fakeWorld struct {
	chains    map[string]*translate.Chain
	objects   map[string]string
	resources map[xds.Key]*xds.Resource
	overlay   map[netip.Addr]*translate.OverlayEndpoint
	principal string
}

func (w *fakeWorld) Chain(key string) *translate.Chain { return w.chains[key] }

func (w *fakeWorld) Object(kind apisix.Kind, id string) []byte {
	if o, ok := w.objects[string(kind)+"/"+id]; ok {
		return []byte(o)
	}
	return nil
}

func (w *fakeWorld) Resource(key xds.Key) *xds.Resource { return w.resources[key] }

func (w *fakeWorld) Overlay(address netip.Addr) *translate.OverlayEndpoint { return w.overlay[address] }

func (w *fakeWorld) OverlayOf(cluster string) (of []*translate.OverlayEndpoint) {
	for _, e := range w.overlay {
		if e.Cluster == cluster {
			of = append(of, e)
		}
	}
	return of
}
func (w *fakeWorld) Principal() string { return w.principal }

const reviews = "outbound|9080||reviews.default.svc.cluster.local"

// newWorld has an outbound chain with a service of two endpoints, and an inbound one.
func newWorld(tb testing.TB) *fakeWorld {
	tb.Helper()
	w := &fakeWorld{
		chains: map[string]*translate.Chain{
			"9080":       {Key: "9080", HTTP: true, Direction: translate.Outbound, Stats: &translate.Stats{Reporter: "source"}},
			"i:8080:tls": {Key: "i:8080:tls", HTTP: true, Direction: translate.Inbound, Stats: &translate.Stats{Reporter: "destination", NoHostFallback: true}},
			"uncounted":  {Key: "uncounted", HTTP: true, Direction: translate.Outbound},
		},
		objects: map[string]string{
			"routes/r.out":                   `{"name": "9080|reviews:9080|default", "upstream_id": "u.reviews"}`,
			"routes/r.404":                   `{"name": "9080|reviews:9080|404"}`,
			"routes/r.any":                   `{"name": "9080|allow_any|allow_any", "upstream_id": "u.PassthroughCluster"}`,
			"routes/r.fault":                 `{"name": "9080|reviews:9080|f", "upstream_id": "u.reviews", "plugins": {"fault-injection": {"abort": {"http_status": 418}}}}`,
			"routes/r.in":                    `{"name": "i:8080:tls|inbound|http|8080|default", "upstream_id": "u.in"}`,
			"routes/r.uncounted":             `{"name": "uncounted|a|b", "upstream_id": "u.reviews"}`,
			"upstreams/u.reviews":            `{"name": "` + reviews + `~r0"}`,
			"upstreams/u.in":                 `{"name": "inbound|8080||"}`,
			"upstreams/u.PassthroughCluster": `{"name": "PassthroughCluster"}`,
		},
		resources: map[xds.Key]*xds.Resource{},
		overlay:   map[netip.Addr]*translate.OverlayEndpoint{},
		principal: "spiffe://cluster.local/ns/shop/sa/client",
	}
	w.load(tb, fmt.Sprintf(`
- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: %[1]q
  alt_stat_name: "%[1]s;"
  type: EDS
  eds_cluster_config: {eds_config: {ads: {}}}
  metadata: {filter_metadata: {istio: {services: [{host: reviews.default.svc.cluster.local, name: reviews, namespace: default}]}}}
- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: inbound|8080||
  type: ORIGINAL_DST
  lb_policy: CLUSTER_PROVIDED
  metadata: {filter_metadata: {istio: {services: [{host: web.shop.svc.cluster.local, name: web, namespace: shop}]}}}
- "@type": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment
  cluster_name: %[1]q
  endpoints:
  - lb_endpoints:
    - endpoint: {address: {socket_address: {address: 10.0.0.1, port_value: 9080}}}
      metadata: {filter_metadata: {istio: {workload: "reviews-v1;default;reviews;v1;Kubernetes"}}}
`, reviews))
	return w
}

func (w *fakeWorld) load(tb testing.TB, resources string) {
	tb.Helper()
	file := filepath.Join(tb.TempDir(), "xds.yaml")
	if err := os.WriteFile(file, []byte(resources), 0o600); err != nil {
		tb.Fatal(err)
	}
	snapshot, rejected, err := xds.LoadFiles(file)
	if err != nil || len(rejected) > 0 {
		tb.Fatal(err, rejected)
	}
	for _, kind := range snapshot.Types() {
		for r := range snapshot.All(kind) {
			w.resources[r.Key] = r
		}
	}
}

// node is the proxy of a workload "client" in the namespace "shop".
func node() *corepb.Node {
	metadata, err := structpb.NewStruct(map[string]any{
		"WORKLOAD_NAME": "client", "NAMESPACE": "shop", "CLUSTER_ID": "Kubernetes", "ISTIO_VERSION": "1.31.0", "MESH_ID": "mesh1",
		"LABELS": map[string]any{"app": "client", "version": "v7", "service.istio.io/canonical-name": "client", "service.istio.io/canonical-revision": "v7"},
	})
	if err != nil {
		panic(err)
	}
	return &corepb.Node{Id: "sidecar~10.0.0.9~client-abc.shop~shop.svc.cluster.local", Metadata: metadata}
}

// counted is Requests with the registry of its metrics, and what was written to access logs.
type counted struct {
	*Requests
	registry *prometheus.Registry
	written  *written
}

func newCounted(tb testing.TB, w World) counted {
	tb.Helper()
	return newCountedBy(tb, Config{World: w})
}

func newCountedBy(tb testing.TB, c Config) counted {
	tb.Helper()
	out := counted{registry: prometheus.NewRegistry(), written: &written{}}
	c.Node, c.Registerer, c.Logger, c.Entries = node(), out.registry, slog.New(slog.DiscardHandler), out.written
	out.registry.MustRegister(Build(node()))
	out.Requests = New(c)
	return out
}

// written are entries that were handed to logs.
type written struct {
	entries []*accesslog.Entry
	logs    [][]*accesslog.Log
}

func (w *written) Write(logs []*accesslog.Log, e *accesslog.Entry) {
	w.logs, w.entries = append(w.logs, logs), append(w.entries, e)
}

// post sends a report.
func (c counted) post(tb testing.TB, body string) int {
	tb.Helper()
	answer := httptest.NewRecorder()
	c.ServeHTTP(answer, httptest.NewRequestWithContext(tb.Context(), http.MethodPost, Path, strings.NewReader(body)))
	return answer.Code
}

// value returns the sum of all series of a metric that have all of the labels, written as in the text format.
func (c counted) value(t *testing.T, name string, with ...string) float64 {
	t.Helper()
	families, err := c.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			matches := true
			for _, w := range with {
				label, value, _ := strings.Cut(w, "=")
				found := false
				for _, l := range m.GetLabel() {
					found = found || l.GetName() == label && l.GetValue() == value
				}
				matches = matches && found
			}
			if matches {
				sum += m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum
}

// compare compares the lines of a metric in the text format.
func (c counted) compare(t *testing.T, want, name string) {
	t.Helper()
	answer := httptest.NewRecorder()
	promhttp.HandlerFor(c.registry, promhttp.HandlerOpts{}).ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	var got strings.Builder
	for line := range strings.Lines(answer.Body.String()) {
		if strings.HasPrefix(strings.TrimPrefix(strings.TrimPrefix(line, "# HELP "), "# TYPE "), name) {
			got.WriteString(line)
		}
	}
	if diff := cmp.Diff(strings.TrimPrefix(want, "\n"), got.String()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}
