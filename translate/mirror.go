package translate

import (
	"strconv"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
)

// reportMirrors reports the mirrors of a route. APISIX's proxy-mirror sends to one address, not to
// an upstream: mirroring a cluster takes an address that stands for all its endpoints.
func reportMirrors(rx *routeContext, action *routepb.RouteAction) {
	policies, field := action.GetRequestMirrorPolicies(), "route.request_mirror_policies"
	if len(policies) == 0 { // the more specific level replaces the others
		policies, field = rx.vhost.GetRequestMirrorPolicies(), ""
	}
	if len(policies) == 0 {
		policies = rx.config.GetRequestMirrorPolicies()
	}
	for _, p := range policies {
		if f := p.GetRuntimeFraction(); f != nil && f.GetDefaultValue().GetNumerator() == 0 {
			continue
		}
		at := field
		if at != "" {
			at += "[" + strconv.Quote(p.GetCluster()) + "]"
		}
		rx.report(codeMirror, at, p.GetCluster())
	}
}
