package translate

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"pgregory.net/rapid"

	"meshbridge/translate/apisix"
)

func clusterContextOf(c *clusterpb.Cluster, load *endpointpb.ClusterLoadAssignment) *clusterContext {
	return &clusterContext{options: &Options{Profile: Mesh()}, inputs: &Inputs{}, name: c.GetName(), cluster: c, load: load}
}

func edsCluster(name string) *clusterpb.Cluster {
	return &clusterpb.Cluster{Name: name, ClusterDiscoveryType: &clusterpb.Cluster_Type{Type: clusterpb.Cluster_EDS}}
}

// apisix-mesh-agent counted whole seconds, so that a connect timeout of 250 ms became 0, which APISIX
// refuses.
func TestSubsecondConnectTimeoutIsNotZero(t *testing.T) {
	c := edsCluster("a")
	for want, d := range map[float64]time.Duration{0.25: 250 * time.Millisecond, 0.001: time.Microsecond, 10: 10 * time.Second} {
		c.ConnectTimeout = durationpb.New(d)
		if got := compileUpstream(clusterContextOf(c, nil), variant{}).Timeout.Connect; got != want {
			t.Errorf("%v became %v s, want %v", d, got, want)
		}
		if got := factsOf(c).connectTimeout; got != want {
			t.Errorf("routes see %v s for %v, want %v", got, d, want)
		}
	}
}

// Amesh replaced the weight of a locality by that of its endpoints, which undid locality
// distribution; and it had draining and unhealthy endpoints take their share.
func TestEndpointWeightsDivideTheirLocalitys(t *testing.T) {
	c := edsCluster("a")
	load := loadOf("a", 2)
	load.Endpoints = append(load.GetEndpoints(), loadOf("a", 4).GetEndpoints()...)
	for i, weight := range []uint32{80, 20} {
		locality := load.GetEndpoints()[i]
		locality.LoadBalancingWeight = wrapperspb.UInt32(weight)
		for j, e := range locality.GetLbEndpoints() {
			e.LoadBalancingWeight = wrapperspb.UInt32(1000)
			e.GetEndpoint().GetAddress().GetSocketAddress().Address = fmt.Sprintf("10.0.%d.%d", i, j)
		}
	}
	load.GetEndpoints()[1].GetLbEndpoints()[2].HealthStatus = corepb.HealthStatus_DRAINING
	load.GetEndpoints()[1].GetLbEndpoints()[3].HealthStatus = corepb.HealthStatus_UNHEALTHY
	c.CommonLbConfig = &clusterpb.Cluster_CommonLbConfig{
		LocalityConfigSpecifier: &clusterpb.Cluster_CommonLbConfig_LocalityWeightedLbConfig_{
			LocalityWeightedLbConfig: &clusterpb.Cluster_CommonLbConfig_LocalityWeightedLbConfig{},
		},
	}
	var got []string
	for _, n := range compileUpstream(clusterContextOf(c, load), variant{}).Nodes {
		got = append(got, fmt.Sprintf("%s %d", n.Host, n.Weight))
	}
	want := []string{"10.0.0.0 40", "10.0.0.1 40", "10.0.1.0 10", "10.0.1.1 10", "10.0.1.2 0"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Amesh left out the type for policies that it did not know, and APISIX takes roundrobin then; a
// wrong one answers every request with 500.
func TestEveryPolicyHasAnUpstreamType(t *testing.T) {
	for number, name := range clusterpb.Cluster_LbPolicy_name {
		c := edsCluster("a")
		c.LbPolicy = clusterpb.Cluster_LbPolicy(number)
		for _, hash := range []string{"", "header:x-user", "vars:arg_q", "combination:${http_a}"} {
			u := compileUpstream(clusterContextOf(c, nil), variant{hash: hash})
			if u.Type != typeRoundRobin && u.Type != typeLeastConn && u.Type != typeHash {
				t.Errorf("%s with %q: type %q", name, hash, u.Type)
			}
			if (u.Type == typeHash) != (u.Key != "") {
				t.Errorf("%s with %q: type %s and key %q", name, hash, u.Type, u.Key)
			}
			checkUpstream(t, u)
		}
	}
}

// apisix-mesh-agent had routes refer to an upstream for PassthroughCluster that it never wrote, which
// answers 502.
func TestUpstreamsWithoutEndpointsExist(t *testing.T) {
	passthrough := edsCluster("PassthroughCluster")
	passthrough.ClusterDiscoveryType = &clusterpb.Cluster_Type{Type: clusterpb.Cluster_ORIGINAL_DST}
	for name, c := range map[string]*clusterpb.Cluster{"unknown": nil, "passthrough": passthrough, "waiting for EDS": edsCluster("a")} {
		u := compileUpstream(clusterContextOf(c, nil), variant{grpc: true, retries: 3})
		if u.Nodes == nil || len(u.Nodes) > 0 {
			t.Errorf("%s: nodes are %v, want an empty list", name, u.Nodes)
		}
		checkUpstream(t, u)
	}
	if got, want := factsOf(nil), (clusterFacts{}); got != want {
		t.Errorf("facts of a cluster that is not there: %+v", got)
	}
}

// Whatever the endpoints, APISIX gets a list that it accepts, in one order, in which everybody has a
// fair share.
func TestNodesShareTrafficLikeEndpoints(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		localities := make([]*endpointpb.LocalityLbEndpoints, 3)
		for i := range localities {
			localities[i] = &endpointpb.LocalityLbEndpoints{
				Priority:            uint32(rapid.IntRange(0, 1).Draw(t, "priority")),
				LoadBalancingWeight: wrapperspb.UInt32(rapid.Uint32Range(1, 100).Draw(t, "locality weight")),
			}
		}
		var endpoints []endpoint
		for i := range rapid.IntRange(0, 8).Draw(t, "endpoints") {
			l := rapid.SampledFrom(localities).Draw(t, "locality")
			endpoints = append(endpoints, endpoint{
				host: fmt.Sprintf("10.0.0.%d", i), port: 80, locality: l, priority: l.GetPriority(),
				weight:   rapid.Uint32Range(1, 5000).Draw(t, "weight"),
				draining: rapid.Bool().Draw(t, "draining"),
			})
		}
		w := weighting{byLocality: rapid.Bool().Draw(t, "by locality"), limit: rapid.SampledFrom([]uint64{10, 100}).Draw(t, "limit")}
		nodes := nodesOf(endpoints, w)

		shuffled := slices.Clone(endpoints)
		slices.Reverse(shuffled)
		if !slices.Equal(nodes, nodesOf(shuffled, w)) {
			t.Error("the order of endpoints makes a difference")
		}
		if nodes == nil {
			t.Error("nodes must not be nil")
		}
		if !slices.IsSortedFunc(nodes, func(a, b apisix.Node) int { return cmp.Compare(a.Host, b.Host) }) {
			t.Errorf("%v is not sorted", nodes)
		}
		kept := withoutIdleLevels(endpoints)
		shares := w.shares(kept)
		for i, e := range kept {
			n := nodes[slices.IndexFunc(nodes, func(n apisix.Node) bool { return n.Host == e.host })]
			if n.Priority != -int(e.priority) {
				t.Errorf("%s has priority %d, want %d", n.Host, n.Priority, -int(e.priority))
			}
			if (n.Weight == 0) != e.draining || n.Weight > int(w.limit) {
				t.Errorf("%s has weight %d of at most %d; draining: %t", n.Host, n.Weight, w.limit, e.draining)
			}
			for j, other := range kept {
				o := nodes[slices.IndexFunc(nodes, func(n apisix.Node) bool { return n.Host == other.host })]
				// A weight of 1 may stand for any smaller share.
				if other.priority != e.priority || shares[j] == 0 || shares[i] < shares[j] || o.Weight == 1 {
					continue
				}
				want := shares[i] / shares[j]
				low, high := (float64(n.Weight)-0.5)/(float64(o.Weight)+0.5), (float64(n.Weight)+0.5)/(float64(o.Weight)-0.5)
				if want < low-1e-9 || want > high+1e-9 {
					t.Errorf("%s and %s have weights %d and %d, want %v times as much", n.Host, o.Host, n.Weight, o.Weight, want)
				}
			}
		}
	})
}

func BenchmarkCompileUpstream(b *testing.B) {
	c := edsCluster("outbound|80||a.default.svc.cluster.local")
	cx := clusterContextOf(c, loadOf("a", 10))
	b.ReportAllocs()
	for b.Loop() {
		compileUpstream(cx, variant{retries: 2})
	}
}
