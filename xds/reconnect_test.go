package xds_test

import (
	"log/slog"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"meshbridge/xds"
	"meshbridge/xds/xdstest"
)

func newLogger(r *records) *slog.Logger { return slog.New(r) }

func allTypes() []string {
	return []string{xds.ClusterType, xds.EndpointType, xds.ListenerType, xds.RouteType}
}

// apisix-mesh-agent connected again but did not ask for endpoints, so that every service had none
// for ever; Amesh opened thousands of streams and applied nothing.
func TestARestartedServerIsAskedForEverythingAndNothingChanges(t *testing.T) {
	for name, world := range variants() {
		t.Run(name, func(t *testing.T) {
			srv := xdstest.NewServer(t)
			srv.Set(xdstest.Mesh(6, 3).Resources()...)
			client, o := connect(t, srv, world)
			o.wait("first sync", everything)
			srv.WaitAnswered(allTypes()...)
			before, _ := o.updates()
			status := client.Status()

			srv.Stop()
			srv.Start()
			srv.WaitStreams(2)
			srv.WaitAnswered(allTypes()...)

			if after, last := o.updates(); after != before {
				t.Errorf("%d updates although nothing changed: %s", after-before, describe(last))
			}
			first := map[string]xdstest.Request{}
			for _, r := range srv.Requests() {
				if _, known := first[r.TypeURL]; !known && r.Stream > 0 {
					first[r.TypeURL] = r
				}
			}
			for _, typeURL := range allTypes() {
				r := first[typeURL]
				if r.Nonce != "" {
					t.Errorf("a nonce outlived its stream: %+v", r)
				}
				if world && r.Version != status.Types[typeURL].Version {
					t.Errorf("%s: version %q did not outlive the stream", xds.ShortType(typeURL), r.Version)
				}
			}
			if r := first[xds.EndpointType]; len(r.Subscribe)+len(r.Names) != 6 || !world && len(r.Initial) != 6 {
				t.Errorf("first request for endpoints %+v", r)
			}
			if r := first[xds.ClusterType]; r.Node == nil || !world && len(r.Initial) != 6 {
				t.Errorf("first request for clusters %+v", r)
			}

			// The new stream works.
			srv.Set(xdstest.Endpoints(5, 9))
			o.wait("change", func(u xds.Update) bool { return endpointCount(t, u, 5) == 9 })
		})
	}
}

// apisix-mesh-agent never connected again after a clean end, and spun.
func TestACleanEndOfTheStreamLeadsToANewOne(t *testing.T) {
	for name, world := range variants() {
		t.Run(name, func(t *testing.T) {
			srv := xdstest.NewServer(t)
			srv.Set(xdstest.Mesh(3, 1).Resources()...)
			log := &records{}
			client, o := connectWith(t, xds.Config{Address: srv.Addr(), StateOfTheWorld: world, Logger: newLogger(log)})
			o.wait("first sync", everything)
			for n := range 3 {
				srv.WaitAnswered(allTypes()...)
				srv.CloseStreams(nil)
				srv.WaitStreams(n + 2)
				srv.Set(xdstest.Endpoints(1, n+2))
				o.wait("change", func(u xds.Update) bool { return endpointCount(t, u, 1) == n+2 })
			}
			if srv.Streams() != 4 {
				t.Errorf("%d streams, want 4", srv.Streams())
			}
			if lines := log.containing("istiod ended the stream"); len(lines) != 3 {
				t.Errorf("log: %q", lines)
			}
			if !client.Status().Connected || client.Status().LastError == nil {
				t.Errorf("status %+v", client.Status())
			}
		})
	}
}

func TestTheLastGoodWorldStaysWhileTheServerIsAway(t *testing.T) {
	for name, world := range variants() {
		t.Run(name, func(t *testing.T) {
			srv := xdstest.NewServer(t)
			srv.Set(xdstest.Mesh(3, 1).Resources()...)
			log := &records{}
			client, o := connectWith(t, xds.Config{Address: srv.Addr(), StateOfTheWorld: world, Logger: newLogger(log)})
			o.wait("first sync", everything)
			srv.WaitAnswered(allTypes()...)
			before, _ := o.updates()

			srv.Stop()
			awaitLog(t, log, "keeping the last", 3)

			if after, u := o.updates(); after != before || !u.Complete() {
				t.Errorf("%d updates: %s", after-before, describe(u))
			}
			s := client.Status()
			if s.Connected || s.LastError == nil || s.Types[xds.ClusterType].Nonce != "" {
				t.Errorf("status %+v", s)
			}
			for _, line := range log.containing("keeping the last") {
				if !strings.Contains(line, "target="+srv.Addr()) || !strings.Contains(line, "retry_in=") {
					t.Errorf("log: %s", line)
				}
			}
		})
	}
}

func TestWhatARestartedServerNoLongerHasIsRemoved(t *testing.T) {
	for name, world := range variants() {
		t.Run(name, func(t *testing.T) {
			srv := xdstest.NewServer(t)
			srv.Set(xdstest.Mesh(6, 1).Resources()...)
			_, o := connect(t, srv, world)
			o.wait("first sync", everything)

			srv.Stop()
			srv.Remove(xds.ClusterType, xdstest.ClusterName(2))
			srv.Remove(xds.EndpointType, xdstest.ClusterName(2))
			srv.Remove(xds.ListenerType, "0.0.0.0_8003")
			srv.Set(xdstest.Cluster(9), xdstest.Endpoints(9, 1))
			srv.Start()

			u := o.wait("difference", func(u xds.Update) bool {
				return everything(u) && u.Snapshot.Len(xds.ListenerType) == 3 && u.Snapshot.Get(xds.Key{Type: xds.EndpointType, Name: xdstest.ClusterName(9)}) != nil
			})
			if slices.Contains(names(u.Snapshot, xds.ClusterType), xdstest.ClusterName(2)) || u.Snapshot.Len(xds.EndpointType) != 6 ||
				slices.Contains(names(u.Snapshot, xds.RouteType), "8003") {
				t.Error(describe(u))
			}
		})
	}
}

func TestAServerThatIsNotReadyIsAskedAgain(t *testing.T) {
	for name, world := range variants() {
		t.Run(name, func(t *testing.T) {
			srv := xdstest.NewServer(t)
			srv.Refuse(status.Error(codes.Unavailable, "caches are not synced"))
			srv.Set(xdstest.Mesh(2, 1).Resources()...)
			client, o := connect(t, srv, world)
			srv.WaitStreams(3)
			if n, _ := o.updates(); n != 0 {
				t.Errorf("%d updates from a server that said nothing", n)
			}
			if err := client.Status().LastError; err == nil || !strings.Contains(err.Error(), "caches are not synced") {
				t.Errorf("last error %v", err)
			}
			srv.Refuse(nil)
			o.wait("first sync", everything)
		})
	}
}

func TestRunEndsWithItsContextAlsoWhileWaiting(t *testing.T) {
	srv := xdstest.NewServer(t)
	srv.Stop()
	log := &records{}
	_, o := connectWith(t, xds.Config{Address: srv.Addr(), Logger: newLogger(log), Backoff: xds.Backoff{Base: patience, Max: patience}})
	awaitLog(t, log, "keeping the last", 1)
	o.stop()
}
