package admin_test

import (
	"encoding/base64"
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	adminpb "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	http_connection_managerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/anypb"

	"meshbridge/xds"
)

// mesh returns a few resources of each type.
func mesh(t *testing.T) []*xds.Resource {
	t.Helper()
	manager, err := anypb.New(&http_connection_managerpb.HttpConnectionManager{
		StatPrefix: "inbound",
		RouteSpecifier: &http_connection_managerpb.HttpConnectionManager_RouteConfig{
			RouteConfig: &routepb.RouteConfiguration{Name: "inbound|80||"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return []*xds.Resource{
		resource(t, xds.ClusterType, "outbound|80||a", &clusterpb.Cluster{
			Name: "outbound|80||a", ClusterDiscoveryType: &clusterpb.Cluster_Type{Type: clusterpb.Cluster_EDS},
		}),
		resource(t, xds.ClusterType, "outbound|81||b", &clusterpb.Cluster{
			Name: "outbound|81||b", LoadAssignment: &endpointpb.ClusterLoadAssignment{ClusterName: "outbound|81||b"},
		}),
		resource(t, xds.EndpointType, "outbound|80||a", &endpointpb.ClusterLoadAssignment{ClusterName: "outbound|80||a"}),
		resource(t, xds.ListenerType, "virtualInbound", &listenerpb.Listener{
			Name:         "virtualInbound",
			FilterChains: []*listenerpb.FilterChain{{Filters: []*listenerpb.Filter{{ConfigType: &listenerpb.Filter_TypedConfig{TypedConfig: manager}}}}},
		}),
		resource(t, xds.RouteType, "80", &routepb.RouteConfiguration{Name: "80"}),
	}
}

func TestADumpHasEverySectionAndTheResourcesAsReceived(t *testing.T) {
	all := mesh(t)
	b := newBridge(all...)
	body := b.get(t, "/config_dump?include_eds")
	clusters := section(t, body, &adminpb.ClustersConfigDump{})
	want := &adminpb.ClustersConfigDump{VersionInfo: "push-7"}
	for _, r := range all[:2] {
		want.DynamicActiveClusters = append(want.DynamicActiveClusters, &adminpb.ClustersConfigDump_DynamicCluster{
			VersionInfo: "push-7", Cluster: r.Body, LastUpdated: clusters.GetDynamicActiveClusters()[0].GetLastUpdated(),
		})
	}
	if diff := cmp.Diff(want, clusters, protocmp.Transform()); diff != "" {
		t.Errorf("clusters (-want +got):\n%s", diff)
	}
	if at := clusters.GetDynamicActiveClusters()[0].GetLastUpdated().AsTime(); !at.Equal(received()) {
		t.Errorf("last updated %s", at)
	}
	if l := section(t, body, &adminpb.ListenersConfigDump{}).GetDynamicListeners(); len(l) != 1 || !proto.Equal(l[0].GetActiveState().GetListener(), all[3].Body) {
		t.Errorf("listeners: %v", l)
	}
	routes := section(t, body, &adminpb.RoutesConfigDump{})
	if len(routes.GetDynamicRouteConfigs()) != 1 || len(routes.GetStaticRouteConfigs()) != 1 {
		t.Errorf("routes: %v", routes)
	}
	endpoints := section(t, body, &adminpb.EndpointsConfigDump{})
	if len(endpoints.GetDynamicEndpointConfigs()) != 1 || len(endpoints.GetStaticEndpointConfigs()) != 1 {
		t.Errorf("endpoints: %v", endpoints)
	}
	node := section(t, body, &adminpb.BootstrapConfigDump{}).GetBootstrap().GetNode()
	if node.GetId() != "sidecar~10.0.0.1~a.default~default.svc.cluster.local" || node.GetUserAgentBuildVersion().GetVersion().GetPatch() != 3 {
		t.Errorf("node: %v", node)
	}
	section(t, body, &adminpb.SecretsConfigDump{})
	section(t, body, &adminpb.EcdsConfigDump{})
	section(t, body, &adminpb.ScopedRoutesConfigDump{})
	if strings.Contains(b.get(t, "/config_dump"), "EndpointsConfigDump") {
		t.Error("endpoints are shown without being asked for")
	}
}

func TestBeforeTheFirstResponseADumpIsEmptyAndWhole(t *testing.T) {
	b := newBridge()
	b.world.Active, b.world.Received = nil, nil
	b.world.Pending = []xds.Key{{Type: xds.ClusterType}, {Type: xds.SecretType, Name: "late"}}
	body := b.get(t, "/config_dump?include_eds")
	section(t, body, &adminpb.ClustersConfigDump{})
	section(t, body, &adminpb.EndpointsConfigDump{})
	var waiting []string
	for _, s := range section(t, body, &adminpb.SecretsConfigDump{}).GetDynamicWarmingSecrets() {
		waiting = append(waiting, s.GetName()+" "+s.GetVersionInfo())
	}
	want := []string{"default uninitialized", "ROOTCA uninitialized", "late uninitialized"}
	if diff := cmp.Diff(want, waiting); diff != "" {
		t.Errorf("warming secrets (-want +got):\n%s", diff)
	}
	contains(t, b.get(t, "/init_dump"), `"cluster"`, `"late"`)
	if body := b.get(t, "/init_dump?mask=secret"); strings.Contains(body, `"cluster"`) {
		t.Errorf("mask: %s", body)
	}
}

func TestWhatIsNotTranslatedYetIsWarming(t *testing.T) {
	b := newBridge(mesh(t)...)
	changed := resource(t, xds.ClusterType, "outbound|80||a", &clusterpb.Cluster{Name: "outbound|80||a", AltStatName: "x"})
	added := resource(t, xds.ListenerType, "new", &listenerpb.Listener{Name: "new"})
	b.world.Received = b.world.Active.With([]*xds.Resource{changed, added}, nil)
	body := b.get(t, "/config_dump")
	clusters := section(t, body, &adminpb.ClustersConfigDump{})
	if w := clusters.GetDynamicWarmingClusters(); len(clusters.GetDynamicActiveClusters()) != 2 || len(w) != 1 || !proto.Equal(w[0].GetCluster(), changed.Body) {
		t.Errorf("clusters: %v", clusters)
	}
	for _, l := range section(t, body, &adminpb.ListenersConfigDump{}).GetDynamicListeners() {
		if isNew := l.GetName() == "new"; isNew != (l.GetActiveState() == nil) || isNew != (l.GetWarmingState() != nil) {
			t.Errorf("listener: %v", l)
		}
	}
}

func TestWhatIsRefusedIsAnErrorBesideTheLastGoodVersion(t *testing.T) {
	b := newBridge(mesh(t)...)
	for _, key := range []xds.Key{{Type: xds.ListenerType, Name: "virtualInbound"}, {Type: xds.ClusterType, Name: "bad"}} {
		b.world.Rejected = append(b.world.Rejected, xds.Rejection{Key: key, Err: errors.New("no such filter"), Received: received(), Response: "push-8"})
	}
	body := b.get(t, "/config_dump")
	l := section(t, body, &adminpb.ListenersConfigDump{}).GetDynamicListeners()
	if len(l) != 1 || l[0].GetActiveState() == nil || l[0].GetErrorState().GetDetails() != "no such filter" || l[0].GetErrorState().GetVersionInfo() != "push-8" {
		t.Errorf("listener: %v", l)
	}
	c := section(t, body, &adminpb.ClustersConfigDump{})
	if w := c.GetDynamicWarmingClusters(); len(c.GetDynamicActiveClusters()) != 2 || len(w) != 1 || w[0].GetErrorState() == nil {
		t.Errorf("clusters: %v", c)
	}
}

func TestPrivateKeysAreRedactedWhereverTheyAre(t *testing.T) {
	const canary = "canary-of-a-private-key"
	certificate := func() *tlspb.TlsCertificate {
		return &tlspb.TlsCertificate{
			CertificateChain: &corepb.DataSource{Specifier: &corepb.DataSource_InlineString{InlineString: "chain"}},
			PrivateKey:       &corepb.DataSource{Specifier: &corepb.DataSource_InlineBytes{InlineBytes: []byte(canary)}},
			Password:         &corepb.DataSource{Specifier: &corepb.DataSource_InlineString{InlineString: canary}},
		}
	}
	context, err := anypb.New(&tlspb.DownstreamTlsContext{CommonTlsContext: &tlspb.CommonTlsContext{TlsCertificates: []*tlspb.TlsCertificate{certificate()}}})
	if err != nil {
		t.Fatal(err)
	}
	b := newBridge(
		resource(t, xds.SecretType, "kubernetes://shop", &tlspb.Secret{Name: "kubernetes://shop", Type: &tlspb.Secret_TlsCertificate{TlsCertificate: certificate()}}),
		resource(t, xds.ListenerType, "l", &listenerpb.Listener{Name: "l", FilterChains: []*listenerpb.FilterChain{{
			TransportSocket: &corepb.TransportSocket{Name: "tls", ConfigType: &corepb.TransportSocket_TypedConfig{TypedConfig: context}},
		}}}),
	)
	var key string
	b.identity, key = newIdentity(t)
	body := b.get(t, "/config_dump") + b.get(t, "/config_dump?resource=dynamic_active_secrets") + b.get(t, "/certs")
	for _, secret := range []string{canary, strings.Split(key, "\n")[1]} {
		if strings.Contains(body, secret) || strings.Contains(body, base64.StdEncoding.EncodeToString([]byte(secret))) {
			t.Errorf("%q is shown in\n%s", secret, body)
		}
	}
	names := map[string]bool{}
	for _, s := range section(t, b.get(t, "/config_dump"), &adminpb.SecretsConfigDump{}).GetDynamicActiveSecrets() {
		names[s.GetName()] = true
		secret := &tlspb.Secret{}
		if err := s.GetSecret().UnmarshalTo(secret); err != nil {
			t.Fatal(err)
		}
		if key := secret.GetTlsCertificate().GetPrivateKey(); key != nil && string(key.GetInlineBytes()) != "[redacted]" {
			t.Errorf("%s: private key %v", s.GetName(), key)
		}
	}
	if diff := cmp.Diff(map[string]bool{"default": true, "ROOTCA": true, "kubernetes://shop": true}, names); diff != "" {
		t.Errorf("secrets (-want +got):\n%s", diff)
	}
	contains(t, body, "[redacted]", `"inline_string": "chain"`)
}

func TestPartsOfADump(t *testing.T) {
	b := newBridge(mesh(t)...)
	for _, test := range []struct {
		query     string
		status    int
		has, not  []string
		resources int // -1: not looked at
	}{
		{"mask=dynamic_active_clusters,static_clusters", 200, []string{"ClustersConfigDump", "outbound|80||a", `"@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump"`}, []string{"virtualInbound", "sidecar~", "version_info\": \"push-7\",\n   \"dynamic"}, -1},
		{"mask=bootstrap.node.id", 200, []string{"sidecar~"}, []string{"a.default\"", "outbound"}, -1},
		{"resource=dynamic_listeners", 200, []string{"virtualInbound", "envoy.admin.v3.ListenersConfigDump.DynamicListener"}, []string{"outbound"}, 1},
		{"resource=dynamic_active_clusters&name_regex=.*b", 200, []string{"outbound|81||b"}, []string{"outbound|80||a"}, 1},
		{"name_regex=outbound", 200, nil, []string{"outbound|", "virtualInbound"}, -1},
		{"resource=dynamic_active_clusters&mask=cluster.name", 200, []string{"outbound|80||a", "envoy.config.cluster.v3.Cluster"}, []string{"EDS", "last_updated"}, 2},
		{"resource=dynamic_endpoint_configs&include_eds", 200, []string{"cluster_name"}, nil, 1},
		{"resource=dynamic_warming_clusters", 200, nil, nil, 0},
		{"resource=nonsense", 404, []string{"nonsense not found in config dump"}, nil, -1},
		{"resource=bootstrap", 400, []string{"not a repeated field. Use ?mask=bootstrap"}, nil, -1},
		{"mask=nonsense", 400, []string{`"nonsense"`}, nil, -1},
		{"mask=bootstrap.nonsense", 400, []string{`has no field "nonsense"`}, nil, -1},
		{"mask=dynamic_listeners.name", 400, []string{"repeated field"}, nil, -1},
		{"mask=a..b", 400, []string{"is no path"}, nil, -1},
		{"name_regex=(", 400, []string{"name_regex"}, nil, -1},
	} {
		t.Run(test.query, func(t *testing.T) {
			status, body := b.do(http.MethodGet, "/config_dump?"+test.query)
			if status != test.status {
				t.Errorf("%d, want %d: %s", status, test.status, body)
			}
			contains(t, body, test.has...)
			for _, part := range test.not {
				if strings.Contains(body, part) {
					t.Errorf("%q in\n%s", part, body)
				}
			}
			if status == http.StatusOK {
				if n := len(decode(t, body, &adminpb.ConfigDump{}).GetConfigs()); test.resources >= 0 && n != test.resources {
					t.Errorf("%d resources, want %d", n, test.resources)
				}
			}
		})
	}
}

// A message of a type that is not linked, or one that is damaged, does not cost the rest of the dump.
func TestWhatCannotBeDecodedIsShownByItsType(t *testing.T) {
	l := &listenerpb.Listener{Name: "l", FilterChains: []*listenerpb.FilterChain{{Filters: []*listenerpb.Filter{
		{Name: "unknown", ConfigType: &listenerpb.Filter_TypedConfig{TypedConfig: &anypb.Any{TypeUrl: "type.googleapis.com/acme.Filter", Value: []byte{8, 1}}}},
		{Name: "broken", ConfigType: &listenerpb.Filter_TypedConfig{TypedConfig: &anypb.Any{TypeUrl: xds.ClusterType, Value: []byte{0xff}}}},
	}}}}
	b := newBridge(resource(t, xds.ListenerType, "l", l))
	contains(t, b.get(t, "/config_dump"), `"@type": "type.googleapis.com/acme.Filter"`, `"name": "broken"`, "SecretsConfigDump")
}

// What istiod really sends, with the extensions of Istio in it.
func TestRecordedResourcesAreDumpedAndReadAgain(t *testing.T) {
	recordings, err := filepath.Glob("../../../testdata/istiod/[bgst]*-c*/xds") // a client, a gateway, TCP
	if err != nil || len(recordings) == 0 {
		t.Fatalf("no recordings: %v", err)
	}
	for _, path := range recordings {
		t.Run(filepath.Base(filepath.Dir(path)), func(t *testing.T) {
			snapshot, _, err := xds.LoadFiles(path)
			if err != nil {
				t.Fatal(err)
			}
			b := newBridge()
			b.world.Active, b.world.Received = snapshot, snapshot
			body := b.get(t, "/config_dump?include_eds")
			var got []*anypb.Any
			for _, c := range section(t, body, &adminpb.ClustersConfigDump{}).GetDynamicActiveClusters() {
				got = append(got, c.GetCluster())
			}
			for _, l := range section(t, body, &adminpb.ListenersConfigDump{}).GetDynamicListeners() {
				got = append(got, l.GetActiveState().GetListener())
			}
			for _, r := range section(t, body, &adminpb.RoutesConfigDump{}).GetDynamicRouteConfigs() {
				got = append(got, r.GetRouteConfig())
			}
			var want []*anypb.Any
			for _, typeURL := range []string{xds.ClusterType, xds.ListenerType, xds.RouteType} {
				for r := range snapshot.All(typeURL) {
					want = append(want, r.Body)
				}
			}
			if len(got) != len(want) {
				t.Fatalf("%d resources, want %d", len(got), len(want))
			}
			for i := range want {
				received, err := want[i].UnmarshalNew()
				if err != nil {
					t.Fatal(err)
				}
				shown, err := got[i].UnmarshalNew()
				if err != nil {
					t.Fatal(err)
				}
				// The bytes of what is packed in them may differ, which takes longer to look through.
				if proto.Equal(received, shown) {
					continue
				}
				if diff := cmp.Diff(received, shown, protocmp.Transform()); diff != "" {
					t.Errorf("(-received +shown):\n%s", diff)
				}
			}
			b.get(t, "/clusters")
			decode(t, b.get(t, "/clusters?format=json"), &adminpb.Clusters{})
			decode(t, b.get(t, "/listeners?format=json"), &adminpb.Listeners{})
		})
	}
}
