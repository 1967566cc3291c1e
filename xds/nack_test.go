package xds_test

import (
	"strings"
	"testing"
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"meshbridge/xds"
	"meshbridge/xds/xdstest"
)

// invalidCluster does not satisfy the constraint that connect_timeout is positive.
func invalidCluster(name string) *clusterpb.Cluster {
	c := staticCluster(name)
	c.ConnectTimeout = durationpb.New(-time.Second)
	return c
}

// truncated returns a resource whose bytes end in the middle of a field.
func truncated(body *anypb.Any) *anypb.Any {
	c := proto.CloneOf(body)
	c.Value = c.GetValue()[:len(c.GetValue())-1]
	return c
}

func isNACK(typeURL string) func(xdstest.Request) bool {
	return func(r xdstest.Request) bool { return r.TypeURL == typeURL && r.Error != "" }
}

func rejectedNames(u xds.Update) string {
	var names []string
	for _, r := range u.Rejected {
		names = append(names, r.Name)
	}
	return strings.Join(names, " ")
}

// Amesh dropped all routes of a route configuration when one could not be translated, and
// apisix-mesh-agent a whole EDS response for one unknown cluster.
func TestABadResourceIsRefusedAndItsSiblingsApply(t *testing.T) {
	for name, world := range variants() {
		t.Run(name, func(t *testing.T) {
			srv := xdstest.NewServer(t)
			srv.Set(staticCluster("a"), invalidCluster("b"), staticCluster("c"))
			srv.SetRaw("d", truncated(xdstest.Any(staticCluster("d"))))
			log := &records{}
			client, o := connectWith(t, xds.Config{Address: srv.Addr(), StateOfTheWorld: world, Logger: newLogger(log)})

			u := o.wait("first sync", everything)

			if got := strings.Join(names(u.Snapshot, xds.ClusterType), " "); got != "a c" {
				t.Errorf("clusters %q, want a c", got)
			}
			if got := rejectedNames(u); got != "b d" {
				t.Errorf("rejected %q, want b d", got)
			}
			nack := srv.WaitRequest("NACK", isNACK(xds.ClusterType))
			for _, want := range []string{"Cluster b", "Cluster d", "ConnectTimeout"} {
				if !strings.Contains(nack.Error, want) {
					t.Errorf("error_detail does not say %q: %s", want, nack.Error)
				}
			}
			if nack.Version != "" {
				t.Errorf("the NACK claims version %q as accepted", nack.Version)
			}
			if s := client.Status().Types[xds.ClusterType]; s.Rejected != 2 || s.NACK == nil || !strings.Contains(s.NACK.Error(), "ConnectTimeout") {
				t.Errorf("status: %d rejected, NACK %v", s.Rejected, s.NACK)
			}
			if len(log.containing("resource rejected")) != 2 {
				t.Errorf("log: %q", log.containing("rejected"))
			}
		})
	}
}

func TestABadUpdateKeepsTheLastGoodVersionUntilTheNextGoodOne(t *testing.T) {
	for name, world := range variants() {
		t.Run(name, func(t *testing.T) {
			srv := xdstest.NewServer(t)
			srv.Set(staticCluster("a"), staticCluster("b"))
			client, o := connect(t, srv, world)
			o.wait("first sync", everything)
			srv.WaitAnswered(xds.ClusterType)
			accepted := client.Status().Types[xds.ClusterType].Version

			srv.Set(invalidCluster("a"))
			u := o.wait("rejection", func(u xds.Update) bool { return len(u.Rejected) == 1 })
			if got := message[*clusterpb.Cluster](t, u, xds.ClusterType, "a"); got.GetConnectTimeout() != nil {
				t.Errorf("cluster a is %v", got)
			}
			nack := srv.WaitRequest("NACK", isNACK(xds.ClusterType))
			if world && nack.Version != accepted {
				t.Errorf("the NACK has version %q, want the last accepted one %q", nack.Version, accepted)
			}

			// Nothing new: the same rejection again is not an Update.
			srv.WaitAnswered(xds.ClusterType)
			before, _ := o.updates()
			srv.Push(xds.ClusterType)
			srv.WaitAnswered(xds.ClusterType)
			if after, _ := o.updates(); after != before {
				t.Errorf("%d updates for a repeated rejection", after-before)
			}

			fixed := staticCluster("a")
			fixed.ConnectTimeout = durationpb.New(time.Second)
			srv.Set(fixed)
			u = o.wait("recovery", func(u xds.Update) bool { return len(u.Rejected) == 0 })
			if got := message[*clusterpb.Cluster](t, u, xds.ClusterType, "a"); got.GetConnectTimeout().AsDuration() != time.Second {
				t.Errorf("cluster a is %v", got)
			}
		})
	}
}

func TestRemovingARefusedResourceClearsItsRejection(t *testing.T) {
	for name, world := range variants() {
		t.Run(name, func(t *testing.T) {
			srv := xdstest.NewServer(t)
			srv.Set(staticCluster("a"), invalidCluster("b"))
			_, o := connect(t, srv, world)
			o.wait("rejection", func(u xds.Update) bool { return len(u.Rejected) == 1 })
			srv.Remove(xds.ClusterType, "b")
			o.wait("no rejection", func(u xds.Update) bool { return len(u.Rejected) == 0 })
		})
	}
}

// A state-of-the-world response says by absence what is removed. A resource so damaged that its
// name is lost would look like the removal of a good one.
func TestAResourceWithoutAReadableNameRemovesNothing(t *testing.T) {
	srv := xdstest.NewServer(t)
	srv.Set(staticCluster("a"), staticCluster("b"), staticCluster("c"))
	_, o := connect(t, srv, true)
	o.wait("first sync", everything)

	srv.SetRaw("b", &anypb.Any{TypeUrl: xds.ClusterType, Value: []byte{0xff}})
	u := o.wait("rejection", func(u xds.Update) bool { return len(u.Rejected) == 1 })
	if got := strings.Join(names(u.Snapshot, xds.ClusterType), " "); got != "a b c" {
		t.Errorf("clusters %q, want a b c", got)
	}

	srv.Set(staticCluster("b"))
	srv.Remove(xds.ClusterType, "c")
	u = o.wait("recovery", func(u xds.Update) bool { return len(u.Rejected) == 0 && u.Snapshot.Len(xds.ClusterType) == 2 })
	if got := strings.Join(names(u.Snapshot, xds.ClusterType), " "); got != "a b" {
		t.Errorf("clusters %q, want a b", got)
	}
}

func TestAListenerWithABrokenConnectionManagerIsRefused(t *testing.T) {
	for name, world := range variants() {
		t.Run(name, func(t *testing.T) {
			broken := xdstest.Listener(8001)
			config := broken.GetFilterChains()[0].GetFilters()[0].GetTypedConfig()
			config.Value = config.GetValue()[:len(config.GetValue())-1]
			srv := xdstest.NewServer(t)
			srv.Set(xdstest.Listener(8000), broken, &routepb.RouteConfiguration{Name: "8000"})
			_, o := connect(t, srv, world)

			u := o.wait("first sync", everything)

			if got := strings.Join(names(u.Snapshot, xds.ListenerType), " "); got != "0.0.0.0_8000" {
				t.Errorf("listeners %q", got)
			}
			if len(u.Rejected) != 1 || !strings.Contains(u.Rejected[0].Err.Error(), "filter_chains[0]") {
				t.Errorf("rejected %v", u.Rejected)
			}
		})
	}
}

// What a filter does is for the translation to judge, so that it can be reported as what it is.
func TestAFilterOfUnknownTypeIsAccepted(t *testing.T) {
	for name, world := range variants() {
		t.Run(name, func(t *testing.T) {
			unknown := xdstest.Listener(8000)
			chain := unknown.GetFilterChains()[0]
			chain.Filters = append([]*listenerpb.Filter{{
				Name:       "of another world",
				ConfigType: &listenerpb.Filter_TypedConfig{TypedConfig: &anypb.Any{TypeUrl: "type.googleapis.com/other.World", Value: []byte{0xff}}},
			}}, chain.GetFilters()...)
			srv := xdstest.NewServer(t)
			srv.Set(unknown, &routepb.RouteConfiguration{Name: "8000"})
			_, o := connect(t, srv, world)

			u := o.wait("first sync", everything)

			if len(u.Rejected) > 0 || u.Snapshot.Len(xds.ListenerType) != 1 || u.Snapshot.Len(xds.RouteType) != 1 {
				t.Error(describe(u))
			}
		})
	}
}

func TestWhatIsNotWhatItSaysIsRefused(t *testing.T) {
	cluster := func(name string) *anypb.Any { return xdstest.Any(staticCluster(name)) }
	for _, test := range []struct {
		name      string
		resources []xdstest.Resource
		want      string
	}{
		{"another type", []xdstest.Resource{{Name: "x", Body: xdstest.Any(xdstest.Listener(8000))}}, "Listener"},
		{"another name", []xdstest.Resource{{Name: "x", Body: cluster("y")}}, `named "y"`},
		{"no body", []xdstest.Resource{{Name: "x"}}, "no body"},
		{"no name", []xdstest.Resource{{Body: xdstest.Any(&clusterpb.Cluster{})}}, "no name"},
		{"the same name twice", []xdstest.Resource{{Name: "x", Body: cluster("x")}, {Name: "x", Body: cluster("x")}}, "twice"},
	} {
		t.Run(test.name, func(t *testing.T) {
			srv := xdstest.NewServer(t)
			srv.Set(staticCluster("good"))
			_, o := connect(t, srv, false)
			o.wait("first sync", everything)

			srv.Send(xdstest.Response{TypeURL: xds.ClusterType, Resources: append(test.resources,
				xdstest.Resource{Name: "sibling", Body: cluster("sibling")})})

			nack := srv.WaitRequest("NACK", isNACK(xds.ClusterType))
			if !strings.Contains(nack.Error, test.want) {
				t.Errorf("error_detail %q, want %q in it", nack.Error, test.want)
			}
			u := o.wait("sibling", func(u xds.Update) bool {
				return u.Snapshot.Get(xds.Key{Type: xds.ClusterType, Name: "sibling"}) != nil
			})
			if u.Snapshot.Get(xds.Key{Type: xds.ClusterType, Name: "good"}) == nil {
				t.Error("a good cluster is gone")
			}
		})
	}
}

func TestAResponseOfATypeThatWasNotAskedForIsIgnored(t *testing.T) {
	for name, world := range variants() {
		t.Run(name, func(t *testing.T) {
			srv := xdstest.NewServer(t)
			srv.Set(staticCluster("a"))
			_, o := connect(t, srv, world)
			o.wait("first sync", everything)
			srv.Send(xdstest.Response{TypeURL: "type.googleapis.com/other.World", Resources: []xdstest.Resource{{Name: "x"}}})
			srv.Send(xdstest.Response{TypeURL: xds.RouteType, Resources: []xdstest.Resource{
				{Name: "8000", Body: xdstest.Any(&routepb.RouteConfiguration{Name: "8000"})},
			}})
			srv.Set(staticCluster("b"))
			u := o.wait("the next push", func(u xds.Update) bool { return u.Snapshot.Len(xds.ClusterType) == 2 })
			if u.Snapshot.Len(xds.RouteType) != 0 || srv.Streams() != 1 {
				t.Errorf("%d streams; %s", srv.Streams(), describe(u))
			}
		})
	}
}
