package conformance

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"

	"meshbridge/testdata/conformance/harness"
)

func TestEverythingIsServedAndAcknowledged(t *testing.T) {
	t.Parallel()
	s := newScenario(t, demo)
	if proxy := s.istiod.WaitSynced(t); !strings.HasPrefix(proxy.ID, "client.default") {
		t.Errorf("istiod knows the bridge as %q", proxy.ID)
	}
	world := s.bridge.MustRange(t)
	for service, addresses := range map[string][]string{
		"productpage": {"127.0.1.1"},
		"details":     {"127.0.1.2"},
		"ratings":     {"127.0.1.20"},
	} {
		t.Run(service, func(t *testing.T) {
			var served []string
			for _, key := range routesOf(t, world, service+".default.svc.cluster.local") {
				if id := decode[route](t, world.Objects[key].Value).UpstreamID; id != "" {
					served = append(served, decode[upstream](t, world.Objects[harness.Prefix+"upstreams/"+id].Value).hosts()...)
				}
			}
			if diff := cmp.Diff(addresses, served); diff != "" {
				t.Errorf("addresses behind the routes (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("subsets", func(t *testing.T) {
		subsets := map[string][]string{}
		for _, key := range upstreamsOf(t, world, "reviews") {
			u := decode[upstream](t, world.Objects[key].Value)
			for _, subset := range []string{"v1", "v2", "v3"} {
				if strings.Contains(key, subset) {
					subsets[subset] = u.hosts()
				}
			}
		}
		want := map[string][]string{"v1": {"127.0.1.11"}, "v2": {"127.0.1.12"}, "v3": {"127.0.1.13"}}
		if diff := cmp.Diff(want, subsets); diff != "" {
			t.Errorf("addresses by subset (-want +got):\n%s", diff)
		}
	})
	t.Run("every reference resolves", func(t *testing.T) {
		for key, object := range world.Routes() {
			id := decode[route](t, object.Value).UpstreamID
			if _, ok := world.Objects[harness.Prefix+"upstreams/"+id]; id != "" && !ok {
				t.Errorf("%s refers to upstream %s, which is not there", key, id)
			}
		}
	})
	t.Run("etcd's client sees the same", func(t *testing.T) {
		response, err := s.bridge.Client(t).Get(t.Context(), harness.Prefix, clientv3.WithPrefix())
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]harness.Object{}
		for _, kv := range response.Kvs {
			got[string(kv.Key)] = harness.Object{Value: string(kv.Value), ModRevision: kv.ModRevision}
		}
		if diff := cmp.Diff(world.Objects, got); diff != "" {
			t.Errorf("gRPC differs from HTTP (-http +grpc):\n%s", diff)
		}
	})
}

func TestVirtualServiceEditTouchesOnlyItsRoutes(t *testing.T) {
	t.Parallel()
	s := newScenario(t, demo)
	before := s.bridge.MustRange(t)
	watch := s.bridge.Watch(t, before.Revision+1)

	s.manifests.Replace(t, "reviews-routing.yaml", "exact: jason", "exact: jason-mraz")
	events := s.eventsSoFar(t, watch)

	after := s.bridge.MustRange(t)
	allowed := slices.Concat(routesOf(t, before, "reviews.default.svc.cluster.local"), routesOf(t, after, "reviews.default.svc.cluster.local"))
	for _, e := range events {
		if !slices.Contains(allowed, e.Key) {
			t.Errorf("%s changed, which is no route of reviews", e.Key)
		}
	}
	if changed := changedKeys(before, after); len(changed) == 0 || len(events) != len(changed) {
		t.Errorf("%d events for %d changed keys %v, want one each:\n%s", len(events), len(changed), changed, harness.Describe(events))
	}
	if !strings.Contains(harness.Describe(events), "jason-mraz") {
		t.Errorf("no event has the new match:\n%s", harness.Describe(events))
	}
}

func TestCanaryWeightsFollowTheVirtualService(t *testing.T) {
	t.Parallel()
	s := newScenario(t, demo)
	watch := s.bridge.Watch(t, 0)

	s.manifests.Replace(t, "reviews-routing.yaml", "weight: 10", "weight: 37")
	s.manifests.Replace(t, "reviews-routing.yaml", "weight: 90", "weight: 63")
	events := s.eventsSoFar(t, watch)

	if len(events) == 0 {
		t.Fatal("no event for changed weights")
	}
	final := events[len(events)-1]
	for _, weight := range []string{"37", "63"} {
		if !strings.Contains(final.Value, weight) {
			t.Errorf("the canary route lacks weight %s: %s", weight, final.Value)
		}
	}
}

// changedKeys lists the keys, the fence's excepted, that differ in value or
// presence.
func changedKeys(before, after harness.Snapshot) []string {
	b, a := withoutFence(before), withoutFence(after)
	var keys []string
	for key, value := range a {
		if old, ok := b[key]; !ok || old != value {
			keys = append(keys, key)
		}
	}
	for key := range b {
		if _, ok := a[key]; !ok {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// apisix-mesh-agent published every upstream without nodes first, and Amesh
// missed endpoint changes after the first one or repeated all upstreams.
func TestEndpointChangeIsOneEvent(t *testing.T) {
	t.Parallel()
	s := newScenario(t, demo)
	before := s.bridge.MustRange(t)
	upstreams := upstreamsOf(t, before, "ratings")
	watch := s.bridge.Watch(t, 0)

	for _, address := range []string{"127.0.1.21", "127.0.1.22", "127.0.1.23"} {
		s.manifests.Write(t, "ratings-endpoints.yaml", `
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: ratings-more, namespace: default, labels: {kubernetes.io/service-name: ratings}}
addressType: IPv4
ports: [{name: http, port: 9080, protocol: TCP}]
endpoints: [{addresses: [`+address+`], conditions: {ready: true}}]
`)
		events := watch.Until(t, "endpoint "+address, func(e harness.Event) bool { return strings.Contains(e.Value, address) })
		if len(events) != len(upstreams) {
			t.Errorf("%d events for one endpoint of %d upstreams:\n%s", len(events), len(upstreams), harness.Describe(events))
		}
		got := decode[upstream](t, events[len(events)-1].Value).hosts()
		if diff := cmp.Diff([]string{"127.0.1.20", address}, got); diff != "" {
			t.Errorf("nodes (-want +got):\n%s", diff)
		}
	}
	wantNoEvents(t, s.eventsSoFar(t, watch))
}

func TestSubsetEndpointChangeLeavesOtherSubsetsAlone(t *testing.T) {
	t.Parallel()
	s := newScenario(t, demo)
	watch := s.bridge.Watch(t, 0)

	s.manifests.Replace(t, "reviews.yaml", "- addresses: [127.0.1.13]\n  conditions: {ready: true}", "- addresses: [127.0.1.13]\n  conditions: {ready: false}")
	events := s.eventsSoFar(t, watch)

	if len(events) != 1 || !strings.Contains(events[0].Key, "v3") || len(decode[upstream](t, events[0].Value).Nodes) != 0 {
		t.Errorf("want exactly one event, an upstream of v3 without nodes; got:\n%s", harness.Describe(events))
	}
}

func TestNewServiceHasItsUpstreamBeforeItsRoutes(t *testing.T) {
	t.Parallel()
	s := newScenario(t, demo)
	watch := s.bridge.Watch(t, 0)

	s.manifests.Write(t, "shipping.yaml", `
apiVersion: v1
kind: Service
metadata: {name: shipping, namespace: default}
spec:
  clusterIP: 10.96.0.77
  clusterIPs: [10.96.0.77]
  ports: [{name: http, port: 9080, protocol: TCP}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: shipping, namespace: default, labels: {kubernetes.io/service-name: shipping}}
addressType: IPv4
ports: [{name: http, port: 9080, protocol: TCP}]
endpoints: [{addresses: [127.0.1.77], conditions: {ready: true}}]
`)
	isRoute := func(e harness.Event) bool {
		return strings.HasPrefix(e.Key, harness.Prefix+"routes/") && strings.Contains(e.Value, "shipping")
	}
	events := watch.Until(t, "a route of shipping", isRoute)
	referred := ""
	for _, e := range events {
		if isRoute(e) {
			referred = decode[route](t, e.Value).UpstreamID
		}
		if referred != "" {
			break
		}
	}
	for _, e := range events {
		if !strings.HasSuffix(e.Key, "/"+referred) {
			continue
		}
		if hosts := decode[upstream](t, e.Value).hosts(); !slices.Equal(hosts, []string{"127.0.1.77"}) {
			t.Errorf("the upstream's first version has nodes %v", hosts)
		}
		return
	}
	t.Errorf("the upstream %q did not come before the route that refers to it:\n%s", referred, harness.Describe(events))
}

func TestRemovedServiceLosesItsRoutesThenItsUpstreams(t *testing.T) {
	t.Parallel()
	s := newScenario(t, demo)
	before := s.bridge.MustRange(t)
	routes, upstreams := routesOf(t, before, "details.default.svc.cluster.local"), upstreamsOf(t, before, "details")
	watch := s.bridge.Watch(t, before.Revision+1)

	s.manifests.Remove(t, "details.yaml")
	var last []harness.Event
	for len(upstreams) > 0 {
		last = watch.Until(t, "removal of an upstream of details", func(e harness.Event) bool { return e.Deleted && slices.Contains(upstreams, e.Key) })
		for _, e := range last {
			if e.Deleted {
				routes = without(routes, e.Key)
				if slices.Contains(upstreams, e.Key) && len(routes) > 0 {
					t.Errorf("%s was removed before routes %v", e.Key, routes)
				}
				upstreams = without(upstreams, e.Key)
			} else if strings.Contains(e.Key, "/upstreams/") && strings.Contains(e.Value, `"nodes":[]`) {
				t.Errorf("%s lost its nodes before it was removed", e.Key)
			}
		}
	}
}

func without(keys []string, key string) []string {
	return slices.DeleteFunc(slices.Clone(keys), func(k string) bool { return k == key })
}

// apisix-mesh-agent sent two events per object, the first one empty, for a
// push that changed nothing.
func TestFullPushWithoutChangeIsSilent(t *testing.T) {
	t.Parallel()
	s := newScenario(t, demo)
	before := s.bridge.MustRange(t)
	watch := s.bridge.Watch(t, before.Revision+1)

	s.istiod.PushAll(t)
	wantNoEvents(t, s.eventsSoFar(t, watch))
	wantUnchanged(t, before, s.bridge.MustRange(t))
}
