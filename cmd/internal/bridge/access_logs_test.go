package bridge

import (
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	grpclogpb "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	accesslogservicepb "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"meshbridge/cmd/internal/accesslog"
	"meshbridge/translate"
	access "meshbridge/translate/accesslog"
	"meshbridge/xds/xdstest"
)

// logService is an access log service on loopback.
type logService struct {
	accesslogservicepb.UnimplementedAccessLogServiceServer
	port int

	mu       sync.Mutex
	messages []*accesslogservicepb.StreamAccessLogsMessage
}

func startLogService(t *testing.T) *logService {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, server := &logService{port: l.Addr().(*net.TCPAddr).Port}, grpc.NewServer()
	accesslogservicepb.RegisterAccessLogServiceServer(server, s)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		server.Stop()
		<-ended
	})
	return s
}

func (s *logService) StreamAccessLogs(stream accesslogservicepb.AccessLogService_StreamAccessLogsServer) error {
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
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

// moved moves a service of a mesh to a port of this host, without TLS.
func moved(t *testing.T, resources []proto.Message, cluster string, port int) []proto.Message {
	t.Helper()
	out := slices.Clone(resources)
	for i, r := range out {
		load, ok := proto.Clone(r).(*endpointpb.ClusterLoadAssignment)
		if !ok || load.GetClusterName() != cluster {
			continue
		}
		e := load.GetEndpoints()[0].GetLbEndpoints()[0]
		e.Metadata = nil
		e.GetEndpoint().Address = &corepb.Address{Address: &corepb.Address_SocketAddress{SocketAddress: &corepb.SocketAddress{
			Address: "127.0.0.1", PortSpecifier: &corepb.SocketAddress_PortValue{PortValue: uint32(port)},
		}}}
		out[i] = load
	}
	return out
}

// toService is a log that is sent when there is much, or at the end.
func toService(cluster string) *grpclogpb.HttpGrpcAccessLogConfig {
	return &grpclogpb.HttpGrpcAccessLogConfig{CommonConfig: &grpclogpb.CommonGrpcAccessLogConfig{
		LogName: "mesh", BufferFlushInterval: durationpb.New(time.Hour),
		GrpcService: &corepb.GrpcService{TargetSpecifier: &corepb.GrpcService_EnvoyGrpc_{
			EnvoyGrpc: &corepb.GrpcService_EnvoyGrpc{ClusterName: cluster},
		}},
	}}
}

func TestAServiceHasTheAccessLogBeforeTheBridgeHasEnded(t *testing.T) {
	istiod, service := xdstest.NewServer(t), startLogService(t)
	cluster := xdstest.ClusterName(1)
	istiod.Set(loggingTo(t, moved(t, xdstest.Mesh(3, 1).Resources(), cluster, service.port), toService(cluster))...)
	config := testConfig(istiod)
	config.Internal, config.Node, config.AccessLogs = "127.0.0.1:0", xdstest.Node(), &accesslog.Config{}
	r := startBridge(t, config)
	r.waitReady(t)
	logs := r.pipeline.view.Load().Chains[0].AccessLogs
	if len(logs) != 1 {
		t.Fatalf("the chain has %d logs, want one", len(logs))
	}
	for range 3 {
		r.accessLogs.Write(logs, &access.Entry{Route: "default"})
	}
	r.stop()
	if len(service.messages) != 1 || len(service.messages[0].GetHttpLogs().GetLogEntry()) != 3 {
		t.Fatalf("the service has got %v", service.messages)
	}
	if id := service.messages[0].GetIdentifier(); id.GetLogName() != "mesh" || id.GetNode().GetId() != xdstest.Node().GetId() {
		t.Errorf("the service has got it from %v", id)
	}
}

func TestAccessLogsThatNobodyWritesAreReported(t *testing.T) {
	for name, config := range map[string]func(*Config){
		"they are off":               func(c *Config) { c.Internal = "127.0.0.1:0" },
		"APISIX can tell of nothing": func(c *Config) { c.Internal, c.AccessLogs = Off, &accesslog.Config{} },
	} {
		t.Run(name, func(t *testing.T) {
			istiod := xdstest.NewServer(t)
			istiod.Set(loggingTo(t, xdstest.Mesh(1, 1).Resources(), toService(xdstest.ClusterName(0)))...)
			c := testConfig(istiod)
			config(&c)
			r := startBridge(t, c)
			r.waitReady(t)
			view := r.pipeline.view.Load()
			if !slices.ContainsFunc(view.Diagnostics, func(d translate.Diagnostic) bool { return d.Code == "telemetry_ignored" }) {
				t.Errorf("diagnostics %v", view.Diagnostics)
			}
			if logs := view.Chains[0].AccessLogs; len(logs) != 0 {
				t.Errorf("the chain has %d logs all the same", len(logs))
			}
		})
	}
}
