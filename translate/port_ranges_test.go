package translate

import (
	"fmt"
	"math/rand/v2"
	"testing"

	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	typepb "github.com/envoyproxy/go-control-plane/envoy/type/v3"
)

// The ranges hold the ports for which the predicate holds, and no others.
func TestPredicatesOnPortsAreFlattened(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 1))
	for range 300 {
		p := randomPredicate(rng, 3)
		ranges, ok := portRanges(p)
		if !ok {
			t.Fatalf("%v is not flattened", p)
		}
		for i := 1; i < len(ranges); i++ {
			if int(ranges[i].First) <= int(ranges[i-1].Last)+1 {
				t.Fatalf("%v: %v touch", p, ranges)
			}
		}
		for _, port := range []int32{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 100, 65533, 65534, 65535} {
			in := false
			for _, r := range ranges {
				in = in || int32(r.First) <= port && port <= int32(r.Last)
			}
			if in != predicateHolds(p, port) {
				t.Fatalf("%v: port %d, %v", p, port, ranges)
			}
		}
	}
	if ranges, ok := portRanges(nil); ranges != nil || !ok {
		t.Error(ranges, ok)
	}
	if _, ok := portRanges(&listenerpb.ListenerFilterChainMatchPredicate{}); ok {
		t.Error("what says nothing is flattened")
	}
	all, _ := portRanges(&listenerpb.ListenerFilterChainMatchPredicate{Rule: &listenerpb.ListenerFilterChainMatchPredicate_AnyMatch{AnyMatch: true}})
	if fmt.Sprint(all) != "[{0 65535}]" {
		t.Error(all)
	}
}

func randomPredicate(rng *rand.Rand, depth int) *listenerpb.ListenerFilterChainMatchPredicate {
	set := func() *listenerpb.ListenerFilterChainMatchPredicate_MatchSet {
		s := &listenerpb.ListenerFilterChainMatchPredicate_MatchSet{}
		for range 1 + rng.IntN(3) {
			s.Rules = append(s.Rules, randomPredicate(rng, depth-1))
		}
		return s
	}
	p := &listenerpb.ListenerFilterChainMatchPredicate{}
	kind := rng.IntN(5)
	if depth == 0 {
		kind = 4
	}
	switch kind {
	case 0:
		p.Rule = &listenerpb.ListenerFilterChainMatchPredicate_OrMatch{OrMatch: set()}
	case 1:
		p.Rule = &listenerpb.ListenerFilterChainMatchPredicate_AndMatch{AndMatch: set()}
	case 2:
		p.Rule = &listenerpb.ListenerFilterChainMatchPredicate_NotMatch{NotMatch: randomPredicate(rng, depth-1)}
	case 3:
		p.Rule = &listenerpb.ListenerFilterChainMatchPredicate_AnyMatch{AnyMatch: rng.IntN(2) == 0}
	default:
		start := int32(rng.IntN(9))
		end := start + int32(rng.IntN(4))
		if rng.IntN(4) == 0 {
			start, end = 65530+start, 65536
		}
		p.Rule = &listenerpb.ListenerFilterChainMatchPredicate_DestinationPortRange{DestinationPortRange: &typepb.Int32Range{Start: start, End: end}}
	}
	return p
}

func predicateHolds(p *listenerpb.ListenerFilterChainMatchPredicate, port int32) bool {
	switch r := p.GetRule().(type) {
	case *listenerpb.ListenerFilterChainMatchPredicate_OrMatch:
		for _, one := range r.OrMatch.GetRules() {
			if predicateHolds(one, port) {
				return true
			}
		}
		return false
	case *listenerpb.ListenerFilterChainMatchPredicate_AndMatch:
		for _, one := range r.AndMatch.GetRules() {
			if !predicateHolds(one, port) {
				return false
			}
		}
		return true
	case *listenerpb.ListenerFilterChainMatchPredicate_NotMatch:
		return !predicateHolds(r.NotMatch, port)
	case *listenerpb.ListenerFilterChainMatchPredicate_AnyMatch:
		return r.AnyMatch
	}
	r := p.GetDestinationPortRange()
	return r.GetStart() <= port && port < r.GetEnd()
}
