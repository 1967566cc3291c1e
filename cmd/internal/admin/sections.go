package admin

import (
	"bytes"
	"cmp"
	"iter"
	"maps"
	"slices"
	"time"

	adminpb "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	http_connection_managerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"meshbridge/xds"
)

// sections returns the parts of a config dump in Envoy's order. Readers such as istioctl want every one
// of them, empty ones too.
func (s *Server) sections() []section {
	d := dump{World: s.config.World(), server: s, redactor: newRedactor(), rejected: map[xds.Key]xds.Rejection{}}
	for _, r := range d.Rejected {
		d.rejected[r.Key] = r
	}
	return []section{
		{message: s.bootstrap()},
		{message: &adminpb.ClustersConfigDump{VersionInfo: d.version(xds.ClusterType)}, lists: []list{
			{"static_clusters", none},
			{"dynamic_active_clusters", d.activeClusters},
			{"dynamic_warming_clusters", d.warmingClusters},
		}},
		{message: &adminpb.EcdsConfigDump{}, lists: []list{{"ecds_filters", d.extensions}}},
		{message: &adminpb.EndpointsConfigDump{}, lists: []list{
			{"static_endpoint_configs", d.staticEndpoints},
			{"dynamic_endpoint_configs", d.dynamicEndpoints},
		}},
		{message: &adminpb.ListenersConfigDump{VersionInfo: d.version(xds.ListenerType)}, lists: []list{
			{"static_listeners", none},
			{"dynamic_listeners", d.listeners},
		}},
		{message: &adminpb.ScopedRoutesConfigDump{}},
		{message: &adminpb.RoutesConfigDump{}, lists: []list{
			{"static_route_configs", d.staticRoutes},
			{"dynamic_route_configs", d.dynamicRoutes},
		}},
		{message: &adminpb.SecretsConfigDump{}, lists: []list{
			{"static_secrets", none},
			{"dynamic_active_secrets", d.activeSecrets},
			{"dynamic_warming_secrets", d.warmingSecrets},
		}},
	}
}

func isEndpoints(s section) bool {
	_, is := s.message.(*adminpb.EndpointsConfigDump)
	return is
}

func none(func(element) bool) {}

// dump makes the elements of one config dump.
type dump struct {
	World

	server   *Server
	redactor *redactor
	rejected map[xds.Key]xds.Rejection
}

// state is what is known of one resource; some of it may be nil.
type state struct {
	name            string
	active, warming *xds.Resource
	failure         *adminpb.UpdateFailureState
}

// states yields all resources of a type that are active, warming or refused, by name.
func (d *dump) states(typeURL string) iter.Seq[state] {
	return func(yield func(state) bool) {
		names := map[string]bool{}
		for _, s := range []*xds.Snapshot{d.Active, d.Received} {
			for r := range s.All(typeURL) {
				names[r.Name] = true
			}
		}
		for key := range d.rejected {
			if key.Type == typeURL {
				names[key.Name] = true
			}
		}
		for _, name := range slices.Sorted(maps.Keys(names)) {
			if !yield(d.state(xds.Key{Type: typeURL, Name: name})) {
				return
			}
		}
	}
}

func (d *dump) state(key xds.Key) state {
	s := state{name: key.Name, active: d.Active.Get(key), warming: d.Received.Get(key)}
	if s.active != nil && s.warming != nil && bytes.Equal(s.active.Body.GetValue(), s.warming.Body.GetValue()) {
		s.warming = nil
	}
	if r, refused := d.rejected[key]; refused {
		s.failure = &adminpb.UpdateFailureState{Details: r.Err.Error(), LastUpdateAttempt: timestamp(r.Received), VersionInfo: r.Response}
	}
	return s
}

// newest is what an Envoy without a notion of warming for the type has.
func (s state) newest() *xds.Resource {
	if s.active != nil {
		return s.active
	}
	return s.warming
}

// version of the newest response of a type that brought something.
func (d *dump) version(typeURL string) string {
	var newest *xds.Resource
	for r := range d.Received.All(typeURL) {
		if newest == nil || r.Received.After(newest.Received) {
			newest = r
		}
	}
	if newest == nil {
		return ""
	}
	return newest.Response
}

func versionOf(r *xds.Resource) string { return cmp.Or(r.Version, r.Response) }

func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t.Truncate(time.Millisecond))
}

func (d *dump) listeners(yield func(element) bool) {
	one := func(r *xds.Resource) *adminpb.ListenersConfigDump_DynamicListenerState {
		if r == nil {
			return nil
		}
		return &adminpb.ListenersConfigDump_DynamicListenerState{
			VersionInfo: versionOf(r), Listener: d.redactor.body(r.Body), LastUpdated: timestamp(r.Received),
		}
	}
	for s := range d.states(xds.ListenerType) {
		if !yield(element{s.name, func() proto.Message {
			return &adminpb.ListenersConfigDump_DynamicListener{
				Name: s.name, ActiveState: one(s.active), WarmingState: one(s.warming), ErrorState: s.failure,
			}
		}}) {
			return
		}
	}
}

func (d *dump) cluster(r *xds.Resource, failure *adminpb.UpdateFailureState) proto.Message {
	c := &adminpb.ClustersConfigDump_DynamicCluster{ErrorState: failure}
	if r != nil {
		c.VersionInfo, c.Cluster, c.LastUpdated = versionOf(r), d.redactor.body(r.Body), timestamp(r.Received)
	}
	return c
}

func (d *dump) activeClusters(yield func(element) bool) {
	for s := range d.states(xds.ClusterType) {
		if s.active != nil && !yield(element{s.name, func() proto.Message { return d.cluster(s.active, s.failure) }}) {
			return
		}
	}
}

// warmingClusters has those, too, of which no version was good.
func (d *dump) warmingClusters(yield func(element) bool) {
	for s := range d.states(xds.ClusterType) {
		if s.warming == nil && s.active != nil {
			continue
		}
		if !yield(element{s.name, func() proto.Message { return d.cluster(s.warming, s.failure) }}) {
			return
		}
	}
}

func (d *dump) dynamicRoutes(yield func(element) bool) {
	for s := range d.states(xds.RouteType) {
		if !yield(element{s.name, func() proto.Message {
			c := &adminpb.RoutesConfigDump_DynamicRouteConfig{ErrorState: s.failure}
			if r := s.newest(); r != nil {
				c.VersionInfo, c.RouteConfig, c.LastUpdated = versionOf(r), d.redactor.body(r.Body), timestamp(r.Received)
			}
			return c
		}}) {
			return
		}
	}
}

// staticRoutes are the route configurations within listeners.
func (d *dump) staticRoutes(yield func(element) bool) {
	for r := range d.Active.All(xds.ListenerType) {
		l, err := xds.Decode[*listenerpb.Listener](r)
		if err != nil {
			continue // it was decoded when it came
		}
		chains := l.GetFilterChains()
		if c := l.GetDefaultFilterChain(); c != nil {
			chains = append(slices.Clone(chains), c)
		}
		for _, c := range chains {
			for _, f := range c.GetFilters() {
				if manager := new(http_connection_managerpb.HttpConnectionManager); f.GetTypedConfig().UnmarshalTo(manager) == nil && manager.GetRouteConfig() != nil {
					routes := manager.GetRouteConfig()
					if !yield(element{routes.GetName(), func() proto.Message {
						return &adminpb.RoutesConfigDump_StaticRouteConfig{RouteConfig: d.message(routes), LastUpdated: timestamp(r.Received)}
					}}) {
						return
					}
				}
			}
		}
	}
}

// message packs a message, redacted. The message is not changed.
func (d *dump) message(m proto.Message) *anypb.Any {
	body, err := anypb.New(m)
	if err != nil {
		return &anypb.Any{TypeUrl: typeURL(m)} // it was decoded from bytes
	}
	d.redactor.any(body, false)
	return body
}

func (d *dump) dynamicEndpoints(yield func(element) bool) {
	for s := range d.states(xds.EndpointType) {
		if !yield(element{s.name, func() proto.Message {
			c := &adminpb.EndpointsConfigDump_DynamicEndpointConfig{ErrorState: s.failure}
			if r := s.newest(); r != nil {
				c.VersionInfo, c.EndpointConfig, c.LastUpdated = versionOf(r), d.redactor.body(r.Body), timestamp(r.Received)
			}
			return c
		}}) {
			return
		}
	}
}

// staticEndpoints are those within clusters.
func (d *dump) staticEndpoints(yield func(element) bool) {
	for r := range d.Active.All(xds.ClusterType) {
		c, err := xds.Decode[*clusterpb.Cluster](r)
		if err != nil || c.GetLoadAssignment() == nil {
			continue
		}
		if !yield(element{r.Name, func() proto.Message {
			assignment := proto.CloneOf[*endpointpb.ClusterLoadAssignment](c.GetLoadAssignment())
			assignment.ClusterName = cmp.Or(assignment.GetClusterName(), r.Name)
			return &adminpb.EndpointsConfigDump_StaticEndpointConfig{EndpointConfig: d.message(assignment), LastUpdated: timestamp(r.Received)}
		}}) {
			return
		}
	}
}

func (d *dump) extensions(yield func(element) bool) {
	for s := range d.states(xds.ExtensionType) {
		if !yield(element{s.name, func() proto.Message {
			c := &adminpb.EcdsConfigDump_EcdsFilterConfig{ErrorState: s.failure}
			if r := s.newest(); r != nil {
				c.VersionInfo, c.EcdsFilter, c.LastUpdated = versionOf(r), d.redactor.body(r.Body), timestamp(r.Received)
			}
			return c
		}}) {
			return
		}
	}
}
