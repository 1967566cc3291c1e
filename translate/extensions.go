package translate

import (
	"maps"
	"slices"
	"strings"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"meshbridge/translate/apisix"
)

// Extensions are what users add: plugins on routes and stream_routes, and objects of their own. They never
// decide which route a request takes. They are immutable: other ones are another value.
type Extensions interface {
	// Routes returns what extends routes of a virtual host; nil where nothing does.
	Routes(c *Chain, v *routepb.VirtualHost) RouteExtensions
	// Stream extends the stream_route of a cluster.
	Stream(cluster string, own apisix.Plugins) Extended
	// Objects are the users' own.
	Objects() []apisix.Object
	// Documents names everything that extends routes or stream_routes.
	Documents() []string
	// Problems are those of what was read, beside those of single routes.
	Problems() []ExtensionProblem
}

// RouteExtensions are those of a virtual host.
type RouteExtensions interface {
	// Extend returns what extends a route; the zero value where nothing does.
	Extend(ExtendedRoute) Extended
}

// ExtendedRoute is a route that may be extended.
type ExtendedRoute struct {
	// Name is Envoy's, empty for the answer 404 that ends a virtual host. Origin is the Istio object that
	// the route was made from, such as "VirtualService default/reviews".
	Name, Origin string
	// Clusters are those that requests go to.
	Clusters []string
	// Path is what the route matches.
	Path RoutePath
	// Labels are those of the object.
	Labels map[string]string
	// Own are the plugins of the route, Shared those of its plugin_config.
	Own, Shared apisix.Plugins
}

// RoutePath is a condition on paths; without Exact and Prefix, it may be any.
type RoutePath struct {
	Exact, Prefix bool
	Literal       string
}

// Extended is what becomes of a route.
type Extended struct {
	// Plugins replace those of the route, where they are not nil.
	Plugins apisix.Plugins
	// By names the documents that apply, Used those of them that do not apply for the only reason that the
	// route takes whatever no other one does.
	By, Used []string
	Problems []ExtensionProblem
	// Unenforced is what restricts access and cannot be added.
	Unenforced []Unenforced
}

// Unenforced is something of a user that restricts access and cannot be added.
type Unenforced struct {
	// What names it in a message.
	What string
	// Filter has conditions on the requests that it is for; without any, it is for all of the route.
	Filter []any
}

// ExtensionProblem becomes a diagnostic.
type ExtensionProblem struct {
	Code Code
	// Resource is the document or the file, where the problem is not of a single route.
	Resource, Field string
	Args            []any
}

// LabelExtensions is the label of the documents that extend an object, with commas between them.
const LabelExtensions = "meshbridge.extensions"

// routeExtensions returns those of a virtual host, which is asked for once for all its routes in a row.
func (x *routeCompiler) routeExtensions(v *routepb.VirtualHost) RouteExtensions {
	if x.state.inputs.Extensions == nil || v == nil {
		return nil
	}
	if x.extendedHost != v {
		x.extendedHost, x.extensions = v, x.state.inputs.Extensions.Routes(x.chain, v)
	}
	return x.extensions
}

// putExtended emits a route with what extends it. A branch that refuses requests is left alone.
func (x *routeCompiler) putExtended(out *apisix.Route, r listedRoute, b branch) {
	extensions := x.routeExtensions(r.placement.vhost)
	if extensions == nil || b.denies {
		x.put(out)
		return
	}
	e := extensions.Extend(ExtendedRoute{
		Name: r.route.GetName(), Origin: r.desc, Clusters: clustersOf(r.route), Path: r.match.path.extended(),
		Labels: out.Labels, Own: out.Plugins, Shared: x.sharedPlugins(out.PluginConfigID),
	})
	report := x.reporter(routeField(r), r.desc)
	for _, p := range e.Problems {
		report(p.Code, p.Field, p.Args...)
	}
	x.part.extendedBy = addAll(x.part.extendedBy, e.Used)
	var extended *apisix.Route
	if e.Plugins != nil {
		copied := *out
		extended = &copied
		extended.Plugins = e.Plugins
		extended.Labels = maps.Clone(out.Labels)
		extended.Labels[LabelExtensions] = x.state.options.APISIXVersion.LabelValue(strings.Join(e.By, ","))
	}
	if x.refuseUnenforced(out, extended, e.Unenforced, report) {
		extended = nil
	}
	if extended == nil {
		x.put(out)
		return
	}
	// What is ours is checked here, and what users add where it is read.
	o, err := encode(apisix.KindRoute, extended.ID, extended, out.Validate(x.state.options.APISIXVersion))
	if err != nil {
		report("invalid_object", "", "route "+out.Name, err)
		return
	}
	x.part.objects = append(x.part.objects, o)
}

// refuseUnenforced lets the route answer 403 where something that restricts access cannot be added, unless
// that was allowed, and tells whether all of its requests get that answer: where some do, it is in both, of
// which extended may be nil.
func (x *routeCompiler) refuseUnenforced(out, extended *apisix.Route, unenforced []Unenforced, report reporter) (all bool) {
	if !x.state.denies(unenforced, "what it selects", report) {
		return false
	}
	var requests []apisix.Cond
	_, shared := x.sharedPlugins(out.PluginConfigID)[pluginFaultInjection]
	_, own := out.Plugins[pluginFaultInjection]
	exact := !shared && !own && x.state.options.APISIXVersion.Has(apisix.FeatureMetaFilter)
	for _, u := range unenforced {
		cond, ok := conditionOf(u.Filter)
		exact = exact && ok
		requests = append(requests, cond)
	}
	if !exact {
		out.Plugins, out.PluginConfigID = answer(403), ""
		return true
	}
	refusal := conditional{Meta: pluginMeta{Filter: apisix.List(apisix.Or(requests...))}, faultInjection: faultInjection{Abort: &faultAbort{HTTPStatus: 403}}}
	for _, r := range []*apisix.Route{out, extended} {
		if r != nil {
			plugins := maps.Clone(r.Plugins)
			r.Plugins = put(plugins, pluginFaultInjection, any(refusal))
		}
	}
	return false
}

// conditionOf makes one condition of a filter; ok is false for a filter that everything passes.
func conditionOf(filter []any) (cond apisix.Cond, ok bool) {
	var conds []apisix.Cond
	for _, element := range filter {
		c, isCond := element.(apisix.Cond)
		if !isCond {
			return nil, false
		}
		conds = append(conds, c)
	}
	return apisix.And(conds...), len(conds) > 0
}

// denies tells whether something unenforced refuses requests, and reports it.
func (s *State) denies(unenforced []Unenforced, what string, report reporter) bool {
	restrictions := make([]restriction, len(unenforced))
	for i, u := range unenforced {
		restrictions[i] = restriction{CodeUnenforcedExtension, "", u.What}
	}
	return len(s.enforcement(restrictions, what, report)) > 0
}

// addAll adds what a list does not have.
func addAll(list, names []string) []string {
	for _, name := range names {
		if !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	return list
}

// routeField is where the route is, for diagnostics.
func routeField(r listedRoute) string {
	field := virtualHostField(r.placement.vhost)
	if name := r.route.GetName(); name != "" {
		field += `.routes["` + name + `"]`
	}
	return field
}

// sharedPlugins are those of a plugin_config of the chain.
func (x *routeCompiler) sharedPlugins(id string) apisix.Plugins {
	return x.unit.pluginConfigs[id].plugins
}

// extended tells what a path can be.
func (t pathTest) extended() RoutePath {
	if t.fold {
		return RoutePath{}
	}
	switch t.kind {
	case pathExact:
		return RoutePath{Exact: true, Literal: t.literal}
	case pathPrefix, pathSeparated:
		return RoutePath{Prefix: true, Literal: t.literal}
	case pathRegex:
	}
	return RoutePath{}
}

// clustersOf lists the clusters to which a route sends requests.
func clustersOf(r *routepb.Route) []string {
	if name := r.GetRoute().GetCluster(); name != "" {
		return []string{name}
	}
	var out []string
	for _, w := range r.GetRoute().GetWeightedClusters().GetClusters() {
		out = append(out, w.GetName())
	}
	return out
}

// extendStream returns the plugins of the stream_route of a cluster.
func (s *State) extendStream(u *clusterUnit, route *apisix.StreamRoute, report reporter) {
	if s.inputs.Extensions == nil {
		return
	}
	e := s.inputs.Extensions.Stream(u.name, route.Plugins)
	for _, p := range e.Problems {
		report(p.Code, p.Field, p.Args...)
	}
	u.extendedBy = addAll(u.extendedBy, e.Used)
	if s.denies(e.Unenforced, "what it selects", report) {
		route.Plugins = apisix.Plugins{"ip-restriction": map[string]any{"blacklist": []string{"0.0.0.0/0", "::/0"}}}
		return
	}
	if e.Plugins != nil {
		route.Plugins = e.Plugins
		if route.Labels != nil {
			route.Labels = maps.Clone(route.Labels)
			route.Labels[LabelExtensions] = s.options.APISIXVersion.LabelValue(strings.Join(e.By, ","))
		}
	}
}

// extensions marks what other extensions may change: everything that can have plugins.
func (p *step) extensions(old, in Inputs) {
	s := p.state
	if old.Extensions == in.Extensions {
		return
	}
	s.extensionSum++
	p.reported, p.extended = true, true
	for key := range s.byKey {
		p.chains[key] = true
	}
	for name, u := range s.clusters {
		for v := range u.references {
			if v.tcp {
				p.clusters[name] = true
			}
		}
	}
	var objects []apisix.Object
	s.extensionDiagnostics = nil
	if in.Extensions != nil {
		objects = in.Extensions.Objects()
		for _, problem := range in.Extensions.Problems() {
			s.reporter(&s.extensionDiagnostics, problem.Resource, "", "")(problem.Code, problem.Field, problem.Args...)
		}
	}
	for _, collision := range s.objects.replace("extensions", objects) {
		s.reporter(&s.extensionDiagnostics, "Extension "+collision, "", "")("id_collision", "", collision)
	}
}

// unusedExtensions reports the documents that extend nothing: their selectors may be wrong.
func (s *State) unusedExtensions() (out []Diagnostic) {
	if s.inputs.Extensions == nil {
		return nil
	}
	used := map[string]bool{}
	note := func(names []string) {
		for _, name := range names {
			used[name] = true
		}
	}
	for _, u := range s.units {
		for _, part := range u.parts {
			note(part.extendedBy)
		}
	}
	for _, u := range s.clusters {
		note(u.extendedBy)
	}
	for _, name := range s.inputs.Extensions.Documents() {
		if !used[name] {
			s.reporter(&out, "Extension "+name, "", "")(CodeExtensionUnused, "selector")
		}
	}
	return slices.Clip(out)
}
