package translate

import (
	"cmp"
	"net/netip"
	"slices"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"

	"meshbridge/xds"
)

// Reach is how the process itself, and not APISIX, connects to a cluster: to the service of an access log. It
// is immutable.
type Reach struct {
	// Known tells whether there is such a cluster.
	Known bool
	// Levels are its endpoints by priority, the first to be preferred. They have no overlay address, and names
	// in place of addresses that are not known. Those that drain are left out where there are others.
	Levels [][]*OverlayEndpoint

	keys []xds.Key // of what it was made from
	from []*xds.Resource
}

// ReachOf returns how to connect to a cluster. What cannot be done about its endpoints is reported by
// translations, and such endpoints are left out.
func ReachOf(s *xds.Snapshot, cluster string) *Reach {
	r := &Reach{}
	c := readAs[*clusterpb.Cluster](r, s, xds.Key{Type: xds.ClusterType, Name: cluster})
	if c == nil {
		return r
	}
	r.Known = true
	var load *endpointpb.ClusterLoadAssignment
	if c.GetType() == clusterpb.Cluster_EDS {
		name := cmp.Or(c.GetEdsClusterConfig().GetServiceName(), cluster)
		load = readAs[*endpointpb.ClusterLoadAssignment](r, s, xds.Key{Type: xds.EndpointType, Name: name})
	}
	state := &State{credentials: map[string]*credential{}}
	for _, name := range secretsOf(c) {
		if held := r.get(s, xds.Key{Type: xds.SecretType, Name: name}); held != nil {
			state.credentials[name] = state.parseSecret(held)
		}
	}
	unreported := func(Code, string, ...any) {}
	cx := &clusterContext{
		options: &Options{Profile: Mesh()}, inputs: &Inputs{}, name: cluster, cluster: c, load: load, report: unreported,
		overlay: &overlay{transports: state.transportsOf(c, unreported)},
	}
	levels := map[uint32][]endpoint{}
	var priorities []uint32
	for _, e := range cx.endpoints(nil) {
		// Where connections of virtual endpoints go comes with requests.
		if e.virtual() || cx.overlay.transports.of(e.metadata).unknown {
			continue
		}
		if levels[e.priority] == nil {
			priorities = append(priorities, e.priority)
		}
		levels[e.priority] = append(levels[e.priority], e)
	}
	slices.Sort(priorities)
	for _, p := range priorities {
		var level []*OverlayEndpoint
		for _, e := range serving(levels[p]) {
			level = append(level, cx.connection(&e, cx.overlay.transports.of(e.metadata), netip.Addr{}))
		}
		r.Levels = append(r.Levels, level)
	}
	return r
}

// serving are the endpoints that do not drain, or all.
func serving(all []endpoint) []endpoint {
	left := slices.DeleteFunc(slices.Clone(all), func(e endpoint) bool { return e.draining })
	if len(left) == 0 {
		return all
	}
	return left
}

// Current tells whether what it was made from is still what a snapshot has.
func (r *Reach) Current(s *xds.Snapshot) bool {
	for i, k := range r.keys {
		if s.Get(k) != r.from[i] {
			return false
		}
	}
	return true
}

func (r *Reach) get(s *xds.Snapshot, k xds.Key) *xds.Resource {
	found := s.Get(k)
	r.keys, r.from = append(r.keys, k), append(r.from, found)
	return found
}

// readAs returns a resource that is there and decodes, and else nil.
func readAs[T proto.Message](r *Reach, s *xds.Snapshot, k xds.Key) (none T) {
	found := r.get(s, k)
	if found == nil {
		return none
	}
	m, err := xds.Decode[T](found)
	if err != nil {
		return none
	}
	return m
}
