package extend

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"meshbridge/translate"
	"meshbridge/translate/apisix"
)

// virtualHost is what may extend routes of one.
type virtualHost struct {
	version   apisix.Version
	documents []selectedDocument
}

type selectedDocument struct {
	*document
	hosts hostSelection
}

// Routes implements translate.Extensions.
func (s *Set) Routes(c *translate.Chain, v *routepb.VirtualHost) translate.RouteExtensions {
	var out *virtualHost
	for _, d := range s.routes {
		hosts, selected := d.Selector.virtualHost(c, v)
		if !selected {
			continue
		}
		if out == nil {
			out = &virtualHost{version: s.version}
		}
		out.documents = append(out.documents, selectedDocument{d, hosts})
	}
	if out == nil {
		return nil
	}
	return out
}

// Extend implements translate.RouteExtensions.
func (v *virtualHost) Extend(r translate.ExtendedRoute) translate.Extended {
	e := extension{version: v.version, own: r.Own, shared: r.Shared, from: map[string]*addition{}}
	for _, d := range v.documents {
		paths, selected := d.Selector.route(&r)
		if !selected {
			continue
		}
		var filter []any
		for _, conds := range [][]apisix.Cond{d.hosts.conditions, paths} {
			if len(conds) > 0 {
				filter = append(filter, apisix.Or(conds...))
			}
		}
		if e.add(d.document, filter) && !d.hosts.fallback {
			e.out.Used = append(e.out.Used, d.label())
		}
	}
	return e.out
}

// Stream implements translate.Extensions.
func (s *Set) Stream(cluster string, own apisix.Plugins) translate.Extended {
	e := extension{version: s.version, own: own, from: map[string]*addition{}}
	for _, d := range s.streams {
		if d.Selector != nil && d.Selector.Clusters != nil && !d.Selector.cluster(cluster) {
			continue
		}
		if e.add(d, nil) {
			e.out.Used = append(e.out.Used, d.label())
		}
	}
	return e.out
}

// extension is one route or stream_route as it is extended.
type extension struct {
	version     apisix.Version
	own, shared apisix.Plugins
	from        map[string]*addition // by plugin
	out         translate.Extended
}

// addition is a plugin that a document has added.
type addition struct {
	document *document
	// narrowed tells that the plugin is for some requests of the route only, by the document's selector.
	narrowed bool
}

// add adds the plugins of a document, for requests for which the filter holds, and tells whether it could add
// any.
func (e *extension) add(d *document, filter []any) (added bool) {
	if d.refused != "" {
		e.out.Unenforced = append(e.out.Unenforced, translate.Unenforced{What: d.refused, Filter: filter})
		return false
	}
	for _, name := range d.pluginNames() {
		config, why := e.plugin(d, name, filter)
		switch {
		case why != "":
			e.refuse(d, name, why, filter)
		case config != nil:
			if e.out.Plugins == nil {
				e.out.Plugins = apisix.Plugins{}
				maps.Copy(e.out.Plugins, e.own)
			}
			e.out.Plugins[name] = config
			added = true
		}
	}
	if added {
		e.out.By = append(e.out.By, d.label())
	}
	return added
}

// refuse reports a plugin that is left out, and what it was to protect.
func (e *extension) refuse(d *document, name, why string, filter []any) {
	what := fmt.Sprintf("plugin %s of %s (%s)", name, d.Name, d.place())
	e.problem(translate.CodeExtensionRefused, what, why)
	if restrictsAccess(name, d.Plugins[name]) {
		e.out.Unenforced = append(e.out.Unenforced, translate.Unenforced{What: what, Filter: filter})
	}
}

func (e *extension) problem(code translate.Code, args ...any) {
	e.out.Problems = append(e.out.Problems, translate.ExtensionProblem{Code: code, Args: args})
}

// plugin returns the configuration that the route gets; nil where it stays as it is, and why where the
// document's is refused.
func (e *extension) plugin(d *document, name string, filter []any) (config any, why string) {
	mine := d.Plugins[name]
	if len(filter) > 0 && !e.version.Has(apisix.FeatureMetaFilter) {
		return nil, "paths or hosts narrow it to some requests of the route, which needs APISIX " + apisix.FeatureMetaFilter.Since().String()
	}
	if e.enforcesLate() && changesRequests(name, mine) {
		return nil, "it could change requests before " + pluginForwardAuth + " has seen them, by which rules of access are enforced here"
	}
	if earlier := e.from[name]; earlier != nil {
		return e.second(d, name, earlier, filter)
	}
	own, ofRoute := e.own[name]
	shared, ofChain := e.shared[name]
	if !ofRoute && !ofChain {
		e.from[name] = &addition{document: d, narrowed: len(filter) > 0}
		return narrowed(mine, filter), ""
	}
	if !ofRoute {
		own = shared
	}
	config, why = e.overOwn(d, name, own, ofChain, filter)
	if why == "" {
		e.from[name] = &addition{document: d}
	}
	return config, why
}

// enforcesLate tells that rules of access are enforced by a plugin that runs after others.
func (e *extension) enforcesLate() bool {
	return e.own[pluginForwardAuth] != nil || e.shared[pluginForwardAuth] != nil
}

// overOwn is for a plugin that the translation has on the route.
func (e *extension) overOwn(d *document, name string, own any, ofChain bool, filter []any) (config any, why string) {
	const needed = "the mesh's configuration has the plugin on this route"
	switch {
	case d.Merge == mergeAdd || conflictOf(name) == ownKept:
		switch conflictOf(name) {
		case ownMerged:
			return nil, needed + "; merge: merge adds headers to its own"
		case ownReplaced:
			return nil, needed + "; merge: replace takes its place"
		}
		return nil, needed + " and needs it"
	case len(filter) > 0:
		return nil, needed + ", for all of its requests: hosts or paths must not narrow it"
	case ofChain && !e.version.Has(apisix.FeaturePluginOfRoute):
		return nil, needed + ", in a plugin_config, which wins before APISIX " + apisix.FeaturePluginOfRoute.Since().String()
	case conflictOf(name) == ownReplaced && d.Merge == mergeReplace:
		return d.Plugins[name], ""
	case conflictOf(name) == ownMerged && d.Merge == mergeMerge:
		return mergeHeaders(name, own, d.Plugins[name], "the mesh's configuration")
	}
	return nil, fmt.Sprintf("%s, and merge: %s cannot be for it", needed, d.Merge)
}

// second is for a plugin that another document has added already.
func (e *extension) second(d *document, name string, earlier *addition, filter []any) (config any, why string) {
	if earlier.narrowed {
		return nil, earlier.document.Name + " has it for some requests of the route, and a route has a plugin once"
	}
	if d.Merge != mergeMerge || conflictOf(name) != ownMerged {
		e.problem(translate.CodeExtensionShadowed, "plugin "+name+" of "+d.Name, name, earlier.document.Name)
		return nil, ""
	}
	if len(filter) > 0 {
		return nil, earlier.document.Name + " has it for all requests of the route, and a route has a plugin once"
	}
	return mergeHeaders(name, e.out.Plugins[name], d.Plugins[name], earlier.document.Name)
}

// narrowed adds a condition to those that a configuration has.
func narrowed(config map[string]any, filter []any) map[string]any {
	if len(filter) == 0 {
		return config
	}
	out := maps.Clone(config)
	meta := map[string]any{}
	if own, ok := config["_meta"].(map[string]any); ok {
		meta = maps.Clone(own)
	}
	if own, ok := meta["filter"].([]any); ok && len(own) > 0 {
		if _, logic := own[0].(string); logic {
			own = []any{own}
		}
		filter = slices.Concat(own, filter)
	}
	meta["filter"] = filter
	out["_meta"] = meta
	return out
}

// asObject is a configuration, of whatever type, as JSON has it.
func asObject(config any) (map[string]any, error) {
	if object, ok := config.(map[string]any); ok {
		return object, nil
	}
	data, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	var out map[string]any
	return out, json.Unmarshal(data, &out)
}
