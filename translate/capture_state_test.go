package translate

import (
	"encoding/json"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"meshbridge/translate/apisix"
	"meshbridge/xds"
)

// captureMirror is what capture knows by adding up changes.
type captureMirror struct {
	listeners []*Listener
	overlay   map[netip.Addr]*OverlayEndpoint
	ports     map[uint16]bool
}

func (m *captureMirror) apply(tb testing.TB, r Result) {
	tb.Helper()
	if r.Capture.Listeners != nil {
		if slices.EqualFunc(m.listeners, r.Capture.Listeners, sameTable) && m.listeners != nil {
			tb.Error("a table of listeners that has not changed")
		}
		m.listeners = r.Capture.Listeners
	}
	if m.overlay == nil {
		m.overlay, m.ports = map[netip.Addr]*OverlayEndpoint{}, map[uint16]bool{}
	}
	for _, e := range r.Capture.Overlay {
		if old := m.overlay[e.Address]; old != nil && sameTable(old, e) {
			tb.Errorf("endpoint %v has not changed", e.Address)
		}
		m.overlay[e.Address] = e
	}
	for _, address := range r.Capture.Gone {
		if m.overlay[address] == nil {
			tb.Errorf("endpoint %v was not there", address)
		}
		delete(m.overlay, address)
	}
	for _, port := range r.Capture.GonePorts {
		if !m.ports[port] {
			tb.Errorf("port %d was not there", port)
		}
		delete(m.ports, port)
	}
	for _, o := range r.Put {
		if port := streamPort(tb, o); port != 0 {
			m.ports[port] = true
		}
	}
}

// streamPort returns the port of a stream_route; 0 for other objects.
func streamPort(tb testing.TB, o apisix.Object) uint16 {
	tb.Helper()
	if o.Kind != apisix.KindStreamRoute {
		return 0
	}
	var route apisix.StreamRoute
	if err := json.Unmarshal(o.Value, &route); err != nil {
		tb.Fatal(err)
	}
	return uint16(route.ServerPort)
}

func (m *captureMirror) compare(tb testing.TB, what string, s *State) {
	tb.Helper()
	if !slices.EqualFunc(m.listeners, s.Listeners(), sameTable) {
		tb.Fatalf("%s: the listeners differ", what)
	}
	if !slices.EqualFunc(sortedOverlay(m.overlay), s.Overlay(), sameTable) {
		tb.Fatalf("%s: the overlay has %d endpoints, not %d, or others", what, len(m.overlay), len(s.Overlay()))
	}
	ports := map[uint16]bool{}
	for o := range s.Objects() {
		if port := streamPort(tb, o); port != 0 {
			ports[port] = true
		}
	}
	if !maps.Equal(m.ports, ports) {
		tb.Fatalf("%s: ports %v, not %v", what, slices.Sorted(maps.Keys(m.ports)), slices.Sorted(maps.Keys(ports)))
	}
	for _, l := range s.Listeners() {
		for _, chain := range append(slices.Clone(l.Chains), l.DefaultChain) {
			assertChainWhole(tb, l, chain, ports)
		}
	}
}

// assertChainWhole checks that a chain says one thing, and that where it leads to is there.
func assertChainWhole(tb testing.TB, l *Listener, c *FilterChain, ports map[uint16]bool) {
	tb.Helper()
	if c == nil {
		return
	}
	said := 0
	for _, is := range []bool{c.HTTP != nil, c.TCP != nil, c.Refused != ""} {
		if is {
			said++
		}
	}
	if said != 1 {
		tb.Fatalf("listener %s, chain %s: %+v", l.Name, c.Key, c)
	}
	if c.TCP == nil {
		return
	}
	for _, cluster := range c.TCP.Clusters {
		if cluster.Port != 0 && !ports[cluster.Port] {
			tb.Fatalf("listener %s, chain %s leads to port %d, where nothing is", l.Name, c.Key, cluster.Port)
		}
		if (cluster.Port != 0) == (cluster.OriginalDestination != nil || cluster.Refused != "") {
			tb.Fatalf("listener %s, chain %s: %+v", l.Name, c.Key, cluster)
		}
	}
}

// What capture is told adds up to the table, which does not depend on how the State came to it.
func TestCapturesTableDoesNotDependOnTheSteps(t *testing.T) {
	for _, sc := range loadScenarios(t) {
		t.Run(sc.name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(11, uint64(len(sc.name))))
			in := Inputs{Allocations: newTestAllocations()}
			s, r, err := Translate(sc.with(Mesh()), sc.snapshot, in)
			if err != nil {
				t.Fatal(err)
			}
			mirror := &captureMirror{}
			mirror.apply(t, r)
			snap := sc.snapshot
			for step := range 60 {
				next, changed := randomEdit(t, rng, sc.snapshot, snap)
				if rng.IntN(4) == 0 {
					next, changed = randomSecret(rng, sc.snapshot, next, changed)
				}
				snap = next
				all := rng.IntN(15) == 0
				r := s.Apply(Input{Snapshot: snap, Changed: changed, All: all, Inputs: in})
				mirror.apply(t, r)
				mirror.compare(t, "added up", s)
				fresh := anew(t, s, snap, in)
				if a, b := string(renderCapture(t, fresh)), string(renderCapture(t, s)); a != b {
					t.Fatalf("step %d %v: at once\n%s\nby steps\n%s", step, changed, a, b)
				}
				mirror.compare(t, "at once", fresh)
				if !slices.Equal(fresh.Diagnostics(), s.Diagnostics()) {
					t.Fatalf("step %d %v: at once %v, by steps %v", step, changed, fresh.Diagnostics(), s.Diagnostics())
				}
			}
			mirror.apply(t, s.Apply(Input{Snapshot: &xds.Snapshot{}, All: true, Inputs: in}))
			if len(mirror.listeners)+len(mirror.overlay)+len(mirror.ports)+len(s.clusters)+len(s.clusterUsers)+len(s.secretUsers) > 0 {
				t.Errorf("an empty world leaves %+v, and %d clusters", mirror, len(s.clusters))
			}
		})
	}
}

// randomSecret takes a secret away or puts it back.
func randomSecret(rng *rand.Rand, full, snap *xds.Snapshot, changed []xds.Key) (*xds.Snapshot, []xds.Key) {
	secrets := slices.Collect(full.All(xds.SecretType))
	if len(secrets) == 0 {
		return snap, changed
	}
	r := pick(rng, secrets...)
	changed = append(changed, r.Key)
	if snap.Get(r.Key) == nil {
		return snap.With([]*xds.Resource{r}, nil), changed
	}
	return snap.With(nil, []xds.Key{r.Key}), changed
}

func TestANoOpPushTellsCaptureNothing(t *testing.T) {
	for _, sc := range loadScenarios(t) {
		in := Inputs{Allocations: newTestAllocations()}
		s, _, err := Translate(sc.with(Mesh()), sc.snapshot, in)
		if err != nil {
			t.Fatal(err)
		}
		r := s.Apply(Input{Snapshot: sc.snapshot, All: true, Inputs: in})
		if r.Capture.Listeners != nil || len(r.Capture.Overlay)+len(r.Capture.Gone)+len(r.Capture.GonePorts) > 0 || len(r.Put) > 0 {
			t.Errorf("%s: %+v, put %d", sc.name, r.Capture, len(r.Put))
		}
	}
}

// A new endpoint is one of the overlay, and no other one is mentioned.
func TestANewEndpointIsAllThatCaptureIsTold(t *testing.T) {
	snap := meshTLS(t, mesh(t, 20))
	in := Inputs{Allocations: newTestAllocations()}
	s, r, err := Translate(Options{Profile: Mesh()}, snap, in)
	if err != nil || len(r.Capture.Overlay) != 20 {
		t.Fatal(err, len(r.Capture.Overlay))
	}
	const cluster = "outbound|80||svc-7.default.svc.cluster.local"
	load := loadOf(cluster, 2)
	for _, e := range load.GetEndpoints()[0].GetLbEndpoints() {
		e.Metadata = meshTLSMetadata(t)
	}
	changed := newResource(t, cluster, load)
	r = s.Apply(Input{Snapshot: snap.With([]*xds.Resource{changed}, nil), Changed: []xds.Key{changed.Key}, Inputs: in})
	if r.Capture.Listeners != nil || len(r.Capture.Overlay) != 1 || len(r.Capture.Gone) != 0 || len(r.Put) != 1 {
		t.Fatalf("%+v, put %d", r.Capture, len(r.Put))
	}
	if e := r.Capture.Overlay[0]; e.Cluster != cluster || e.Target.String() != "10.1.0.1:8080" || e.TLS == nil {
		t.Errorf("%+v", e)
	}
	original := newResource(t, cluster, loadOf(cluster, 1)) // without metadata, hence plain
	r = s.Apply(Input{Snapshot: snap.With([]*xds.Resource{original}, nil), Changed: []xds.Key{original.Key}, Inputs: in})
	if len(r.Capture.Overlay) != 0 || len(r.Capture.Gone) != 2 {
		t.Errorf("%+v", r.Capture)
	}
}

// parseJSON adds what is written to a message.
func parseJSON(tb testing.TB, text string, m proto.Message) {
	tb.Helper()
	read := m.ProtoReflect().New().Interface()
	if err := protojson.Unmarshal([]byte(text), read); err != nil {
		tb.Fatal(err)
	}
	proto.Merge(m, read)
}

func meshTLSMetadata(tb testing.TB) *corepb.Metadata {
	tb.Helper()
	m := &corepb.Metadata{}
	parseJSON(tb, `{"filter_metadata": {"envoy.transport_socket_match": {"tlsMode": "istio"}}}`, m)
	return m
}

// meshTLS makes the clusters and endpoints of a snapshot those of a mesh with mutual TLS.
func meshTLS(tb testing.TB, snap *xds.Snapshot) *xds.Snapshot {
	tb.Helper()
	var put []*xds.Resource
	for r := range snap.All(xds.ClusterType) {
		c, err := xds.Decode[*clusterpb.Cluster](r)
		if err != nil {
			tb.Fatal(err)
		}
		c = proto.CloneOf(c)
		parseJSON(tb, `{"transport_socket_matches": [{"name": "tlsMode-istio", "match": {"tlsMode": "istio"}, "transport_socket": {
			"name": "envoy.transport_sockets.tls", "typed_config": {
				"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
				"sni": "outbound_.80_._.svc.default.svc.cluster.local",
				"common_tls_context": {
					"alpn_protocols": ["istio-peer-exchange", "istio"],
					"tls_certificate_sds_secret_configs": [{"name": "default"}],
					"combined_validation_context": {
						"default_validation_context": {"match_subject_alt_names": [{"exact": "spiffe://cluster.local/ns/default/sa/svc"}]},
						"validation_context_sds_secret_config": {"name": "ROOTCA"}}}}}},
			{"name": "tlsMode-disabled", "match": {}, "transport_socket": {"name": "envoy.transport_sockets.raw_buffer"}}]}`, c)
		put = append(put, newResource(tb, r.Name, c))
		load := loadOf(r.Name, 1)
		load.GetEndpoints()[0].GetLbEndpoints()[0].Metadata = meshTLSMetadata(tb)
		put = append(put, newResource(tb, r.Name, load))
	}
	return snap.With(put, nil)
}

func BenchmarkEndpointUpdateInTheOverlay(b *testing.B) {
	snap := meshTLS(b, mesh(b, 10_000))
	in := Inputs{Allocations: newTestAllocations()}
	s, _, err := Translate(Options{Profile: Mesh()}, snap, in)
	if err != nil {
		b.Fatal(err)
	}
	const cluster = "outbound|80||svc-7.default.svc.cluster.local"
	var loads [2]*xds.Resource
	var snaps [2]*xds.Snapshot
	for i := range loads {
		load := loadOf(cluster, 3+i)
		for _, e := range load.GetEndpoints()[0].GetLbEndpoints() {
			e.Metadata = meshTLSMetadata(b)
		}
		loads[i] = newResource(b, cluster, load)
		snaps[i] = snap.With([]*xds.Resource{loads[i]}, nil)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if r := s.Apply(Input{Snapshot: snaps[i%2], Changed: []xds.Key{loads[i%2].Key}, Inputs: in}); len(r.Put) != 1 {
			b.Fatal(r)
		}
		i++
	}
}
