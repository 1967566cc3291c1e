package accesslog

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	accesslogpb "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"
	"sigs.k8s.io/yaml"
)

const toRequestService = `
name: requests
typed_config:
  "@type": type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig
  common_config:
    log_name: shop
    grpc_service: {envoy_grpc: {cluster_name: als}}
    custom_tags:
    - {tag: agent, request_header: {name: user-agent}}
  additional_request_headers_to_log: [X-Tenant, User-Agent]
  additional_response_headers_to_log: [Content-Type, X-None]
`

const toConnectionService = `
name: connections
typed_config:
  "@type": type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.TcpGrpcAccessLogConfig
  common_config: {log_name: shop, grpc_service: {envoy_grpc: {cluster_name: als}}}
`

// wantMessage compares a message with one in YAML.
func wantMessage(t *testing.T, got proto.Message, want string) {
	t.Helper()
	asJSON, err := yaml.YAMLToJSON([]byte(want))
	if err != nil {
		t.Fatal(err)
	}
	wanted := got.ProtoReflect().New().Interface()
	if err := protojson.Unmarshal(asJSON, wanted); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(wanted, got, protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWhatAServiceIsToldOfARequest(t *testing.T) {
	log, e := parse(t, toRequestService, false), request()
	e.Flags, e.ServerName = "URX,UAEX,DC", "a.example"
	wantMessage(t, log.HTTPEntry(e), `
common_properties:
  downstream_remote_address: {socket_address: {address: 10.44.1.23, port_value: 46520}}
  downstream_direct_remote_address: {socket_address: {address: 10.44.1.23, port_value: 46520}}
  downstream_local_address: {socket_address: {address: 10.96.0.7, port_value: 8000}}
  upstream_remote_address: {socket_address: {address: 10.44.1.27, port_value: 80}}
  upstream_local_address: {socket_address: {address: 10.44.1.23, port_value: 37652}}
  tls_properties: {tls_sni_hostname: a.example}
  start_time: "2026-11-22T21:05:06.007008009Z"
  duration: 0.025999s
  time_to_first_upstream_tx_byte: 0.001999s
  time_to_first_upstream_rx_byte: 0.024999s
  time_to_last_upstream_rx_byte: 0.025999s
  time_to_last_downstream_tx_byte: 0.025999s
  upstream_cluster: outbound|8000||httpbin.foo.svc.cluster.local
  route_name: default
  upstream_request_attempt_count: 1
  response_flags:
    upstream_retry_limit_exceeded: true
    downstream_connection_termination: true
    unauthorized_details: {reason: EXTERNAL_SERVICE}
  downstream_wire_bytes_received: 120
  downstream_wire_bytes_sent: 400
  upstream_wire_bytes_received: 300
  upstream_wire_bytes_sent: 500
  custom_tags: {agent: "curl/7.88 \"x\""}
  access_log_type: DownstreamEnd
protocol_version: HTTP11
request:
  request_method: GET
  scheme: http
  authority: httpbin:8000
  path: /status/418?a=b%20c
  user_agent: "curl/7.88 \"x\""
  request_id: 84961386-6d84-929d-98bd-c5aee93b5c88
  request_headers_bytes: 117
  request_body_bytes: 3
  downstream_header_bytes_received: 117
  request_headers: {user-agent: "curl/7.88 \"x\""}
response:
  response_code: 418
  response_headers_bytes: 265
  response_body_bytes: 135
  downstream_header_bytes_sent: 265
  response_headers: {content-type: text/plain}
  response_code_details: `+e.codeDetails()+`
`)
	for _, name := range []string{"referer", "user-agent", "x-envoy-original-path", "x-forwarded-for", "x-request-id", "x-tenant"} {
		if !slices.Contains(log.RequestHeaders, name) {
			t.Errorf("the log does not ask for %s: %v", name, log.RequestHeaders)
		}
	}
}

func TestWhatAServiceIsToldOfAConnection(t *testing.T) {
	e := connection()
	e.Flags, e.Detail, e.Direct = "UF,URX", "connection refused", e.Destination
	wantMessage(t, parse(t, toConnectionService, true).TCPEntry(e), `
common_properties:
  downstream_remote_address: {socket_address: {address: "2001:db8::1", port_value: 46520}}
  downstream_direct_remote_address: {socket_address: {address: "2001:db8::2", port_value: 5432}}
  downstream_local_address: {socket_address: {address: "2001:db8::2", port_value: 5432}}
  tls_properties:
    tls_sni_hostname: outbound_.5432_._.db.foo.svc.cluster.local
    local_certificate_properties: {subject_alt_name: [{uri: spiffe://cluster.local/ns/foo/sa/db}]}
    peer_certificate_properties: {subject_alt_name: [{uri: spiffe://cluster.local/ns/foo/sa/sleep}]}
  start_time: "2026-11-22T21:05:06Z"
  duration: 2s
  upstream_cluster: outbound|5432||db.foo.svc.cluster.local
  upstream_transport_failure_reason: connection refused
  upstream_request_attempt_count: 1
  response_flags: {upstream_connection_failure: true, upstream_retry_limit_exceeded: true}
  downstream_wire_bytes_received: 156
  downstream_wire_bytes_sent: 158
  access_log_type: TcpConnectionEnd
connection_properties: {received_bytes: 156, sent_bytes: 158}
`)
}

func TestAServiceIsToldOfWhatIsKnown(t *testing.T) {
	wantMessage(t, parse(t, toRequestService, false).HTTPEntry(&Entry{HTTP: &HTTP{Connected: -1, Answered: -1, Ended: -1}}), `
common_properties: {start_time: "0001-01-01T00:00:00Z", duration: 0s, access_log_type: DownstreamEnd}
request: {}
response: {}
`)
}

// Every flag that texts have is one of the message, too, but for the one that the message does not have yet.
func TestResponseFlagsAreFieldsOfTheMessage(t *testing.T) {
	fields := map[string]string{}
	for _, names := range flagNames() {
		flags := responseFlags(names[0])
		set := 0
		flags.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
			set++
			fields[string(f.Name())] = names[0]
			return true
		})
		if known := !slices.Contains([]string{"DO", "UDO"}, names[0]); known && set != 1 {
			t.Errorf("%s sets %d fields", names[0], set)
		}
	}
	if all := (&accesslogpb.ResponseFlags{}).ProtoReflect().Descriptor().Fields().Len(); len(fields) != all {
		t.Errorf("%d of %d fields have a flag: %v", len(fields), all, fields)
	}
}

func TestWhatIsNoUTF8CanBeSent(t *testing.T) {
	const broken = "a\xffb"
	e := request()
	fill(reflect.ValueOf(e).Elem(), broken)
	e.HTTP.RequestHeaders = map[string]string{"x-tenant": broken, "user-agent": broken}
	for _, m := range []proto.Message{
		parse(t, toRequestService, false).HTTPEntry(e), parse(t, toConnectionService, true).TCPEntry(e),
	} {
		if _, err := proto.Marshal(m); err != nil {
			t.Error(err)
		}
		if text := protojson.Format(m); strings.Count(text, "a\uFFFDb") < 4 {
			t.Errorf("%s", text)
		}
	}
}

// fill sets all texts of a struct, and of those that it points to.
func fill(v reflect.Value, text string) {
	for _, f := range v.Fields() {
		switch {
		case !f.CanSet():
		case f.Kind() == reflect.String:
			f.SetString(text)
		case f.Kind() == reflect.Pointer && f.Elem().Kind() == reflect.Struct:
			fill(f.Elem(), text)
		}
	}
}
