package envoytest

import (
	"strings"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
)

// routeConfig is a route configuration with its domains in tables, as Envoy has them.
type routeConfig struct {
	config   *routepb.RouteConfiguration
	exact    map[string]*routepb.VirtualHost
	suffixes map[string]*routepb.VirtualHost // without their *
	prefixes map[string]*routepb.VirtualHost
	fallback *routepb.VirtualHost
}

func newRouteConfig(config *routepb.RouteConfiguration) *routeConfig {
	c := &routeConfig{
		config: config, exact: map[string]*routepb.VirtualHost{},
		suffixes: map[string]*routepb.VirtualHost{}, prefixes: map[string]*routepb.VirtualHost{},
	}
	first := func(table map[string]*routepb.VirtualHost, key string, v *routepb.VirtualHost) {
		if table[key] == nil { // Envoy accepts no domain twice
			table[key] = v
		}
	}
	for _, v := range config.GetVirtualHosts() {
		for _, domain := range v.GetDomains() {
			domain = strings.ToLower(domain)
			suffix, isSuffix := strings.CutPrefix(domain, "*")
			prefix, isPrefix := strings.CutSuffix(domain, "*")
			switch {
			case domain == "*":
				c.fallback = v
			case isSuffix:
				first(c.suffixes, suffix, v)
			case isPrefix:
				first(c.prefixes, prefix, v)
			default:
				first(c.exact, domain, v)
			}
		}
	}
	return c
}

// virtualHost returns the virtual host of a Host header, nil without one: an exact domain before the
// longest suffix before the longest prefix before "*". Wildcards stand for at least one character.
func (c *routeConfig) virtualHost(authority string) *routepb.VirtualHost {
	host := strings.ToLower(authority)
	if c.config.GetIgnorePortInHostMatching() {
		host, _, _ = cutPort(host)
	}
	if v := c.exact[host]; v != nil {
		return v
	}
	for i := 1; i <= len(host); i++ {
		if v := c.suffixes[host[i:]]; v != nil {
			return v
		}
	}
	for i := len(host) - 1; i >= 0; i-- {
		if v := c.prefixes[host[:i]]; v != nil {
			return v
		}
	}
	return c.fallback
}

// selectedRoute is a route with what belongs to it.
type selectedRoute struct {
	vhost *routepb.VirtualHost
	// route is nil where the virtual host requires TLS that the request does not have.
	route *routepb.Route
	// weighted is the cluster that was drawn of several.
	weighted *routepb.WeightedCluster_ClusterWeight
}

func (s *Stream) selectRoute() {
	d := s.decision
	v := s.config.virtualHost(s.headers.get(":authority"))
	if v == nil {
		return
	}
	d.VirtualHost = v.GetName()
	if s.headers.get("x-forwarded-proto") != "https" {
		switch v.GetRequireTls() {
		case routepb.VirtualHost_ALL:
			s.route = &selectedRoute{vhost: v}
			return
		case routepb.VirtualHost_EXTERNAL_ONLY:
			d.note("whether the request is internal is not evaluated")
			s.route = &selectedRoute{vhost: v}
			return
		case routepb.VirtualHost_NONE:
		}
	}
	if v.GetMatcher() != nil {
		d.note("a matcher tree selects the route")
		d.answer(Unknown, 0)
		return
	}
	for i, r := range v.GetRoutes() {
		if s.matches(r.GetMatch()) {
			d.Route, d.RouteIndex = r.GetName(), i
			s.route = &selectedRoute{vhost: v, route: r, weighted: s.drawn(r)}
			return
		}
	}
}

// drawn picks one of a route's weighted clusters.
func (s *Stream) drawn(r *routepb.Route) *routepb.WeightedCluster_ClusterWeight {
	clusters := r.GetRoute().GetWeightedClusters().GetClusters()
	var total uint64
	for _, c := range clusters {
		s.decision.Weights = append(s.decision.Weights, Weight{s.weightedName(c), c.GetWeight().GetValue()})
		total += uint64(c.GetWeight().GetValue())
	}
	selected := s.request.Draws.Cluster * float64(total)
	var end uint64
	for _, c := range clusters {
		end += uint64(c.GetWeight().GetValue())
		if selected < float64(end) {
			return c
		}
	}
	return nil
}

func (s *Stream) weightedName(c *routepb.WeightedCluster_ClusterWeight) string {
	if c.GetClusterHeader() != "" {
		return s.headers.get(strings.ToLower(c.GetClusterHeader()))
	}
	return c.GetName()
}
