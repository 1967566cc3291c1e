package bridge

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"meshbridge/store"
	"meshbridge/translate"
	"meshbridge/xds"
	"meshbridge/xds/xdstest"
)

// pipelineTest runs a pipeline with a store in a synctest bubble; the test plays the source.
type pipelineTest struct {
	*history
	pipeline *pipeline
	snapshot *xds.Snapshot
}

// bubble runs the test with a mesh of n services that has not been delivered yet.
func bubble(t *testing.T, n int, test func(t *testing.T, p *pipelineTest)) {
	t.Helper()
	bubbleWith(t, n, func() resolver { return nil }, test)
}

// bubbleWith does so with a resolver of names, made inside the bubble, to which its channels belong.
func bubbleWith(t *testing.T, n int, newResolver func() resolver, test func(t *testing.T, p *pipelineTest)) {
	t.Helper()
	bubbleIn(t, translate.Mesh(), n, newResolver, test)
}

func bubbleIn(t *testing.T, profile translate.Profile, n int, newResolver func() resolver, test func(t *testing.T, p *pipelineTest)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, err := store.New(store.Config{})
		if err != nil {
			t.Fatal(err)
		}
		state, err := translate.New(translate.Options{Profile: profile})
		if err != nil {
			t.Fatal(err)
		}
		log, m := slog.New(slog.DiscardHandler), newMetrics(prometheus.NewRegistry())
		w := newWriter(s, "/apisix", 1, func(int64) {}, m, log)
		p := &pipelineTest{history: newHistory(t, s), pipeline: newPipeline(state, w, log, m)}
		p.pipeline.names = newNames(newResolver())
		p.set(xdstest.Mesh(n, 1).Resources()...)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.pipeline.Run(ctx) }()
		test(t, p)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		s.Close()
	})
}

// set changes the source's snapshot and returns what changed.
func (p *pipelineTest) set(messages ...proto.Message) (changed []xds.Key) {
	p.t.Helper()
	var put []*xds.Resource
	for _, m := range messages {
		r := &xds.Resource{Body: xdstest.Any(m)}
		r.Type = r.Body.GetTypeUrl()
		switch m := m.(type) {
		case *clusterpb.Cluster:
			r.Name = m.GetName()
		case *endpointpb.ClusterLoadAssignment:
			r.Name = m.GetClusterName()
		case *listenerpb.Listener:
			r.Name = m.GetName()
		case *routepb.RouteConfiguration:
			r.Name = m.GetName()
		default:
			p.t.Fatalf("no name for %T", m)
		}
		put = append(put, r)
		changed = append(changed, r.Key)
	}
	p.snapshot = p.snapshot.With(put, nil)
	return changed
}

func (p *pipelineTest) deliver(changed, pending []xds.Key) {
	p.pipeline.inbox.put(xds.Update{Snapshot: p.snapshot, Changed: changed, Pending: pending, Received: time.Now()})
	synctest.Wait()
}

// start delivers the whole mesh and drops the events of the first world.
func (p *pipelineTest) start() {
	p.t.Helper()
	p.deliver(nil, nil)
	if got := p.next(); len(got) != 1 {
		p.t.Fatalf("the first world is %d revisions, want 1", len(got))
	}
}

// pass lets time go by and returns the revisions committed meanwhile.
func (p *pipelineTest) pass(d time.Duration) [][]string {
	p.t.Helper()
	time.Sleep(d) //nolint:forbidigo // the bubble's clock
	synctest.Wait()
	return p.next()
}

func (p *pipelineTest) isReady() bool {
	select {
	case <-p.pipeline.ready:
		return true
	default:
		return false
	}
}

// withEndpoint returns the endpoints of service i with count of them.
func withEndpoint(i, count int) proto.Message { return xdstest.Endpoints(i, count) }

// keysOf returns the keys of one revision.
func keysOf(events []string) []string {
	keys := make([]string, len(events))
	for i, e := range events {
		keys[i] = strings.Fields(e)[1]
	}
	return keys
}

func kindsOf(revisions [][]string) (kinds []string) {
	for _, events := range revisions {
		var of []string
		for _, e := range events {
			verb, rest, _ := strings.Cut(e, " ")
			kind, _, _ := strings.Cut(strings.TrimPrefix(rest, "/apisix/"), "/")
			of = append(of, verb+" "+kind)
		}
		kinds = append(kinds, strings.Join(slices.Compact(of), ", "))
	}
	return kinds
}

func TestNoWorldBeforeItIsComplete(t *testing.T) {
	bubble(t, 2, func(t *testing.T, p *pipelineTest) {
		t.Helper()
		p.deliver(nil, []xds.Key{{Type: xds.ListenerType}})
		if got := p.pass(time.Hour); got != nil || p.isReady() {
			t.Fatalf("without an answer about listeners: ready %v, events %q", p.isReady(), got)
		}
		p.deliver(nil, nil)
		if got := p.next(); len(got) != 1 || !p.isReady() {
			t.Fatalf("complete: ready %v, %d revisions", p.isReady(), len(got))
		}
	})
}

func TestFirstWorldWaitsForWhatItRefersToButNotForEver(t *testing.T) {
	bubble(t, 2, func(t *testing.T, p *pipelineTest) {
		t.Helper()
		p.deliver(nil, []xds.Key{{Type: xds.EndpointType, Name: xdstest.ClusterName(1)}})
		if got := p.pass(warmUp - time.Millisecond); got != nil {
			t.Fatalf("committed before the endpoints came: %q", got)
		}
		if got := p.pass(time.Millisecond); len(got) != 1 {
			t.Fatalf("after %v: %d revisions, want 1", warmUp, len(got))
		}
	})
}

// A control plane that is slow to send routes must not make APISIX delete those that it has.
func TestFirstWorldNeverLacksRoutes(t *testing.T) {
	bubble(t, 2, func(t *testing.T, p *pipelineTest) {
		t.Helper()
		p.deliver(nil, []xds.Key{{Type: xds.RouteType, Name: "8000"}})
		if got := p.pass(time.Hour); got != nil || p.isReady() {
			t.Fatalf("without its routes: ready %v, events %q", p.isReady(), got)
		}
		p.deliver(nil, nil)
		if got := p.next(); len(got) != 1 || !p.isReady() {
			t.Fatalf("complete: ready %v, %d revisions", p.isReady(), len(got))
		}
	})
}

// Amesh sent an event for every object on each endpoint change, apisix-mesh-agent two per push.
func TestOneChangedClusterLoadAssignmentIsOneEventAtOnce(t *testing.T) {
	bubble(t, 20, func(t *testing.T, p *pipelineTest) {
		t.Helper()
		p.start()
		p.deliver(p.set(withEndpoint(7, 2)), nil)
		got := p.next()
		if len(got) != 1 || len(got[0]) != 1 || !strings.Contains(got[0][0], "10.0.7.2") {
			t.Fatalf("events: %q, want one put of the upstream of service 7", got)
		}
	})
}

func TestAPushThatChangesNothingIsNoEvent(t *testing.T) {
	bubble(t, 5, func(t *testing.T, p *pipelineTest) {
		t.Helper()
		p.start()
		p.deliver(p.set(xdstest.Mesh(5, 1).Resources()...), nil)
		if got := p.pass(time.Minute); got != nil {
			t.Errorf("events: %q", got)
		}
	})
}

func TestRoutesWaitUntilTheyAreQuiet(t *testing.T) {
	bubble(t, 4, func(t *testing.T, p *pipelineTest) {
		t.Helper()
		p.start()
		routes := xdstest.Mesh(4, 1).Routes[0]
		routes.VirtualHosts[0].Domains = routes.GetVirtualHosts()[0].GetDomains()[:1]
		p.deliver(p.set(routes), nil)
		if got := p.pass(debounceQuiet - time.Millisecond); got != nil {
			t.Fatalf("committed at once: %q", got)
		}
		if got := kindsOf(p.pass(time.Millisecond)); !slices.Equal(got, []string{"put routes"}) {
			t.Errorf("committed %q, want the routes", got)
		}
	})
}

func TestAMeshThatIsNeverQuietStillConverges(t *testing.T) {
	bubble(t, 4, func(t *testing.T, p *pipelineTest) {
		t.Helper()
		p.start()
		step := debounceQuiet / 2
		for elapsed := time.Duration(0); elapsed <= debounceMax; elapsed += step {
			routes := xdstest.Mesh(4, 1).Routes[0]
			routes.VirtualHosts[0].Domains = append(routes.VirtualHosts[0].Domains, elapsed.String()+".example")
			p.deliver(p.set(routes), nil)
			if got := p.pass(step); got != nil {
				if elapsed+step < debounceMax {
					t.Errorf("committed after %v, while it was not quiet", elapsed)
				}
				return
			}
		}
		t.Errorf("nothing was committed in %v", debounceMax)
	})
}

// apisix-mesh-agent published an upstream without nodes between the cluster and its endpoints.
func TestANewServiceArrivesWithItsEndpointsAndBeforeItsRoutes(t *testing.T) {
	bubble(t, 4, func(t *testing.T, p *pipelineTest) {
		t.Helper()
		p.start()
		next := xdstest.Mesh(5, 1)
		var config []proto.Message
		for _, r := range next.Resources() {
			if _, endpoints := r.(*endpointpb.ClusterLoadAssignment); !endpoints {
				config = append(config, r)
			}
		}
		missing := []xds.Key{{Type: xds.EndpointType, Name: xdstest.ClusterName(4)}}
		p.deliver(p.set(config...), missing)
		if got := p.pass(time.Second); got != nil {
			t.Fatalf("committed before the endpoints came: %q", got)
		}
		p.deliver(p.set(next.Endpoints[4]), nil)
		got := p.pass(time.Second)
		if want := []string{"put upstreams", "put routes"}; !slices.Equal(kindsOf(got), want) {
			t.Fatalf("committed %q, want %q", kindsOf(got), want)
		}
		if !strings.Contains(got[0][0], "10.0.4.1") {
			t.Errorf("the upstream came without its endpoint: %s", got[0][0])
		}
	})
}

func TestWhatIsNeverAnsweredIsWaitedForOnce(t *testing.T) {
	bubble(t, 4, func(t *testing.T, p *pipelineTest) {
		t.Helper()
		p.start()
		missing := []xds.Key{{Type: xds.EndpointType, Name: "outbound|1||gone"}}
		change := func(domain string) {
			routes := xdstest.Mesh(4, 1).Routes[0]
			routes.VirtualHosts[0].Domains = []string{domain}
			p.deliver(p.set(routes), missing)
		}
		change("a.example")
		if got := p.pass(warmUp - time.Millisecond); got != nil {
			t.Fatalf("did not wait: %q", got)
		}
		if got := p.pass(time.Millisecond); got == nil {
			t.Fatal("waits for ever")
		}
		change("b.example")
		if got := p.pass(debounceQuiet); got == nil {
			t.Error("waits again for what was not answered before")
		}
	})
}

// Endpoints go with the cluster and its routes; until the routes are gone they must stay.
func TestAServiceThatGoesKeepsItsEndpointsUntilItsRoutesAreGone(t *testing.T) {
	bubble(t, 5, func(t *testing.T, p *pipelineTest) {
		t.Helper()
		p.start()
		gone := []xds.Key{
			{Type: xds.ClusterType, Name: xdstest.ClusterName(4)},
			{Type: xds.EndpointType, Name: xdstest.ClusterName(4)},
		}
		p.snapshot = p.snapshot.With(nil, gone)
		p.deliver(gone, nil)
		if got := p.pass(debounceQuiet / 2); got != nil {
			t.Fatalf("committed before the routes came: %q", got)
		}
		changed := p.set(xdstest.Mesh(4, 1).Routes[0])
		p.deliver(changed, nil)
		got := kindsOf(p.pass(time.Second))
		if len(got) != 1 || !strings.HasPrefix(got[0], "delete routes") {
			t.Fatalf("committed %q, want only the deletion of routes", got)
		}
		if got := kindsOf(p.pass(garbageAfter)); !slices.Equal(got, []string{"delete upstreams"}) {
			t.Errorf("committed %q after %v, want the deletion of the upstream", got, garbageAfter)
		}
	})
}

func TestEndpointsGoThroughWhileRoutesWait(t *testing.T) {
	bubble(t, 4, func(t *testing.T, p *pipelineTest) {
		t.Helper()
		p.start()
		routes := xdstest.Mesh(4, 1).Routes[0]
		routes.VirtualHosts[0].Domains = routes.GetVirtualHosts()[0].GetDomains()[:1]
		p.deliver(p.set(routes), nil)
		p.deliver(p.set(withEndpoint(2, 3)), nil)
		if got := kindsOf(p.next()); !slices.Equal(got, []string{"put upstreams"}) {
			t.Errorf("committed %q, want the upstream at once", got)
		}
		if got := kindsOf(p.pass(debounceQuiet)); !slices.Equal(got, []string{"put routes"}) {
			t.Errorf("committed %q, want the routes in their time", got)
		}
	})
}

func TestBurstsAreOneRevisionEachTimeTheyAreTaken(t *testing.T) {
	bubble(t, 40, func(t *testing.T, p *pipelineTest) {
		t.Helper()
		p.start()
		var all []xds.Key
		for i := range 40 {
			all = append(all, p.set(withEndpoint(i, 2))...)
		}
		p.deliver(all, nil)
		got := p.next()
		if len(got) != 1 || len(got[0]) != 40 {
			t.Fatalf("%d revisions, want 1 with 40 events", len(got))
		}
		if keys := keysOf(got[0]); !slices.IsSorted(keys) {
			t.Errorf("events are not in the order of their keys: %q", keys)
		}
	})
}
