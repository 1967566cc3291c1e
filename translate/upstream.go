package translate

import (
	"cmp"
	"net/netip"
	"slices"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"

	"meshbridge/translate/apisix"
	"meshbridge/xds"
)

type xdsMessage = proto.Message

// clusterUnit is what one cluster becomes: an upstream for each variant that routes refer to. There
// is one for every cluster that a route names, whether or not the cluster exists.
type clusterUnit struct {
	name  string
	facts clusterFacts
	// references counts the references to each variant.
	references  map[variant]int
	diagnostics []Diagnostic
	// endpoints is the name of its EDS resource, and names are the host names that are resolved for it.
	endpoints string
	names     []string
	// slowStart tells that the cluster has one.
	slowStart bool
	// overlay is what capture knows of the endpoints, and transports what that is made of; nil until
	// it is needed, with the diagnostics about it. secrets are those that it needs.
	overlay              map[netip.Addr]*OverlayEndpoint
	transports           *transports
	transportDiagnostics []Diagnostic
	secrets              []string
	// ports are those of the stream_routes that lead to the cluster.
	ports map[uint16]bool
	// extendedBy names the documents of users that extend its stream_routes.
	extendedBy []string
}

// cluster returns the unit of a cluster, made if necessary.
func (s *State) cluster(name string) *clusterUnit {
	u := s.clusters[name]
	if u == nil {
		u = &clusterUnit{name: name, references: map[variant]int{}}
		s.clusters[name] = u
		s.refreshCluster(u)
	}
	return u
}

// clusterFacts returns the facts of a cluster.
func (s *State) clusterFacts(name string) clusterFacts {
	if u := s.clusters[name]; u != nil {
		return u.facts
	}
	return s.factsOf(s.decodedCluster(name))
}

// decodedCluster returns a cluster, or nil. A step needs it several times, and decodes it once.
func (s *State) decodedCluster(name string) *clusterpb.Cluster {
	c, known := s.decoded[name]
	if !known {
		c = resource[*clusterpb.Cluster](s.snapshot, xds.ClusterType, name)
		s.decoded[name] = c
	}
	return c
}

// refreshCluster reads what others depend on from the cluster, and tells whether its facts changed.
func (s *State) refreshCluster(u *clusterUnit) bool {
	c := s.decodedCluster(u.name)
	s.unlinkCluster(u)
	u.endpoints, u.names, u.secrets, u.transports = "", nil, nil, nil
	if c.GetType() == clusterpb.Cluster_EDS {
		u.endpoints = cmp.Or(c.GetEdsClusterConfig().GetServiceName(), u.name)
		s.endpointUsers.add(u.endpoints, u.name)
	}
	for _, host := range HostNames(c) {
		u.names = append(u.names, host.Key())
		s.nameUsers.add(host.Key(), u.name)
	}
	if s.options.Profile.Overlay() {
		u.secrets = secretsOf(c)
		for _, name := range u.secrets {
			s.secretUsers.add(name, u.name)
		}
	}
	facts := s.factsOf(c)
	changed := facts != u.facts
	u.facts = facts
	return changed
}

func (s *State) unlinkCluster(u *clusterUnit) {
	if u.endpoints != "" {
		s.endpointUsers.remove(u.endpoints, u.name)
	}
	for _, name := range u.names {
		s.nameUsers.remove(name, u.name)
	}
	for _, name := range u.secrets {
		s.secretUsers.remove(name, u.name)
	}
}

func (s *State) forgetCluster(u *clusterUnit) {
	s.unlinkCluster(u)
	delete(s.clusters, u.name)
}

// retain counts a reference to a variant, and tells whether it is the first.
func (u *clusterUnit) retain(v variant) bool {
	u.references[v]++
	return u.references[v] == 1
}

// release takes a reference back, and tells whether it was the last.
func (u *clusterUnit) release(v variant) bool {
	u.references[v]--
	if u.references[v] > 0 {
		return false
	}
	delete(u.references, v)
	return true
}

// capturedCluster is what capture and its stream ports have of a cluster.
type capturedCluster struct {
	endpoints map[netip.Addr]*OverlayEndpoint
	ports     map[uint16]bool
}

// compileCluster returns an upstream for each variant in use, and the slow start of the endpoints.
func (s *State) compileCluster(u *clusterUnit) ([]apisix.Object, *SlowStart, capturedCluster) {
	u.diagnostics, u.extendedBy = nil, nil
	c := s.decodedCluster(u.name)
	report := s.reporter(&u.diagnostics, "Cluster "+u.name, "", origin(c.GetMetadata()))
	cx := &clusterContext{options: &s.options, inputs: &s.inputs, name: u.name, cluster: c, report: report}
	if c.GetType() == clusterpb.Cluster_EDS {
		cx.load = resource[*endpointpb.ClusterLoadAssignment](s.snapshot, xds.EndpointType, u.endpoints)
	} else {
		cx.load = c.GetLoadAssignment()
	}
	if len(u.references) == 0 {
		return nil, nil, capturedCluster{}
	}
	if c != nil && overlayOf(s.options.Profile, &s.inputs) {
		if u.transports == nil {
			u.transportDiagnostics = nil
			u.transports = s.transportsOf(c, s.reporter(&u.transportDiagnostics, "Cluster "+u.name, "", origin(c.GetMetadata())))
		}
		u.diagnostics = slices.Clone(u.transportDiagnostics)
		cx.overlay = &overlay{transports: u.transports}
	}
	reportCluster(cx)
	var objects []apisix.Object
	var captured capturedCluster
	for v := range u.references { // in any order: objects are sorted by key, and diagnostics too
		up := compileUpstream(cx, v)
		up.ID = upstreamRef{u.name, v}.id()
		up.Name = s.options.APISIXVersion.Name(u.name + v.suffix())
		up.Desc = apisix.Name(origin(c.GetMetadata()))
		up.Labels = s.upstreamLabels
		o, err := encode(apisix.KindUpstream, up.ID, up, up.Validate(s.options.APISIXVersion))
		if err != nil {
			report("invalid_object", "", "upstream "+up.Name, err)
			continue
		}
		objects = append(objects, o)
		if v.tcp {
			objects = append(objects, s.streamRoutes(u, v, &captured, report)...)
		}
	}
	if cx.overlay != nil {
		captured.endpoints = cx.overlay.endpoints
		reportOverlay(cx)
		for v := range u.references {
			if !v.mirrored {
				continue
			}
			if e := s.mirrorEndpoint(upstreamRef{u.name, v}, c); e != nil {
				captured.endpoints = put(captured.endpoints, e.Address, e)
			}
		}
	}
	return objects, cx.slowStart(), captured
}
