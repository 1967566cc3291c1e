package translate

import (
	"cmp"
	"math"
	"slices"

	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"meshbridge/translate/apisix"
)

// weighting says how endpoints share the traffic of their priority.
type weighting struct {
	// byLocality gives localities traffic by their own weights, and endpoints a share of that.
	byLocality bool
	// byZone is the part of the traffic of the first priority that each locality gets; nil where
	// that does not depend on localities.
	byZone map[Locality]float64
	// limit is the largest weight of a node.
	limit uint64
}

// nodesOf renders endpoints as nodes, sorted by address. It never returns nil.
func nodesOf(endpoints []endpoint, w weighting) []apisix.Node {
	type sharedNode struct {
		apisix.Node
		share float64
	}
	endpoints = withoutIdleLevels(endpoints)
	shares := w.shares(endpoints)
	nodes := make([]sharedNode, len(endpoints))
	for i, e := range endpoints {
		nodes[i] = sharedNode{apisix.Node{Host: e.host, Port: e.port, Priority: -int(min(e.priority, math.MaxInt32))}, shares[i]}
	}
	slices.SortFunc(nodes, func(a, b sharedNode) int {
		return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.Port, b.Port), cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.share, b.share))
	})
	levels := map[int]*level{}
	merged := nodes[:0]
	for _, n := range nodes {
		if last := len(merged) - 1; last >= 0 && merged[last].Host == n.Host && merged[last].Port == n.Port {
			// An address cannot be in two levels; the better one counts.
			if merged[last].Priority == n.Priority {
				merged[last].share += n.share
			}
			continue
		}
		merged = append(merged, n)
	}
	for _, n := range merged {
		if levels[n.Priority] == nil {
			levels[n.Priority] = &level{whole: true}
		}
		levels[n.Priority].add(n.share)
	}
	out := make([]apisix.Node, len(merged))
	for i, n := range merged {
		out[i] = n.Node
		out[i].Weight = levels[n.Priority].weight(n.share, float64(w.limit))
	}
	return out
}

// withoutIdleLevels leaves out the endpoints of priorities in which all are draining, if there are
// others: APISIX gives traffic to nodes of weight 0 where a level has nothing else.
func withoutIdleLevels(endpoints []endpoint) []endpoint {
	live := map[uint32]bool{}
	for _, e := range endpoints {
		if !e.draining {
			live[e.priority] = true
		}
	}
	if len(live) == 0 {
		return endpoints
	}
	return slices.DeleteFunc(slices.Clone(endpoints), func(e endpoint) bool { return !live[e.priority] })
}

// shares returns the traffic that each endpoint gets in proportion to others of its priority. A
// draining endpoint gets none. The weights of a locality's endpoints divide the locality's weight;
// they do not replace it.
func (w weighting) shares(endpoints []endpoint) []float64 {
	total := map[*endpointpb.LocalityLbEndpoints]float64{}
	zones := map[Locality]float64{}
	for _, e := range endpoints {
		if !e.draining {
			total[e.locality] += e.effective()
			if w.byZone != nil && e.priority == 0 {
				zones[localityOf(e.locality.GetLocality())] += e.effective()
			}
		}
	}
	shares := make([]float64, len(endpoints))
	for i, e := range endpoints {
		switch {
		case e.draining:
		case w.byZone != nil && e.priority == 0:
			zone := localityOf(e.locality.GetLocality())
			shares[i] = w.byZone[zone] * e.effective() / zones[zone]
		case w.byLocality && e.locality != nil:
			// Envoy sends nothing to a locality without weight.
			shares[i] = float64(e.locality.GetLoadBalancingWeight().GetValue()) * e.effective() / total[e.locality]
		default:
			shares[i] = e.effective()
		}
	}
	return shares
}

// level sums up the shares of the nodes of one priority.
type level struct {
	largest, divisor float64
	whole            bool // all shares are whole numbers
}

func (l *level) add(share float64) {
	l.largest = max(l.largest, share)
	l.divisor = gcd(l.divisor, share)
	l.whole = l.whole && share == math.Trunc(share)
}

// weight makes a weight of a share: as it is where that is possible for all, otherwise so that the
// largest is the limit. Whoever has a share gets a weight.
func (l *level) weight(share, limit float64) int {
	switch {
	case share == 0:
		return 0
	case l.whole && l.largest <= limit:
		return int(share)
	case l.whole && l.largest/l.divisor <= limit:
		return int(share / l.divisor)
	}
	return max(int(math.Round(share*limit/l.largest)), 1)
}

// gcd is of whole numbers; zero is the neutral element.
func gcd(a, b float64) float64 {
	for b >= 1 {
		a, b = b, math.Mod(a, b)
	}
	return a
}
