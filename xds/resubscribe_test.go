package xds_test

import (
	"slices"
	"strings"
	"testing"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"meshbridge/xds"
	"meshbridge/xds/xdstest"
)

func TestRoutesAreSubscribedToByTheNamesInAllFilterChains(t *testing.T) {
	for name, world := range variants() {
		t.Run(name, func(t *testing.T) {
			srv := xdstest.NewServer(t)
			listener := xdstest.Listener(8000)
			second := proto.CloneOf(xdstest.Listener(8001).GetFilterChains()[0])
			second.GetFilterChainMatch().TransportProtocol = "tls"
			listener.FilterChains = append(listener.FilterChains, second)
			listener.DefaultFilterChain = proto.CloneOf(xdstest.Listener(8002).GetFilterChains()[0])
			api := xdstest.Listener(8003)
			api.ApiListener = &listenerpb.ApiListener{ApiListener: api.GetFilterChains()[0].GetFilters()[0].GetTypedConfig()}
			api.FilterChains = nil
			srv.Set(listener, api)
			for _, name := range []string{"8000", "8001", "8002", "8003", "not wanted"} {
				srv.Set(&routepb.RouteConfiguration{Name: name})
			}
			_, o := connect(t, srv, world)
			u := o.wait("first sync", everything)
			if got := strings.Join(names(u.Snapshot, xds.RouteType), " "); got != "8000 8001 8002 8003" {
				t.Errorf("routes %q", got)
			}
		})
	}
}

func TestEndpointsAreSubscribedToByServiceNameOrClusterName(t *testing.T) {
	for name, world := range variants() {
		t.Run(name, func(t *testing.T) {
			srv := xdstest.NewServer(t)
			unnamed := xdstest.Cluster(0)
			unnamed.EdsClusterConfig.ServiceName = ""
			renamed := xdstest.Cluster(1)
			renamed.EdsClusterConfig.ServiceName = xdstest.ClusterName(2)
			srv.Set(unnamed, renamed, staticCluster("static"))
			srv.Set(xdstest.Endpoints(0, 1), xdstest.Endpoints(1, 1), xdstest.Endpoints(2, 1))
			_, o := connect(t, srv, world)
			u := o.wait("first sync", everything)
			want := []string{xdstest.ClusterName(0), xdstest.ClusterName(2)}
			if got := names(u.Snapshot, xds.EndpointType); !slices.Equal(got, want) {
				t.Errorf("endpoints %q, want %q", got, want)
			}
		})
	}
}

func TestSubscriptionsFollowClusters(t *testing.T) {
	for name, world := range variants() {
		t.Run(name, func(t *testing.T) {
			srv := xdstest.NewServer(t)
			srv.Set(xdstest.Mesh(3, 1).Resources()...)
			_, o := connect(t, srv, world)
			o.wait("first sync", everything)

			srv.Set(xdstest.Cluster(8), xdstest.Endpoints(8, 1))
			o.wait("endpoints of the new cluster", func(u xds.Update) bool { return u.Snapshot.Len(xds.EndpointType) == 4 && everything(u) })
			added := srv.WaitRequest("subscription", func(r xdstest.Request) bool {
				return r.TypeURL == xds.EndpointType && (slices.Contains(r.Subscribe, xdstest.ClusterName(8)) || slices.Contains(r.Names, xdstest.ClusterName(8)))
			})
			if !world && (added.Nonce != "" || len(added.Subscribe) != 1 || len(added.Initial) > 0) {
				t.Errorf("the change of a subscription is %+v", added)
			}
			if world && len(added.Names) != 4 {
				t.Errorf("the change of a subscription names %q, want all four", added.Names)
			}

			// EDS has no removals: the endpoints go with the cluster, in one Update.
			srv.Remove(xds.ClusterType, xdstest.ClusterName(1))
			u := o.wait("removal", func(u xds.Update) bool { return u.Snapshot.Len(xds.ClusterType) == 3 })
			want := []xds.Key{{Type: xds.ClusterType, Name: xdstest.ClusterName(1)}, {Type: xds.EndpointType, Name: xdstest.ClusterName(1)}}
			if !slices.Equal(u.Changed, want) {
				t.Errorf("changed %v, want %v", u.Changed, want)
			}
			srv.WaitRequest("end of the subscription", func(r xdstest.Request) bool {
				if r.TypeURL != xds.EndpointType {
					return false
				}
				return slices.Equal(r.Unsubscribe, []string{xdstest.ClusterName(1)}) ||
					world && len(r.Names) == 3 && !slices.Contains(r.Names, xdstest.ClusterName(1))
			})
		})
	}
}

func TestEndpointsSharedByTwoClustersLiveUntilTheLastOneGoes(t *testing.T) {
	for name, world := range variants() {
		t.Run(name, func(t *testing.T) {
			srv := xdstest.NewServer(t)
			twin := xdstest.Cluster(1)
			twin.EdsClusterConfig.ServiceName = xdstest.ClusterName(0)
			srv.Set(xdstest.Cluster(0), twin, xdstest.Endpoints(0, 2))
			_, o := connect(t, srv, world)
			o.wait("first sync", everything)

			srv.Remove(xds.ClusterType, xdstest.ClusterName(0))
			u := o.wait("one cluster", func(u xds.Update) bool { return u.Snapshot.Len(xds.ClusterType) == 1 })
			if endpointCount(t, u, 0) != 2 {
				t.Error("the endpoints of the remaining cluster are gone")
			}
			twin = proto.CloneOf(twin)
			twin.EdsClusterConfig = nil
			twin.ClusterDiscoveryType = &clusterpb.Cluster_Type{Type: clusterpb.Cluster_STATIC}
			srv.Set(twin)
			o.wait("no endpoints", func(u xds.Update) bool { return u.Snapshot.Len(xds.EndpointType) == 0 })
		})
	}
}

// apisix-mesh-agent published every upstream without nodes on each push of clusters, and did not
// ask for their endpoints again.
func TestAPushOfClustersDoesNotBlankTheirEndpoints(t *testing.T) {
	for name, world := range variants() {
		t.Run(name, func(t *testing.T) {
			srv := xdstest.NewServer(t)
			srv.Set(xdstest.Mesh(6, 3).Resources()...)
			_, o := connect(t, srv, world)
			o.wait("first sync", everything)
			srv.WaitAnswered(xds.ClusterType, xds.EndpointType)
			before, _ := o.updates()

			changed := xdstest.Cluster(2)
			changed.AltStatName = "another"
			srv.Set(changed)
			o.wait("the change", func(u xds.Update) bool {
				return message[*clusterpb.Cluster](t, u, xds.ClusterType, changed.GetName()).GetAltStatName() == "another"
			})
			srv.Push(xds.ClusterType, xds.EndpointType)
			srv.WaitAnswered(xds.ClusterType, xds.EndpointType)

			for _, u := range o.since(before) {
				for i := range 6 {
					if endpointCount(t, u, i) != 3 {
						t.Errorf("service %d has %d endpoints", i, endpointCount(t, u, i))
					}
				}
			}
			if after, _ := o.updates(); after != before+1 {
				t.Errorf("%d updates for one changed cluster", after-before)
			}
		})
	}
}

// Amesh ACKed endpoints with the names in the response, which shrank its subscription to what the
// first partial push had named; it missed every change of the others.
func TestPartialPushesDoNotShrinkTheSubscription(t *testing.T) {
	for name, world := range variants() {
		t.Run(name, func(t *testing.T) {
			srv := xdstest.NewServer(t)
			srv.Set(xdstest.Mesh(6, 1).Resources()...)
			_, o := connect(t, srv, world)
			o.wait("first sync", everything)
			for round := range 3 {
				for i := range 6 {
					srv.Set(xdstest.Endpoints(i, 2+round))
					o.wait("change", func(u xds.Update) bool { return endpointCount(t, u, i) == 2+round })
				}
			}
			for _, r := range srv.Requests() {
				if r.TypeURL == xds.EndpointType && (world && len(r.Names) != 6 || len(r.Unsubscribe) > 0) {
					t.Errorf("the subscription shrank: %+v", r)
				}
			}
		})
	}
}

// A partial push of routes is not the world: apisix-mesh-agent deleted the other route
// configurations' routes.
func TestAPartialPushOfRoutesRemovesNoOthers(t *testing.T) {
	for name, world := range variants() {
		t.Run(name, func(t *testing.T) {
			srv := xdstest.NewServer(t)
			srv.Set(xdstest.Mesh(4, 1).Resources()...)
			_, o := connect(t, srv, world)
			o.wait("first sync", everything)
			before, _ := o.updates()
			srv.Set(&routepb.RouteConfiguration{Name: "8002"})
			u := o.wait("change", func(u xds.Update) bool {
				return len(message[*routepb.RouteConfiguration](t, u, xds.RouteType, "8002").GetVirtualHosts()) == 0
			})
			if after, _ := o.updates(); after != before+1 || len(u.Changed) != 1 || u.Snapshot.Len(xds.RouteType) != 4 {
				t.Errorf("%d updates; changed %v; %s", after-before, u.Changed, describe(u))
			}
		})
	}
}

// istiod was seen to push endpoints of clusters that it had just removed.
func TestAnAnswerToAnEndedSubscriptionIsIgnored(t *testing.T) {
	for name, world := range variants() {
		t.Run(name, func(t *testing.T) {
			srv := xdstest.NewServer(t)
			srv.Set(xdstest.Mesh(2, 1).Resources()...)
			_, o := connect(t, srv, world)
			o.wait("first sync", everything)
			srv.Remove(xds.ClusterType, xdstest.ClusterName(1))
			o.wait("removal", func(u xds.Update) bool { return u.Snapshot.Len(xds.EndpointType) == 1 })
			srv.Send(xdstest.Response{TypeURL: xds.EndpointType, Resources: []xdstest.Resource{
				{Name: xdstest.ClusterName(1), Body: xdstest.Any(xdstest.Endpoints(1, 5))},
				{Name: xdstest.ClusterName(0), Body: xdstest.Any(xdstest.Endpoints(0, 5))},
			}})
			u := o.wait("the other one", func(u xds.Update) bool { return endpointCount(t, u, 0) == 5 })
			if u.Snapshot.Len(xds.EndpointType) != 1 || len(u.Rejected) > 0 {
				t.Error(describe(u))
			}
		})
	}
}

func TestANameIsPendingUntilItIsAnswered(t *testing.T) {
	for name, world := range variants() {
		t.Run(name, func(t *testing.T) {
			srv := xdstest.NewServer(t)
			srv.Set(xdstest.Cluster(0), xdstest.Cluster(1), xdstest.Endpoints(0, 1))
			_, o := connect(t, srv, world)
			missing := xds.Key{Type: xds.EndpointType, Name: xdstest.ClusterName(1)}
			u := o.wait("one pending", func(u xds.Update) bool { return slices.Equal(u.Pending, []xds.Key{missing}) })
			if !u.Complete() {
				t.Error("a name that is pending keeps the world from being complete")
			}
			srv.Set(xdstest.Endpoints(1, 1))
			o.wait("none pending", everything)
		})
	}
}

func TestANameThatDoesNotExistCountsAsAnswered(t *testing.T) {
	srv := xdstest.NewServer(t)
	srv.Set(xdstest.Cluster(0))
	_, o := connect(t, srv, false)
	o.wait("one pending", func(u xds.Update) bool { return len(u.Pending) == 1 && u.Pending[0].Name != "" })
	srv.Send(xdstest.Response{TypeURL: xds.EndpointType, Removed: []string{xdstest.ClusterName(0)}})
	o.wait("none pending", everything)
	// It is still subscribed to.
	srv.Set(xdstest.Endpoints(0, 2))
	o.wait("endpoints", func(u xds.Update) bool { return u.Snapshot.Len(xds.EndpointType) == 1 })
}
