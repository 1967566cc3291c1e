package translate

import (
	"slices"
	"time"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"meshbridge/translate/apisix"
)

// destination is a cluster that a route forwards to.
type destination struct {
	cluster string
	weight  uint32
	facts   clusterFacts
	// own are the settings of the destination among weighted ones; nil where there are none.
	own *routepb.WeightedCluster_ClusterWeight
	// suffix tells apart the branches of destinations that have one each.
	suffix string
}

// forwarding is what all branches of a route that forwards have in common.
type forwarding struct {
	rx       *routeContext
	notFound int // the status where the cluster is not there
	timeouts timeouts
	retries  int
	// retriesEnd is variant.retryTimeout.
	retriesEnd time.Duration
	hash       string
	// cookie is what clients without one are given; nil where nothing is.
	cookie    *sessionCookie
	path      pathRewrite
	host      hostRewrite
	websocket bool
	mirror    *proxyMirror
}

func compileForward(rx *routeContext, action *routepb.RouteAction) []branch {
	reportUnknown(action, rx.report, "route.")
	destinations := destinationsOf(rx, action)
	if len(destinations) == 0 {
		return []branch{{plugins: answerStatus(503)}}
	}
	f := &forwarding{
		rx:        rx,
		notFound:  notFoundStatus(action),
		path:      compilePathRewrite(rx, action),
		host:      compileHostRewrite(rx, action),
		websocket: allowsWebsocket(rx, action),
		mirror:    compileMirror(rx, action),
	}
	policy := retryPolicyOf(rx, action)
	f.timeouts = compileTimeouts(rx, action, policy)
	f.retries = compileRetries(rx, policy)
	if f.retries > 0 {
		f.retriesEnd = f.timeouts.response
	}
	policies := action.GetHashPolicy()
	session := sessionOf(rx)
	if session != nil {
		if len(policies) > 0 && slices.ContainsFunc(destinations, func(d destination) bool { return d.facts.hashes }) {
			rx.report(codeHashPolicy, "route.hash_policy", "the persistent session takes the place of it and of its cookie")
		}
		policies = []*routepb.RouteAction_HashPolicy{session.policy}
	}
	for i := range destinations {
		d := &destinations[i]
		f.reportDestination(*d)
		d.facts.hashes = d.facts.hashes || session != nil // whatever the cluster's policy
		if d.facts.hashes && f.hash == "" {
			f.hash = compileHashPolicy(rx, policies)
			f.cookie = cookieOfPolicies(rx, policies, f.hash)
			if session != nil && session.header != nil {
				f.cookie = session.header
			}
		}
	}
	if f.sharesRoute(destinations) {
		if f.cookie != nil && slices.ContainsFunc(destinations, func(d destination) bool { return !d.facts.hashes }) {
			rx.report(codeHashPolicy, "route.hash_policy", "clients of destinations that do not hash get the cookie as well")
		}
		return f.branches(destinations, "", nil)
	}
	return f.slices(destinations)
}

// notFoundStatus is what Envoy answers where a route's cluster does not exist.
func notFoundStatus(action *routepb.RouteAction) int {
	switch action.GetClusterNotFoundResponseCode() {
	case routepb.RouteAction_NOT_FOUND:
		return 404
	case routepb.RouteAction_INTERNAL_SERVER_ERROR:
		return 500
	case routepb.RouteAction_SERVICE_UNAVAILABLE:
	}
	return 503
}

func (f *forwarding) reportDestination(d destination) {
	switch {
	case !d.facts.exists:
		f.rx.report(codeClusterNotFound, "route", d.cluster, f.notFound)
	case d.facts.originalDestination && !d.facts.aliased:
		f.rx.report(codeOriginalDestination, "route", d.cluster)
	}
}

// branches builds the route to destinations that share all settings: the main branch and before it,
// where they need one, those for gRPC and for websocket.
func (f *forwarding) branches(ds []destination, suffix string, vars apisix.Vars) []branch {
	first := ds[0]
	if len(ds) == 1 && !first.facts.exists && f.notFound != 503 {
		return []branch{{suffix: suffix, vars: vars, plugins: answerStatus(f.notFound)}}
	}
	out := f.withoutSession(ds, suffix, vars)
	main := f.branch(ds)
	main.suffix, main.vars = suffix, vars
	if speaksGRPC(ds) {
		out = append(out, f.grpcTwin(main, ds))
		if f.rx.chain.plugins.grpcWeb {
			out = append(out, f.grpcWebTwin(main, ds))
		}
	}
	if endless := f.timeouts.ofUpgraded(); main.websocket && endless != f.timeouts {
		out = append(out, websocketTwin(main, endless.of(first.facts.connectTimeout)))
		main.websocket = false
	}
	if f.mirror != nil {
		out = append(out, mirrorTwin(main, f.mirror))
	}
	return append(out, main)
}

func (f *forwarding) branch(ds []destination) branch {
	b := branch{
		plugins:   apisix.Plugins{},
		timeout:   f.timeouts.of(ds[0].facts.connectTimeout),
		websocket: f.websocket,
		quiet:     f.rx.chain.peers.quietTo(ds[0].facts),
	}
	// Where destinations share a route, none has settings of its own, so the first stands for all.
	if p := f.proxyRewrite(ds[0]); p != nil {
		b.plugins[pluginProxyRewrite] = p
	}
	if p := f.rx.responseHeaders(ds[0]); p != nil {
		b.plugins[pluginResponseRewrite] = p
	}
	if limit := ds[0].facts.maxRequests; limit > 0 {
		b.plugins[pluginLimitConn] = limitConcurrency(ds[0].cluster, limit)
	}
	return f.to(b, ds, false)
}

// to makes the branch forward to the destinations.
func (f *forwarding) to(b branch, ds []destination, grpc bool) branch {
	ref := f.ref(ds[0], grpc)
	b.upstream = &ref
	if len(ds) > 1 {
		var split trafficSplit
		split, b.extra = f.split(ds, grpc)
		b = b.plus(pluginTrafficSplit, split)
	}
	return b
}

// ref names the upstream of a destination in the variant that the route needs.
func (f *forwarding) ref(d destination, grpc bool) upstreamRef {
	v := variant{
		retries:      f.retries,
		retryTimeout: f.retriesEnd,
		grpc:         grpc && d.speaksGRPC(),
		host:         f.host.onUpstream(d),
	}
	if d.facts.hashes {
		v.hash = f.hash
	}
	return upstreamRef{cluster: d.cluster, variant: v}
}

func (f *forwarding) proxyRewrite(d destination) *proxyRewrite {
	p := &proxyRewrite{
		URI:      f.path.uri,
		RegexURI: f.path.regexURI,
		Host:     f.host.onRoute(d),
		Headers:  f.rx.requestHeaders(d),
	}
	rewritesPath := p.URI != "" || p.RegexURI != nil
	if !rewritesPath && p.Host == "" && p.Headers == nil {
		return nil
	}
	p.UseRealRequestURI = !rewritesPath
	return p
}

// limitConcurrency is the circuit breaker of a cluster, which APISIX can only have on the route.
// The delay is without meaning: there is no burst to be delayed.
func limitConcurrency(cluster string, limit uint32) limitConn {
	return limitConn{
		Conn:                limit,
		DefaultConnDelay:    0.01,
		OnlyUseDefaultDelay: true,
		KeyType:             "var_combination",
		Key:                 apisix.Var("hostname") + "-" + apisix.EscapeTemplate(cluster),
		RejectedCode:        503,
		Policy:              "local",
	}
}
