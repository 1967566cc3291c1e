package accesslog

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	grpclogpb "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	otellogpb "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/open_telemetry/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	accesslogservicepb "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	matcherpb "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	collectorlogspb "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"meshbridge/capture"
	"meshbridge/identity"
	"meshbridge/xds"
)

const cluster = "outbound|9000||als.observability.svc.cluster.local"

// world is what istiod has sent.
type world struct{ snapshot atomic.Pointer[xds.Snapshot] }

func (w *world) Snapshot() *xds.Snapshot { return w.snapshot.Load() }

// set puts resources in, which replaces those of the same names.
func (w *world) set(t *testing.T, resources ...proto.Message) {
	t.Helper()
	var put []*xds.Resource
	for _, m := range resources {
		body, err := anypb.New(m)
		if err != nil {
			t.Fatal(err)
		}
		key := xds.Key{Type: body.GetTypeUrl()}
		switch m := m.(type) {
		case *clusterpb.Cluster:
			key.Name = m.GetName()
		case *endpointpb.ClusterLoadAssignment:
			key.Name = m.GetClusterName()
		}
		put = append(put, &xds.Resource{Key: key, Body: body})
	}
	w.snapshot.Store(w.snapshot.Load().With(put, nil))
}

func (w *writing) move(t *testing.T, in *world, resources ...proto.Message) {
	t.Helper()
	in.set(t, resources...)
	w.WorldChanged()
}

// edsCluster is a cluster as istiod makes it of a service.
func edsCluster() *clusterpb.Cluster {
	return &clusterpb.Cluster{
		Name: cluster, ClusterDiscoveryType: &clusterpb.Cluster_Type{Type: clusterpb.Cluster_EDS},
		ConnectTimeout: durationpb.New(2 * time.Second),
	}
}

// endpoints are those of cluster, each list of a priority of its own.
func endpoints(levels ...[]netip.AddrPort) *endpointpb.ClusterLoadAssignment {
	out := &endpointpb.ClusterLoadAssignment{ClusterName: cluster}
	for priority, addresses := range levels {
		level := &endpointpb.LocalityLbEndpoints{Priority: uint32(priority)}
		for _, a := range addresses {
			level.LbEndpoints = append(level.LbEndpoints, &endpointpb.LbEndpoint{HostIdentifier: &endpointpb.LbEndpoint_Endpoint{
				Endpoint: &endpointpb.Endpoint{Address: &corepb.Address{Address: &corepb.Address_SocketAddress{SocketAddress: &corepb.SocketAddress{
					Address: a.Addr().String(), PortSpecifier: &corepb.SocketAddress_PortValue{PortValue: uint32(a.Port())},
				}}}},
			}})
		}
		out.Endpoints = append(out.Endpoints, level)
	}
	return out
}

// ofMesh makes the endpoints want mutual TLS, as istiod says of pods with a sidecar.
func ofMesh(load *endpointpb.ClusterLoadAssignment) *endpointpb.ClusterLoadAssignment {
	for _, level := range load.GetEndpoints() {
		for _, e := range level.GetLbEndpoints() {
			e.Metadata = &corepb.Metadata{FilterMetadata: map[string]*structpb.Struct{"envoy.transport_socket_match": tlsMode()}}
		}
	}
	return load
}

func tlsMode() *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{"tlsMode": structpb.NewStringValue("istio")}}
}

// inMesh makes a cluster have mutual TLS for those endpoints that want it, with a server of that identity.
func inMesh(t *testing.T, c *clusterpb.Cluster, server string) *clusterpb.Cluster {
	t.Helper()
	secret := func(name string) *tlspb.SdsSecretConfig {
		return &tlspb.SdsSecretConfig{Name: name, SdsConfig: &corepb.ConfigSource{
			ConfigSourceSpecifier: &corepb.ConfigSource_ApiConfigSource{ApiConfigSource: &corepb.ApiConfigSource{}},
		}}
	}
	context, err := anypb.New(&tlspb.UpstreamTlsContext{
		Sni: "outbound_.9000_._.als.observability.svc.cluster.local",
		CommonTlsContext: &tlspb.CommonTlsContext{
			AlpnProtocols:                  []string{"istio-peer-exchange", "istio", "h2"},
			TlsCertificateSdsSecretConfigs: []*tlspb.SdsSecretConfig{secret("default")},
			ValidationContextType: &tlspb.CommonTlsContext_CombinedValidationContext{
				CombinedValidationContext: &tlspb.CommonTlsContext_CombinedCertificateValidationContext{
					DefaultValidationContext: &tlspb.CertificateValidationContext{
						MatchSubjectAltNames: []*matcherpb.StringMatcher{{MatchPattern: &matcherpb.StringMatcher_Exact{Exact: server}}}, //nolint:staticcheck // what istiod sends
					},
					ValidationContextSdsSecretConfig: secret("ROOTCA"),
				},
			},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	c.TransportSocketMatches = []*clusterpb.Cluster_TransportSocketMatch{
		{Name: "tlsMode-istio", Match: tlsMode(), TransportSocket: &corepb.TransportSocket{
			Name: "envoy.transport_sockets.tls", ConfigType: &corepb.TransportSocket_TypedConfig{TypedConfig: context},
		}},
		{Name: "tlsMode-disabled", Match: &structpb.Struct{}, TransportSocket: &corepb.TransportSocket{Name: "envoy.transport_sockets.raw_buffer"}},
	}
	return c
}

// server is a service of both kinds on loopback.
type server struct {
	accesslogservicepb.UnimplementedAccessLogServiceServer
	collectorlogspb.UnimplementedLogsServiceServer
	at   netip.AddrPort
	stop func()
	// refusal is what streams are ended with at once; nil takes them.
	refusal error
	// deaf makes streams of logs not be read until it is closed; nil reads at once.
	deaf chan struct{}
	// answer is called for each export; nil takes everything.
	answer func(*collectorlogspb.ExportLogsServiceRequest) (*collectorlogspb.ExportLogsServiceResponse, error)

	mu       sync.Mutex
	messages []*accesslogservicepb.StreamAccessLogsMessage
	exports  []*collectorlogspb.ExportLogsServiceRequest
	headers  []metadata.MD // of streams and exports
	finished int           // streams that the client has ended
	tls      []tls.ConnectionState
}

// serve starts a server; config is its TLS, nil for none.
func serve(t *testing.T, s *server, config *tls.Config) *server {
	t.Helper()
	return serveAt(t, s, netip.MustParseAddrPort("127.0.0.1:0"), config)
}

func serveAt(t *testing.T, s *server, at netip.AddrPort, config *tls.Config) *server {
	t.Helper()
	l, err := net.Listen("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	s.at = l.Addr().(*net.TCPAddr).AddrPort()
	var options []grpc.ServerOption
	if config != nil {
		config.VerifyConnection = func(state tls.ConnectionState) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.tls = append(s.tls, state)
			return nil
		}
		options = append(options, grpc.Creds(credentials.NewTLS(config)))
	}
	g := grpc.NewServer(options...)
	accesslogservicepb.RegisterAccessLogServiceServer(g, s)
	collectorlogspb.RegisterLogsServiceServer(g, s)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = g.Serve(l)
	}()
	s.stop = sync.OnceFunc(func() {
		g.Stop()
		<-ended
	})
	t.Cleanup(s.stop)
	return s
}

func (s *server) StreamAccessLogs(stream accesslogservicepb.AccessLogService_StreamAccessLogsServer) error {
	header, _ := metadata.FromIncomingContext(stream.Context())
	s.mu.Lock()
	s.headers = append(s.headers, header)
	refusal := s.refusal
	s.mu.Unlock()
	if refusal != nil {
		return refusal
	}
	if s.deaf != nil {
		select {
		case <-s.deaf:
		case <-stream.Context().Done():
		}
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			s.mu.Lock()
			s.finished++
			s.mu.Unlock()
			return stream.SendAndClose(&accesslogservicepb.StreamAccessLogsResponse{})
		}
		if err != nil {
			return err
		}
		s.mu.Lock()
		s.messages = append(s.messages, m)
		s.mu.Unlock()
	}
}

func (s *server) Export(ctx context.Context, r *collectorlogspb.ExportLogsServiceRequest) (*collectorlogspb.ExportLogsServiceResponse, error) {
	header, _ := metadata.FromIncomingContext(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.answer != nil {
		if answer, err := s.answer(r); answer != nil || err != nil {
			return answer, err
		}
	}
	s.headers = append(s.headers, header)
	s.exports = append(s.exports, r)
	return &collectorlogspb.ExportLogsServiceResponse{}, nil
}

// routes are the names of the routes of all requests that it was told of.
func (s *server) routes() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, m := range s.messages {
		for _, e := range m.GetHttpLogs().GetLogEntry() {
			out = append(out, e.GetCommonProperties().GetRouteName())
		}
	}
	for _, r := range s.exports {
		for _, resource := range r.GetResourceLogs() {
			for _, scope := range resource.GetScopeLogs() {
				for _, record := range scope.GetLogRecords() {
					out = append(out, record.GetBody().GetStringValue())
				}
			}
		}
	}
	return out
}

// locked calls f with what has come in.
func (s *server) locked(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func unavailable() error { return status.Error(codes.Unavailable, "come back later") }

// common is what logs to services have; entries are sent soon.
func common() *grpclogpb.CommonGrpcAccessLogConfig {
	return &grpclogpb.CommonGrpcAccessLogConfig{
		LogName: "mesh", BufferFlushInterval: durationpb.New(5 * time.Millisecond),
		GrpcService: &corepb.GrpcService{
			TargetSpecifier: &corepb.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corepb.GrpcService_EnvoyGrpc{ClusterName: cluster}},
			InitialMetadata: []*corepb.HeaderValue{{Key: "X-Tenant", Value: "a"}, {Key: "x-empty"}},
		},
	}
}

// slow makes entries wait until there are so many bytes, or the end.
func slow(c *grpclogpb.CommonGrpcAccessLogConfig, bytes uint32) *grpclogpb.CommonGrpcAccessLogConfig {
	c.BufferFlushInterval, c.BufferSizeBytes = durationpb.New(time.Hour), wrapperspb.UInt32(bytes)
	return c
}

func overHTTP() *grpclogpb.HttpGrpcAccessLogConfig {
	return &grpclogpb.HttpGrpcAccessLogConfig{CommonConfig: common()}
}

// overOTLP is a log whose records' bodies are the names of routes.
func overOTLP() *otellogpb.OpenTelemetryAccessLogConfig {
	return &otellogpb.OpenTelemetryAccessLogConfig{CommonConfig: common(), Body: stringValue("%ROUTE_NAME%")} //nolint:staticcheck // what Istio sets
}

// connected is a Writer that knows of a cluster with endpoints.
func connected(t *testing.T, in *world, source identity.Source) *writing {
	t.Helper()
	return connectedFor(t, in, source, 0)
}

// connectedFor is connected with a time to drain: where nothing can be sent at the end.
func connectedFor(t *testing.T, in *world, source identity.Source, drain time.Duration) *writing {
	t.Helper()
	return start(t, Config{
		DrainTime: drain,
		World:     in, Dialer: capture.NewDialer(source, slog.New(slog.DiscardHandler)),
		Node: &corepb.Node{Id: "sidecar~10.9.0.1~client.default~default.svc.cluster.local", Cluster: "client.default", Locality: &corepb.Locality{Zone: "z1"}},
	})
}
