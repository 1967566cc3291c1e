package translate

import (
	"maps"
	"slices"
	"strings"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"meshbridge/translate/apisix"
)

// compileAction translates what a route does with its requests into one or more branches. An action
// that cannot be expressed is reported and answers with a status of its own.
func compileAction(rx *routeContext) []branch {
	reportUnknown(rx.route, rx.report, "")
	reportFilterConfigs(rx.chain, rx.route.GetTypedPerFilterConfig(), "", rx.report)
	var branches []branch
	switch action := rx.route.GetAction().(type) {
	case *routepb.Route_Route:
		branches = compileForward(rx, action.Route)
	case *routepb.Route_Redirect:
		branches = []branch{compileRedirect(rx, action.Redirect)}
	case *routepb.Route_DirectResponse:
		branches = []branch{compileDirectResponse(rx, action.DirectResponse)}
	case *routepb.Route_FilterAction:
		branches = unsupportedAction(rx, "filter_action")
	case *routepb.Route_NonForwardingAction:
		branches = unsupportedAction(rx, "non_forwarding_action")
	default:
		branches = unsupportedAction(rx, "action")
	}
	branches = withRateLimit(rx, branches)
	branches = withCORS(rx, branches)
	return withFault(rx, branches)
}

func unsupportedAction(rx *routeContext, name string) []branch {
	rx.report(codeActionUnsupported, name, name)
	return []branch{{plugins: answerStatus(500)}}
}

// reportVirtualHost reports what a virtual host says beyond its routes that has no effect.
func reportVirtualHost(chain *Chain, vhost *routepb.VirtualHost, report reporter) {
	reportUnknown(vhost, report, "")
	reportFilterConfigs(chain, vhost.GetTypedPerFilterConfig(), "", report)
}

// with returns the branch with conditions and a plugin more, under a suffix of its own.
func (b branch) with(suffix string, vars apisix.Vars, plugin string, config any) branch {
	b.suffix = joinSuffix(suffix, b.suffix)
	b.vars = slices.Concat(vars, b.vars)
	return b.plus(plugin, config)
}

// plus returns the branch with a plugin more.
func (b branch) plus(plugin string, config any) branch {
	plugins := maps.Clone(b.plugins)
	if plugins == nil {
		plugins = apisix.Plugins{}
	}
	plugins[plugin] = config
	b.plugins = plugins
	return b
}

func joinSuffix(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ".")
}
