package extend

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"meshbridge/translate"
	"meshbridge/translate/apisix"
)

// selector names routes in Envoy's and Istio's terms. All fields that are there must hold, and of a list one
// element. Without any, every route is selected.
type selector struct {
	// Hosts are domains of virtual hosts: exact, "*.suffix" for all names below it, or "*".
	Hosts []string `json:"hosts,omitempty"`
	// Paths narrow routes to requests: exact, or with a final "*" for prefixes.
	Paths []string `json:"paths,omitempty"`
	// Routes are names of routes, as VirtualServices give them.
	Routes []string `json:"routes,omitempty"`
	// VirtualServices are "namespace/name".
	VirtualServices []string        `json:"virtualServices,omitempty"`
	Chains          []chainSelector `json:"chains,omitempty"`
	// Clusters are Envoy's names, such as "outbound|80||reviews.default.svc.cluster.local"; "*" is any text.
	Clusters []string `json:"clusters,omitempty"`
	// Labels are those that the objects have in APISIX.
	Labels map[string]string `json:"labels,omitempty"`
}

// chainSelector names filter chains.
type chainSelector struct {
	Direction          string `json:"direction,omitempty"`
	Port               int    `json:"port,omitempty"`
	Listener           string `json:"listener,omitempty"`
	RouteConfiguration string `json:"routeConfiguration,omitempty"`
}

func (s *selector) check(kind string) error {
	if s == nil {
		return nil
	}
	var errs []error
	if kind == kindStreamPlugins && (s.Hosts != nil || s.Paths != nil || s.Routes != nil || s.VirtualServices != nil || s.Chains != nil || s.Labels != nil) {
		errs = append(errs, errors.New("selector: stream_routes are selected by clusters alone"))
	}
	for _, list := range []struct {
		name   string
		values []string
	}{{"hosts", s.Hosts}, {"paths", s.Paths}, {"routes", s.Routes}, {"virtualServices", s.VirtualServices}, {"clusters", s.Clusters}} {
		// An empty list would select nothing, or be taken for none.
		if list.values != nil && len(list.values) == 0 || slices.Contains(list.values, "") {
			errs = append(errs, fmt.Errorf("selector.%s is empty, or has an empty element", list.name))
		}
	}
	for _, host := range s.Hosts {
		if strings.Contains(strings.TrimPrefix(host, "*"), "*") || strings.ContainsAny(host, "/ ") {
			errs = append(errs, fmt.Errorf("selector.hosts: %q is no host, *.suffix or *", host))
		}
	}
	for _, path := range s.Paths {
		if !strings.HasPrefix(path, "/") || strings.Contains(strings.TrimSuffix(path, "*"), "*") {
			errs = append(errs, fmt.Errorf("selector.paths: %q does not begin with /, or has a * that is not its end", path))
		}
	}
	for _, v := range s.VirtualServices {
		if strings.Count(v, "/") != 1 {
			errs = append(errs, fmt.Errorf("selector.virtualServices: %q is not namespace/name", v))
		}
	}
	if s.Chains != nil && len(s.Chains) == 0 {
		errs = append(errs, errors.New("selector.chains is empty"))
	}
	for i, c := range s.Chains {
		switch translate.Direction(c.Direction) {
		case "", translate.Outbound, translate.Inbound, translate.Edge:
		default:
			errs = append(errs, fmt.Errorf("selector.chains[%d].direction: %q is none of outbound, inbound, gateway", i, c.Direction))
		}
		if c == (chainSelector{}) {
			errs = append(errs, fmt.Errorf("selector.chains[%d] is empty", i))
		}
	}
	return errors.Join(errs...)
}

// hostSelection is how a selector's hosts select a virtual host.
type hostSelection struct {
	// conditions narrow it to requests, of which one must hold; none is all.
	conditions []apisix.Cond
	// fallback tells that the virtual host takes whatever hosts no other one has.
	fallback bool
}

// virtualHost tells whether requests to a virtual host may be selected.
func (s *selector) virtualHost(c *translate.Chain, v *routepb.VirtualHost) (hosts hostSelection, selected bool) {
	if s == nil {
		return hosts, true
	}
	if s.Chains != nil && !slices.ContainsFunc(s.Chains, func(o chainSelector) bool { return o.matches(c) }) {
		return hosts, false
	}
	if s.Hosts == nil {
		return hosts, true
	}
	for _, domain := range v.GetDomains() {
		domain = canonicalDomain(domain)
		for _, want := range s.Hosts {
			want = strings.ToLower(want)
			switch {
			case covers(want, domain):
				return hostSelection{}, true
			case covers(domain, want):
				hosts.conditions = append(hosts.conditions, hostIs(want))
				hosts.fallback = hosts.fallback || domain == "*"
			}
		}
	}
	return hosts, len(hosts.conditions) > 0
}

// canonicalDomain is a domain as APISIX sees it: without a port, in lower case.
func canonicalDomain(domain string) string {
	if i := strings.LastIndexByte(domain, ':'); i > strings.LastIndexByte(domain, ']') {
		domain = domain[:i]
	}
	return strings.ToLower(domain)
}

// covers tells whether a pattern, with a * at its beginning or end, has all names of another one.
func covers(pattern, other string) bool {
	if suffix, ok := strings.CutPrefix(pattern, "*"); ok {
		return strings.HasSuffix(other, suffix)
	}
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(other, prefix)
	}
	return pattern == other
}

// hostIs is the condition that a host is selected.
func hostIs(want string) apisix.Cond {
	if suffix, ok := strings.CutPrefix(want, "*"); ok {
		return apisix.Match("host", apisix.QuoteRegex(suffix)+`\z`)
	}
	return apisix.Eq("host", want)
}

func (o chainSelector) matches(c *translate.Chain) bool {
	return (o.Direction == "" || o.Direction == string(c.Direction)) &&
		(o.Port == 0 || o.Port == c.Port) &&
		(o.Listener == "" || o.Listener == c.Listener) &&
		(o.RouteConfiguration == "" || o.RouteConfiguration == c.RouteConfig)
}

// route tells whether a route is selected, and for requests to which paths; none is all.
func (s *selector) route(r *translate.ExtendedRoute) (paths []apisix.Cond, selected bool) {
	if s == nil {
		return nil, true
	}
	if s.Routes != nil && !slices.ContainsFunc(s.Routes, func(name string) bool {
		// A VirtualService's match has a name of its own: ROUTE.MATCH.
		return r.Name == name || strings.HasPrefix(r.Name, name+".")
	}) {
		return nil, false
	}
	if s.VirtualServices != nil {
		name, is := strings.CutPrefix(r.Origin, "VirtualService ")
		if !is || !slices.Contains(s.VirtualServices, name) {
			return nil, false
		}
	}
	if s.Clusters != nil && !slices.ContainsFunc(r.Clusters, s.cluster) {
		return nil, false
	}
	for name, value := range s.Labels {
		if r.Labels[name] != value {
			return nil, false
		}
	}
	return s.requests(r.Path)
}

func (s *selector) cluster(name string) bool {
	return slices.ContainsFunc(s.Clusters, func(pattern string) bool { return wildcardMatches(pattern, name) })
}

// wildcardMatches compares with a pattern in which * is any text.
func wildcardMatches(pattern, s string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == s
	}
	s, ok := strings.CutPrefix(s, parts[0])
	for _, part := range parts[1 : len(parts)-1] {
		var found bool
		if _, s, found = strings.Cut(s, part); !found {
			return false
		}
	}
	return ok && strings.HasSuffix(s, parts[len(parts)-1])
}

// requests returns conditions on the path, of which one must hold, unless all requests of the route have such
// a path. selected is false where none has.
func (s *selector) requests(route translate.RoutePath) (conditions []apisix.Cond, selected bool) {
	if s.Paths == nil {
		return nil, true
	}
	for _, path := range s.Paths {
		prefix, isPrefix := strings.CutSuffix(path, "*")
		switch {
		case route.Exact && covers(path, route.Literal), route.Prefix && isPrefix && strings.HasPrefix(route.Literal, prefix):
			return nil, true
		case route.Exact, route.Prefix && !strings.HasPrefix(prefix, route.Literal):
		case isPrefix:
			conditions = append(conditions, apisix.Match("uri", `\A`+apisix.QuoteRegex(prefix)))
		default:
			conditions = append(conditions, apisix.Eq("uri", path))
		}
	}
	return conditions, len(conditions) > 0
}

// workloadSelector names workloads by the labels of their pods, as Kubernetes does.
type workloadSelector struct {
	MatchLabels      map[string]string `json:"matchLabels,omitempty"`
	MatchExpressions []labelExpression `json:"matchExpressions,omitempty"`
}

type labelExpression struct {
	Key      string   `json:"key"`
	Operator string   `json:"operator"`
	Values   []string `json:"values,omitempty"`
}

func (w *workloadSelector) check() error {
	if w == nil {
		return nil
	}
	var errs []error
	for i, e := range w.MatchExpressions {
		switch e.Operator {
		case "In", "NotIn":
			if len(e.Values) == 0 {
				errs = append(errs, fmt.Errorf("workloadSelector.matchExpressions[%d]: %s needs values", i, e.Operator))
			}
		case "Exists", "DoesNotExist":
			if len(e.Values) > 0 {
				errs = append(errs, fmt.Errorf("workloadSelector.matchExpressions[%d]: %s has no values", i, e.Operator))
			}
		default:
			errs = append(errs, fmt.Errorf("workloadSelector.matchExpressions[%d]: operator %q is none of In, NotIn, Exists, DoesNotExist", i, e.Operator))
		}
	}
	return errors.Join(errs...)
}

// selects tells whether a workload with these labels is selected.
func (w *workloadSelector) selects(labels map[string]string) bool {
	if w == nil {
		return true
	}
	for name, value := range maps.All(w.MatchLabels) {
		if has, ok := labels[name]; !ok || has != value {
			return false
		}
	}
	return !slices.ContainsFunc(w.MatchExpressions, func(e labelExpression) bool {
		value, has := labels[e.Key]
		switch e.Operator {
		case "In":
			return !has || !slices.Contains(e.Values, value)
		case "NotIn":
			return has && slices.Contains(e.Values, value)
		case "Exists":
			return !has
		default:
			return has
		}
	})
}
