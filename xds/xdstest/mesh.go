package xdstest

import (
	"fmt"
	"strconv"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	http_connection_managerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	raw_bufferpb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Node returns the identity of a sidecar that a server accepts.
func Node() *corepb.Node {
	return &corepb.Node{Id: "sidecar~10.0.0.1~client.default~default.svc.cluster.local", Cluster: "client.default"}
}

// MeshResources is what a sidecar receives from istiod in a mesh of HTTP services.
type MeshResources struct {
	Clusters  []*clusterpb.Cluster
	Endpoints []*endpointpb.ClusterLoadAssignment
	Listeners []*listenerpb.Listener
	Routes    []*routepb.RouteConfiguration
}

// meshPorts is the number of ports that the services of a mesh share.
const meshPorts = 4

// Mesh makes n services with as many endpoints each, shaped like istiod's: clusters with
// transport_socket_matches for mutual TLS, one listener 0.0.0.0_<port> per port with a route
// configuration <port>, and a virtual host with eight domains per service. Service i is
// Service(i), on one of ports 8000 to 8003.
func Mesh(n, endpointsPer int) MeshResources {
	var m MeshResources
	hosts := make([][]*routepb.VirtualHost, meshPorts)
	for i := range n {
		m.Clusters = append(m.Clusters, Cluster(i))
		m.Endpoints = append(m.Endpoints, Endpoints(i, endpointsPer))
		hosts[i%meshPorts] = append(hosts[i%meshPorts], virtualHost(i))
	}
	for p := range min(n, meshPorts) {
		m.Listeners = append(m.Listeners, Listener(meshPort(p)))
		m.Routes = append(m.Routes, &routepb.RouteConfiguration{
			Name:                           strconv.Itoa(meshPort(p)),
			VirtualHosts:                   hosts[p],
			ValidateClusters:               wrapperspb.Bool(false),
			IgnorePortInHostMatching:       true,
			MaxDirectResponseBodySizeBytes: wrapperspb.UInt32(1 << 20),
		})
	}
	return m
}

// Resources returns all resources, for Server.Set.
func (m MeshResources) Resources() []proto.Message {
	var all []proto.Message
	for _, r := range m.Clusters {
		all = append(all, r)
	}
	for _, r := range m.Endpoints {
		all = append(all, r)
	}
	for _, r := range m.Listeners {
		all = append(all, r)
	}
	for _, r := range m.Routes {
		all = append(all, r)
	}
	return all
}

func meshPort(i int) int { return 8000 + i%meshPorts }

// Service returns the host name of the mesh's service i.
func Service(i int) string { return fmt.Sprintf("svc-%d.default.svc.cluster.local", i) }

// ClusterName returns the name of its cluster, and of its endpoints.
func ClusterName(i int) string { return fmt.Sprintf("outbound|%d||%s", meshPort(i), Service(i)) }

// Cluster returns the cluster of service i.
func Cluster(i int) *clusterpb.Cluster {
	service := map[string]any{"host": Service(i), "name": fmt.Sprintf("svc-%d", i), "namespace": "default"}
	return &clusterpb.Cluster{
		Name:                 ClusterName(i),
		AltStatName:          ClusterName(i) + ";",
		ClusterDiscoveryType: &clusterpb.Cluster_Type{Type: clusterpb.Cluster_EDS},
		EdsClusterConfig: &clusterpb.Cluster_EdsClusterConfig{
			ServiceName: ClusterName(i),
			EdsConfig: &corepb.ConfigSource{
				ConfigSourceSpecifier: &corepb.ConfigSource_Ads{Ads: &corepb.AggregatedConfigSource{}},
				InitialFetchTimeout:   durationpb.New(0),
				ResourceApiVersion:    corepb.ApiVersion_V3,
			},
		},
		ConnectTimeout: durationpb.New(10_000_000_000),
		LbPolicy:       clusterpb.Cluster_LEAST_REQUEST,
		CircuitBreakers: &clusterpb.CircuitBreakers{Thresholds: []*clusterpb.CircuitBreakers_Thresholds{{
			MaxConnections: wrapperspb.UInt32(1<<32 - 1), MaxPendingRequests: wrapperspb.UInt32(1<<32 - 1),
			MaxRequests: wrapperspb.UInt32(1<<32 - 1), MaxRetries: wrapperspb.UInt32(1<<32 - 1), TrackRemaining: true,
		}}},
		Metadata: &corepb.Metadata{FilterMetadata: map[string]*structpb.Struct{
			"istio": object(map[string]any{"services": []any{service}}),
		}},
		TransportSocketMatches: []*clusterpb.Cluster_TransportSocketMatch{
			{
				Name:  "tlsMode-istio",
				Match: object(map[string]any{"tlsMode": "istio"}),
				TransportSocket: &corepb.TransportSocket{Name: "envoy.transport_sockets.tls", ConfigType: &corepb.TransportSocket_TypedConfig{
					TypedConfig: Any(&tlspb.UpstreamTlsContext{
						Sni: fmt.Sprintf("outbound_.%d_._.%s", meshPort(i), Service(i)),
						CommonTlsContext: &tlspb.CommonTlsContext{
							AlpnProtocols: []string{"istio-peer-exchange", "istio"},
							TlsCertificateSdsSecretConfigs: []*tlspb.SdsSecretConfig{{
								Name: "default", SdsConfig: &corepb.ConfigSource{
									ConfigSourceSpecifier: &corepb.ConfigSource_Ads{Ads: &corepb.AggregatedConfigSource{}},
								},
							}},
						},
					}),
				}},
			},
			{
				Name:  "tlsMode-disabled",
				Match: &structpb.Struct{},
				TransportSocket: &corepb.TransportSocket{Name: "envoy.transport_sockets.raw_buffer", ConfigType: &corepb.TransportSocket_TypedConfig{
					TypedConfig: Any(&raw_bufferpb.RawBuffer{}),
				}},
			},
		},
	}
}

// Endpoints returns the endpoints of service i, count of them.
func Endpoints(i, count int) *endpointpb.ClusterLoadAssignment {
	endpoints := make([]*endpointpb.LbEndpoint, 0, count)
	for j := range count {
		endpoints = append(endpoints, &endpointpb.LbEndpoint{
			HostIdentifier: &endpointpb.LbEndpoint_Endpoint{Endpoint: &endpointpb.Endpoint{
				Address: socket(fmt.Sprintf("10.%d.%d.%d", i>>8&255, i&255, j+1), 8080),
			}},
			HealthStatus:        corepb.HealthStatus_HEALTHY,
			LoadBalancingWeight: wrapperspb.UInt32(1),
			Metadata: &corepb.Metadata{FilterMetadata: map[string]*structpb.Struct{
				"envoy.transport_socket_match": object(map[string]any{"tlsMode": "istio"}),
				"istio":                        object(map[string]any{"workload": fmt.Sprintf("svc-%d;default;svc-%d;;Kubernetes", i, i)}),
			}},
		})
	}
	return &endpointpb.ClusterLoadAssignment{
		ClusterName: ClusterName(i),
		Endpoints: []*endpointpb.LocalityLbEndpoints{{
			Locality:            &corepb.Locality{Region: "region1", Zone: "zone1"},
			LbEndpoints:         endpoints,
			LoadBalancingWeight: wrapperspb.UInt32(uint32(max(count, 1))),
		}},
	}
}

// Listener returns the outbound HTTP listener of a port, with route configuration <port>.
func Listener(port int) *listenerpb.Listener {
	manager := &http_connection_managerpb.HttpConnectionManager{
		StatPrefix: fmt.Sprintf("outbound_0.0.0.0_%d", port),
		RouteSpecifier: &http_connection_managerpb.HttpConnectionManager_Rds{Rds: &http_connection_managerpb.Rds{
			RouteConfigName: strconv.Itoa(port),
			ConfigSource: &corepb.ConfigSource{
				ConfigSourceSpecifier: &corepb.ConfigSource_Ads{Ads: &corepb.AggregatedConfigSource{}},
				ResourceApiVersion:    corepb.ApiVersion_V3,
			},
		}},
		HttpFilters: []*http_connection_managerpb.HttpFilter{{
			Name:       "envoy.filters.http.router",
			ConfigType: &http_connection_managerpb.HttpFilter_TypedConfig{TypedConfig: Any(&routerpb.Router{})},
		}},
	}
	return &listenerpb.Listener{
		Name:             fmt.Sprintf("0.0.0.0_%d", port),
		Address:          socket("0.0.0.0", uint32(port)),
		BindToPort:       wrapperspb.Bool(false),
		TrafficDirection: corepb.TrafficDirection_OUTBOUND,
		FilterChains: []*listenerpb.FilterChain{{
			FilterChainMatch: &listenerpb.FilterChainMatch{
				TransportProtocol: "raw_buffer", ApplicationProtocols: []string{"http/1.1", "h2c"},
			},
			Filters: []*listenerpb.Filter{{
				Name:       "envoy.filters.network.http_connection_manager",
				ConfigType: &listenerpb.Filter_TypedConfig{TypedConfig: Any(manager)},
			}},
		}},
	}
}

func virtualHost(i int) *routepb.VirtualHost {
	port, short := meshPort(i), fmt.Sprintf("svc-%d", i)
	vip := fmt.Sprintf("10.96.%d.%d", i>>8&255, i&255)
	names := []string{Service(i), Service(i) + ".", short, short + ".default.svc", short + ".default", vip}
	names = append(names, fmt.Sprintf("%s:%d", short, port), fmt.Sprintf("%s:%d", vip, port))
	return &routepb.VirtualHost{
		Name:    fmt.Sprintf("%s:%d", Service(i), port),
		Domains: names,
		Routes: []*routepb.Route{{
			Name:  "default",
			Match: &routepb.RouteMatch{PathSpecifier: &routepb.RouteMatch_Prefix{Prefix: "/"}},
			Action: &routepb.Route_Route{Route: &routepb.RouteAction{
				ClusterSpecifier: &routepb.RouteAction_Cluster{Cluster: ClusterName(i)},
				Timeout:          durationpb.New(0),
				RetryPolicy: &routepb.RetryPolicy{
					RetryOn:    "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
					NumRetries: wrapperspb.UInt32(2),
				},
			}},
		}},
		IncludeRequestAttemptCount: true,
	}
}

func socket(ip string, port uint32) *corepb.Address {
	return &corepb.Address{Address: &corepb.Address_SocketAddress{SocketAddress: &corepb.SocketAddress{
		Address: ip, PortSpecifier: &corepb.SocketAddress_PortValue{PortValue: port},
	}}}
}

func object(fields map[string]any) *structpb.Struct {
	s, err := structpb.NewStruct(fields)
	if err != nil {
		panic(err) // fields are this package's own
	}
	return s
}
