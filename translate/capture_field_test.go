package translate

import (
	"slices"
	"strings"
	"testing"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	proxyfilterpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"
	networkrbacpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	tcp_proxypb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	proxyprotocolpb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// capturePlaces are the messages that capture's table is made of, each with a way to report on it.
func capturePlaces(t *testing.T) map[proto.Message]func(proto.Message, reporter) {
	t.Helper()
	s, err := New(Options{Profile: Mesh()})
	if err != nil {
		t.Fatal(err)
	}
	upstream := func(config proto.Message, report reporter) {
		s.transportsOf(&clusterpb.Cluster{TransportSocket: &corepb.TransportSocket{
			Name: "socket", ConfigType: &corepb.TransportSocket_TypedConfig{TypedConfig: newAny(t, config)},
		}}, report)
	}
	downstream := func(c *tlspb.DownstreamTlsContext, report reporter) { s.downstreamTLS(c, report) }
	common := func(c *tlspb.CommonTlsContext, report reporter) {
		upstream(&tlspb.UpstreamTlsContext{CommonTlsContext: c}, report)
		downstream(&tlspb.DownstreamTlsContext{CommonTlsContext: c}, report)
	}
	return map[proto.Message]func(proto.Message, reporter){
		&tcp_proxypb.TcpProxy{}: func(m proto.Message, report reporter) {
			new(chainDraft).parseTCPProxy(newAny(t, m), report)
		},
		&tcp_proxypb.TcpProxy_WeightedCluster_ClusterWeight{}: func(m proto.Message, report reporter) {
			new(chainDraft).parseTCPProxy(newAny(t, &tcp_proxypb.TcpProxy{ClusterSpecifier: &tcp_proxypb.TcpProxy_WeightedClusters{
				WeightedClusters: &tcp_proxypb.TcpProxy_WeightedCluster{Clusters: []*tcp_proxypb.TcpProxy_WeightedCluster_ClusterWeight{
					m.(*tcp_proxypb.TcpProxy_WeightedCluster_ClusterWeight),
				}},
			}}), report)
		},
		&networkrbacpb.RBAC{}: func(m proto.Message, report reporter) {
			compileNetworkPolicy(m.(*networkrbacpb.RBAC), "filter", report)
		},
		&proxyfilterpb.ProxyProtocol{}: func(m proto.Message, report reporter) {
			new(Listener).addFilter(&listenerpb.ListenerFilter{ConfigType: &listenerpb.ListenerFilter_TypedConfig{TypedConfig: newAny(t, m)}}, report)
		},
		&tlspb.UpstreamTlsContext{}:                       upstream,
		&proxyprotocolpb.ProxyProtocolUpstreamTransport{}: upstream,
		&corepb.ProxyProtocolConfig{}: func(m proto.Message, report reporter) {
			upstream(&proxyprotocolpb.ProxyProtocolUpstreamTransport{Config: m.(*corepb.ProxyProtocolConfig)}, report)
		},
		&tlspb.DownstreamTlsContext{}: func(m proto.Message, report reporter) { downstream(m.(*tlspb.DownstreamTlsContext), report) },
		&tlspb.CommonTlsContext{}:     func(m proto.Message, report reporter) { common(m.(*tlspb.CommonTlsContext), report) },
		&tlspb.TlsParameters{}: func(m proto.Message, report reporter) {
			common(&tlspb.CommonTlsContext{TlsParams: m.(*tlspb.TlsParameters)}, report)
		},
		&tlspb.CertificateValidationContext{}: func(m proto.Message, report reporter) {
			common(&tlspb.CommonTlsContext{ValidationContextType: &tlspb.CommonTlsContext_ValidationContext{
				ValidationContext: m.(*tlspb.CertificateValidationContext),
			}}, report)
		},
	}
}

// As for routes and clusters, each field is understood or reported.
func TestNoFieldForCaptureIsLostInSilence(t *testing.T) {
	for empty, translate := range capturePlaces(t) {
		descriptor := empty.ProtoReflect().Descriptor()
		known := understood(descriptor.FullName())
		for i := range descriptor.Fields().Len() {
			field := descriptor.Fields().Get(i)
			t.Run(string(descriptor.Name())+"/"+string(field.Name()), func(t *testing.T) {
				m := proto.Clone(empty)
				setField(m.ProtoReflect(), field)
				var diagnostics []string
				translate(m, collect(t, &diagnostics)) // nothing may panic
				if !slices.Contains(known, string(field.Name())) && !slices.ContainsFunc(diagnostics, func(d string) bool { return strings.Contains(d, string(field.Name())) }) {
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
