package bridge

import (
	"context"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"

	"meshbridge/cmd/internal/tracing"
	"meshbridge/xds/xdstest"
)

// collector is an OpenTelemetry collector.
type collector struct {
	collectorpb.UnimplementedTraceServiceServer
	spans chan *tracepb.Span
}

func (c *collector) Export(_ context.Context, r *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	for _, about := range r.GetResourceSpans() {
		for _, scope := range about.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				c.spans <- s
			}
		}
	}
	return &collectorpb.ExportTraceServiceResponse{}, nil
}

func startCollector(t *testing.T) *collector {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{spans: make(chan *tracepb.Span, 1000)}
	server := grpc.NewServer()
	collectorpb.RegisterTraceServiceServer(server, c)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+l.Addr().String())
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
	return c
}

func traced(c Config) Config {
	c.Tracing = &tracing.Config{Getenv: os.Getenv, Version: "1", Logger: slog.New(slog.DiscardHandler)}
	return c
}

// trace returns the spans of the next trace that has ended, by name.
func (c *collector) trace(t *testing.T, pending map[string][]*tracepb.Span) map[string][]*tracepb.Span {
	t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		select {
		case s := <-c.spans:
			id := string(s.GetTraceId())
			pending[id] = append(pending[id], s)
			if s.GetName() != "push" {
				continue
			}
			names := map[string][]*tracepb.Span{}
			for _, s := range pending[id] {
				names[s.GetName()] = append(names[s.GetName()], s)
			}
			delete(pending, id)
			return names
		case <-timeout.C:
			t.Fatal("no trace")
		}
	}
}

func number(s *tracepb.Span, name string) int64 {
	for _, a := range s.GetAttributes() {
		if a.GetKey() == name {
			return a.GetValue().GetIntValue()
		}
	}
	return -1
}

func TestOneChangeIsOneTraceFromTheBytesToTheWatcher(t *testing.T) {
	collector := startCollector(t)
	istiod := xdstest.NewServer(t)
	istiod.Set(xdstest.Mesh(3, 1).Resources()...)
	r := startBridge(t, traced(testConfig(istiod)))
	r.waitReady(t)
	client := r.client(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	watch := client.Watch(ctx, "/apisix/", clientv3.WithPrefix())
	pending := map[string][]*tracepb.Span{}
	first := collector.trace(t, pending)
	if got := number(first["push"][0], "xds.resources_changed"); got < 9 {
		t.Errorf("the first world has %d resources", got)
	}
	istiod.Set(xdstest.Endpoints(1, 4))
	update := <-watch
	spans := collector.trace(t, pending)
	root := spans["push"][0]
	for _, name := range []string{"xds.receive", "translate", "store.commit", "watch.deliver"} {
		if len(spans[name]) != 1 {
			t.Fatalf("%d spans %s in %v", len(spans[name]), name, spans)
		}
		s := spans[name][0]
		if string(s.GetParentSpanId()) != string(root.GetSpanId()) {
			t.Errorf("%s is not part of the push", name)
		}
		if s.GetStartTimeUnixNano() < root.GetStartTimeUnixNano() || s.GetEndTimeUnixNano() > root.GetEndTimeUnixNano() || s.GetEndTimeUnixNano() < s.GetStartTimeUnixNano() {
			t.Errorf("%s is from %d to %d, the push from %d to %d", name, s.GetStartTimeUnixNano(), s.GetEndTimeUnixNano(), root.GetStartTimeUnixNano(), root.GetEndTimeUnixNano())
		}
	}
	revision := update.Header.GetRevision()
	for _, s := range []*tracepb.Span{root, spans["store.commit"][0], spans["watch.deliver"][0]} {
		if got := number(s, "meshbridge.revision"); got != revision {
			t.Errorf("%s has revision %d, the watcher got %d", s.GetName(), got, revision)
		}
	}
	if got := number(spans["translate"][0], "apisix.objects_put"); got != 1 {
		t.Errorf("%d objects", got)
	}
}

func TestACollectorThatIsAwayHoldsUpNothing(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
	t.Setenv("OTEL_BSP_MAX_QUEUE_SIZE", "1")
	istiod := xdstest.NewServer(t)
	istiod.Set(xdstest.Mesh(3, 1).Resources()...)
	r := startBridge(t, traced(testConfig(istiod)))
	r.waitReady(t)
	before := r.store.Revision()
	client := r.client(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	watch := client.Watch(ctx, "/apisix/", clientv3.WithPrefix(), clientv3.WithRev(before+1))
	for n := range 20 {
		istiod.Set(xdstest.Endpoints(1, 2+n))
		if update := <-watch; len(update.Events) == 0 {
			t.Fatal(update.Err())
		}
	}
	r.stop()
}
