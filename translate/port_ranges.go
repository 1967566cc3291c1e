package translate

import (
	"cmp"
	"math"
	"slices"

	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
)

// portRanges returns the destination ports for which a predicate holds, sorted, without overlaps; ok is
// false for a predicate that is about something else, which no version of Envoy has.
func portRanges(p *listenerpb.ListenerFilterChainMatchPredicate) (ranges []PortRange, ok bool) {
	if p == nil {
		return nil, true
	}
	switch rule := p.GetRule().(type) {
	case *listenerpb.ListenerFilterChainMatchPredicate_AnyMatch:
		if rule.AnyMatch {
			return []PortRange{{0, math.MaxUint16}}, true
		}
		return nil, true
	case *listenerpb.ListenerFilterChainMatchPredicate_DestinationPortRange:
		start, end := max(rule.DestinationPortRange.GetStart(), 0), min(rule.DestinationPortRange.GetEnd(), math.MaxUint16+1)
		if start >= end {
			return nil, true
		}
		return []PortRange{{uint16(start), uint16(end - 1)}}, true
	case *listenerpb.ListenerFilterChainMatchPredicate_NotMatch:
		ranges, ok = portRanges(rule.NotMatch)
		return complement(ranges), ok
	case *listenerpb.ListenerFilterChainMatchPredicate_OrMatch:
		for _, r := range rule.OrMatch.GetRules() {
			more, ok := portRanges(r)
			if !ok {
				return nil, false
			}
			ranges = append(ranges, more...)
		}
		return merged(ranges), true
	case *listenerpb.ListenerFilterChainMatchPredicate_AndMatch:
		for _, r := range rule.AndMatch.GetRules() { // all, unless one does not
			more, ok := portRanges(r)
			if !ok {
				return nil, false
			}
			ranges = append(ranges, complement(more)...)
		}
		return complement(merged(ranges)), true
	}
	return nil, false
}

// merged sorts ranges and joins those that touch.
func merged(ranges []PortRange) []PortRange {
	slices.SortFunc(ranges, func(a, b PortRange) int { return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last)) })
	var out []PortRange
	for _, r := range ranges {
		if n := len(out); n > 0 && int(r.First) <= int(out[n-1].Last)+1 {
			out[n-1].Last = max(out[n-1].Last, r.Last)
			continue
		}
		out = append(out, r)
	}
	return out
}

// complement returns the ports that are in none of the ranges, which are merged.
func complement(ranges []PortRange) []PortRange {
	var out []PortRange
	next := 0
	for _, r := range ranges {
		if next < int(r.First) {
			out = append(out, PortRange{uint16(next), r.First - 1})
		}
		next = int(r.Last) + 1
	}
	if next <= math.MaxUint16 {
		out = append(out, PortRange{uint16(next), math.MaxUint16})
	}
	return out
}
