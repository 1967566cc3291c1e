package conformance

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"meshbridge/testdata/conformance/harness"
)

// weightedUpstream is an upstream with what decides about shares.
type weightedUpstream struct {
	Name  string `json:"name"`
	Nodes []struct {
		Host     string `json:"host"`
		Weight   int    `json:"weight"`
		Priority int    `json:"priority"`
	} `json:"nodes"`
}

func TestWarmupGivesANewEndpointItsShareLittleByLittle(t *testing.T) {
	t.Parallel()
	s := newScenario(t, demo)
	watch := s.bridge.Watch(t, 0)
	s.manifests.Write(t, "ratings-warmup.yaml", `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: ratings-warmup, namespace: default}
spec:
  host: ratings.default.svc.cluster.local
  trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 3s, minimumPercent: 20}}}
`)
	s.eventsSoFar(t, watch)
	s.manifests.Write(t, "ratings-endpoints.yaml", `
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: ratings-more, namespace: default, labels: {kubernetes.io/service-name: ratings}}
addressType: IPv4
ports: [{name: http, port: 9080, protocol: TCP}]
endpoints: [{addresses: [127.0.1.21], conditions: {ready: true}}]
`)
	// Shares in percent of that of the endpoint that was there before.
	var shares []int
	watch.Until(t, "the full share of the new endpoint", func(e harness.Event) bool {
		if !strings.Contains(e.Key, "/upstreams/") || !strings.Contains(e.Value, "127.0.1.21") {
			return false
		}
		weights := map[string]int{}
		for _, n := range decode[weightedUpstream](t, e.Value).Nodes {
			weights[n.Host] = n.Weight
		}
		shares = append(shares, weights["127.0.1.21"]*100/weights["127.0.1.20"])
		return shares[len(shares)-1] == 100
	})
	// A step a second: 1/3, 2/3 and all of it, give or take what timers are late.
	if len(shares) < 3 || len(shares) > 5 || shares[0] != 20 {
		t.Errorf("shares %v, want 20 and then two or three steps to 100", shares)
	}
	for i := range shares[1:] {
		if shares[i] >= shares[i+1] {
			t.Errorf("shares %v do not grow", shares)
		}
	}
}

func TestZoneAwareRequestsStayInTheZone(t *testing.T) {
	t.Parallel()
	s := newScenario(t, demo, `--node-metadata={"LABELS":{"topology.istio.io/locality":"east/a"}}`)
	watch := s.bridge.Watch(t, 0)
	s.manifests.Write(t, "zones.yaml", `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: zones, namespace: default}
spec:
  hosts: [zones.example]
  ports: [{number: 9080, name: http, protocol: HTTP}]
  resolution: STATIC
  endpoints:
  - {address: 127.0.4.1, locality: east/a}
  - {address: 127.0.4.2, locality: east/b}
  - {address: 127.0.4.3, locality: west/c}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: zones, namespace: default}
spec:
  host: zones.example
  trafficPolicy: {loadBalancer: {zoneAwareLbSetting: {enabled: true, minClusterSize: 2}}}
`)
	s.eventsSoFar(t, watch)
	got := map[string]int{}
	for _, object := range s.bridge.MustRange(t).Upstreams() {
		if u := decode[weightedUpstream](t, object.Value); strings.HasSuffix(u.Name, "||zones.example") {
			for _, n := range u.Nodes {
				got[n.Host] = n.Priority
			}
		}
	}
	want := map[string]int{"127.0.4.1": 0, "127.0.4.2": -1, "127.0.4.3": -2}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("priorities: first the own zone, then the region, then the rest (-want +got):\n%s", diff)
	}
}
