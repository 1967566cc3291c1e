package extend_test

import (
	"fmt"
	"strings"
	"testing"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"meshbridge/cmd/internal/extend"
	"meshbridge/translate"
	"meshbridge/xds"
	"meshbridge/xds/xdstest"
)

// benchmarkServices is the size of the mesh of the benchmarks: as many virtual hosts in one route configuration.
const benchmarkServices = 5000

// BenchmarkOneRoute edits a route of one among 5,000 virtual hosts, without extensions and with some: ten
// documents for single hosts, or one more for all.
func BenchmarkOneRoute(b *testing.B) {
	var hosts strings.Builder
	for i := range 10 {
		fmt.Fprintf(&hosts, "---\nkind: Plugins\nname: h%d\nselector: {hosts: [svc-%d.default.svc.cluster.local]}\nplugins: {key-auth: {}}\n", i, i)
	}
	all := "---\nkind: Plugins\nname: all\nplugins: {limit-count: {count: 5, time_window: 60}}\n"
	for name, text := range map[string]string{"none": "", "hosts": hosts.String(), "all": hosts.String() + all} {
		b.Run(name, func(b *testing.B) {
			snapshot, key := benchmarkMesh()
			in := translate.Inputs{}
			if text != "" {
				in.Extensions = load(b, config(), nil, text)
			}
			o := options(b, "direct")
			state, _, err := translate.Translate(o, snapshot, in)
			if err != nil {
				b.Fatal(err)
			}
			var edits [2]*xds.Snapshot
			for i := range edits {
				edits[i] = snapshot.With([]*xds.Resource{withPrefix(b, snapshot.Get(key), 7, fmt.Sprintf("/v%d", i))}, nil)
			}
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				if r := state.Apply(translate.Input{Snapshot: edits[n%2], Changed: []xds.Key{key}, Inputs: in}); len(r.Put) == 0 {
					b.Fatal("nothing changed")
				}
			}
		})
	}
}

// BenchmarkEdit is an edit of the directory that changes one host's plugin, among 5,000.
func BenchmarkEdit(b *testing.B) {
	snapshot, _ := benchmarkMesh()
	var sets [2]*extend.Set
	for i := range sets {
		sets[i] = load(b, config(), nil, fmt.Sprintf("kind: Plugins\nname: x\nselector: {hosts: [svc-7]}\nplugins: {limit-count: {count: %d, time_window: 60}}", i+1))
	}
	state, _, err := translate.Translate(options(b, "direct"), snapshot, translate.Inputs{Extensions: sets[1]})
	if err != nil {
		b.Fatal(err)
	}
	for n := 0; b.Loop(); n++ {
		state.Apply(translate.Input{Snapshot: snapshot, Inputs: translate.Inputs{Extensions: sets[n%2]}})
	}
}

func withPrefix(b *testing.B, r *xds.Resource, host int, prefix string) *xds.Resource {
	b.Helper()
	c, err := xds.Decode[*routepb.RouteConfiguration](r)
	if err != nil {
		b.Fatal(err)
	}
	c = proto.CloneOf(c)
	c.GetVirtualHosts()[host].GetRoutes()[0].GetMatch().PathSpecifier = &routepb.RouteMatch_Prefix{Prefix: prefix}
	return resource(r.Name, c)
}

// benchmarkMesh has all virtual hosts in one route configuration, which is returned.
func benchmarkMesh() (*xds.Snapshot, xds.Key) {
	m := xdstest.Mesh(benchmarkServices, 1)
	for _, other := range m.Routes[1:] {
		m.Routes[0].VirtualHosts = append(m.Routes[0].GetVirtualHosts(), other.GetVirtualHosts()...)
		other.VirtualHosts = nil
	}
	var put []*xds.Resource
	for _, message := range m.Resources() {
		name := ""
		switch message := message.(type) {
		case interface{ GetName() string }:
			name = message.GetName()
		case interface{ GetClusterName() string }:
			name = message.GetClusterName()
		}
		put = append(put, resource(name, message))
	}
	return (&xds.Snapshot{}).With(put, nil), xds.Key{Type: xds.RouteType, Name: m.Routes[0].GetName()}
}

func resource(name string, m proto.Message) *xds.Resource {
	body := xdstest.Any(m)
	return &xds.Resource{Key: xds.Key{Type: body.GetTypeUrl(), Name: name}, Body: body}
}
