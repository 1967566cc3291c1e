package translate

import (
	"slices"
	"strings"
	"testing"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	corspb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	faultpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	upstreamhttppb "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// place is a message whose fields must not be lost, and how to translate one.
type place struct {
	empty     func() proto.Message
	translate func(t *testing.T, m proto.Message) (diagnostics []string)
}

// places lists the messages that actions and clusters consist of.
func places() []place {
	route := func(change func(t *testing.T, r *routepb.Route, m proto.Message)) func(*testing.T, proto.Message) []string {
		return func(t *testing.T, m proto.Message) []string {
			t.Helper()
			r := routeTo(toCluster("a"))
			change(t, r, m)
			_, diagnostics := actionCase{route: r}.compile(t)
			return diagnostics
		}
	}
	cluster := func(change func(t *testing.T, cx *clusterContext, m proto.Message)) func(*testing.T, proto.Message) []string {
		return func(t *testing.T, m proto.Message) []string {
			t.Helper()
			cx := &clusterContext{
				options: &Options{Profile: Mesh()}, inputs: &Inputs{},
				cluster: &clusterpb.Cluster{Name: "a", ClusterDiscoveryType: &clusterpb.Cluster_Type{Type: clusterpb.Cluster_EDS}},
				load:    loadOf("a", 1),
			}
			change(t, cx, m)
			return reportedOf(t, cx)
		}
	}
	perFilter := func(filter string) func(t *testing.T, r *routepb.Route, m proto.Message) {
		return func(t *testing.T, r *routepb.Route, m proto.Message) {
			t.Helper()
			r.TypedPerFilterConfig = map[string]*anypb.Any{filter: newAny(t, m)}
		}
	}
	return []place{
		{func() proto.Message { return &routepb.Route{} }, route(func(_ *testing.T, r *routepb.Route, m proto.Message) {
			proto.Merge(r, m)
		})},
		{func() proto.Message { return &routepb.RouteAction{} }, route(func(_ *testing.T, r *routepb.Route, m proto.Message) {
			proto.Merge(r.GetRoute(), m)
		})},
		{func() proto.Message { return &routepb.RetryPolicy{} }, route(func(_ *testing.T, r *routepb.Route, m proto.Message) {
			r.GetRoute().RetryPolicy = m.(*routepb.RetryPolicy)
		})},
		{func() proto.Message { return &routepb.WeightedCluster{} }, route(func(_ *testing.T, r *routepb.Route, m proto.Message) {
			r.GetRoute().ClusterSpecifier = &routepb.RouteAction_WeightedClusters{WeightedClusters: m.(*routepb.WeightedCluster)}
		})},
		{func() proto.Message { return &routepb.WeightedCluster_ClusterWeight{} }, route(func(_ *testing.T, r *routepb.Route, m proto.Message) {
			r.GetRoute().ClusterSpecifier = &routepb.RouteAction_WeightedClusters{WeightedClusters: &routepb.WeightedCluster{
				Clusters: []*routepb.WeightedCluster_ClusterWeight{m.(*routepb.WeightedCluster_ClusterWeight)},
			}}
		})},
		{func() proto.Message { return &routepb.RedirectAction{} }, route(func(_ *testing.T, r *routepb.Route, m proto.Message) {
			r.Action = &routepb.Route_Redirect{Redirect: m.(*routepb.RedirectAction)}
		})},
		{func() proto.Message { return &routepb.DirectResponseAction{} }, route(func(_ *testing.T, r *routepb.Route, m proto.Message) {
			r.Action = &routepb.Route_DirectResponse{DirectResponse: m.(*routepb.DirectResponseAction)}
		})},
		{func() proto.Message { return &faultpb.HTTPFault{} }, route(perFilter(filterFault))},
		{func() proto.Message { return &corspb.CorsPolicy{} }, route(perFilter(filterCORS))},
		{func() proto.Message { return &routepb.VirtualHost{} }, func(t *testing.T, m proto.Message) []string {
			t.Helper()
			var diagnostics []string
			reportVirtualHost(&Chain{}, m.(*routepb.VirtualHost), collect(t, &diagnostics))
			return diagnostics
		}},
		{func() proto.Message { return &clusterpb.Cluster{} }, cluster(func(_ *testing.T, cx *clusterContext, m proto.Message) {
			proto.Merge(cx.cluster, m)
		})},
		{func() proto.Message { return &clusterpb.Cluster_CommonLbConfig{} }, cluster(func(_ *testing.T, cx *clusterContext, m proto.Message) {
			cx.cluster.CommonLbConfig = m.(*clusterpb.Cluster_CommonLbConfig)
		})},
		{func() proto.Message { return &clusterpb.Cluster_LeastRequestLbConfig{} }, cluster(func(_ *testing.T, cx *clusterContext, m proto.Message) {
			cx.cluster.LbConfig = &clusterpb.Cluster_LeastRequestLbConfig_{LeastRequestLbConfig: m.(*clusterpb.Cluster_LeastRequestLbConfig)}
		})},
		{func() proto.Message { return &clusterpb.Cluster_RoundRobinLbConfig{} }, cluster(func(_ *testing.T, cx *clusterContext, m proto.Message) {
			cx.cluster.LbConfig = &clusterpb.Cluster_RoundRobinLbConfig_{RoundRobinLbConfig: m.(*clusterpb.Cluster_RoundRobinLbConfig)}
		})},
		{func() proto.Message { return &clusterpb.CircuitBreakers{} }, cluster(func(_ *testing.T, cx *clusterContext, m proto.Message) {
			cx.cluster.CircuitBreakers = m.(*clusterpb.CircuitBreakers)
		})},
		{func() proto.Message { return &clusterpb.CircuitBreakers_Thresholds{} }, cluster(func(_ *testing.T, cx *clusterContext, m proto.Message) {
			cx.cluster.CircuitBreakers = &clusterpb.CircuitBreakers{Thresholds: []*clusterpb.CircuitBreakers_Thresholds{m.(*clusterpb.CircuitBreakers_Thresholds)}}
		})},
		{func() proto.Message { return &clusterpb.UpstreamConnectionOptions{} }, cluster(func(_ *testing.T, cx *clusterContext, m proto.Message) {
			cx.cluster.UpstreamConnectionOptions = m.(*clusterpb.UpstreamConnectionOptions)
		})},
		{func() proto.Message { return &upstreamhttppb.HttpProtocolOptions{} }, cluster(func(t *testing.T, cx *clusterContext, m proto.Message) {
			t.Helper()
			cx.cluster.TypedExtensionProtocolOptions = map[string]*anypb.Any{httpProtocolOptions: newAny(t, m)}
		})},
		{func() proto.Message { return &corepb.HttpProtocolOptions{} }, cluster(func(t *testing.T, cx *clusterContext, m proto.Message) {
			t.Helper()
			options := &upstreamhttppb.HttpProtocolOptions{CommonHttpProtocolOptions: m.(*corepb.HttpProtocolOptions)}
			cx.cluster.TypedExtensionProtocolOptions = map[string]*anypb.Any{httpProtocolOptions: newAny(t, options)}
		})},
		{func() proto.Message { return &endpointpb.ClusterLoadAssignment{} }, cluster(func(_ *testing.T, cx *clusterContext, m proto.Message) {
			proto.Merge(cx.load, m)
		})},
		{func() proto.Message { return &endpointpb.ClusterLoadAssignment_Policy{} }, cluster(func(_ *testing.T, cx *clusterContext, m proto.Message) {
			cx.load.Policy = m.(*endpointpb.ClusterLoadAssignment_Policy)
		})},
		{func() proto.Message { return &endpointpb.LocalityLbEndpoints{} }, cluster(func(_ *testing.T, cx *clusterContext, m proto.Message) {
			proto.Merge(cx.load.GetEndpoints()[0], m)
		})},
		{func() proto.Message { return &endpointpb.LbEndpoint{} }, cluster(func(_ *testing.T, cx *clusterContext, m proto.Message) {
			proto.Merge(cx.load.GetEndpoints()[0].GetLbEndpoints()[0], m)
		})},
		{func() proto.Message { return &endpointpb.Endpoint{} }, cluster(func(_ *testing.T, cx *clusterContext, m proto.Message) {
			proto.Merge(cx.load.GetEndpoints()[0].GetLbEndpoints()[0].GetEndpoint(), m)
		})},
	}
}

func reportedOf(t *testing.T, cx *clusterContext) (diagnostics []string) {
	t.Helper()
	cx.report = collect(t, &diagnostics)
	reportCluster(cx)
	if u := compileUpstream(cx, variant{}); u.Nodes == nil || u.Type == "" {
		t.Errorf("%+v is no upstream", u)
	}
	factsOf(cx.cluster)
	return diagnostics
}

// TestNoFieldIsLostInSilence sets every field of every message there is, one at a time. Each is
// listed as understood, or reported; a field that a later Envoy API adds is reported.
func TestNoFieldIsLostInSilence(t *testing.T) {
	for _, p := range places() {
		descriptor := p.empty().ProtoReflect().Descriptor()
		known := understood(descriptor.FullName())
		for i := range descriptor.Fields().Len() {
			field := descriptor.Fields().Get(i)
			t.Run(string(descriptor.Name())+"/"+string(field.Name()), func(t *testing.T) {
				m := p.empty()
				setField(m.ProtoReflect(), field)
				diagnostics := p.translate(t, m) // nothing may panic
				if slices.Contains(known, string(field.Name())) {
					return
				}
				if !slices.ContainsFunc(diagnostics, func(d string) bool { return strings.Contains(d, string(field.Name())) }) {
					t.Errorf("it is lost in silence; diagnostics: %q", diagnostics)
				}
			})
		}
		for _, name := range known {
			if descriptor.Fields().ByName(protoreflect.Name(name)) == nil {
				t.Errorf("%s has no field %s", descriptor.FullName(), name)
			}
		}
	}
}

// setField gives a field a value other than its default.
func setField(m protoreflect.Message, field protoreflect.FieldDescriptor) {
	switch {
	case field.IsMap():
		entries := m.Mutable(field).Map()
		entries.Set(protoreflect.ValueOf("key").MapKey(), entries.NewValue())
	case field.IsList():
		list := m.Mutable(field).List()
		if field.Message() != nil {
			list.AppendMutable()
		} else {
			list.Append(scalarOf(field))
		}
	case field.Message() != nil:
		value := m.Mutable(field).Message()
		if v, ok := value.Interface().(*wrapperspb.UInt32Value); ok {
			v.Value = 1
		}
	default:
		m.Set(field, scalarOf(field))
	}
}

func scalarOf(field protoreflect.FieldDescriptor) protoreflect.Value {
	switch field.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.StringKind:
		return protoreflect.ValueOfString("x")
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte("x"))
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(1)
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(1)
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(1)
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(1)
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return protoreflect.ValueOfInt64(1)
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(1)
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(1)
	default:
		return field.Default()
	}
}
