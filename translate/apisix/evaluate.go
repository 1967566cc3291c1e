package apisix

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Router is one of APISIX's HTTP routers (apisix.router.http in its config.yaml).
type Router int

const (
	// RouterHostURI matches the host first, then the path: APISIX's default since 3.3, and what
	// meshbridge configures.
	RouterHostURI Router = iota
	// RouterURI matches the path first and the host among the conditions of a route.
	RouterURI
)

// Options are settings of the APISIX that is modelled.
type Options struct {
	Router Router
	// FallbackSNI is the name that stands for none in TLS handshakes (apisix.ssl.fallback_sni).
	FallbackSNI string
	// Ask stands for the services that forward-auth asks; nil is that none answers.
	Ask func(AuthRequest) AuthAnswer
}

// Evaluator tells which route and upstream APISIX chooses for a request, and why. It models routes,
// upstreams, plugin_configs and ssls; the conditions, the plugins that answer or choose an upstream, and
// nginx's normalisation of host and path. It is immutable and safe for concurrent use.
type Evaluator struct {
	options   Options
	hosts     *pathTree // keys are reversed host names
	paths     *pathTree // routes without hosts, or all of them with RouterURI
	routes    map[string]*routeEntry
	upstreams map[string]*Upstream
	configs   map[string]Plugins
	ssls      *pathTree        // keys are reversed server names
	refused   map[string]error // by id of the route
}

// routeEntry is a route ready to be matched. The fields beyond Route are those that meshbridge does
// not emit, but others may.
type routeEntry struct {
	Route
	Host           string    `json:"host"`
	Methods        []string  `json:"methods"`
	RemoteAddr     string    `json:"remote_addr"`
	RemoteAddrs    []string  `json:"remote_addrs"`
	Status         *int      `json:"status"`
	FilterFunc     string    `json:"filter_func"`
	ServiceID      any       `json:"service_id"`
	Script         string    `json:"script"`
	InlineUpstream *Upstream `json:"upstream"`

	vars     *Expr
	prefixes []netip.Prefix
}

// Refused returns why routes take no part in the evaluation, sorted by their id: APISIX would refuse
// to load them, or the evaluator cannot model them.
func (e *Evaluator) Refused() []error {
	errs := make([]error, 0, len(e.refused))
	for _, id := range slices.Sorted(maps.Keys(e.refused)) {
		errs = append(errs, e.refused[id])
	}
	return errs
}

// NewEvaluator builds an evaluator from objects, which should come in the order of their keys, as
// APISIX loads them. The error is of an object that is not JSON of its kind; see
// [Evaluator.Refused] for objects that APISIX does not accept.
func NewEvaluator(objects iter.Seq[Object], options Options) (*Evaluator, error) {
	e := &Evaluator{
		options:   options,
		hosts:     newPathTree(),
		paths:     newPathTree(),
		routes:    map[string]*routeEntry{},
		upstreams: map[string]*Upstream{},
		configs:   map[string]Plugins{},
		ssls:      newPathTree(),
		refused:   map[string]error{},
	}
	hostTrees := map[string]*pathTree{}
	for o := range objects {
		if err := e.add(o, hostTrees); err != nil {
			return nil, fmt.Errorf("%s: %w", o.Key(), err)
		}
	}
	return e, nil
}

func (e *Evaluator) add(o Object, hostTrees map[string]*pathTree) error {
	switch o.Kind {
	case KindUpstream:
		upstream := new(Upstream)
		if err := json.Unmarshal(o.Value, upstream); err != nil {
			return fmt.Errorf("decode: %w", err)
		}
		upstream.ID = o.ID
		e.upstreams[o.ID] = upstream
	case KindPluginConfig:
		var config PluginConfig
		if err := json.Unmarshal(o.Value, &config); err != nil {
			return fmt.Errorf("decode: %w", err)
		}
		e.configs[o.ID] = config.Plugins
	case KindRoute:
		route := new(routeEntry)
		if err := json.Unmarshal(o.Value, route); err != nil {
			return fmt.Errorf("decode: %w", err)
		}
		route.ID = o.ID // APISIX takes it from the key
		if route.Status != nil && *route.Status == 0 {
			return nil
		}
		if err := route.compile(); err != nil {
			e.refused[o.ID] = fmt.Errorf("%s: %w", o.Key(), err)
			return nil
		}
		e.routes[o.ID] = route
		e.insert(route, hostTrees)
	case KindSSL:
		ssl := new(SSL)
		if err := json.Unmarshal(o.Value, ssl); err != nil {
			return errors.New("decode: it is no ssl") // the reason could quote a private key
		}
		ssl.ID = o.ID
		if ssl.Type != "client" {
			e.addSSL(ssl)
		}
	case KindStreamRoute: // no part in HTTP routing
	case KindGlobalRule, KindConsumer, KindConsumerGroup, KindPluginMetadata, KindProto, KindSecret: // of users
	}
	return nil
}

func (r *routeEntry) compile() error {
	switch {
	case r.FilterFunc != "":
		return errors.New("filter_func is Lua, which is not evaluated")
	case r.ServiceID != nil:
		return errors.New("service_id: services are not evaluated")
	case r.Script != "":
		return errors.New("script is Lua, which is not evaluated")
	}
	var err error
	if r.vars, err = ParseExpr(r.Vars); err != nil {
		return fmt.Errorf("vars: %w", err)
	}
	if r.Host != "" {
		r.Hosts = []string{r.Host}
	}
	for i, host := range r.Hosts {
		r.Hosts[i] = strings.ToLower(host)
	}
	if r.URI != "" {
		r.URIs = []string{r.URI}
	}
	if r.RemoteAddr != "" {
		r.RemoteAddrs = []string{r.RemoteAddr}
	}
	for _, s := range r.RemoteAddrs {
		prefix, err := parsePrefix(s)
		if err != nil {
			return fmt.Errorf("remote_addrs: %w", err)
		}
		r.prefixes = append(r.prefixes, prefix)
	}
	return nil
}

func (e *Evaluator) insert(route *routeEntry, hostTrees map[string]*pathTree) {
	trees := []*pathTree{e.paths}
	if e.options.Router == RouterHostURI && len(route.Hosts) > 0 {
		trees = trees[:0]
		for _, host := range route.Hosts {
			tree := hostTrees[host]
			if tree == nil {
				tree = newPathTree()
				hostTrees[host] = tree
				e.hosts.insert(&pathEntry{pattern: reverse(host), hosts: tree})
			}
			trees = append(trees, tree)
		}
	}
	for _, tree := range trees {
		for _, pattern := range route.URIs {
			tree.insert(&pathEntry{pattern: pattern, route: route})
		}
	}
}

func reverse(s string) string {
	b := []byte(s)
	slices.Reverse(b)
	return string(b)
}

// Candidate is a route whose host and path fit a request.
type Candidate struct {
	RouteID string
	// Host is the host pattern under which the route was found, empty for a route of any host.
	Host string
	// Path is the path pattern that fits.
	Path    string
	Matched bool
	// Reason says why the route was not chosen, for example
	// "vars[1] http_end_user == jason: is absent".
	Reason string
}

// Decision is what APISIX does with a request.
type Decision struct {
	// Route is the chosen route with the plugins of its plugin_config merged in, nil without one.
	// It must not be modified.
	Route   *Route
	RouteID string
	// Status is the answer where APISIX itself gives it; 0 where the request goes to an upstream.
	Status int
	// AnsweredBy names what gave the answer: a plugin, "nginx", "router", "upstream" or "tls"; the
	// latter without a Status where the handshake fails.
	AnsweredBy string
	// Body and Location belong to the answer of a plugin.
	Body, Location string
	// Delay is an injected delay in seconds.
	Delay float64
	// UpstreamID and Upstream are the destination; of several, the one with the largest weight.
	// Upstream is nil where it does not exist. It must not be modified.
	UpstreamID string
	Upstream   *Upstream
	// Split holds the destinations among which traffic-split divides requests.
	Split []WeightedUpstream
	// Host and URI are what the upstream receives.
	Host, URI string
	// Headers are the request's other headers as the upstream receives them, by lower-case name:
	// the client's and what plugins make of them, without those that nginx adds. Response are the
	// headers of the answer in the same way: what a plugin gives, or makes of Request.Response.
	Headers, Response map[string][]string
	// Candidates are the routes that APISIX tried, in that order, and those of the same host and
	// path that it would have tried next.
	Candidates []Candidate
	// Notes name what was not modelled and may change the outcome.
	Notes []string
}

// WeightedUpstream is one destination of a traffic split.
type WeightedUpstream struct {
	UpstreamID string
	Weight     int
}

// Evaluate tells what APISIX does with a request.
func (e *Evaluator) Evaluate(r Request) Decision {
	vars, refusal := newRequestVars(r)
	if refusal != "" {
		return Decision{Status: 400, AnsweredBy: "nginx", Notes: []string{refusal}}
	}
	if vars.method == "TRACE" || vars.method == "CONNECT" {
		return Decision{Status: 405, AnsweredBy: "nginx", Notes: []string{"nginx serves no " + vars.method + " requests"}}
	}
	if r.TLS != nil {
		if d, refused := e.secure(*r.TLS, vars); refused {
			return d
		}
	}
	match := routeMatch{vars: vars}
	if e.options.Router == RouterHostURI {
		e.hosts.candidates(reverse(vars.host), func(host *pathEntry) bool {
			if host.recheck.check(vars.host) == "" {
				match.host = reverse(host.pattern)
				host.hosts.candidates(vars.path, match.try)
			}
			return match.route == nil
		})
		match.host = ""
	}
	if match.route == nil {
		e.paths.candidates(vars.path, match.try)
	}
	d := Decision{Candidates: match.candidates, Notes: match.notes}
	if match.route == nil {
		d.Status, d.AnsweredBy = 404, "router"
		return d
	}
	e.decide(&d, match.route, vars)
	return d
}

// secure makes the handshake that precedes a request and tells the variables about it.
func (e *Evaluator) secure(h Handshake, vars *requestVars) (d Decision, refused bool) {
	s := e.Handshake(h)
	if s.Refused != "" {
		return Decision{AnsweredBy: "tls", Notes: []string{s.Refused}}, true
	}
	vars.scheme, vars.serverName, vars.clientVerify = "https", h.ServerName, s.ClientVerify
	if refusal := e.admit(s, vars); refusal != "" {
		return Decision{Status: 400, AnsweredBy: "tls", Notes: []string{refusal}}, true
	}
	return Decision{}, false
}

// routeMatch is one walk over the candidates of a request.
type routeMatch struct {
	vars       *requestVars
	host       string
	route      *routeEntry
	candidates []Candidate
	notes      []string
}

// try adds a candidate. It goes on behind the match, so that a decision shows what came too late.
func (m *routeMatch) try(e *pathEntry) bool {
	c := Candidate{RouteID: e.route.ID, Host: m.host, Path: e.pattern}
	if m.route != nil {
		c.Reason = "comes after " + m.route.ID
	} else if c.Reason = m.reject(e); c.Reason == "" {
		c.Matched = true
		m.route = e.route
	}
	m.candidates = append(m.candidates, c)
	return true
}

// reject returns why a candidate does not match, empty where it does, in the order of radixtree.
func (m *routeMatch) reject(e *pathEntry) string {
	r := e.route
	if len(r.Methods) > 0 && !slices.Contains(r.Methods, m.vars.method) {
		return "methods: does not have " + m.vars.method
	}
	if len(r.prefixes) > 0 && !matchPrefixes(r.prefixes, m.vars.addr) {
		return "remote_addrs: does not have " + m.vars.addr
	}
	if m.host == "" && len(r.Hosts) > 0 && !slices.ContainsFunc(r.Hosts, m.hostMatches) {
		return "hosts: does not have " + m.vars.host
	}
	ok, err := r.vars.Eval(m.vars.lookup)
	if err != nil {
		m.notes = append(m.notes, "routes/"+r.ID+": vars: "+err.Error())
	}
	if !ok {
		return r.vars.explain(m.vars.lookup)
	}
	return e.recheck.check(m.vars.path)
}

// hostMatches is the host condition of the router that does not know hosts. A pattern with a colon
// is compared with the Host header, port included.
func (m *routeMatch) hostMatches(pattern string) bool {
	if strings.Contains(pattern, ":") {
		return matchHost(pattern, m.vars.headers["host"])
	}
	return matchHost(pattern, m.vars.host)
}

func matchHost(pattern, host string) bool {
	if suffix, wildcard := strings.CutPrefix(pattern, "*"); wildcard {
		return strings.HasSuffix(host, suffix)
	}
	return host == pattern
}

// Why tells why a request does not get to a route, or that it does.
func (e *Evaluator) Why(r Request, routeID string) string {
	route := e.routes[routeID]
	if err := e.refused[routeID]; err != nil {
		return "it is not evaluated: " + err.Error()
	}
	if route == nil {
		return "there is no such route"
	}
	d := e.Evaluate(r)
	if d.RouteID == routeID {
		return "it is the route that is chosen"
	}
	if i := slices.IndexFunc(d.Candidates, func(c Candidate) bool { return c.RouteID == routeID }); i >= 0 {
		return d.Candidates[i].Reason
	}
	vars, refusal := newRequestVars(r)
	if refusal != "" {
		return refusal
	}
	if len(route.Hosts) > 0 && !slices.ContainsFunc(route.Hosts, func(p string) bool { return matchHost(p, vars.host) }) {
		return "hosts: " + strings.Join(route.Hosts, ", ") + " does not have " + vars.host
	}
	tree := newPathTree()
	for _, pattern := range route.URIs {
		tree.insert(&pathEntry{pattern: pattern, route: route})
	}
	if tree.candidates(vars.path, func(*pathEntry) bool { return false }) {
		return "uris: " + strings.Join(route.URIs, ", ") + " does not fit " + vars.path
	}
	return "a route of a more specific host was chosen: " + d.RouteID
}
