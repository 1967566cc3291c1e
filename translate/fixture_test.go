package translate

import (
	"fmt"
	"testing"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	http_connection_managerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"meshbridge/xds"
)

// newAny packs a message.
func newAny(tb testing.TB, m proto.Message) *anypb.Any {
	tb.Helper()
	a, err := anypb.New(m)
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

func socketAddressOf(host string, port int) *corepb.Address {
	return &corepb.Address{Address: &corepb.Address_SocketAddress{SocketAddress: &corepb.SocketAddress{
		Address: host, PortSpecifier: &corepb.SocketAddress_PortValue{PortValue: uint32(port)},
	}}}
}

// loadOf returns an assignment of n endpoints.
func loadOf(cluster string, n int) *endpointpb.ClusterLoadAssignment {
	locality := &endpointpb.LocalityLbEndpoints{}
	for i := range n {
		locality.LbEndpoints = append(locality.LbEndpoints, &endpointpb.LbEndpoint{HostIdentifier: &endpointpb.LbEndpoint_Endpoint{
			Endpoint: &endpointpb.Endpoint{Address: socketAddressOf(fmt.Sprintf("10.1.%d.%d", i/250, i%250), 8080)},
		}})
	}
	return &endpointpb.ClusterLoadAssignment{ClusterName: cluster, Endpoints: []*endpointpb.LocalityLbEndpoints{locality}}
}

// outboundListener is a listener as istiod sends it to sidecars for HTTP services.
func outboundListener(tb testing.TB, host string, port int, rds string) *xds.Resource {
	tb.Helper()
	hcm := &http_connection_managerpb.HttpConnectionManager{
		StatPrefix: "http", RouteSpecifier: &http_connection_managerpb.HttpConnectionManager_Rds{Rds: &http_connection_managerpb.Rds{RouteConfigName: rds}},
	}
	name := fmt.Sprintf("%s_%d", host, port)
	return newResource(tb, name, &listenerpb.Listener{
		Name: name, Address: socketAddressOf(host, port), BindToPort: wrapperspb.Bool(false), TrafficDirection: corepb.TrafficDirection_OUTBOUND,
		FilterChains: []*listenerpb.FilterChain{{Filters: []*listenerpb.Filter{{
			Name: "envoy.filters.network.http_connection_manager", ConfigType: &listenerpb.Filter_TypedConfig{TypedConfig: newAny(tb, hcm)},
		}}}},
	})
}
