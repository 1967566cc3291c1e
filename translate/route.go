package translate

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"meshbridge/translate/apisix"
)

// chainUnit is what one chain becomes.
type chainUnit struct {
	chain       *Chain
	objects     []apisix.Object
	diagnostics []Diagnostic
	// refs are the upstreams that the routes refer to, and facts the clusters whose facts were
	// asked for.
	refs  map[upstreamRef]bool
	facts map[string]bool
	// priorities of the routes by group and key, kept for the next time.
	priorities map[string]map[string]int
}

// routeCompiler compiles the routes of one chain.
type routeCompiler struct {
	state  *State
	chain  *Chain
	guard  apisix.Vars
	config *routepb.RouteConfiguration
	// resource is the subject of diagnostics.
	resource string
	previous map[string]map[string]int
	unit     *chainUnit
	// pluginConfigs has the ids of the chain's plugin_configs that are emitted.
	pluginConfigs map[string]bool
}

// compileChain translates the routes of a chain. config is nil where it has not arrived.
func (s *State) compileChain(c *Chain, config *routepb.RouteConfiguration, previous map[string]map[string]int) *chainUnit {
	u := &chainUnit{chain: c, refs: map[upstreamRef]bool{}, facts: map[string]bool{}, priorities: map[string]map[string]int{}}
	if c.NotServed != "" {
		return u
	}
	guard, _, _ := c.guard(s.options.Profile)
	x := &routeCompiler{
		state: s, chain: c, guard: guard, config: config, resource: "RouteConfiguration " + c.RouteConfig,
		previous: previous, unit: u, pluginConfigs: map[string]bool{},
	}
	switch {
	case len(c.Denied) > 0:
		x.answerAll("denied", 403)
	case config == nil:
		x.reporter("", "")("route_config_missing", "", c.RouteConfig)
		x.answerAll("missing", 404)
	case len(config.GetVirtualHosts()) == 0:
		reportUnknown(config, x.reporter("", ""), "")
		x.answerAll("empty", 404)
	default:
		reportUnknown(config, x.reporter("", ""), "")
		x.compileVirtualHosts()
	}
	return u
}

func (x *routeCompiler) reporter(field, origin string) reporter {
	return x.state.reporter(&x.unit.diagnostics, x.resource, field, origin)
}

// answerAll emits the only route of a chain.
func (x *routeCompiler) answerAll(what string, status int) {
	x.put(&apisix.Route{
		ID:      apisix.ID("r", x.chain.Key+"."+what, canonicalKey(x.chain.Key, what)),
		Name:    apisix.Name(x.chain.Key + "|" + what),
		Labels:  x.labels(nil),
		URI:     "/*",
		Vars:    x.guard,
		Plugins: answer(status),

		PluginConfigID: x.answeredConfig(),
	})
}

// answer lets APISIX answer itself, with an empty body like Envoy. fault-injection runs before any
// plugin that looks at the request.
func answer(status int) apisix.Plugins { return answerStatus(status) }

func (x *routeCompiler) labels(v *routepb.VirtualHost) map[string]string {
	return x.state.labels(labelListener, x.chain.Listener, labelRouteConfig, x.chain.RouteConfig, labelVirtualHost, v.GetName())
}

func (x *routeCompiler) put(r *apisix.Route) {
	o, err := encode(apisix.KindRoute, r.ID, r, r.Validate(x.state.options.APISIXVersion))
	if err != nil {
		x.reporter("", r.Desc)("invalid_object", "", "route "+r.Name, err)
		return
	}
	x.unit.objects = append(x.unit.objects, o)
}

func (x *routeCompiler) compileVirtualHosts() {
	report := func(v *routepb.VirtualHost) reporter {
		return x.reporter(virtualHostField(v), origin(v.GetMetadata()))
	}
	hosted, hostless := placeVirtualHosts(x.config, report)
	compiled := map[*routepb.VirtualHost][]compiledRoute{}
	for _, v := range x.config.GetVirtualHosts() {
		compiled[v] = x.compileVirtualHost(v)
	}
	for _, p := range hosted {
		x.emit("host:"+p.vhost.GetName(), x.listed(p, compiled[p.vhost]))
	}
	// Those without hosts share the same part of the router.
	var list []listedRoute
	for _, p := range hostless {
		list = append(list, x.listed(p, compiled[p.vhost])...)
	}
	x.emit("*", list)
}

func virtualHostField(v *routepb.VirtualHost) string {
	return `virtual_hosts["` + v.GetName() + `"]`
}

// compiledRoute is a route, or the terminal one of a virtual host, before it has a place.
type compiledRoute struct {
	key, name, readable, desc string
	match                     routeMatch
	branches                  []branch
	// terminal routes are the last of their virtual host and match everything.
	terminal bool
}

// compileVirtualHost returns the routes of a virtual host in Envoy's order. The last one matches
// everything: Envoy never leaves a virtual host once it has chosen it, whereas APISIX would go on
// with less specific hosts.
func (x *routeCompiler) compileVirtualHost(v *routepb.VirtualHost) []compiledRoute {
	report := x.reporter(virtualHostField(v), origin(v.GetMetadata()))
	reportVirtualHost(x.chain, v, report)
	if v.GetMatcher() != nil {
		report("vhost_matcher_unsupported", "matcher")
	}
	if !x.chain.received().TLS {
		switch v.GetRequireTls() {
		case routepb.VirtualHost_NONE:
		case routepb.VirtualHost_EXTERNAL_ONLY:
			report("require_tls_external", "require_tls")
			return []compiledRoute{x.toTLS(v)}
		case routepb.VirtualHost_ALL:
			return []compiledRoute{x.toTLS(v)}
		}
	}
	var out []compiledRoute
	ordinals := map[string]int{}
	names := map[string]int{}
	for _, r := range v.GetRoutes() {
		names[r.GetName()]++
	}
	for i, r := range v.GetRoutes() {
		field := fmt.Sprintf("%s.routes[%d]", virtualHostField(v), i)
		if r.GetName() != "" && names[r.GetName()] == 1 {
			field = virtualHostField(v) + `.routes["` + r.GetName() + `"]`
		}
		c := x.compileRoute(v, r, field)
		if c.match.never {
			continue
		}
		// Never the index: inserting a route would change the ids of those behind it.
		ordinal := ordinals[c.key]
		ordinals[c.key]++
		if ordinal > 0 {
			c.key = canonicalKey(c.key, "#"+strconv.Itoa(ordinal))
		}
		out = append(out, c)
	}
	if len(out) == 0 || !out[len(out)-1].match.unconditional() {
		out = append(out, x.terminal(v, "404", answer(404)))
	}
	return out
}

// toTLS is the only route of a virtual host that wants TLS.
func (x *routeCompiler) toTLS(v *routepb.VirtualHost) compiledRoute {
	c := x.terminal(v, "https", redirectToTLS())
	refused, common, _ := x.accessOf(v, nil, x.reporter(virtualHostField(v), origin(v.GetMetadata())))
	c.branches = x.withAccess(c.branches, refused, common)
	return c
}

// redirectToTLS keeps the Host header as it is, port included, as Envoy does.
func redirectToTLS() apisix.Plugins {
	return apisix.Plugins{"redirect": map[string]any{"uri": "https://$http_host$real_request_uri", "ret_code": 301}}
}

func (x *routeCompiler) terminal(v *routepb.VirtualHost, what string, plugins apisix.Plugins) compiledRoute {
	return compiledRoute{
		key:      canonicalKey(x.chain.Key, x.config.GetName(), v.GetName(), what),
		name:     strings.Join([]string{x.chain.Key, v.GetName(), what}, "|"),
		readable: x.readable(v, what),
		desc:     origin(v.GetMetadata()),
		match:    routeMatch{path: pathTest{kind: pathPrefix, literal: "/"}},
		branches: []branch{{plugins: plugins}},
		terminal: true,
	}
}

// readable is the part of an id for people: chain, virtual host, route.
func (x *routeCompiler) readable(v *routepb.VirtualHost, route string) string {
	host, _ := cutPort(v.GetName())
	if host == x.chain.Key || strings.HasPrefix(x.chain.Key, host+":") {
		return x.chain.Key + "." + route
	}
	return x.chain.Key + "." + host + "." + route
}

func (x *routeCompiler) compileRoute(v *routepb.VirtualHost, r *routepb.Route, field string) compiledRoute {
	from := origin(r.GetMetadata())
	report := x.reporter(field, from)
	c := compiledRoute{
		name:     strings.Join([]string{x.chain.Key, v.GetName(), r.GetName()}, "|"),
		readable: x.readable(v, r.GetName()),
		desc:     from,
		match:    x.compileMatch(r.GetMatch(), report),
	}
	if c.match.never {
		return c
	}
	c.key = canonicalKey(x.chain.Key, x.config.GetName(), v.GetName(), r.GetName(), c.match.fingerprint())
	refused, common, restrictions := x.accessOf(v, r, report)
	restrictions = append(restrictions, restrictionsOfRoute(x.chain, x.config, v, r)...)
	if denied := x.state.enforcement(restrictions, "the route", report); len(denied) > 0 {
		c.branches = []branch{{plugins: answer(403)}}
		return c
	}
	c.branches = compileAction(&routeContext{
		options:    &x.state.options,
		chain:      x.chain,
		config:     x.config,
		vhost:      v,
		route:      r,
		pathPrefix: c.match.path.literal,
		pathExact:  c.match.path.kind == pathExact,
		facts:      x.facts,
		upstreamID: upstreamRef.id,
		report:     report,
	})
	c.branches = x.withChainPlugins(x.withAccess(c.branches, refused, common))
	return c
}

func (x *routeCompiler) facts(cluster string) clusterFacts {
	x.unit.facts[cluster] = true
	return x.state.clusterFacts(cluster)
}

// fingerprint tells routes apart that have the same name. It says what the route matches, and
// nothing about its neighbours.
func (m routeMatch) fingerprint() string {
	return fmt.Sprintf("%d %q %t %q %q", m.path.kind, m.path.literal, m.path.fold, m.path.pcre, m.conds)
}

// listedRoute is a route at a place in a list.
type listedRoute struct {
	compiledRoute
	placement placement
	labels    map[string]string
}

func (x *routeCompiler) listed(p placement, routes []compiledRoute) []listedRoute {
	out := make([]listedRoute, len(routes))
	labels := x.labels(p.vhost)
	for i, r := range routes {
		out[i] = listedRoute{r, p, labels}
		if p.suffix != "" {
			out[i].key = canonicalKey(r.key, "@"+p.suffix)
		}
	}
	return out
}

// emit places an ordered list of routes in APISIX's router.
func (x *routeCompiler) emit(group string, list []listedRoute) {
	if len(list) == 0 {
		return
	}
	tests := make([]pathTest, len(list))
	ranks := make([]ranked, 0, len(list))
	for i, r := range list {
		tests[i] = r.match.path
		if !r.lowest(list, i) {
			ranks = append(ranks, ranked{r.key, len(r.branches)})
		}
	}
	keys := hoist(tests)
	priorities := allocatePriorities(ranks, x.previous[group])
	x.unit.priorities[group] = priorities
	for i, r := range list {
		priority := terminalPriority
		if !r.lowest(list, i) {
			priority = priorities[r.key]
		}
		for _, b := range r.branches {
			x.emitBranch(r, b, keys[i], priority)
			priority--
		}
	}
}

// lowest tells whether the route is the terminal one at the end of the list.
func (r listedRoute) lowest(list []listedRoute, i int) bool { return r.terminal && i == len(list)-1 }

func (x *routeCompiler) emitBranch(r listedRoute, b branch, keys pathKeys, priority int) {
	key, readable, name := r.key, r.readable, r.name
	if b.suffix != "" {
		key, readable, name = canonicalKey(key, "~"+b.suffix), readable+"."+b.suffix, name+"|"+b.suffix
	}
	vars := slices.Concat(x.guard, apisix.List(r.placement.conds...), apisix.List(keys.conds...), apisix.List(r.match.conds...), b.vars)
	out := &apisix.Route{
		ID:              apisix.ID("r", readable, key),
		Name:            apisix.Name(name),
		Desc:            apisix.Name(r.desc),
		Labels:          r.labels,
		Hosts:           r.placement.hosts,
		Priority:        priority,
		Vars:            vars,
		Plugins:         b.plugins,
		PluginConfigID:  b.pluginConfig,
		Timeout:         b.timeout,
		EnableWebsocket: b.websocket,
	}
	if uris := keys.uris(); len(uris) == 1 {
		out.URI = uris[0]
	} else {
		out.URIs = uris
	}
	if b.upstream != nil {
		out.UpstreamID = b.upstream.id()
		x.unit.refs[*b.upstream] = true
	} else if b.pluginConfig == "" {
		out.PluginConfigID = x.answeredConfig()
	}
	for _, ref := range b.extra {
		x.unit.refs[ref] = true
	}
	x.put(out)
}

// clusters returns the clusters that the unit depends on, by reference or for facts.
func (u *chainUnit) clusters() map[string]bool {
	out := maps.Clone(u.facts)
	for ref := range u.refs {
		out[ref.cluster] = true
	}
	return out
}
