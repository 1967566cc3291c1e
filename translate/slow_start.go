package translate

import (
	"math"
	"slices"
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	least_requestpb "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	randompb "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/random/v3"
	round_robinpb "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/round_robin/v3"
	typepb "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// SlowStart says how the weights of a cluster's new endpoints grow (slow_start_config), and what its
// endpoints are.
type SlowStart struct {
	Cluster string
	// Window is how long an endpoint is new. Zero means that the cluster has no slow start any more.
	Window time.Duration
	// Aggression bends the growth; 1 is linear, and more is faster at first.
	Aggression float64
	// Least is the part of its weight that an endpoint has at least.
	Least float64
	// Endpoints are the keys of Inputs.Ramps, sorted.
	Endpoints []string
}

// Factor returns the part of its weight, in [0, 1], that an endpoint has at an age:
// max(Least, (age/Window)^(1/Aggression)), and 1 after the Window.
func (s SlowStart) Factor(age time.Duration) float64 {
	if age >= s.Window {
		return 1
	}
	passed := max(float64(age), 0) / float64(s.Window)
	return max(s.Least, math.Pow(passed, 1/s.Aggression))
}

// leastShare keeps the weight of new endpoints above zero, which would mean that they are draining.
const leastShare = 0.001

// slowStartConfig is the message of either form.
type slowStartConfig interface {
	GetSlowStartWindow() *durationpb.Duration
	GetAggression() *corepb.RuntimeDouble
	GetMinWeightPercent() *typepb.Percent
}

// slowStartOf returns the settings without endpoints; the window is zero where there are none.
func slowStartOf(c *clusterpb.Cluster) SlowStart {
	config := slowStartConfigOf(c)
	if config == nil || positive(config.GetSlowStartWindow()) == 0 {
		return SlowStart{Cluster: c.GetName()}
	}
	s := SlowStart{Cluster: c.GetName(), Window: positive(config.GetSlowStartWindow()), Aggression: 1, Least: 0.1}
	if a := config.GetAggression(); a != nil {
		s.Aggression = max(a.GetDefaultValue(), math.SmallestNonzeroFloat64)
	}
	if p := config.GetMinWeightPercent(); p != nil {
		s.Least = min(max(p.GetValue()/100, leastShare), 1)
	}
	return s
}

// slowStartConfigOf returns nil where there is none, or where the policy has none.
func slowStartConfigOf(c *clusterpb.Cluster) slowStartConfig {
	switch m := typedBalancing(c).(type) {
	case *round_robinpb.RoundRobin:
		if m.GetSlowStartConfig() != nil {
			return m.GetSlowStartConfig()
		}
	case *least_requestpb.LeastRequest:
		if m.GetSlowStartConfig() != nil {
			return m.GetSlowStartConfig()
		}
	}
	if len(c.GetLoadBalancingPolicy().GetPolicies()) > 0 {
		return nil // it takes the place of what follows
	}
	if config := c.GetRoundRobinLbConfig().GetSlowStartConfig(); config != nil {
		return config
	}
	if config := c.GetLeastRequestLbConfig().GetSlowStartConfig(); config != nil {
		return config
	}
	return nil
}

// typedBalancing returns the configuration of the policy that is used, if it is one with settings
// that have a counterpart.
func typedBalancing(c *clusterpb.Cluster) proto.Message {
	for _, p := range c.GetLoadBalancingPolicy().GetPolicies() {
		e := p.GetTypedExtensionConfig()
		var m proto.Message
		switch balancingByName(e.GetName()) {
		case otherBalancing:
			continue // Envoy takes the first that it knows
		case roundRobin:
			m = &round_robinpb.RoundRobin{}
			if random := (&randompb.Random{}); e.GetTypedConfig().MessageIs(random) {
				m = random
			}
		case leastRequest:
			m = &least_requestpb.LeastRequest{}
		case consistentHash:
			return nil
		}
		if !e.GetTypedConfig().MessageIs(m) || e.GetTypedConfig().UnmarshalTo(m) != nil {
			return nil
		}
		return m
	}
	return nil
}

// ramp holds back part of the weight of endpoints that are new.
func (cx *clusterContext) ramp(endpoints []endpoint) {
	factors, ramped := cx.inputs.Ramps[cx.name]
	if !ramped {
		return
	}
	slow := slowStartOf(cx.cluster)
	if slow.Window == 0 {
		return
	}
	for i, e := range endpoints {
		factor, known := factors[e.address()]
		if !known {
			factor = slow.Factor(0)
		}
		endpoints[i].heldBack = 1 - factor
	}
}

// slowStart returns the settings with the endpoints; nil where there is no slow start.
func (cx *clusterContext) slowStart() *SlowStart {
	if cx.cluster == nil {
		return nil
	}
	slow := slowStartOf(cx.cluster)
	if slow.Window == 0 {
		return nil
	}
	for _, e := range cx.endpoints(nil) {
		slow.Endpoints = append(slow.Endpoints, e.address())
	}
	slices.Sort(slow.Endpoints)
	slow.Endpoints = slices.Compact(slow.Endpoints)
	return &slow
}

// address identifies an endpoint within its cluster.
func (e *endpoint) address() string {
	if e.path != "" {
		return e.path
	}
	return endpointAddress(e.host, e.port)
}

// ramps marks the clusters whose new endpoints have other weights.
func (p *step) ramps(old, in Inputs) {
	if sameMap(old.Ramps, in.Ramps) {
		return
	}
	for _, maps := range [][2]map[string]map[string]float64{{old.Ramps, in.Ramps}, {in.Ramps, old.Ramps}} {
		for cluster, factors := range maps[0] {
			if other, both := maps[1][cluster]; (!both || !sameMap(factors, other)) && p.state.clusters[cluster] != nil {
				p.clusters[cluster] = true
			}
		}
	}
}

// noteSlowStart puts in the result what the cluster's slow start is now, or that it has none any more.
func (p *step) noteSlowStart(u *clusterUnit, now *SlowStart) {
	if now != nil {
		p.slowStarts = append(p.slowStarts, *now)
	} else if u.slowStart {
		p.slowStarts = append(p.slowStarts, SlowStart{Cluster: u.name})
	}
	u.slowStart = now != nil
}
