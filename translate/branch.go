package translate

import (
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"meshbridge/translate/apisix"
)

// branch is one APISIX route that an Envoy route becomes. Most routes have one branch; weighted
// clusters with header operations, gRPC twins and CORS preflights have several. Branches share the
// route's guard, hosts and match and are tried in order, the last one without vars of its own.
type branch struct {
	// suffix tells the branches of a route apart in their ids; the main one's is empty.
	suffix string
	// vars are the conditions that the branch adds to the route's.
	vars apisix.Vars
	// plugins holds everything but the chain's shared plugins.
	plugins apisix.Plugins
	// pluginConfig is the id of a plugin_config, which counts where plugins has not the same plugin.
	pluginConfig string
	// upstream is nil where a plugin answers.
	upstream  *upstreamRef
	timeout   *apisix.Timeout
	websocket bool
	// early tells that the branch answers requests for which nobody looks at a token.
	early bool
	// keepsPath tells that the part of the path that a wildcard matches must not be known by itself.
	keepsPath bool
	// extra are further upstreams that plugins of the branch refer to by id.
	extra []upstreamRef
	// quiet tells that requests do not say whose they are, where those of the chain do.
	quiet bool
	// denies tells that the branch is there to refuse requests.
	denies bool
}

// upstreamRef names an upstream: a cluster in the variant that a route needs.
type upstreamRef struct {
	cluster string
	variant variant
}

// variant holds what Envoy says on the route and APISIX on the upstream. It is comparable, and part
// of the upstream's id, so an id depends on nothing but the reference.
type variant struct {
	// retries is the number of retries; Istio's default of 2 has no suffix in the id.
	retries int
	// retryTimeout is how long after the start of a request retries may begin; 0 is no limit.
	retryTimeout time.Duration
	// grpc makes the scheme grpc: the twin of a cluster that speaks HTTP/2.
	grpc bool
	// tcp is for connections that carry no HTTP, or none that anyone looks at.
	tcp bool
	// mirrored is for copies of requests, which get to it by way of capture.
	mirrored bool
	// hash is the canonical form of the hash policy ("header:x-user", "cookie:sid",
	// "vars:remote_addr", "vars:arg_q", "combination:…"); empty without one.
	hash string
	// host is the Host header to send where proxy-rewrite cannot carry it; "node" sends the
	// endpoint's own host name; empty passes the client's.
	host string
}

// clusterFacts are what routes need to know of a cluster. A route is translated again when the
// facts of a cluster that it refers to change, and only then.
type clusterFacts struct {
	exists         bool
	connectTimeout float64 // seconds
	// http2 says that the cluster must be spoken to in HTTP/2; downstream that it follows the client's protocol.
	http2, downstream bool
	// originalDestination says that only the original destination is an endpoint.
	originalDestination bool
	// hashes says that the cluster's policy is a hash policy, so that the route's hash_policy counts.
	hashes bool
	// maxRequests is the circuit breaker's limit of concurrent requests; 0 is none.
	maxRequests uint32
	// aliased says that capture connects to the original destination of HTTP requests, and opening
	// identifies how; empty for clusters with endpoints of their own.
	aliased bool
	opening string
	// unserved says why TCP connections to the cluster are closed; empty where they are not.
	unserved string
	// external tells that the endpoints are outside the mesh, and noPeers that no metadata is exchanged with
	// them.
	external, noPeers bool
	// mirror is the address to which copies of requests can be sent; empty where there is none.
	mirror string
}

// routeContext is what the action of a route is compiled from. Routes that a filter restricts
// access to are answered before: the action sees none of those that are refused.
type routeContext struct {
	options *Options
	chain   *Chain
	config  *routepb.RouteConfiguration
	vhost   *routepb.VirtualHost
	route   *routepb.Route
	// pathPrefix is the matched literal prefix or exact path, for rewrites; pathExact tells which.
	pathPrefix string
	pathExact  bool
	facts      func(cluster string) clusterFacts
	upstreamID func(upstreamRef) string
	// mirror gives the address of capture by which copies of requests get to an upstream; nil where there
	// is no capture.
	mirror func(upstreamRef) (host string, ok bool)
	// report adds a diagnostic about a field of the route; field is relative to it.
	report func(code Code, field string, args ...any)
}

// clusterContext is what an upstream is compiled from.
type clusterContext struct {
	options *Options
	inputs  *Inputs
	name    string
	cluster *clusterpb.Cluster                // nil where a route refers to a cluster that is not there
	load    *endpointpb.ClusterLoadAssignment // nil until it has arrived
	// overlay is nil where capture does not stand for endpoints.
	overlay *overlay
	report  func(code Code, field string, args ...any)
}
