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

// chainUnit is what one chain becomes. When it has been published, it is immutable.
type chainUnit struct {
	chain *Chain
	// parts are the chain's virtual hosts, by group, and the rest, which is groupRest.
	parts map[string]*chainPart
	// priorities of the routes by group and key, kept for the next time.
	priorities map[string]map[string]int
	// pluginConfigs are the chain's plugin_configs, by id.
	pluginConfigs map[string]pluginConfigUnit
}

// groupRest is the group of the routes without hosts.
const groupRest = "*"

// routeCompiler compiles the routes of one chain.
type routeCompiler struct {
	state  *State
	chain  *Chain
	guard  apisix.Vars
	config *routepb.RouteConfiguration
	// resource is the subject of diagnostics.
	resource string
	// previous is the unit of the translation before, or nil. sameChain tells that there is one, and
	// that it is of an equal chain.
	previous  *chainUnit
	sameChain bool
	unit      *chainUnit
	// part is what is being compiled.
	part *chainPart
	// hostNames are of virtual hosts that share their names with earlier ones.
	hostNames map[*routepb.VirtualHost]string
	// extensions are those of extendedHost, the virtual host that was asked about last.
	extensions   RouteExtensions
	extendedHost *routepb.VirtualHost
}

// compileChain translates the routes of a chain. config is nil where it has not arrived.
func (s *State) compileChain(c *Chain, config *routepb.RouteConfiguration, previous *chainUnit) *chainUnit {
	rest := &chainPart{}
	u := &chainUnit{
		chain: c, parts: map[string]*chainPart{groupRest: rest}, priorities: map[string]map[string]int{}, pluginConfigs: map[string]pluginConfigUnit{},
	}
	if c.NotServed != "" {
		return u
	}
	guard, _, _ := c.guard(s.options.Profile)
	x := &routeCompiler{
		state: s, chain: c, guard: guard, config: config, resource: "RouteConfiguration " + c.RouteConfig,
		previous: previous, sameChain: previous != nil && previous.chain.equal(c), unit: u, part: rest,
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
	return x.state.reporter(&x.part.diagnostics, x.resource, field, origin)
}

// answerAll emits the only route of a chain.
func (x *routeCompiler) answerAll(what string, status int) {
	x.put(&apisix.Route{
		ID:      apisix.ID("r", x.chain.Key+"."+what, canonicalKey(x.chain.Key, what)),
		Name:    x.state.options.APISIXVersion.Name(x.chain.Key + "|" + what),
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
	x.part.objects = append(x.part.objects, o)
}

func (x *routeCompiler) compileVirtualHosts() {
	x.nameVirtualHosts()
	report := func(v *routepb.VirtualHost) reporter {
		return x.reporter(virtualHostField(v), origin(v.GetMetadata()))
	}
	hosted, hostless := placeVirtualHosts(x.config, report)
	sums := x.state.newPartSums(x.chain, x.config)
	rest := x.part
	placed := make([]bool, len(x.config.GetVirtualHosts()))
	for _, p := range hosted {
		placed[p.index] = true
		group, sum := "host:"+x.hostName(p.vhost), sums.of(p)
		if x.reuse(group, sum) {
			continue
		}
		x.part = &chainPart{sum: sum}
		x.unit.parts[group] = x.part
		x.emit(group, x.listed(p, x.compileVirtualHost(p.vhost)))
	}
	x.part = rest
	// Those without hosts share the same part of the router.
	compiled := map[*routepb.VirtualHost][]compiledRoute{}
	var list []listedRoute
	for _, p := range hostless {
		placed[p.index] = true
		if compiled[p.vhost] == nil {
			compiled[p.vhost] = x.compileVirtualHost(p.vhost)
		}
		list = append(list, x.listed(p, compiled[p.vhost])...)
	}
	x.emit(groupRest, list)
	for i, v := range x.config.GetVirtualHosts() {
		if !placed[i] {
			x.compileVirtualHost(v) // for what there is to report
		}
	}
}

// nameVirtualHosts gives virtual hosts names of their own: Envoy does not ask for that.
func (x *routeCompiler) nameVirtualHosts() {
	seen := make(map[string]int, len(x.config.GetVirtualHosts()))
	for _, v := range x.config.GetVirtualHosts() {
		if n := seen[v.GetName()]; n > 0 {
			if x.hostNames == nil {
				x.hostNames = map[*routepb.VirtualHost]string{}
			}
			x.hostNames[v] = canonicalKey(v.GetName(), "#"+strconv.Itoa(n))
		}
		seen[v.GetName()]++
	}
}

// hostName is the name of a virtual host in keys.
func (x *routeCompiler) hostName(v *routepb.VirtualHost) string {
	if name, shared := x.hostNames[v]; shared {
		return name
	}
	return v.GetName()
}

func virtualHostField(v *routepb.VirtualHost) string {
	return `virtual_hosts["` + v.GetName() + `"]`
}

// compiledRoute is a route, or the terminal one of a virtual host, before it has a place.
type compiledRoute struct {
	key, name, readable, desc string
	match                     routeMatch
	branches                  []branch
	// route is Envoy's; nil for what ends a virtual host.
	route *routepb.Route
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
	report := x.reporter(virtualHostField(v), origin(v.GetMetadata()))
	access, _ := x.accessOf(v, nil, report)
	c.branches = x.lowerBranches(x.withTokens(x.withAccess(c.branches, access), access, report), report)
	return c
}

// redirectToTLS keeps the Host header as it is, port included, as Envoy does.
func redirectToTLS() apisix.Plugins {
	return apisix.Plugins{pluginRedirect: redirect{URI: "https://$http_host$real_request_uri", Status: 301}}
}

func (x *routeCompiler) terminal(v *routepb.VirtualHost, what string, plugins apisix.Plugins) compiledRoute {
	return compiledRoute{
		key:      canonicalKey(x.chain.Key, x.config.GetName(), x.hostName(v), what),
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
		route:    r,
	}
	if c.match.never {
		return c
	}
	c.key = canonicalKey(x.chain.Key, x.config.GetName(), x.hostName(v), r.GetName(), c.match.fingerprint())
	access, restrictions := x.accessOf(v, r, report)
	restrictions = append(restrictions, restrictionsOfRoute(x.chain, x.config, v, r)...)
	if denied := x.state.enforcement(restrictions, "the route", report); len(denied) > 0 {
		c.branches = []branch{{plugins: answer(403), denies: true}}
		return c
	}
	rx := &routeContext{
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
	}
	if overlayOf(x.state.options.Profile, &x.state.inputs) {
		rx.mirror = x.state.mirrorHost
	}
	c.branches = compileAction(rx)
	c.branches = x.lowerBranches(x.withChainPlugins(x.withTokens(x.withAccess(c.branches, access), access, report)), report)
	return c
}

func (x *routeCompiler) facts(cluster string) clusterFacts {
	facts := x.state.clusterFacts(cluster)
	x.part.facts = add(x.part.facts, knownFacts{cluster, facts})
	return facts
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
	var previous map[string]int
	if x.previous != nil {
		previous = x.previous.priorities[group]
	}
	priorities := allocatePriorities(ranks, previous)
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
		Name:            x.state.options.APISIXVersion.Name(name),
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
	if b.quiet {
		out.Labels = maps.Clone(r.labels)
		out.Labels[labelQuiet] = "true"
	}
	uris := keys.uris()
	if b.keepsPath {
		for i, uri := range uris {
			uris[i] = keepingPath(uri)
		}
	}
	if len(uris) == 1 {
		out.URI = uris[0]
	} else {
		out.URIs = uris
	}
	if b.upstream != nil {
		out.UpstreamID = b.upstream.id()
		x.part.refs = add(x.part.refs, *b.upstream)
	} else if b.pluginConfig == "" {
		out.PluginConfigID = x.answeredConfig()
	}
	for _, ref := range b.extra {
		x.part.refs = add(x.part.refs, ref)
	}
	x.putExtended(out, r, b)
}
