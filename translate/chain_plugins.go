package translate

import (
	"maps"

	http_connection_managerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"meshbridge/translate/apisix"
)

// chainPlugins is what a connection manager does with every request that is forwarded. It becomes a
// plugin_config of the chain, to which its routes refer: the plugins are said once, and what they
// count is counted once for the chain.
type chainPlugins struct {
	requestID *requestID
	tracing   *tracer
	rateLimit *limitReq
	// grpcWeb tells that gRPC-Web requests are translated, on routes to what speaks gRPC.
	grpcWeb bool
	// tokens are about the tokens of requests; nil where nobody looks at them.
	tokens *tokenPlugins
	// accessLog is also for requests that are not forwarded.
	accessLog *fileLogger
	// rateLimitFilter is the name of the filter with the rate limit, by which routes have others;
	// empty where there is no such filter.
	rateLimitFilter string
}

func chainPluginsOf(hcm *http_connection_managerpb.HttpConnectionManager, options *Options, report reporter) chainPlugins {
	p := chainPlugins{
		requestID: requestIDOf(hcm, report),
		tracing:   tracingOf(hcm, options.NodeID, report),
		accessLog: accessLogOf(hcm, options, report),
	}
	for _, f := range hcm.GetHttpFilters() {
		field := `http_filters["` + f.GetName() + `"]`
		switch messageName(f.GetTypedConfig()) {
		case typeLocalRateLimit:
		case typeGRPCWeb:
			switch p.grpcWeb = !f.GetDisabled(); {
			case p.grpcWeb && !options.APISIXVersion.Has(apisix.FeatureGRPCWebPath):
				p.grpcWeb = false
				report(codeFilterIgnored, field, f.GetName(), "which needs APISIX "+apisix.FeatureGRPCWebPath.Since().String())
			case p.grpcWeb:
				report(codeGRPCWeb, field)
			}
			continue
		default:
			continue
		}
		if p.rateLimitFilter != "" {
			report(codeFilterIgnored, field, f.GetName(), "a second rate limit")
			continue
		}
		p.rateLimitFilter = f.GetName()
		if !f.GetDisabled() {
			p.rateLimit = compileRateLimit(f.GetTypedConfig(), f.GetName(), field, report)
		}
	}
	return p
}

// onto adds the plugins to others.
func (p chainPlugins) onto(plugins apisix.Plugins) apisix.Plugins {
	out := apisix.Plugins{}
	if p.requestID != nil {
		out[pluginRequestID] = p.requestID
	}
	if p.tracing != nil {
		out[p.tracing.plugin] = p.tracing.config
	}
	if p.rateLimit != nil {
		out[pluginLimitReq] = p.rateLimit
	}
	if p.tokens != nil {
		out[pluginForwardAuth] = p.tokens.auth
		if p.tokens.refusal != nil {
			out[pluginWorkflow] = p.tokens.refusal
		}
	}
	if p.accessLog != nil {
		out[pluginFileLogger] = p.accessLog
	}
	maps.Copy(out, plugins)
	return out
}

// withChainPlugins lets the branches that forward refer to the plugins of the chain, unless they refer
// to a plugin_config already, which has them too.
func (x *routeCompiler) withChainPlugins(branches []branch) []branch {
	plugins := x.chain.plugins.onto(nil)
	if len(plugins) == 0 {
		return branches
	}
	for i, b := range branches {
		switch {
		case b.upstream == nil || b.pluginConfig != "":
		case b.hasPluginOf(plugins) && !x.state.options.APISIXVersion.Has(apisix.FeaturePluginOfRoute):
			branches[i].plugins = x.chain.plugins.onto(b.plugins)
			if limit, ok := b.plugins[pluginLimitReq].(*limitReq); ok && limit.Meta != nil {
				delete(branches[i].plugins, pluginLimitReq)
			}
		default:
			branches[i].pluginConfig = x.pluginConfig("forwarded", plugins)
		}
	}
	return branches
}

// answeredConfig returns the id of the plugin_config for requests that are not forwarded; empty where
// they need none.
func (x *routeCompiler) answeredConfig() string {
	if x.chain.plugins.accessLog == nil {
		return ""
	}
	return x.pluginConfig("answered", apisix.Plugins{pluginFileLogger: x.chain.plugins.accessLog})
}

// hasPluginOf tells whether the branch has one of the plugins.
func (b branch) hasPluginOf(plugins apisix.Plugins) bool {
	for name := range b.plugins {
		if plugins[name] != nil {
			return true
		}
	}
	return false
}
