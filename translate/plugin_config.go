package translate

import "meshbridge/translate/apisix"

// pluginConfigUnit is a plugin_config of a chain.
type pluginConfigUnit struct {
	object apisix.Object
	// plugins are those of the object, as they were compiled.
	plugins     apisix.Plugins
	invalid     error
	diagnostics []Diagnostic
}

// pluginConfig returns the id of a plugin_config of the chain, which is the same for all its routes
// and emitted once.
func (x *routeCompiler) pluginConfig(what string, plugins apisix.Plugins) string {
	id := apisix.ID("pc", x.chain.Key+"."+what, canonicalKey(x.chain.Key, what))
	x.part.pluginConfigs = add(x.part.pluginConfigs, id)
	x.emitPluginConfig(id, func() pluginConfigUnit {
		var c pluginConfigUnit
		version := x.state.options.APISIXVersion
		config := &apisix.PluginConfig{ID: id, Labels: x.labels(nil), Plugins: plugins}
		if !version.HasAll() {
			config.Plugins = lowering{version, x.state.reporter(&c.diagnostics, x.resource, "", "")}.plugins(plugins)
		}
		if version.Has(apisix.FeaturePluginConfigName) {
			config.Name = version.Name(x.chain.Key + "|" + what)
		}
		c.plugins = config.Plugins
		c.object, c.invalid = encode(apisix.KindPluginConfig, id, config, config.Validate(version))
		return c
	})
	return id
}

// emitPluginConfig adds a plugin_config to the rest of the chain, unless it is there.
func (x *routeCompiler) emitPluginConfig(id string, config func() pluginConfigUnit) {
	if _, there := x.unit.pluginConfigs[id]; there {
		return
	}
	c := config()
	x.unit.pluginConfigs[id] = c
	rest := x.unit.parts[groupRest]
	rest.diagnostics = append(rest.diagnostics, c.diagnostics...)
	if c.invalid != nil { // routes that refer to what is not there answer 503
		x.state.reporter(&rest.diagnostics, x.resource, "", "")("invalid_object", "", "plugin_config "+id, c.invalid)
		return
	}
	rest.objects = append(rest.objects, c.object)
}
