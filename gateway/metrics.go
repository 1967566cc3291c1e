package gateway

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// Values of the label "transport".
const (
	transportGRPC = "grpc"
	transportHTTP = "http"
)

// metrics is a prometheus.Collector of everything that the gateway counts.
type metrics struct {
	requests   *prometheus.CounterVec
	watchers   *prometheus.GaugeVec
	events     *prometheus.CounterVec
	overtaken  *prometheus.CounterVec
	grpc, http watchMetrics
}

// watchMetrics are those of one transport.
type watchMetrics struct {
	watchers  prometheus.Gauge
	events    prometheus.Counter
	overtaken prometheus.Counter
}

func newMetrics() *metrics {
	transport := []string{"transport"}
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "meshbridge_gateway_requests_total",
			Help: "Requests of the etcd API by transport, method and gRPC code; a stream counts when it ends.",
		}, []string{"transport", "method", "code"}),
		watchers: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "meshbridge_gateway_watchers",
			Help: "Watches that are open.",
		}, transport),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "meshbridge_gateway_watch_events_total",
			Help: "Events sent to watches.",
		}, transport),
		overtaken: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "meshbridge_gateway_slow_watchers_cancelled_total",
			Help: "Watches cancelled because compaction overtook them.",
		}, transport),
	}
	of := func(transport string) watchMetrics {
		return watchMetrics{
			watchers:  m.watchers.WithLabelValues(transport),
			events:    m.events.WithLabelValues(transport),
			overtaken: m.overtaken.WithLabelValues(transport),
		}
	}
	m.grpc, m.http = of(transportGRPC), of(transportHTTP)
	return m
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(descriptions chan<- *prometheus.Desc) {
	for _, c := range m.collectors() {
		c.Describe(descriptions)
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(values chan<- prometheus.Metric) {
	for _, c := range m.collectors() {
		c.Collect(values)
	}
}

func (m *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.requests, m.watchers, m.events, m.overtaken}
}

// count counts a request that ended with err. Method is gRPC's name of it, also over HTTP.
func (m *metrics) count(transport, method string, err error) {
	m.requests.WithLabelValues(transport, method, status.Code(err).String()).Inc()
}

// unary is the interceptor that counts unary calls.
func (m *metrics) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	response, err := handler(ctx, request)
	m.count(transportOf(ctx), info.FullMethod, err)
	return response, err
}

// stream is the interceptor that counts streams.
func (m *metrics) stream(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	err := handler(service, stream)
	m.count(transportOf(stream.Context()), info.FullMethod, err)
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
