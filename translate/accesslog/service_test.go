package accesslog

import (
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	"google.golang.org/protobuf/testing/protocmp"
)

func TestServicesAreThoseOfTheConfiguration(t *testing.T) {
	for name, c := range map[string]struct {
		config   string
		want     *Log // nil is none
		problems []string
	}{
		"requests": {
			config: `
name: envoy.access_loggers.http_grpc
typed_config:
  "@type": type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig
  additional_request_headers_to_log: [X-B, x-a, X-a]
  additional_response_headers_to_log: [Server]
  additional_response_trailers_to_log: [T]
  common_config:
    log_name: http
    transport_api_version: V3
    buffer_flush_interval: 2.5s
    buffer_size_bytes: 0
    filter_state_objects_to_log: [upstream_peer, downstream_peer]
    grpc_stream_retry_policy: {num_retries: 3}
    grpc_service:
      timeout: 10s
      initial_metadata: [{key: X-Tenant, value: a}, {key: k, raw_value: Yg==}]
      envoy_grpc: {cluster_name: outbound|9000||als, authority: als.example}
`,
			want: &Log{
				Kind: KindGRPC, Name: "http", FlushInterval: 2500 * time.Millisecond,
				Service:        Service{Cluster: "outbound|9000||als", Authority: "als.example", Metadata: []string{"x-tenant", "a", "k", "b"}, Timeout: 10 * time.Second},
				RequestHeaders: sortedHeaders(alwaysSent(), []string{"x-a", "x-b"}), SentRequestHeaders: []string{"x-a", "x-b"},
				ResponseHeaders: []string{"server"}, SentResponseHeaders: []string{"server"}, SentResponseTrailers: []string{"t"},
			},
			problems: []string{"the trailers t", "the filter state upstream_peer, downstream_peer"},
		},
		"connections": {
			config: `
typed_config:
  "@type": type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.TcpGrpcAccessLogConfig
  common_config: {log_name: tcp, grpc_service: {envoy_grpc: {cluster_name: als}}, custom_tags: [{tag: a, literal: {value: b}}, {tag: e, environment: {name: E}}]}
`,
			want:     &Log{Kind: KindGRPC, TCP: true, Name: "tcp", Service: Service{Cluster: "als"}, FlushInterval: time.Second, BufferSize: 16384},
			problems: []string{"the custom tag e"},
		},
		"OpenTelemetry": {
			config: `
typed_config:
  "@type": type.googleapis.com/envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig
  log_name: own
  grpc_service: {envoy_grpc: {cluster_name: otel}}
  buffer_size_bytes: 100
  resource_detectors: [{name: d}]
`,
			want:     &Log{Kind: KindOpenTelemetry, BuiltinLabels: true, Name: "own", Service: Service{Cluster: "otel"}, FlushInterval: time.Second, BufferSize: 100},
			problems: []string{"its resource_detectors"},
		},
		"google_grpc": {
			config:   `{typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.TcpGrpcAccessLogConfig, common_config: {grpc_service: {google_grpc: {target_uri: a, stat_prefix: b}}}}}`,
			problems: []string{"its service is one of google_grpc"},
		},
		"no service": {
			config:   `{typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig}}`,
			problems: []string{"it names no service"},
		},
		"OTLP over HTTP": {
			config:   `{typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig, http_service: {}}}`,
			problems: []string{"its service is one of http_service"},
		},
		"no path":      {config: `{typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog}}`, problems: []string{"it has no path"}},
		"another kind": {config: `{typed_config: {"@type": type.googleapis.com/google.protobuf.Duration, value: 1s}}`},
		"nothing":      {config: `{}`},
	} {
		t.Run(name, func(t *testing.T) {
			got := parse(t, c.config, false, c.problems...)
			if diff := gocmp.Diff(c.want, got, gocmp.Transformer("fields", func(l *Log) *logFields { return (*logFields)(l) }), cmpopts.IgnoreUnexported(logFields{})); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// logFields is a Log without its methods, by which it is compared.
type logFields Log

func TestTagsOfEntries(t *testing.T) {
	log := parse(t, `
typed_config:
  "@type": type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig
  common_config:
    grpc_service: {envoy_grpc: {cluster_name: als}}
    custom_tags:
    - {tag: literal, literal: {value: a}}
    - {tag: agent, request_header: {name: User-Agent}}
    - {tag: missing, request_header: {name: x}}
    - {tag: default, request_header: {name: x, default_value: d}}
    - {tag: format, value: "%REQ(:METHOD)% %RESPONSE_CODE%"}
`, false)
	want := map[string]string{"literal": "a", "agent": `curl/7.88 "x"`, "default": "d", "format": "GET 418"}
	if diff := gocmp.Diff(want, log.Tags(request())); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if diff := gocmp.Diff(sortedHeaders(alwaysSent(), []string{"x"}), log.RequestHeaders); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestRecordsOfOpenTelemetry(t *testing.T) {
	log := parse(t, `
typed_config:
  "@type": type.googleapis.com/envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig
  common_config: {log_name: otel, grpc_service: {envoy_grpc: {cluster_name: otel}}}
  disable_builtin_labels: true
  resource_attributes: {values: [{key: region, value: {string_value: "%PROTOCOL%"}}]}
  body: {string_value: "%REQ(:METHOD)% %REQ(x)% %RESPONSE_CODE%"}
  attributes:
    values:
    - {key: code, value: {string_value: "%RESPONSE_CODE%"}}
    - {key: agent, value: {string_value: "%REQ(USER-AGENT)%"}}
    - {key: number, value: {int_value: 7}}
    - {key: list, value: {array_value: {values: [{string_value: a}, {string_value: "%PROTOCOL%"}]}}}
    - {key: map, value: {kvlist_value: {values: [{key: path, value: {string_value: "%REQ(:PATH)%"}}]}}}
  custom_tags: [{tag: t, literal: {value: v}}]
`, false)
	e := request()
	e.HTTP.RequestHeaders["user-agent"] = "a\xff"
	text := func(s string) *commonpb.AnyValue {
		return &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: s}}
	}
	if diff := gocmp.Diff(text("GET - 418"), log.Body(e), protocmp.Transform()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	want := []*commonpb.KeyValue{
		{Key: "code", Value: text("418")},
		{Key: "agent", Value: text("a\uFFFD")},
		{Key: "number", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: 7}}},
		{Key: "list", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_ArrayValue{ArrayValue: &commonpb.ArrayValue{Values: []*commonpb.AnyValue{text("a"), text("HTTP/1.1")}}}}},
		{Key: "map", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_KvlistValue{KvlistValue: &commonpb.KeyValueList{Values: []*commonpb.KeyValue{{Key: "path", Value: text("/status/418?a=b%20c")}}}}}},
		{Key: "t", Value: text("v")},
	}
	if diff := gocmp.Diff(want, log.Attributes(e), protocmp.Transform()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	// What Envoy says of the resource is taken as it is.
	if diff := gocmp.Diff([]*commonpb.KeyValue{{Key: "region", Value: text("%PROTOCOL%")}}, log.Resource(), protocmp.Transform()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if log.Line(e) != nil {
		t.Error("a log of another kind has a line")
	}
}
