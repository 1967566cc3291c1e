package translate

import (
	"strings"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"meshbridge/translate/apisix"
)

// Upstream types. Every upstream has one: APISIX accepts any other string and then answers 500.
const (
	typeRoundRobin = "roundrobin"
	typeLeastConn  = "least_conn"
	typeHash       = "chash"
)

// balancing is a load balancing policy as far as APISIX has a counterpart.
type balancing int

const (
	roundRobin balancing = iota
	leastRequest
	consistentHash
	otherBalancing
)

// balancingOf returns the policy of a cluster. Random choice is round robin: the distribution is the
// same.
func balancingOf(c *clusterpb.Cluster) balancing {
	if policies := c.GetLoadBalancingPolicy().GetPolicies(); len(policies) > 0 {
		for _, p := range policies { // Envoy takes the first that it knows
			if b := balancingByName(p.GetTypedExtensionConfig().GetName()); b != otherBalancing {
				return b
			}
		}
		return otherBalancing
	}
	switch c.GetLbPolicy() {
	case clusterpb.Cluster_LEAST_REQUEST:
		return leastRequest
	case clusterpb.Cluster_RING_HASH, clusterpb.Cluster_MAGLEV:
		return consistentHash
	case clusterpb.Cluster_ROUND_ROBIN, clusterpb.Cluster_RANDOM, clusterpb.Cluster_CLUSTER_PROVIDED:
		return roundRobin
	case clusterpb.Cluster_LOAD_BALANCING_POLICY_CONFIG:
	}
	return otherBalancing
}

func balancingByName(name string) balancing {
	switch strings.TrimPrefix(name, "envoy.load_balancing_policies.") {
	case "round_robin", "random", "wrr_locality", "client_side_weighted_round_robin", "cluster_provided":
		return roundRobin
	case "least_request":
		return leastRequest
	case "ring_hash", "maglev":
		return consistentHash
	}
	return otherBalancing
}

// setBalancing chooses the type of an upstream. Without a key, there is nothing to hash.
func setBalancing(u *apisix.Upstream, b balancing, hash string) {
	switch on, key, _ := strings.Cut(hash, ":"); {
	case hash == "" && b == leastRequest:
		u.Type = typeLeastConn
	case hash == "":
		u.Type = typeRoundRobin
	case on == hashCombination:
		u.Type, u.HashOn, u.Key = typeHash, "vars_combinations", key
	default:
		u.Type, u.HashOn, u.Key = typeHash, on, key
	}
}

// weightLimit keeps the ring of consistent hashing small: it has 160 points for each unit of weight.
func weightLimit(upstreamType string) uint64 {
	if upstreamType == typeHash {
		return 10
	}
	return 100
}

// weighsLocalities tells whether localities get traffic by their own weight. Otherwise only the
// endpoints' weights count.
func weighsLocalities(c *clusterpb.Cluster) bool {
	if c.GetCommonLbConfig().GetLocalityWeightedLbConfig() != nil || localityConfig(c).GetLocalityWeightedLbConfig() != nil {
		return true
	}
	for _, p := range c.GetLoadBalancingPolicy().GetPolicies() {
		if p.GetTypedExtensionConfig().GetName() == "envoy.load_balancing_policies.wrr_locality" {
			return true
		}
	}
	return false
}

func reportBalancing(c *clusterpb.Cluster, report reporter) {
	if balancingOf(c) == otherBalancing {
		name := c.GetLbPolicy().String()
		if policies := c.GetLoadBalancingPolicy().GetPolicies(); len(policies) > 0 {
			name = policies[0].GetTypedExtensionConfig().GetName()
		}
		report(codeLoadBalancing, "load_balancing_policy", name)
	}
	if config := c.GetCommonLbConfig(); config != nil {
		reportUnknown(config, report, "common_lb_config.")
	}
	if config := c.GetLeastRequestLbConfig(); config != nil {
		reportUnknown(config, report, "least_request_lb_config.")
	}
	if config := c.GetRoundRobinLbConfig(); config != nil {
		reportUnknown(config, report, "round_robin_lb_config.")
	}
	if typed := typedBalancing(c); typed != nil {
		reportUnknown(typed, report, "load_balancing_policy.")
	}
	if slow := slowStartOf(c); slow.Window > 0 {
		report(codeSlowStart, "slow_start_config", slow.Window)
	}
}
