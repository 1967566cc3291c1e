package accesslog

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	grpclogpb "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	otellogpb "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/open_telemetry/v3"
	accesslogservicepb "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"github.com/google/go-cmp/cmp"
	collectorlogspb "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"meshbridge/identity/identitytest"
	access "meshbridge/translate/accesslog"
)

const (
	idServer = "spiffe://cluster.local/ns/observability/sa/als"
	idClient = "spiffe://cluster.local/ns/default/sa/client"
)

func stringValue(text string) *commonpb.AnyValue {
	return &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: text}}
}

// to are logs with that configuration.
func to(t *testing.T, config proto.Message) []*access.Log {
	t.Helper()
	return []*access.Log{parse(t, config)}
}

// writeNumbered writes n entries whose routes are "0", "1" and so on.
func (w *writing) writeNumbered(logs []*access.Log, n int) (routes []string) {
	for i := range n {
		routes = append(routes, strconv.Itoa(i))
		w.Write(logs, named(routes[i]))
	}
	return routes
}

func TestEnvoysServiceIsToldOfRequests(t *testing.T) {
	s, in := serve(t, &server{}, nil), &world{}
	in.set(t, edsCluster(), endpoints([]netip.AddrPort{s.at}))
	w, logs := connected(t, in, nil), to(t, overHTTP())
	w.Write(logs, named("first"))
	eventually(t, "the first message", func() bool { return len(s.routes()) == 1 })
	w.Write(logs, named("second"))
	eventually(t, "the second message", func() bool { return len(s.routes()) == 2 })
	w.stop()
	s.locked(func() {
		want := &accesslogservicepb.StreamAccessLogsMessage_Identifier{Node: w.config.Node, LogName: "mesh"}
		if diff := cmp.Diff(want, s.messages[0].GetIdentifier(), protocmp.Transform()); diff != "" {
			t.Errorf("the first message of the stream (-want +got):\n%s", diff)
		}
		if s.messages[1].GetIdentifier() != nil {
			t.Error("the second message identifies the client again")
		}
		if len(s.headers) != 1 || s.finished != 1 {
			t.Errorf("%d streams, %d of them ended by us, want one", len(s.headers), s.finished)
		}
		h := s.headers[0]
		if !slices.Equal(h.Get("x-tenant"), []string{"a"}) || !slices.Equal(h.Get("x-empty"), []string{""}) || !slices.Equal(h.Get(":authority"), []string{cluster}) {
			t.Errorf("headers %v", h)
		}
	})
	if n := w.counted(t, "grpc", "written"); n != 2 {
		t.Errorf("%d are counted as written, want 2", n)
	}
}

func TestEnvoysServiceIsToldOfConnections(t *testing.T) {
	s, in := serve(t, &server{}, nil), &world{}
	in.set(t, edsCluster(), endpoints([]netip.AddrPort{s.at}))
	config := common()
	config.GrpcService.GetEnvoyGrpc().Authority = "als.example:9000"
	w := connected(t, in, nil)
	w.Write(to(t, &grpclogpb.TcpGrpcAccessLogConfig{CommonConfig: config}), &access.Entry{Received: 3, Sent: 5})
	w.stop()
	s.locked(func() {
		if len(s.messages) != 1 || len(s.messages[0].GetTcpLogs().GetLogEntry()) != 1 {
			t.Fatalf("messages %v", s.messages)
		}
		if p := s.messages[0].GetTcpLogs().GetLogEntry()[0].GetConnectionProperties(); p.GetReceivedBytes() != 3 || p.GetSentBytes() != 5 {
			t.Errorf("connection %v", p)
		}
		if got := s.headers[0].Get(":authority"); !slices.Equal(got, []string{"als.example:9000"}) {
			t.Errorf("authority %q", got)
		}
	})
}

func TestACollectorIsToldOfRequests(t *testing.T) {
	s, in := serve(t, &server{}, nil), &world{}
	in.set(t, edsCluster(), endpoints([]netip.AddrPort{s.at}))
	first, second, bare := overOTLP(), overOTLP(), overOTLP()
	second.Attributes = &commonpb.KeyValueList{Values: []*commonpb.KeyValue{{Key: "code", Value: stringValue("%RESPONSE_CODE%")}}}
	bare.DisableBuiltinLabels = true
	bare.ResourceAttributes = &commonpb.KeyValueList{Values: []*commonpb.KeyValue{{Key: "team", Value: stringValue("a")}}}
	w := connected(t, in, nil)
	for _, c := range []*otellogpb.OpenTelemetryAccessLogConfig{first, second, bare} {
		slow(c.GetCommonConfig(), 1<<20) //nolint:staticcheck // what Istio sets
		w.Write(to(t, c), &access.Entry{Route: "r", Start: time.Unix(7, 8), HTTP: &access.HTTP{Status: 404}})
	}
	w.stop()
	record := func(attributes ...*commonpb.KeyValue) *logspb.LogRecord {
		return &logspb.LogRecord{TimeUnixNano: 7_000_000_008, Body: stringValue("r"), Attributes: attributes}
	}
	builtin := &resourcepb.Resource{Attributes: []*commonpb.KeyValue{
		{Key: "log_name", Value: stringValue("mesh")},
		{Key: "zone_name", Value: stringValue("z1")},
		{Key: "cluster_name", Value: stringValue("client.default")},
		{Key: "node_name", Value: stringValue(w.config.Node.GetId())},
	}}
	want := []*logspb.ResourceLogs{
		{Resource: builtin, ScopeLogs: []*logspb.ScopeLogs{{LogRecords: []*logspb.LogRecord{
			record(), record(&commonpb.KeyValue{Key: "code", Value: stringValue("404")}),
		}}}},
		{
			Resource:  &resourcepb.Resource{Attributes: bare.GetResourceAttributes().GetValues()},
			ScopeLogs: []*logspb.ScopeLogs{{LogRecords: []*logspb.LogRecord{record()}}},
		},
	}
	s.locked(func() {
		if len(s.exports) != 1 {
			t.Fatalf("%d messages, want one", len(s.exports))
		}
		if diff := cmp.Diff(want, s.exports[0].GetResourceLogs(), protocmp.Transform()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestRecordsThatACollectorRefusesAreCounted(t *testing.T) {
	answers := make(chan string, 4)
	s := serve(t, &server{answer: func(*collectorlogspb.ExportLogsServiceRequest) (*collectorlogspb.ExportLogsServiceResponse, error) {
		switch <-answers {
		case "partial":
			return &collectorlogspb.ExportLogsServiceResponse{PartialSuccess: &collectorlogspb.ExportLogsPartialSuccess{RejectedLogRecords: 1}}, nil
		case "nonsense":
			return &collectorlogspb.ExportLogsServiceResponse{PartialSuccess: &collectorlogspb.ExportLogsPartialSuccess{RejectedLogRecords: 1000, ErrorMessage: "all of them"}}, nil
		case "later":
			return nil, unavailable()
		case "never":
			return nil, status.Error(codes.InvalidArgument, "what is this?")
		}
		return nil, nil //nolint:nilnil // it takes everything
	}}, nil)
	in := &world{}
	in.set(t, edsCluster(), endpoints([]netip.AddrPort{s.at}))
	w, logs := connected(t, in, nil), to(t, overOTLP())
	for _, c := range []struct {
		answers       []string
		written, lost int // in all
	}{
		{[]string{"partial"}, 0, 1},
		{[]string{"never"}, 0, 2},
		{[]string{"later", "later", "all"}, 1, 2},
		{[]string{"nonsense"}, 1, 3},
	} {
		for _, a := range c.answers {
			answers <- a
		}
		w.Write(logs, named("x"))
		eventually(t, fmt.Sprintf("%v", c), func() bool {
			return w.counted(t, "opentelemetry", "written") == c.written && w.counted(t, "opentelemetry", "lost") == c.lost
		})
	}
	if n := w.failed(t, "refused"); n != 3 {
		t.Errorf("%d failures are counted as refused, want 3", n)
	}
	if !strings.Contains(w.said.String(), "all of them") || !strings.Contains(w.said.String(), "refuses entries") || !strings.Contains(w.said.String(), "has entries again") {
		t.Errorf("log:\n%s", w.said)
	}
}

func TestEntriesWaitForAServiceThatIsAway(t *testing.T) {
	for name, config := range map[string]proto.Message{"envoy": overHTTP(), "opentelemetry": overOTLP()} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, &server{}, nil)
			s.stop()
			in := &world{}
			w, logs := connected(t, in, nil), to(t, config)
			want := w.writeNumbered(logs, 3)
			eventually(t, "that the cluster is not known", func() bool { return w.failed(t, "unknown_cluster") > 0 })
			w.move(t, in, edsCluster())
			eventually(t, "that there are no endpoints", func() bool { return w.failed(t, "no_endpoints") > 0 })
			w.move(t, in, endpoints([]netip.AddrPort{s.at}))
			eventually(t, "that nobody is there", func() bool { return w.failed(t, "connect") > 0 })
			s = serveAt(t, &server{}, s.at, nil)
			eventually(t, "all entries", func() bool { return len(s.routes()) == 3 })
			if got := s.routes(); !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
			w.stop()
			if n := w.said.times("does not get entries"); n != 1 {
				t.Errorf("it was said %d times, want once:\n%s", n, w.said)
			}
			if n := w.said.times("has entries again"); n != 1 {
				t.Errorf("that it works was said %d times, want once:\n%s", n, w.said)
			}
		})
	}
}

// Nobody confirms messages on a stream: a service that ends each one at once would seem to take them all.
func TestEntriesWaitForAServiceThatRefusesStreams(t *testing.T) {
	s, in := serve(t, &server{refusal: status.Error(codes.PermissionDenied, "RBAC: access denied")}, nil), &world{}
	in.set(t, edsCluster(), endpoints([]netip.AddrPort{s.at}))
	w, logs := connected(t, in, nil), to(t, overHTTP())
	want := w.writeNumbered(logs, 3)
	eventually(t, "refusals", func() bool { return w.failed(t, "refused") > 1 })
	if !strings.Contains(w.said.String(), "RBAC: access denied") || w.counted(t, "grpc", "written") != 0 {
		t.Errorf("%d are counted as written, log:\n%s", w.counted(t, "grpc", "written"), w.said)
	}
	s.locked(func() { s.refusal = nil })
	eventually(t, "all entries", func() bool { return slices.Equal(s.routes(), want) })
}

func TestEndpointsShareTheLoadAndStandInForEachOther(t *testing.T) {
	a, b, in := serve(t, &server{}, nil), serve(t, &server{}, nil), &world{}
	in.set(t, edsCluster(), endpoints([]netip.AddrPort{a.at, b.at}))
	w, logs := connected(t, in, nil), to(t, overOTLP())
	for range 20 { // each is a message
		before := len(a.routes()) + len(b.routes())
		w.Write(logs, named("x"))
		eventually(t, "the entry", func() bool { return len(a.routes())+len(b.routes()) == before+1 })
	}
	if len(a.routes()) < 5 || len(b.routes()) < 5 {
		t.Errorf("%d and %d of 20 messages", len(a.routes()), len(b.routes()))
	}
	a.stop()
	before := len(b.routes())
	w.writeNumbered(logs, 50)
	eventually(t, "all entries at the one that is left", func() bool { return len(b.routes()) == before+50 })
	w.stop()
	if lost := w.counted(t, "opentelemetry", "lost"); lost != 0 {
		t.Errorf("%d are counted as lost", lost)
	}
}

func TestAStreamFollowsTheEndpoints(t *testing.T) {
	a, b, in := serve(t, &server{}, nil), serve(t, &server{}, nil), &world{}
	in.set(t, edsCluster(), endpoints([]netip.AddrPort{a.at}))
	w, logs := connected(t, in, nil), to(t, overHTTP())
	w.Write(logs, named("before"))
	eventually(t, "the first entry", func() bool { return len(a.routes()) == 1 })
	w.move(t, in, endpoints([]netip.AddrPort{b.at}))
	eventually(t, "an entry at the other endpoint", func() bool {
		w.Write(logs, named("after"))
		return len(b.routes()) > 0
	})
	w.stop()
	if a.finished != 1 {
		t.Errorf("%d streams to the endpoint that is gone were ended, want 1", a.finished)
	}
	if n := w.counted(t, "grpc", "written"); n != len(a.routes())+len(b.routes()) {
		t.Errorf("%d are counted as written, %d have come", n, len(a.routes())+len(b.routes()))
	}
}

func TestEndpointsOfALowerPriorityStandInForTheFirst(t *testing.T) {
	first, second, in := serve(t, &server{}, nil), serve(t, &server{}, nil), &world{}
	in.set(t, edsCluster(), endpoints([]netip.AddrPort{first.at}, []netip.AddrPort{second.at}))
	w, logs := connected(t, in, nil), to(t, overOTLP())
	w.writeNumbered(logs, 20)
	eventually(t, "all entries at the first", func() bool { return len(first.routes()) == 20 })
	first.stop()
	w.writeNumbered(logs, 20)
	eventually(t, "all entries at the second", func() bool { return len(second.routes()) == 20 })
	// Later, the first are tried again.
	first = serveAt(t, &server{}, first.at, nil)
	w.follow(time.Now().Add(2 * preferAgain))
	eventually(t, "entries at the first again", func() bool {
		w.Write(logs, named("x"))
		return len(first.routes()) > 0
	})
}

func TestEndpointsOfTheMeshGetMutualTLSAndOthersPlainText(t *testing.T) {
	ca := identitytest.NewCA(t, "root")
	mesh := serve(t, &server{}, &tls.Config{
		Certificates: []tls.Certificate{*ca.Issue(t, identitytest.Leaf{URIs: []string{idServer}})},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(),
	})
	plain, in := serve(t, &server{}, nil), &world{}
	load := ofMesh(endpoints([]netip.AddrPort{mesh.at}))
	load.Endpoints = append(load.Endpoints, endpoints([]netip.AddrPort{plain.at}).GetEndpoints()...)
	in.set(t, inMesh(t, edsCluster(), idServer), load)
	w, logs := connected(t, in, identitytest.NewSource(ca.Identity(t, idClient))), to(t, overOTLP())
	eventually(t, "entries at both", func() bool {
		w.Write(logs, named("x"))
		return len(mesh.routes()) > 0 && len(plain.routes()) > 0
	})
	mesh.locked(func() {
		state := mesh.tls[0]
		if got := state.PeerCertificates[0].URIs[0].String(); got != idClient {
			t.Errorf("we have shown the certificate of %s", got)
		}
		if state.ServerName != "outbound_.9000_._.als.observability.svc.cluster.local" || state.NegotiatedProtocol != "h2" {
			t.Errorf("server name %q, protocol %q", state.ServerName, state.NegotiatedProtocol)
		}
	})
}

func TestNothingIsSentInPlainTextToEndpointsThatWantTLS(t *testing.T) {
	s, in := serve(t, &server{}, nil), &world{} // which would take it
	in.set(t, inMesh(t, edsCluster(), idServer), ofMesh(endpoints([]netip.AddrPort{s.at})))
	w, logs := connectedFor(t, in, nil, time.Millisecond), to(t, overHTTP())
	w.Write(logs, named("x"))
	eventually(t, "that there is no certificate", func() bool { return w.failed(t, "no_certificate") > 0 })
	if !strings.Contains(w.said.String(), "nothing is sent in plain text to an endpoint that wants TLS") {
		t.Errorf("log:\n%s", w.said)
	}
	if got := s.routes(); len(got) > 0 {
		t.Errorf("it was sent %v", got)
	}
}

func TestServersThatAreNotTheServiceGetNothing(t *testing.T) {
	ca := identitytest.NewCA(t, "root")
	s := serve(t, &server{}, &tls.Config{Certificates: []tls.Certificate{*ca.Issue(t, identitytest.Leaf{URIs: []string{idClient}})}})
	in := &world{}
	in.set(t, inMesh(t, edsCluster(), idServer), ofMesh(endpoints([]netip.AddrPort{s.at})))
	w, logs := connectedFor(t, in, identitytest.NewSource(ca.Identity(t, idClient)), time.Millisecond), to(t, overHTTP())
	w.Write(logs, named("x"))
	eventually(t, "that it cannot be connected to", func() bool { return w.failed(t, "connect") > 0 })
	if !strings.Contains(w.said.String(), "none of the expected names") {
		t.Errorf("log:\n%s", w.said)
	}
	if got := s.routes(); len(got) > 0 {
		t.Errorf("it was sent %v", got)
	}
}

func TestEntriesAreSentWhenThereAreEnough(t *testing.T) {
	s, in := serve(t, &server{}, nil), &world{}
	in.set(t, edsCluster(), endpoints([]netip.AddrPort{s.at}))
	config := overHTTP()
	slow(config.GetCommonConfig(), 10_000)
	w, logs := connected(t, in, nil), to(t, config)
	size := proto.Size(logs[0].HTTPEntry(named("x")))
	for range 10_000/size + 1 {
		w.Write(logs, named("x"))
	}
	eventually(t, "the entries", func() bool { return len(s.routes()) > 0 })
}

func TestAServiceThatDoesNotReadHoldsUpNothing(t *testing.T) {
	s, in := serve(t, &server{deaf: make(chan struct{})}, nil), &world{}
	in.set(t, edsCluster(), endpoints([]netip.AddrPort{s.at}))
	w, logs := connected(t, in, nil), to(t, overHTTP())
	big := named(strings.Repeat("x", 100_000))
	for w.counted(t, "grpc", "lost") == 0 {
		w.Write(logs, big)
	}
	close(s.deaf)
	w.stop()
	written, lost := w.counted(t, "grpc", "written"), w.counted(t, "grpc", "lost")
	if got := len(s.routes()); got != written || lost != 1 {
		t.Errorf("%d entries have come, %d are counted as written and %d as lost", got, written, lost)
	}
}

func TestWhatIsQueuedIsSentAtTheEnd(t *testing.T) {
	for name, config := range map[string]proto.Message{
		"envoy":         &grpclogpb.HttpGrpcAccessLogConfig{CommonConfig: slow(common(), 1<<30)},
		"opentelemetry": func() proto.Message { c := overOTLP(); slow(c.GetCommonConfig(), 1<<30); return c }(), //nolint:staticcheck // what Istio sets
	} {
		t.Run(name, func(t *testing.T) {
			s, in := serve(t, &server{}, nil), &world{}
			in.set(t, edsCluster(), endpoints([]netip.AddrPort{s.at}))
			w, logs := connected(t, in, nil), to(t, config)
			want := w.writeNumbered(logs, 12_000)
			w.stop()
			if got := s.routes(); !slices.Equal(got, want) {
				t.Errorf("%d entries of %d have come", len(got), len(want))
			}
		})
	}
}

func TestAServiceThatIsAwayDoesNotHoldUpTheEndForLong(t *testing.T) {
	w := start(t, Config{DrainTime: 400 * time.Millisecond})
	w.writeNumbered(to(t, overHTTP()), 7)
	w.stop()
	if lost := w.counted(t, "grpc", "lost"); lost != 7 {
		t.Errorf("%d are counted as lost, want 7", lost)
	}
	if n := w.failed(t, "unknown_cluster"); n > 10 {
		t.Errorf("it was tried %d times in 400 ms", n)
	}
}
