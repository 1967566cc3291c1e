package translate

import (
	"fmt"
	"strings"
	"testing"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"meshbridge/xds"
)

func TestNewEndpointsOfOneClusterChangeItsUpstreamOnly(t *testing.T) {
	snap := mesh(t, 50)
	s := translated(t, Options{Profile: Mesh()}, snap)
	cluster := "outbound|80||svc-7.default.svc.cluster.local"
	load := newResource(t, cluster, loadOf(cluster, 3))
	r := s.Apply(Input{Snapshot: snap.With([]*xds.Resource{load}, nil), Changed: []xds.Key{load.Key}})
	if len(r.Delete) > 0 || len(r.Put) > 1 {
		t.Fatalf("put %v, deleted %v", r.Put, r.Delete)
	}
	for _, o := range r.Put {
		if !strings.HasPrefix(o.ID, "u.80.svc-7.default.") {
			t.Errorf("put %s", o.Key())
		}
	}
}

func TestAnInsertedRouteChangesNoOtherObject(t *testing.T) {
	snap := mesh(t, 3)
	config, err := xds.Decode[*routepb.RouteConfiguration](snap.Get(xds.Key{Type: xds.RouteType, Name: "80"}))
	if err != nil {
		t.Fatal(err)
	}
	s := translated(t, Options{Profile: Mesh()}, snap)
	config = proto.CloneOf(config)
	v := config.GetVirtualHosts()[1]
	first := v.GetRoutes()[0]
	inserted := proto.CloneOf(first)
	inserted.Match.PathSpecifier = &routepb.RouteMatch_Path{Path: "/new"}
	v.Routes = []*routepb.Route{inserted, first}
	r := s.Apply(Input{Snapshot: snap.With([]*xds.Resource{newResource(t, "80", config)}, nil), Changed: []xds.Key{{Type: xds.RouteType, Name: "80"}}})
	if len(r.Put) == 0 || len(r.Delete) != 0 {
		t.Errorf("put %d, deleted %v", len(r.Put), r.Delete)
	}
	for _, o := range r.Put { // more than one where the route has several branches
		if !strings.Contains(string(o.Value), `"uri":"/new"`) {
			t.Errorf("put %s", o.Value)
		}
	}
}

func BenchmarkEndpointUpdateAmongTenThousandClusters(b *testing.B) {
	snap := mesh(b, 10_000)
	s := translated(b, Options{Profile: Mesh()}, snap)
	cluster := "outbound|80||svc-7.default.svc.cluster.local"
	var loads [2]*xds.Resource
	var snaps [2]*xds.Snapshot
	for i := range loads {
		loads[i] = newResource(b, cluster, loadOf(cluster, 3+i))
		snaps[i] = snap.With([]*xds.Resource{loads[i]}, nil)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		r := s.Apply(Input{Snapshot: snaps[i%2], Changed: []xds.Key{loads[i%2].Key}})
		if len(r.Delete) > 0 {
			b.Fatal(r)
		}
		i++
	}
}

func BenchmarkTranslate(b *testing.B) {
	for _, n := range []int{100, 5000} {
		b.Run(fmt.Sprintf("%d services", n), func(b *testing.B) {
			snap := mesh(b, n)
			b.ReportAllocs()
			for b.Loop() {
				translated(b, Options{Profile: Mesh()}, snap)
			}
		})
	}
}
