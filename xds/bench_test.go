package xds_test

import (
	"runtime"
	"testing"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"

	"meshbridge/xds"
	"meshbridge/xds/xdstest"
)

// wireResponse returns a response as bytes, so that every use of it is a new message.
func wireResponse[T proto.Message](tb testing.TB, typeURL string, name func(T) string, resources ...T) []byte {
	tb.Helper()
	r := &discoverypb.DeltaDiscoveryResponse{TypeUrl: typeURL, Nonce: "n"}
	for _, m := range resources {
		r.Resources = append(r.Resources, &discoverypb.Resource{Name: name(m), Resource: xdstest.Any(m)})
	}
	wire, err := proto.Marshal(r)
	if err != nil {
		tb.Fatal(err)
	}
	return wire
}

func meshResponses(tb testing.TB, services int) [][]byte {
	tb.Helper()
	m := xdstest.Mesh(services, 5)
	return [][]byte{
		wireResponse(tb, xds.ClusterType, (*clusterpb.Cluster).GetName, m.Clusters...),
		wireResponse(tb, xds.EndpointType, (*endpointpb.ClusterLoadAssignment).GetClusterName, m.Endpoints...),
		wireResponse(tb, xds.ListenerType, (*listenerpb.Listener).GetName, m.Listeners...),
		wireResponse(tb, xds.RouteType, (*routepb.RouteConfiguration).GetName, m.Routes...),
	}
}

func receive(tb testing.TB, c *xds.Cache, wire []byte) xds.Update {
	tb.Helper()
	r := &discoverypb.DeltaDiscoveryResponse{}
	if err := proto.Unmarshal(wire, r); err != nil {
		tb.Fatal(err)
	}
	return c.Receive(r)
}

// From bytes to Update, with all decoding and validation.
func BenchmarkFirstSyncOf5000Services(b *testing.B) {
	responses := meshResponses(b, 5000)
	for b.Loop() {
		c := xds.NewCache()
		for _, wire := range responses {
			receive(b, c, wire)
		}
	}
}

func BenchmarkFullPushOf5000ServicesWithoutChange(b *testing.B) {
	responses := meshResponses(b, 5000)
	c := xds.NewCache()
	for _, wire := range responses {
		receive(b, c, wire)
	}
	for b.Loop() {
		for _, wire := range responses {
			if u := receive(b, c, wire); len(u.Changed) > 0 {
				b.Fatal(u.Changed)
			}
		}
	}
}

func BenchmarkOneEndpointUpdateAmong10000(b *testing.B) {
	c := xds.NewCache()
	for _, wire := range meshResponses(b, 10_000) {
		receive(b, c, wire)
	}
	versions := [][]byte{
		wireResponse(b, xds.EndpointType, (*endpointpb.ClusterLoadAssignment).GetClusterName, xdstest.Endpoints(777, 6)),
		wireResponse(b, xds.EndpointType, (*endpointpb.ClusterLoadAssignment).GetClusterName, xdstest.Endpoints(777, 5)),
	}
	i := 0
	for b.Loop() {
		if u := receive(b, c, versions[i%2]); len(u.Changed) != 1 {
			b.Fatal(u.Changed)
		}
		i++
	}
}

// A Snapshot holds bytes: the decoded forms, several times as large, are for whoever reads them.
func TestDecodedFormsAreNotKept(t *testing.T) {
	const services = 2000
	responses := meshResponses(t, services)
	size := 0
	for _, wire := range responses {
		size += len(wire)
	}
	heap := func() int {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	before := heap()
	c := xds.NewCache()
	var last *xds.Snapshot
	for _, wire := range responses {
		last = receive(t, c, wire).Snapshot
	}
	held := heap() - before
	t.Logf("%d bytes on the wire, %d held, %d per service", size, held, held/services)
	if held > 2*size {
		t.Errorf("%d bytes held for %d on the wire", held, size)
	}
	if last.Len(xds.ClusterType) != services {
		t.Error(last.Len(xds.ClusterType))
	}
	runtime.KeepAlive(c)
	runtime.KeepAlive(responses)
}
