package translate

import (
	"strconv"
	"strings"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"meshbridge/translate/apisix"
)

// allowsWebsocket tells whether a route lets requests upgrade to websocket. Istio enables it for
// all routes, and single routes can disable it.
func allowsWebsocket(rx *routeContext, action *routepb.RouteAction) bool {
	allowed := true
	for _, u := range action.GetUpgradeConfigs() {
		enabled := u.GetEnabled() == nil || u.GetEnabled().GetValue()
		switch {
		case strings.EqualFold(u.GetUpgradeType(), "websocket"):
			allowed = enabled
		case enabled:
			field := "route.upgrade_configs[" + strconv.Quote(u.GetUpgradeType()) + "]"
			rx.report(codeSettingIgnored, field, "the upgrade to "+u.GetUpgradeType())
		}
	}
	return allowed
}

// websocketTwin returns the branch for upgrades to websocket on a route whose timeouts differ for them.
func websocketTwin(b branch, timeout *apisix.Timeout) branch {
	b.suffix = joinSuffix("websocket", b.suffix)
	b.vars = append(apisix.List(apisix.MatchFold("http_upgrade", `\Awebsocket\z`)), b.vars...)
	b.timeout = timeout
	return b
}
