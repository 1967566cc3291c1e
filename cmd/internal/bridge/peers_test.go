package bridge

import (
	"context"
	"strings"
	"testing"

	udpapb "github.com/cncf/xds/go/udpa/type/v1"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	http_connection_managerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"meshbridge/xds/xdstest"
)

// exchanging adds the filter by which Istio's proxies tell each other whose they are.
func exchanging(t *testing.T, resources []proto.Message) []proto.Message {
	t.Helper()
	headers := []any{map[string]any{"istio_headers": map[string]any{}}}
	value, err := structpb.NewStruct(map[string]any{"upstream_discovery": headers, "upstream_propagation": headers})
	if err != nil {
		t.Fatal(err)
	}
	return withFilter(t, resources, &http_connection_managerpb.HttpFilter{
		Name: "istio.metadata_exchange",
		ConfigType: &http_connection_managerpb.HttpFilter_TypedConfig{TypedConfig: xdstest.Any(&udpapb.TypedStruct{
			TypeUrl: "type.googleapis.com/io.istio.http.peer_metadata.Config", Value: value,
		})},
	})
}

// withFilter adds an HTTP filter to the first chain of each listener.
func withFilter(t *testing.T, resources []proto.Message, f *http_connection_managerpb.HttpFilter) []proto.Message {
	t.Helper()
	return withManagers(t, resources, func(hcm *http_connection_managerpb.HttpConnectionManager) {
		hcm.HttpFilters = append(hcm.HttpFilters, f)
	})
}

// withManagers changes the connection manager of the first chain of each listener.
func withManagers(t *testing.T, resources []proto.Message, change func(*http_connection_managerpb.HttpConnectionManager)) []proto.Message {
	t.Helper()
	out := make([]proto.Message, len(resources))
	for i, r := range resources {
		out[i] = proto.Clone(r)
		l, ok := out[i].(*listenerpb.Listener)
		if !ok {
			continue
		}
		filter := l.GetFilterChains()[0].GetFilters()[0]
		hcm := new(http_connection_managerpb.HttpConnectionManager)
		if err := filter.GetTypedConfig().UnmarshalTo(hcm); err != nil {
			t.Fatal(err)
		}
		change(hcm)
		filter.ConfigType = &listenerpb.Filter_TypedConfig{TypedConfig: xdstest.Any(hcm)}
	}
	return out
}

func TestPeersAreToldWhoseWeAreAsLongAsIstiodWantsIt(t *testing.T) {
	istiod := xdstest.NewServer(t)
	mesh := xdstest.Mesh(2, 1).Resources()
	istiod.Set(exchanging(t, mesh)...)
	config := testConfig(istiod)
	config.Translate.NodeID = xdstest.Node().GetId()
	r := startBridge(t, config)
	r.waitReady(t)
	client := r.client(t)
	rule, err := client.Get(t.Context(), "/apisix/global_rules/g.peers")
	if err != nil || len(rule.Kvs) != 1 || !strings.Contains(string(rule.Kvs[0].GetValue()), config.Translate.NodeID) {
		t.Fatalf("APISIX does not know whose it is: %v %v", rule, err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	watch := client.Watch(ctx, "/apisix/", clientv3.WithPrefix(), clientv3.WithRev(rule.Header.GetRevision()+1))
	istiod.Set(mesh...)
	if update := <-watch; len(update.Events) != 1 || update.Events[0].GetType() != clientv3.EventTypeDelete ||
		string(update.Events[0].GetKv().GetKey()) != "/apisix/global_rules/g.peers" {
		t.Errorf("besides the rule, something changes: %v", update)
	}
}
