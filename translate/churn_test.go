package translate

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

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

func TestAnEditedRouteTranslatesItsVirtualHostOnly(t *testing.T) {
	snap := mesh(t, 50)
	s := translated(t, Options{Profile: Mesh()}, snap)
	before := maps.Clone(s.units["80"].parts)
	edited := withRetries(t, snap, 7, 5)
	s.Apply(Input{Snapshot: snap.With([]*xds.Resource{edited}, nil), Changed: []xds.Key{edited.Key}})
	for group, part := range s.units["80"].parts {
		same, wanted := part == before[group], group != "host:svc-7.default.svc.cluster.local:80" && group != groupRest
		if same != wanted {
			t.Errorf("%s: taken over %t, want %t", group, same, wanted)
		}
	}
}

// withRetries returns the route configuration of a mesh with one virtual host changed, as istiod sends
// a VirtualService's edit: with all virtual hosts.
func withRetries(tb testing.TB, snap *xds.Snapshot, host int, retries uint32) *xds.Resource {
	tb.Helper()
	config, err := xds.Decode[*routepb.RouteConfiguration](snap.Get(xds.Key{Type: xds.RouteType, Name: "80"}))
	if err != nil {
		tb.Fatal(err)
	}
	config = proto.CloneOf(config)
	config.GetVirtualHosts()[host].GetRoutes()[0].GetRoute().RetryPolicy = &routepb.RetryPolicy{RetryOn: "5xx", NumRetries: wrapperspb.UInt32(retries)}
	return newResource(tb, "80", config)
}

// BenchmarkRouteUpdate is the edit of one route in a route configuration of all services.
func BenchmarkRouteUpdate(b *testing.B) {
	for _, n := range []int{1000, 5000, 10_000} {
		b.Run(fmt.Sprintf("%d services", n), func(b *testing.B) {
			snap := mesh(b, n)
			s := translated(b, Options{Profile: Mesh()}, snap)
			var edits [2]*xds.Resource
			var snaps [2]*xds.Snapshot
			for i := range edits {
				edits[i] = withRetries(b, snap, 7, 3+uint32(i))
				snaps[i] = snap.With([]*xds.Resource{edits[i]}, nil)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if r := s.Apply(Input{Snapshot: snaps[i%2], Changed: []xds.Key{edits[i%2].Key}}); len(r.Put) != 2 && i > 0 {
					b.Fatalf("%d objects changed", len(r.Put)) // the route, and its upstream for other retries
				}
				i++
			}
		})
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
	for _, n := range []int{100, 1000, 5000, 10_000} {
		b.Run(fmt.Sprintf("%d services", n), func(b *testing.B) {
			snap := mesh(b, n)
			b.ReportAllocs()
			for b.Loop() {
				translated(b, Options{Profile: Mesh()}, snap)
			}
		})
	}
}
