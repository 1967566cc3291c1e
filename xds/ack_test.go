package xds_test

import (
	"slices"
	"testing"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"meshbridge/xds"
	"meshbridge/xds/xdstest"
)

func TestFirstSyncDeliversTheWholeWorld(t *testing.T) {
	for name, world := range variants() {
		t.Run(name, func(t *testing.T) {
			srv := xdstest.NewServer(t)
			srv.Set(xdstest.Mesh(6, 3).Resources()...)
			client, o := connect(t, srv, world)

			u := o.wait("first sync", everything)

			for typeURL, want := range map[string]int{xds.ClusterType: 6, xds.EndpointType: 6, xds.ListenerType: 4, xds.RouteType: 4} {
				if got := u.Snapshot.Len(typeURL); got != want {
					t.Errorf("%s: got %d, want %d", xds.ShortType(typeURL), got, want)
				}
			}
			if !u.Complete() || len(u.Rejected) > 0 {
				t.Errorf("complete %t, rejected %v", u.Complete(), u.Rejected)
			}
			if diff := cmp.Diff(xdstest.Cluster(3), message[*clusterpb.Cluster](t, u, xds.ClusterType, xdstest.ClusterName(3)), protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
			s := client.Status()
			if !s.Connected || s.Since.IsZero() || s.Types[xds.RouteType].Resources != 4 || s.Types[xds.RouteType].Nonce == "" {
				t.Errorf("status %+v", s)
			}
			for typeURL, want := range map[string]xds.TypeStatus{
				xds.ClusterType: {Wildcard: true}, xds.RouteType: {Subscribed: 4}, xds.EndpointType: {Subscribed: 6},
			} {
				got := s.Types[typeURL]
				if got.Wildcard != want.Wildcard || got.Subscribed != want.Subscribed || got.Responses == 0 || got.LastChange.IsZero() || got.NACK != nil {
					t.Errorf("%s: %+v, want %+v", xds.ShortType(typeURL), got, want)
				}
			}
			if s.ControlPlane != xdstest.ControlPlane {
				t.Errorf("the control plane is %q", s.ControlPlane)
			}
		})
	}
}

func TestTheWorldIsNotCompleteBeforeClustersAndListenersAreAnswered(t *testing.T) {
	srv := xdstest.NewServer(t)
	_, o := connectWith(t, xds.Config{Address: srv.Addr(), Types: []string{
		xds.ClusterType, xds.EndpointType, xds.ListenerType, xds.RouteType, "type.googleapis.com/never.Answered",
	}})
	u := o.wait("answers", func(u xds.Update) bool { return len(u.Pending) == 1 })
	if u.Complete() {
		t.Errorf("complete although %v is pending", u.Pending)
	}
}

func TestOnlyTheFirstRequestOfAStreamCarriesTheNode(t *testing.T) {
	for name, world := range variants() {
		t.Run(name, func(t *testing.T) {
			srv := xdstest.NewServer(t)
			srv.Set(xdstest.Mesh(2, 1).Resources()...)
			_, o := connect(t, srv, world)
			o.wait("first sync", everything)
			srv.WaitAnswered(xds.ClusterType, xds.EndpointType, xds.ListenerType, xds.RouteType)

			requests := srv.Requests()
			if diff := cmp.Diff(xdstest.Node(), requests[0].Node, protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
			for _, r := range requests[1:] {
				if r.Node != nil {
					t.Errorf("node in a later request: %+v", r)
				}
			}
			if requests[0].TypeURL != xds.ClusterType || requests[1].TypeURL != xds.ListenerType {
				t.Errorf("first requests for %s and %s", requests[0].TypeURL, requests[1].TypeURL)
			}
		})
	}
}

func TestATypeWithoutNamesIsNotRequested(t *testing.T) {
	for name, world := range variants() {
		t.Run(name, func(t *testing.T) {
			srv := xdstest.NewServer(t)
			srv.Set(staticCluster("outbound"))
			_, o := connect(t, srv, world)
			o.wait("first sync", everything)
			srv.WaitAnswered(xds.ClusterType, xds.ListenerType)
			for _, r := range srv.Requests() {
				// It would be a wildcard subscription.
				if r.TypeURL == xds.EndpointType || r.TypeURL == xds.RouteType {
					t.Errorf("request %+v", r)
				}
			}
		})
	}
}

func TestEveryResponseIsAckedOnceWithItsNonce(t *testing.T) {
	for name, world := range variants() {
		t.Run(name, func(t *testing.T) {
			srv := xdstest.NewServer(t)
			srv.Set(xdstest.Mesh(2, 1).Resources()...)
			_, o := connect(t, srv, world)
			o.wait("first sync", everything)
			for range 3 {
				srv.Push()
				srv.WaitAnswered(xds.ClusterType, xds.EndpointType, xds.ListenerType, xds.RouteType)
			}
			nonces := map[string]int{}
			for _, r := range srv.Requests() {
				if r.Error != "" {
					t.Errorf("NACK %+v", r)
				}
				if r.Nonce == "" {
					continue
				}
				nonces[r.Nonce]++
				if r.Delta && len(r.Subscribe)+len(r.Unsubscribe)+len(r.Initial) > 0 {
					t.Errorf("an ACK changes the subscription: %+v", r)
				}
			}
			if len(nonces) != 4*4 {
				t.Errorf("%d responses answered, want 16", len(nonces))
			}
			for nonce, n := range nonces {
				// State-of-the-world subscription changes carry the last nonce too.
				if n != 1 && !world {
					t.Errorf("%s answered %d times", nonce, n)
				}
			}
		})
	}
}

// apisix-mesh-agent kept one version for all types, so that ACKs carried another type's.
func TestEachTypeIsAckedWithItsOwnVersion(t *testing.T) {
	srv := xdstest.NewServer(t)
	srv.Set(xdstest.Mesh(1, 1).Resources()...)
	client, o := connect(t, srv, true)
	o.wait("first sync", everything)
	for _, typeURL := range []string{xds.RouteType, xds.ClusterType, xds.ListenerType, xds.EndpointType} {
		srv.Push(typeURL)
		srv.WaitAnswered(typeURL)
	}
	versions := map[string]string{}
	for _, r := range srv.Requests() {
		if r.Nonce == "" {
			continue
		}
		// The server made the version of each response from its nonce.
		if want := "version-of-" + r.Nonce; r.Version != want {
			t.Errorf("%s: version %s, want %s", xds.ShortType(r.TypeURL), r.Version, want)
		}
		versions[r.TypeURL] = r.Version
	}
	for typeURL, want := range versions {
		if got := client.Status().Types[typeURL].Version; got != want {
			t.Errorf("status of %s: version %s, want %s", xds.ShortType(typeURL), got, want)
		}
	}
}

func TestAPushOfTheSameBytesGivesNoUpdate(t *testing.T) {
	for name, world := range variants() {
		t.Run(name, func(t *testing.T) {
			srv := xdstest.NewServer(t)
			srv.Set(xdstest.Mesh(6, 3).Resources()...)
			_, o := connect(t, srv, world)
			o.wait("first sync", everything)
			srv.WaitAnswered(xds.ClusterType, xds.EndpointType, xds.ListenerType, xds.RouteType)
			before, _ := o.updates()

			srv.Push()
			srv.WaitAnswered(xds.ClusterType, xds.EndpointType, xds.ListenerType, xds.RouteType)

			if after, last := o.updates(); after != before {
				t.Errorf("%d updates for nothing: %s", after-before, describe(last))
			}
		})
	}
}

func TestAnUpdateNamesExactlyWhatChanged(t *testing.T) {
	for name, world := range variants() {
		t.Run(name, func(t *testing.T) {
			srv := xdstest.NewServer(t)
			srv.Set(xdstest.Mesh(6, 3).Resources()...)
			_, o := connect(t, srv, world)
			o.wait("first sync", everything)
			before, _ := o.updates()

			srv.Set(xdstest.Endpoints(4, 7))
			u := o.wait("seven endpoints", func(u xds.Update) bool { return endpointCount(t, u, 4) == 7 })

			want := []xds.Key{{Type: xds.EndpointType, Name: xdstest.ClusterName(4)}}
			if after, _ := o.updates(); after != before+1 || !slices.Equal(u.Changed, want) {
				t.Errorf("%d updates, the last with %v", after-before, u.Changed)
			}
		})
	}
}

func TestAnOpaqueTypeWithoutANameIsKept(t *testing.T) {
	const unknown = xdstest.ProxyConfigType
	for name, world := range variants() {
		t.Run(name, func(t *testing.T) {
			srv := xdstest.NewServer(t)
			opaque := xdstest.Any(staticCluster("stands for any bytes"))
			opaque.TypeUrl = unknown
			srv.SetRaw("", opaque)
			_, o := connectWith(t, xds.Config{Address: srv.Addr(), StateOfTheWorld: world, Types: []string{unknown}})
			u := o.wait("resource", everything)
			r := u.Snapshot.Get(xds.Key{Type: unknown})
			if r == nil || string(r.Body.GetValue()) != string(opaque.GetValue()) {
				t.Errorf("resource %v", r)
			}
		})
	}
}
