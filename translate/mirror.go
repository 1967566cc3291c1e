package translate

import (
	"net"
	"regexp"
	"strconv"
	"strings"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"meshbridge/translate/apisix"
)

// APISIX's proxy-mirror sends copies to an address, not to an upstream: clusters that have a single
// one can be mirrored to. It writes the decoded path into the copy, so that an escaped line break
// would end the request line there: only requests whose path has no escapes are copied, by a route
// in front of the one for all. Upgraded requests are left to that one as well.

const codeMirrorApproximate Code = "mirror_approximate"

// proxyMirror sends copies of a share of the requests.
type proxyMirror struct {
	Host        string  `json:"host"`
	SampleRatio float64 `json:"sample_ratio"`
}

// compileMirror returns the first mirror of a route, which is all that APISIX has, and reports the
// others; nil where nothing is mirrored.
func compileMirror(rx *routeContext, action *routepb.RouteAction) *proxyMirror {
	policies, field := action.GetRequestMirrorPolicies(), "route.request_mirror_policies"
	if len(policies) == 0 { // the more specific level replaces the others
		policies, field = rx.vhost.GetRequestMirrorPolicies(), ""
	}
	if len(policies) == 0 {
		policies = rx.config.GetRequestMirrorPolicies()
	}
	var mirror *proxyMirror
	for _, p := range policies {
		share := 1.0
		if f := p.GetRuntimeFraction().GetDefaultValue(); p.GetRuntimeFraction() != nil {
			share = min(float64(f.GetNumerator())/float64(denominatorOf(f)), 1)
		}
		if share < smallestSample {
			continue
		}
		at := field
		if at != "" {
			at += "[" + strconv.Quote(p.GetCluster()) + "]"
		}
		address := rx.facts(p.GetCluster()).mirror
		rewritten := rewritesPath(action)
		if address == "" || rewritten || mirror != nil {
			rx.report(codeMirror, at, p.GetCluster())
			continue
		}
		rx.report(codeMirrorApproximate, at, p.GetCluster(), address)
		mirror = &proxyMirror{Host: address, SampleRatio: share}
	}
	return mirror
}

func rewritesPath(action *routepb.RouteAction) bool {
	return action.GetPrefixRewrite() != "" || action.GetRegexRewrite() != nil || action.GetPathRewritePolicy() != nil || action.GetPathRewrite() != ""
}

// mirrorTwin returns the branch for the requests that are copied.
func mirrorTwin(b branch, mirror *proxyMirror) branch {
	b.suffix = joinSuffix("mirror", b.suffix)
	b.vars = append(apisix.List(apisix.NotMatch("real_request_uri", `\A[^?]*%`), apisix.Absent("http_upgrade")), b.vars...)
	return b.plus(pluginProxyMirror, mirror)
}

// mirrorAddress is where copies for a cluster go: to the service of Kubernetes that it stands for, or
// to its only endpoint. It is empty where there is no such address.
func mirrorAddress(c *clusterpb.Cluster) string {
	if s := c.GetTransportSocket(); s != nil && !isPlain(s) {
		return ""
	}
	if c.GetType() == clusterpb.Cluster_EDS {
		if !isKubernetesService(c) {
			return ""
		}
		return serviceURL(c.GetName(), "")
	}
	var only *corepb.SocketAddress
	for _, locality := range c.GetLoadAssignment().GetEndpoints() {
		for _, e := range locality.GetLbEndpoints() {
			socket, why := connectable(e.GetEndpoint().GetAddress())
			if why != "" || only != nil {
				return ""
			}
			only = socket
		}
	}
	if only == nil || !isMirrorHost(only.GetAddress()) {
		return ""
	}
	return "http://" + net.JoinHostPort(only.GetAddress(), strconv.Itoa(int(only.GetPortValue())))
}

// isKubernetesService tells whether the cluster's host is the name of a service in Kubernetes' DNS, by
// the metadata that istiod puts on clusters. The host of a ServiceEntry need not be in any DNS.
func isKubernetesService(c *clusterpb.Cluster) bool {
	services := c.GetMetadata().GetFilterMetadata()["istio"].GetFields()["services"].GetListValue().GetValues()
	if len(services) != 1 {
		return false
	}
	service := services[0].GetStructValue().GetFields()
	prefix := service["name"].GetStringValue() + "." + service["namespace"].GetStringValue() + ".svc."
	return strings.HasPrefix(service["host"].GetStringValue(), prefix) && isMirrorHost(service["host"].GetStringValue())
}

// isMirrorHost follows the plugin's schema.
func isMirrorHost(host string) bool {
	return regexp.MustCompile(`\A([0-9a-zA-Z.-]+|[0-9a-fA-F:]+)\z`).MatchString(host)
}
