package xds_test

import (
	"maps"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"pgregory.net/rapid"

	"meshbridge/xds"
	"meshbridge/xds/xdstest"
)

// Every Snapshot stays what it was, whatever is made from it.
func TestSnapshotsAreMapsThatDoNotChange(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		type version struct {
			snapshot *xds.Snapshot
			model    map[xds.Key]*xds.Resource
		}
		versions := []version{{}}
		key := func() xds.Key {
			return xds.Key{
				Type: rapid.SampledFrom([]string{xds.ClusterType, xds.RouteType}).Draw(rt, "type"),
				Name: strconv.Itoa(rapid.IntRange(0, 40).Draw(rt, "name")),
			}
		}
		for range rapid.IntRange(1, 20).Draw(rt, "steps") {
			from := versions[rapid.IntRange(0, len(versions)-1).Draw(rt, "from")]
			next := version{model: map[xds.Key]*xds.Resource{}}
			maps.Copy(next.model, from.model)
			var removed []xds.Key
			var put []*xds.Resource
			for range rapid.IntRange(0, 5).Draw(rt, "removes") {
				removed = append(removed, key())
			}
			for range rapid.IntRange(0, 10).Draw(rt, "puts") {
				put = append(put, &xds.Resource{Key: key(), Body: &anypb.Any{}})
			}
			for _, k := range removed {
				delete(next.model, k)
			}
			for _, r := range put {
				next.model[r.Key] = r
			}
			next.snapshot = from.snapshot.With(put, removed)
			versions = append(versions, next)
		}
		for i, v := range versions {
			n := 0
			for _, typeURL := range v.snapshot.Types() {
				n += v.snapshot.Len(typeURL)
				var inOrder []string
				for r := range v.snapshot.All(typeURL) {
					inOrder = append(inOrder, r.Name)
				}
				if !slices.IsSorted(inOrder) {
					rt.Fatalf("version %d: %q is not in order", i, inOrder)
				}
			}
			if n != len(v.model) {
				rt.Fatalf("version %d: %d resources, want %d", i, n, len(v.model))
			}
			for k, r := range v.model {
				if v.snapshot.Get(k) != r {
					rt.Fatalf("version %d: %s is another", i, k)
				}
			}
		}
	})
}

func TestTheNilSnapshotIsEmpty(t *testing.T) {
	var s *xds.Snapshot
	for r := range s.All(xds.ClusterType) {
		t.Error(r)
	}
	if s.Get(xds.Key{Type: xds.ClusterType}) != nil || s.Len(xds.ClusterType) != 0 || len(s.Types()) != 0 {
		t.Error("not empty")
	}
}

// The readers of an Update share what was decoded to check it; later readers decode for themselves.
func TestAnUpdateKeepsWhatItBroughtDecoded(t *testing.T) {
	srv := xdstest.NewServer(t)
	srv.Set(staticCluster("a"))
	_, o := connect(t, srv, false)
	u := o.wait("first sync", everything)
	first := message[*clusterpb.Cluster](t, u, xds.ClusterType, "a")
	runtime.GC()
	if second := message[*clusterpb.Cluster](t, u, xds.ClusterType, "a"); first != second && len(u.Changed) > 0 && u.Changed[0].Type == xds.ClusterType {
		t.Error("decoded twice")
	}
	r := u.Snapshot.Get(xds.Key{Type: xds.ClusterType, Name: "a"})
	if _, err := xds.Decode[*listenerpb.Listener](r); err == nil {
		t.Error("a cluster was decoded as a listener")
	}

	var readers sync.WaitGroup
	for range 8 {
		readers.Go(func() {
			for range 100 {
				if c, err := xds.Decode[*clusterpb.Cluster](r); err != nil || c.GetName() != "a" {
					t.Errorf("%v, %v", c, err)
				}
			}
		})
	}
	for range 10 {
		runtime.GC()
	}
	readers.Wait()
}

func TestMergedUpdatesSayWhatBothSay(t *testing.T) {
	srv := xdstest.NewServer(t)
	srv.Set(staticCluster("a"))
	_, o := connect(t, srv, false)
	o.wait("first sync", everything)
	srv.Set(staticCluster("b"), invalidCluster("c"))
	o.wait("second push", func(u xds.Update) bool { return u.Snapshot.Len(xds.ClusterType) == 2 })
	srv.Remove(xds.ClusterType, "a")
	last := o.wait("removal", func(u xds.Update) bool { return u.Snapshot.Len(xds.ClusterType) == 1 })

	all := o.since(0)
	var merged xds.Update
	for _, u := range all {
		merged = merged.Merge(u)
	}

	want := []xds.Key{{Type: xds.ClusterType, Name: "a"}, {Type: xds.ClusterType, Name: "b"}}
	if !slices.Equal(merged.Changed, want) {
		t.Errorf("changed %v, want %v", merged.Changed, want)
	}
	if merged.Snapshot != last.Snapshot || len(merged.Rejected) != 1 || len(merged.Pending) != 0 {
		t.Errorf("not the newest state: %s", describe(merged))
	}
	if !merged.Received.Equal(all[0].Received) {
		t.Errorf("received %s, want the oldest %s", merged.Received, all[0].Received)
	}
}
