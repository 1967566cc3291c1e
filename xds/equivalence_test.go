package xds_test

import (
	"fmt"
	"strconv"
	"testing"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"meshbridge/xds"
	"meshbridge/xds/xdstest"
)

// reachable returns what a client must end up with: all clusters and listeners, and of endpoints
// and routes those that they refer to.
func reachable(world map[xds.Key]proto.Message) map[xds.Key][]byte {
	want := map[xds.Key][]byte{}
	add := func(key xds.Key) {
		if m := world[key]; m != nil {
			want[key] = xdstest.Any(m).GetValue()
		}
	}
	for key, m := range world {
		switch key.Type {
		case xds.ClusterType:
			add(key)
			if c, ok := m.(*clusterpb.Cluster); ok && c.GetType() == clusterpb.Cluster_EDS {
				add(xds.Key{Type: xds.EndpointType, Name: c.GetEdsClusterConfig().GetServiceName()})
			}
		case xds.ListenerType:
			add(key)
			add(xds.Key{Type: xds.RouteType, Name: key.Name[len("0.0.0.0_"):]})
		}
	}
	return want
}

func holds(s *xds.Snapshot, want map[xds.Key][]byte) bool {
	n := 0
	for _, typeURL := range s.Types() {
		n += s.Len(typeURL)
	}
	if n != len(want) {
		return false
	}
	for key, body := range want {
		if r := s.Get(key); r == nil || string(r.Body.GetValue()) != string(body) {
			return false
		}
	}
	return true
}

// Both variants end up with the same, whatever is set, removed, pushed or broken off in between,
// and every Update on the way names exactly what it changes, which the observers check.
func TestDeltaAndStateOfTheWorldAgree(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		srv := xdstest.NewServer(t)
		_, delta := connect(t, srv, false)
		_, world := connect(t, srv, true)
		have := map[xds.Key]proto.Message{}
		set := func(key xds.Key, m proto.Message) { have[key] = m; srv.Set(m) }

		for range rapid.IntRange(1, 25).Draw(rt, "edits") {
			i := rapid.IntRange(0, 5).Draw(rt, "service")
			switch rapid.SampledFrom([]string{"cluster", "static", "endpoints", "listener", "route", "remove", "push", "close", "restart"}).Draw(rt, "edit") {
			case "cluster":
				c := xdstest.Cluster(i)
				c.EdsClusterConfig.ServiceName = xdstest.ClusterName(rapid.IntRange(0, 5).Draw(rt, "service name"))
				set(xds.Key{Type: xds.ClusterType, Name: c.GetName()}, c)
			case "static":
				c := staticCluster(xdstest.ClusterName(i))
				set(xds.Key{Type: xds.ClusterType, Name: c.GetName()}, c)
			case "endpoints":
				cla := xdstest.Endpoints(i, rapid.IntRange(0, 3).Draw(rt, "count"))
				set(xds.Key{Type: xds.EndpointType, Name: cla.GetClusterName()}, cla)
			case "listener":
				l := xdstest.Listener(8000 + i)
				l.StatPrefix = rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "stat prefix")
				set(xds.Key{Type: xds.ListenerType, Name: l.GetName()}, l)
			case "route":
				r := xdstest.Mesh(rapid.IntRange(1, 3).Draw(rt, "hosts"), 1).Routes[0]
				r.Name = strconv.Itoa(8000 + i)
				set(xds.Key{Type: xds.RouteType, Name: r.GetName()}, r)
			case "remove":
				for _, key := range []xds.Key{
					{Type: xds.ClusterType, Name: xdstest.ClusterName(i)}, {Type: xds.ListenerType, Name: fmt.Sprintf("0.0.0.0_%d", 8000+i)},
				} {
					delete(have, key)
					srv.Remove(key.Type, key.Name)
				}
			case "push":
				srv.Push()
			case "close":
				srv.CloseStreams(nil)
			case "restart":
				srv.Stop()
				srv.Start()
			}
		}
		want := reachable(have)
		for name, o := range map[string]*observer{"delta": delta, "world": world} {
			o.wait(name+" agrees with the server", func(u xds.Update) bool { return holds(u.Snapshot, want) })
			o.stop()
		}
		srv.Stop()
	})
}
