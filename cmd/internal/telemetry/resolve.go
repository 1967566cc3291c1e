package telemetry

import (
	"net/netip"
	"reflect"
	"strconv"
	"strings"

	"meshbridge/translate"
	"meshbridge/translate/accesslog"
	"meshbridge/xds"
)

// resolved is what stands behind what APISIX says of requests, and what that was found in: it holds as long as
// those are the same.
type resolved struct {
	labels labels
	rules  *translate.Stats // nil: not counted
	logged bool             // entries are wanted
	// route is the name of the route in Envoy, clusterStat the cluster's alt_stat_name, and upstream the endpoint;
	// toOriginal tells that it is where the client wanted to go.
	route, clusterStat string
	upstream           netip.AddrPort
	toOriginal         bool

	chain     *translate.Chain
	cluster   *xds.Resource
	endpoints *xds.Resource
	principal string

	clusterKey, endpointsKey xds.Key
}

// current tells whether the world is still the one that it was found in.
func (r *resolved) current(w World) bool {
	chain := w.Chain(r.chain.Key)
	return chain != nil && reflect.DeepEqual(chain.Stats, r.chain.Stats) && (len(chain.AccessLogs) > 0) == (len(r.chain.AccessLogs) > 0) && w.Principal() == r.principal &&
		w.Resource(r.clusterKey) == r.cluster && w.Resource(r.endpointsKey) == r.endpoints
}

// resolver finds the labels of requests.
type resolver struct {
	world World
	own   Workload
	// always tells that chains without the filter are counted, too, and uncounted that none are. logs tells that
	// there is whom to hand entries to.
	always, uncounted, logs bool
}

func newResolver(c *Config) resolver {
	return resolver{world: c.World, own: WorkloadOfNode(c.Node), always: c.Always, uncounted: c.Uncounted, logs: c.Entries != nil}
}

// find returns what stands behind requests; nil where it is not known on which chain they came.
func (r *resolver) find(q *request, metadata string) *resolved {
	w := r.world
	route, ok := routeOf(w, q.Route)
	if !ok {
		return nil
	}
	out, rules := r.onChain(route.chain())
	if rules == nil {
		return out
	}
	if !route.invented() {
		out.route = route.envoyRoute()
	}
	cluster := clusterOfUpstream(w, q.Upstream)
	to, exists := out.toCluster(w, cluster)
	e := ends{own: r.own, ownPrincipal: out.principal, reporter: rules.Reporter}
	if !rules.NoHostFallback {
		e.service, e.serviceName = q.Host, q.Host
	}
	e.name(route.envoyRoute(), cluster, to)
	endpoint := r.upstream(q, out)
	if e.reporter == translate.ReporterSource {
		r.towards(&e, endpoint, metadata, out)
	} else {
		r.from(&e, q, metadata)
	}
	e.onto(&out.labels)
	outcome(q, route, exists, &out.labels)
	return out
}

// onChain returns what stands behind what came on a chain, without more than that, and the rules by which there is
// more to say; nil where nothing is counted or logged. All is nil where the chain is not known.
func (r *resolver) onChain(key string) (out *resolved, rules *translate.Stats) {
	chain := r.world.Chain(key)
	if chain == nil {
		return nil, nil
	}
	out = &resolved{chain: chain, rules: r.rulesOf(chain), logged: r.logs && len(chain.AccessLogs) > 0, principal: r.world.Principal()}
	if out.rules == nil && out.logged {
		return out, usualRules(chain)
	}
	return out, out.rules
}

// toCluster fills in where it went.
func (r *resolved) toCluster(w World, name string) (to destination, exists bool) {
	r.clusterKey = xds.Key{Type: xds.ClusterType, Name: name}
	r.cluster = w.Resource(r.clusterKey)
	to, exists = destinationOf(r.cluster)
	r.clusterStat = to.stat
	r.endpointsKey = xds.Key{Type: xds.EndpointType, Name: to.endpoints}
	r.endpoints = w.Resource(r.endpointsKey)
	return to, exists
}

// rulesOf returns what is counted of a chain, nil for nothing.
func (r *resolver) rulesOf(c *translate.Chain) *translate.Stats {
	switch {
	case r.uncounted:
		return nil
	case c.Stats == nil && r.always:
		return usualRules(c)
	}
	return c.Stats
}

// usualRules are those of a chain that says nothing of its own.
func usualRules(c *translate.Chain) *translate.Stats {
	s := &translate.Stats{Reporter: translate.ReporterSource, NoHostFallback: c.Direction != translate.Outbound}
	if c.Direction == translate.Inbound {
		s.Reporter = translate.ReporterDestination
	}
	return s
}

// name fills in the service, by the cluster where it has one.
func (e *ends) name(route, cluster string, to destination) {
	switch {
	case route == "block_all":
		e.serviceName = "BlackHoleCluster"
	case route == "allow_any":
		e.serviceName = "PassthroughCluster"
	case cluster == "BlackHoleCluster" || cluster == "PassthroughCluster" || strings.HasPrefix(cluster, "InboundPassthroughCluster"):
		e.serviceName = cluster
	case to.host != "":
		e.service, e.serviceName, e.serviceNamespace = to.host, to.name, to.namespace
	}
}

// logsOf are the logs of a chain as it is now, or was last.
func (r *resolver) logsOf(found *resolved) []*accesslog.Log {
	if !found.logged {
		return nil
	}
	if chain := r.world.Chain(found.chain.Key); chain != nil {
		return chain.AccessLogs
	}
	return found.chain.AccessLogs
}

// upstream finds the endpoint, and returns what capture knows of it; nil where it does not stand for it.
func (r *resolver) upstream(q *request, out *resolved) *translate.OverlayEndpoint {
	address, err := netip.ParseAddrPort(q.Node)
	if err != nil {
		return nil
	}
	endpoint := r.world.Overlay(address.Addr())
	if endpoint == nil {
		out.upstream = address
		return nil
	}
	out.upstream, out.toOriginal = endpoint.Target, endpoint.OriginalDestination
	return endpoint
}

// towards fills in who was asked: what it says of itself, or else what istiod says of the endpoint.
func (r *resolver) towards(e *ends, endpoint *translate.OverlayEndpoint, metadata string, in *resolved) {
	e.ownPrincipal = "" // unless the connection was one with mutual TLS
	if endpoint != nil && endpoint.TLS != nil && endpoint.TLS.Credential.Workload {
		e.ownPrincipal = in.principal
		e.peerID = onlyIdentity(endpoint.TLS.SANs)
	}
	if peer, told := workloadOfHeader(metadata); told {
		e.peer = peer
	} else if in.upstream.IsValid() {
		e.peer, _ = endpointOf(in.endpoints, in.cluster, in.upstream)
	}
}

// onlyIdentity is the identity that a server must have had; empty where it might have had another.
func onlyIdentity(sans []translate.SANMatch) string {
	if len(sans) == 1 && strings.HasPrefix(sans[0].Exact, "spiffe://") {
		return sans[0].Exact
	}
	return ""
}

// from fills in who asked.
func (r *resolver) from(e *ends, q *request, metadata string) {
	e.peer, _ = workloadOfHeader(metadata)
	e.identified(q.Principal)
}

// identified fills in who has asked, as far as the certificate tells.
func (e *ends) identified(principal string) {
	e.peerID, e.securityKnown = principal, true
	e.mutualTLS = principal != "" && e.ownPrincipal != ""
	if principal == "" {
		e.ownPrincipal = "" // no TLS of the mesh
	}
}

// outcome fills in how it went, in Envoy's terms.
func outcome(q *request, on *route, clusterExists bool, l *labels) {
	l[labelRequestProtocol] = "http"
	if q.GRPC != "" {
		l[labelRequestProtocol] = "grpc"
		if q.GRPC != "-" {
			l[labelGRPCStatus] = q.GRPC
		}
	}
	l[labelResponseCode] = strconv.Itoa(q.Status)
	l[labelResponseFlags] = flags(q, on, clusterExists)
	if q.Status == statusClientClosed {
		l[labelResponseCode] = "0"
	}
}

// statusClientClosed is nginx's status of requests whose client did not wait for the answer.
const statusClientClosed = 499

// flags are Envoy's response flags, as far as they are known.
func flags(q *request, on *route, clusterExists bool) string {
	failure, several := strings.CutSuffix(q.Failure, "+")
	var flag string
	switch {
	case q.Status == statusClientClosed:
		return "DC"
	case failure == "choose" && clusterExists:
		return "UH"
	case failure == "choose":
		return "NC"
	case failure == "connect":
		flag = "UF"
	case failure == "answer" && q.Status == 504:
		flag = "UT"
	case failure == "answer":
		flag = "UC"
	case q.Node != "":
		return "-"
	case on.terminal() && q.Status == 404:
		return "NR"
	case on.Upstream != "" && on.Plugins.Fault.Abort != nil && on.Plugins.Fault.Abort.Status == q.Status:
		return "FI"
	case on.Upstream != "" && q.Status == 429:
		return "RL"
	case on.Upstream != "" && q.Status == 503:
		return "UO" // the limit of concurrent requests
	default:
		return "-"
	}
	if several {
		switch flag {
		case "UT":
			return "UT,URX"
		case "UF", "UC":
			return flag + ",URX"
		}
	}
	return flag
}
