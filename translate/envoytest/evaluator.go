package envoytest

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tcp_proxypb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"

	"meshbridge/xds"
)

// Evaluator tells what Envoy does with requests. It is safe for concurrent use.
type Evaluator struct {
	listeners []*listener // in the order of their names
	routes    map[string]*routeConfig
	// clusters tells of each cluster whether it balances by hash.
	clusters map[string]bool
	// regexes caches compiled expressions, by text; nil for those that do not compile.
	regexes sync.Map
}

// New returns an evaluator of a snapshot. It fails for resources that do not decode.
func New(snap *xds.Snapshot) (*Evaluator, error) {
	e := &Evaluator{routes: map[string]*routeConfig{}, clusters: map[string]bool{}}
	for r := range snap.All(xds.ListenerType) {
		m, err := xds.Decode[*listenerpb.Listener](r)
		if err != nil {
			return nil, fmt.Errorf("listener %q: %w", r.Name, err)
		}
		if m.GetApiListener() != nil || m.GetUdpListenerConfig() != nil {
			continue // neither takes connections
		}
		l, err := newListener(m)
		if err != nil {
			return nil, fmt.Errorf("listener %q: %w", r.Name, err)
		}
		e.listeners = append(e.listeners, l)
	}
	for r := range snap.All(xds.RouteType) {
		m, err := xds.Decode[*routepb.RouteConfiguration](r)
		if err != nil {
			return nil, fmt.Errorf("route configuration %q: %w", r.Name, err)
		}
		e.routes[r.Name] = newRouteConfig(m)
	}
	for r := range snap.All(xds.ClusterType) {
		m, err := xds.Decode[*clusterpb.Cluster](r)
		if err != nil {
			return nil, fmt.Errorf("cluster %q: %w", r.Name, err)
		}
		e.clusters[r.Name] = m.GetLbPolicy() == clusterpb.Cluster_RING_HASH || m.GetLbPolicy() == clusterpb.Cluster_MAGLEV ||
			slices.ContainsFunc(m.GetLoadBalancingPolicy().GetPolicies(), func(p *clusterpb.LoadBalancingPolicy_Policy) bool {
				name := messageName(p.GetTypedExtensionConfig().GetTypedConfig())
				return strings.HasSuffix(name, ".RingHash") || strings.HasSuffix(name, ".Maglev")
			})
	}
	return e, nil
}

// Evaluate tells what happens to a request.
func (e *Evaluator) Evaluate(r Request) Decision {
	d := Decision{RouteIndex: -1}
	l := e.listenerFor(r.Connection)
	if l == nil {
		d.answer(Closed, 0)
		return d
	}
	d.Listener = l.name
	chain, why := l.chainFor(inspect(l, r.Connection))
	if chain == nil {
		d.answer(Closed, 0)
		if why != "" {
			d.answer(Unknown, 0)
			d.note(why)
		}
		return d
	}
	d.FilterChain = chain.name
	if !chain.accepts(r.Connection) {
		d.answer(Closed, 0)
		return d
	}
	switch {
	case chain.manager != nil:
		e.serve(&d, chain, r)
	case chain.tcp != nil:
		d.Outcome, d.Cluster = TCP, chain.tcp.GetCluster()
		d.Weights = tcpWeights(chain.tcp)
		if len(d.Weights) > 0 {
			d.Cluster = draw(d.Weights, r.Draws.Cluster)
		}
	default:
		d.answer(Unknown, 0)
		d.note("the filter chain ends in neither HTTP nor TCP")
	}
	return d
}

func tcpWeights(proxy *tcp_proxypb.TcpProxy) []Weight {
	var out []Weight
	for _, w := range proxy.GetWeightedClusters().GetClusters() {
		out = append(out, Weight{w.GetName(), w.GetWeight()})
	}
	return out
}

// draw picks a cluster by weight. Envoy multiplies nothing: it takes a random number modulo the sum
// and walks along the list until the sum of the weights is greater.
func draw(weights []Weight, fraction float64) string {
	var total uint64
	for _, w := range weights {
		total += uint64(w.Weight)
	}
	selected := fraction * float64(total)
	var end uint64
	for _, w := range weights {
		end += uint64(w.Weight)
		if selected < float64(end) {
			return w.Cluster
		}
	}
	return ""
}

// regex compiles an expression that must match as a whole. Envoy's engine is RE2, as is Go's.
func (e *Evaluator) regex(expression string) *regexp.Regexp {
	return e.compiled(`\A(?:` + expression + `)\z`)
}

func (e *Evaluator) compiled(expression string) *regexp.Regexp {
	if re, ok := e.regexes.Load(expression); ok {
		re, _ := re.(*regexp.Regexp)
		return re
	}
	re, err := regexp.Compile(expression)
	if err != nil {
		re = nil // Envoy rejects such a configuration
	}
	e.regexes.Store(expression, re)
	return re
}

func (e *Evaluator) fullMatch(expression, s string) bool {
	re := e.regex(expression)
	return re != nil && re.MatchString(s)
}

func socketAddress(a *corepb.Address) (netip.AddrPort, bool) {
	s := a.GetSocketAddress()
	addr, err := netip.ParseAddr(s.GetAddress())
	if s == nil || err != nil {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(s.GetPortValue())), true
}
