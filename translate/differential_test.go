package translate_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	corspb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	faultpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	routerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	http_connection_managerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/rogpeppe/go-internal/txtar"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"meshbridge/translate"
	"meshbridge/translate/difftest"
	"meshbridge/xds"
)

var (
	pairs = flag.Int("pairs", 24000, "how many requests are given to both a model of Envoy and the translation")
	seed  = flag.Uint64("seed", 1, "the seed of these requests")
)

// Each of the three tests takes a part of -pairs and has random numbers of its own.
const (
	ofRecordings = iota
	ofCases
	ofGenerated
	ofSimulations
	ofFixtures
	ofRunning
)

func newRandom(test, n uint64) *rand.Rand { return rand.New(rand.NewPCG(*seed, test<<32|n)) }

// check prints the counts, and fails for differences that no diagnostic explains.
func check(t *testing.T, r *difftest.Report) {
	t.Helper()
	t.Log(r)
	const shown = 20
	failures := r.Shortest()
	for _, f := range failures[:min(len(failures), shown)] {
		t.Error(f)
	}
	if more := len(failures) - shown; more > 0 {
		t.Errorf("and %d more kinds", more)
	}
}

// TestRecordingsDoWhatEnvoyDoes compares what became of what a real istiod sent with Envoy.
func TestRecordingsDoWhatEnvoyDoes(t *testing.T) {
	report := difftest.NewReport()
	var worlds []*difftest.World
	for _, recording := range translate.Recordings(t) {
		for _, options := range recording.Options {
			w, err := difftest.NewWorld(recording.Name+"/"+options.Profile.Name(), recording.Snapshot, options)
			if err != nil {
				t.Fatal(err)
			}
			reached, unreached := w.Served()
			if unreached > 0 {
				t.Errorf("%s has %d chains for which there is no connection to test them with", recording.Name, unreached)
			}
			if reached > 0 {
				worlds = append(worlds, w)
			}
		}
	}
	for i, w := range worlds {
		w.Run(newRandom(ofRecordings, uint64(i)), *pairs/3/len(worlds), report)
	}
	check(t, report)
}

// TestCasesDoWhatEnvoyDoes does the same with the hand-written cases.
func TestCasesDoWhatEnvoyDoes(t *testing.T) {
	files, err := filepath.Glob("../testdata/cases/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	report := difftest.NewReport()
	var worlds []*difftest.World
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		parts := map[string][]byte{}
		for _, f := range archive.Files {
			parts[f.Name] = f.Data
		}
		options := translate.CaseOptions(t, parts["options.yaml"])
		if !options.APISIXVersion.HasAll() {
			continue // what an old release lacks is not modelled
		}
		var snap *xds.Snapshot
		switch {
		case parts["xds.yaml"] != nil:
			snap = translate.LoadYAML(t, string(parts["xds.yaml"]))
		case parts["route.yaml"] != nil:
			snap = actionSnapshot(t, parts)
		default:
			continue // cases of clusters have no routes
		}
		w, err := difftest.NewWorld(strings.TrimSuffix(filepath.Base(file), ".txtar"), completed(t, snap), options)
		if err != nil {
			t.Fatal(err)
		}
		if reached, _ := w.Served(); reached > 0 {
			worlds = append(worlds, w)
		}
	}
	for i, w := range worlds {
		w.Run(newRandom(ofCases, uint64(i)), *pairs/3/len(worlds), report)
	}
	check(t, report)
}

// actionSnapshot serves the route of a case of an action.
func actionSnapshot(t *testing.T, parts map[string][]byte) *xds.Snapshot {
	t.Helper()
	config, vhost, route := &routepb.RouteConfiguration{}, &routepb.VirtualHost{}, &routepb.Route{}
	translate.DecodeYAML(t, parts["config.yaml"], config)
	translate.DecodeYAML(t, parts["vhost.yaml"], vhost)
	translate.DecodeYAML(t, parts["route.yaml"], route)
	route.Name, vhost.Name, config.Name = "route", "vhost", "80"
	vhost.Domains, vhost.Routes = []string{"a.example", "*"}, []*routepb.Route{route}
	config.VirtualHosts, config.IgnorePortInHostMatching = []*routepb.VirtualHost{vhost}, true
	resources := []*xds.Resource{translate.NewResource(t, "80", config), newListener(t, newManager(t, "80"), false)}
	for _, raw := range translate.DecodeList(t, parts["clusters.yaml"]) {
		c := &clusterpb.Cluster{}
		translate.DecodeYAML(t, raw, c)
		resources = append(resources, translate.NewResource(t, c.GetName(), c))
	}
	return new(xds.Snapshot).With(resources, nil)
}

func pack(tb testing.TB, m proto.Message) *anypb.Any {
	tb.Helper()
	a, err := anypb.New(m)
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

// newManager has the filters that istiod configures.
func newManager(tb testing.TB, rds string) *http_connection_managerpb.HttpConnectionManager {
	tb.Helper()
	return &http_connection_managerpb.HttpConnectionManager{
		StatPrefix: "http", NormalizePath: wrapperspb.Bool(true),
		RouteSpecifier: &http_connection_managerpb.HttpConnectionManager_Rds{Rds: &http_connection_managerpb.Rds{RouteConfigName: rds}},
		HttpFilters: []*http_connection_managerpb.HttpFilter{
			httpFilter(tb, "envoy.filters.http.fault", &faultpb.HTTPFault{}),
			httpFilter(tb, "envoy.filters.http.cors", &corspb.Cors{}),
			httpFilter(tb, "envoy.filters.http.router", &routerpb.Router{}),
		},
	}
}

// newListener is one for 0.0.0.0:80. Those of gateways are bound to the port.
func newListener(tb testing.TB, hcm *http_connection_managerpb.HttpConnectionManager, bound bool) *xds.Resource {
	tb.Helper()
	return translate.NewResource(tb, "0.0.0.0_80", &listenerpb.Listener{
		Name: "0.0.0.0_80", BindToPort: wrapperspb.Bool(bound), TrafficDirection: corepb.TrafficDirection_OUTBOUND,
		Address: &corepb.Address{Address: &corepb.Address_SocketAddress{SocketAddress: &corepb.SocketAddress{
			Address: "0.0.0.0", PortSpecifier: &corepb.SocketAddress_PortValue{PortValue: 80},
		}}},
		FilterChains: []*listenerpb.FilterChain{{Filters: []*listenerpb.Filter{{
			Name: "hcm", ConfigType: &listenerpb.Filter_TypedConfig{TypedConfig: pack(tb, hcm)},
		}}}},
	})
}

// completed adds what cases leave out because the translation does not look at it, and Envoy cannot
// do without: the router, and inspection of TLS where chains are selected by it.
func completed(tb testing.TB, snap *xds.Snapshot) *xds.Snapshot {
	tb.Helper()
	var changed []*xds.Resource
	for r := range snap.All(xds.ListenerType) {
		l, err := xds.Decode[*listenerpb.Listener](r)
		if err != nil {
			continue
		}
		for _, inspector := range []string{"tls_inspector.v3.TlsInspector", "http_inspector.v3.HttpInspector"} {
			url := "type.googleapis.com/envoy.extensions.filters.listener." + inspector
			if !slices.ContainsFunc(l.GetListenerFilters(), func(f *listenerpb.ListenerFilter) bool { return f.GetTypedConfig().GetTypeUrl() == url }) {
				l.ListenerFilters = append(l.ListenerFilters, &listenerpb.ListenerFilter{
					Name: inspector, ConfigType: &listenerpb.ListenerFilter_TypedConfig{TypedConfig: &anypb.Any{TypeUrl: url}},
				})
			}
		}
		for i, fc := range append(l.GetFilterChains(), l.GetDefaultFilterChain()) {
			if fc != nil && fc.GetName() == "" {
				fc.Name = fmt.Sprintf("chain %d", i)
			}
			for _, f := range fc.GetFilters() {
				hcm := &http_connection_managerpb.HttpConnectionManager{}
				if f.GetTypedConfig().UnmarshalTo(hcm) != nil {
					continue
				}
				router := pack(tb, &routerpb.Router{})
				if n := len(hcm.GetHttpFilters()); n > 0 && hcm.GetHttpFilters()[n-1].GetTypedConfig().GetTypeUrl() == router.GetTypeUrl() {
					continue
				}
				hcm.HttpFilters = append(hcm.HttpFilters, &http_connection_managerpb.HttpFilter{
					Name: "router", ConfigType: &http_connection_managerpb.HttpFilter_TypedConfig{TypedConfig: router},
				})
				f.ConfigType = &listenerpb.Filter_TypedConfig{TypedConfig: pack(tb, hcm)}
			}
		}
		changed = append(changed, translate.NewResource(tb, r.Name, l))
	}
	return snap.With(changed, nil)
}
