package gateway

import (
	"context"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// Values of the label "transport".
const (
	transportGRPC = "grpc"
	transportHTTP = "http"
)

// metrics is everything that the gateway counts, in numbers that cost next to nothing where they change. A
// collector makes metrics of them when it is asked.
type metrics struct {
	calls      map[string]*methodCalls // by gRPC's name of a method; set once
	grpc, http watchMetrics
	wire       wireMetrics
	health     healthMetrics
}

// watchMetrics are those of one transport.
type watchMetrics struct {
	streams, watchers atomic.Int64 // that are open
	events, overtaken atomic.Int64
}

// wireMetrics are the bytes of gRPC messages.
type wireMetrics struct{ received, sent atomic.Int64 }

// healthMetrics are the answers of /health.
type healthMetrics struct{ successes, failures atomic.Int64 }

// methodCalls are the calls of one method.
type methodCalls struct {
	service, method, kind string // as etcd labels them
	grpc, http            calls
}

// calls are those that came over one transport.
type calls struct {
	started, received, sent atomic.Int64
	handled                 [codes.Unauthenticated + 1]atomic.Int64 // by gRPC code
}

func newMetrics() *metrics {
	m := &metrics{calls: make(map[string]*methodCalls)}
	for _, service := range []*grpc.ServiceDesc{
		&pb.KV_ServiceDesc, &pb.Watch_ServiceDesc, &pb.Lease_ServiceDesc, &pb.Maintenance_ServiceDesc,
		&pb.Cluster_ServiceDesc, &pb.Auth_ServiceDesc, &v3lockpb.Lock_ServiceDesc,
		&v3electionpb.Election_ServiceDesc, &grpc_health_v1.Health_ServiceDesc,
	} {
		add := func(method, kind string) {
			m.calls["/"+service.ServiceName+"/"+method] = &methodCalls{service: service.ServiceName, method: method, kind: kind}
		}
		for _, method := range service.Methods {
			add(method.MethodName, "unary")
		}
		for _, stream := range service.Streams {
			switch {
			case stream.ClientStreams && stream.ServerStreams:
				add(stream.StreamName, "bidi_stream")
			case stream.ClientStreams:
				add(stream.StreamName, "client_stream")
			default:
				add(stream.StreamName, "server_stream")
			}
		}
	}
	return m
}

// over returns the calls of a transport.
func (c *methodCalls) over(transport string) *calls {
	if transport == transportHTTP {
		return &c.http
	}
	return &c.grpc
}

// end counts a call that ended with err.
func (c *calls) end(err error) {
	// A handler's code may be any number; what gRPC does not know is Unknown to the client too.
	code := status.Code(err)
	if int(code) >= len(c.handled) {
		code = codes.Unknown
	}
	c.handled[code].Add(1)
}

// countHTTP counts a call that is served without gRPC and ended with err. Method is gRPC's name of it.
func (m *metrics) countHTTP(method string, err error) {
	c := &m.calls[method].http
	c.started.Add(1)
	c.received.Add(1)
	if err == nil {
		c.sent.Add(1)
	}
	c.end(err)
}

// unary is the interceptor that counts unary calls.
func (m *metrics) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	c := m.calls[info.FullMethod].over(transportOf(ctx))
	c.started.Add(1)
	c.received.Add(1)
	response, err := handler(ctx, request)
	if err == nil {
		c.sent.Add(1)
	}
	c.end(err)
	return response, err
}

// stream is the interceptor that counts streams.
func (m *metrics) stream(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	c := m.calls[info.FullMethod].over(transportOf(stream.Context()))
	c.started.Add(1)
	err := handler(service, &countedStream{ServerStream: stream, calls: c})
	c.end(err)
	return err
}

// countedStream counts the messages of a stream.
type countedStream struct {
	grpc.ServerStream
	calls *calls
}

// SendMsg implements grpc.ServerStream.
func (s *countedStream) SendMsg(m any) error {
	err := s.ServerStream.SendMsg(m)
	if err == nil {
		s.calls.sent.Add(1)
	}
	return err
}

// RecvMsg implements grpc.ServerStream.
func (s *countedStream) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	if err == nil {
		s.calls.received.Add(1)
	}
	return err
}

// transportOf tells a client's gRPC call from one that the JSON gateway makes for an HTTP client.
func transportOf(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok && p.Addr.Network() == pipeNetwork {
		return transportHTTP
	}
	return transportGRPC
}

// Methods that HTTP serves without gRPC.
const (
	methodRange = pb.KV_Range_FullMethodName
	methodWatch = pb.Watch_Watch_FullMethodName
)

// collector makes metrics of what a server counts: those of its own, and those that etcd has under the
// same name.
type collector struct {
	server *Server
	own    ownDescriptions
	etcd   etcdDescriptions
}

func newCollector(s *Server) *collector {
	return &collector{server: s, own: newOwnDescriptions(), etcd: newEtcdDescriptions()}
}

// ownDescriptions are those of the metrics that etcd has not.
type ownDescriptions struct{ requests, watchers, events, overtaken *prometheus.Desc }

func newOwnDescriptions() ownDescriptions {
	describe := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("meshbridge_gateway_"+name, help, labels, nil)
	}
	return ownDescriptions{
		requests: describe("requests_total",
			"Requests of the etcd API by transport, method and gRPC code; a stream counts when it ends.", "transport", "method", "code"),
		watchers:  describe("watchers", "Watches that are open.", "transport"),
		events:    describe("watch_events_total", "Events sent to watches.", "transport"),
		overtaken: describe("slow_watchers_cancelled_total", "Watches cancelled because compaction overtook them.", "transport"),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(descriptions chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.own.requests, c.own.watchers, c.own.events, c.own.overtaken} {
		descriptions <- d
	}
	for _, d := range c.etcd {
		descriptions <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(values chan<- prometheus.Metric) {
	m := c.server.metrics
	send := func(d *prometheus.Desc, kind prometheus.ValueType, value int64, labels ...string) {
		values <- prometheus.MustNewConstMetric(d, kind, float64(value), labels...)
	}
	for method, calls := range m.calls {
		for _, transport := range []string{transportGRPC, transportHTTP} {
			over := calls.over(transport)
			for code := range over.handled {
				if n := over.handled[code].Load(); n > 0 {
					send(c.own.requests, prometheus.CounterValue, n, transport, method, codes.Code(code).String())
				}
			}
		}
	}
	for transport, w := range map[string]*watchMetrics{transportGRPC: &m.grpc, transportHTTP: &m.http} {
		send(c.own.watchers, prometheus.GaugeValue, w.watchers.Load(), transport)
		send(c.own.events, prometheus.CounterValue, w.events.Load(), transport)
		send(c.own.overtaken, prometheus.CounterValue, w.overtaken.Load(), transport)
	}
	c.collectEtcd(&etcdMetrics{descriptions: c.etcd, values: values})
}
