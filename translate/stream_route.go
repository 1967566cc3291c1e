package translate

import (
	"strconv"

	"meshbridge/translate/apisix"
)

// streamUpstream names the upstream of a stream_route, for which a port is allocated.
func (r upstreamRef) streamUpstream() string { return r.cluster + r.variant.suffix() }

// streamRoutes returns the stream_route by which capture reaches an upstream of APISIX: a port of its
// own on the loopback address.
func (s *State) streamRoutes(u *clusterUnit, v variant, captured *capturedCluster, report reporter) []apisix.Object {
	ref := upstreamRef{u.name, v}
	port, ok := s.inputs.Allocations.StreamPort(ref.streamUpstream())
	if !ok {
		return nil // nobody has been told of it
	}
	captured.ports = put(captured.ports, port, true)
	route := &apisix.StreamRoute{
		ID:         apisix.ID("t", readableCluster(u.name)+v.suffix(), u.name+v.suffix()),
		ServerPort: int(port),
		UpstreamID: ref.id(),
	}
	if s.options.APISIXVersion.Has(apisix.FeatureStreamRouteName) {
		route.Name = apisix.Name(u.name + v.suffix())
	}
	if s.options.APISIXVersion.Has(apisix.FeatureStreamRouteLabels) {
		route.Labels = s.upstreamLabels
	}
	s.extendStream(u, route, report)
	o, err := apisix.Marshal(apisix.KindStreamRoute, route.ID, route)
	if err == nil {
		err = apisix.Validate(o, s.options.APISIXVersion)
	}
	if err != nil {
		report("invalid_object", "", "stream_route on port "+strconv.Itoa(int(port)), err)
		return nil
	}
	return []apisix.Object{o}
}
