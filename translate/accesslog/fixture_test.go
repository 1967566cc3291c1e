package accesslog

import (
	"net/netip"
	"testing"
	"time"

	accesslogpb "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filelogpb "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	"sigs.k8s.io/yaml"
)

// istioFormat is Istio's format of access logs (meshConfig.accessLogFile without accessLogFormat).
const istioFormat = `[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% ` +
	`%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% ` +
	`%DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" ` +
	`"%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% ` +
	`%DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%` + "\n"

// request is a request that an endpoint has answered, as a client's sidecar sees it.
func request() *Entry {
	return &Entry{
		Start: time.Date(2026, 11, 22, 21, 5, 6, 7_008_009, time.UTC), Duration: 25*time.Millisecond + 999*time.Microsecond,
		Chain: "8000", Listener: "0.0.0.0_8000",
		Route: "default", Cluster: "outbound|8000||httpbin.foo.svc.cluster.local",
		Source: netip.MustParseAddrPort("10.44.1.23:46520"), Destination: netip.MustParseAddrPort("10.96.0.7:8000"),
		Upstream: netip.MustParseAddrPort("10.44.1.27:80"), Local: netip.MustParseAddrPort("10.44.1.23:37652"),
		Connection: 7, Received: 3, Sent: 135, UpstreamReceived: 300, UpstreamSent: 500,
		HTTP: &HTTP{
			Protocol: "HTTP/1.1", Scheme: "http", Method: "GET", Authority: "httpbin:8000", Path: "/status/418?a=b%20c",
			Status: 418, Received: 120, Sent: 400, Attempts: 1,
			Connected: time.Millisecond, Answered: 24 * time.Millisecond, Ended: 25 * time.Millisecond,
			RequestHeaders:  map[string]string{"user-agent": `curl/7.88 "x"`, "x-request-id": "84961386-6d84-929d-98bd-c5aee93b5c88"},
			ResponseHeaders: map[string]string{"content-type": "text/plain"},
		},
	}
}

// connection is one without HTTP.
func connection() *Entry {
	return &Entry{
		Start: time.Date(2026, 11, 22, 21, 5, 6, 0, time.UTC), Duration: 2 * time.Second,
		Chain: "tcp:0.0.0.0_5432", Listener: "0.0.0.0_5432", Cluster: "outbound|5432||db.foo.svc.cluster.local",
		Source: netip.MustParseAddrPort("[2001:db8::1]:46520"), Destination: netip.MustParseAddrPort("[2001:db8::2]:5432"),
		Received: 156, Sent: 158, MutualTLS: true,
		Principal: "spiffe://cluster.local/ns/foo/sa/sleep", OwnPrincipal: "spiffe://cluster.local/ns/foo/sa/db",
		ServerName: "outbound_.5432_._.db.foo.svc.cluster.local",
	}
}

// parse parses an access log in YAML and fails on problems other than those.
func parse(tb testing.TB, text string, tcp bool, problems ...string) *Log {
	tb.Helper()
	asJSON, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		tb.Fatal(err)
	}
	config := new(accesslogpb.AccessLog)
	if err := protojson.Unmarshal(asJSON, config); err != nil {
		tb.Fatal(err)
	}
	log, found := Parse(config, tcp)
	if !equalLists(found, problems) {
		tb.Fatalf("problems %q, want %q", found, problems)
	}
	return log
}

func equalLists(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// file is a log to a file.
func file(format *corepb.SubstitutionFormatString) *accesslogpb.AccessLog {
	c := &filelogpb.FileAccessLog{Path: "/dev/stdout"}
	if format != nil {
		c.AccessLogFormat = &filelogpb.FileAccessLog_LogFormat{LogFormat: format}
	}
	return &accesslogpb.AccessLog{ConfigType: &accesslogpb.AccessLog_TypedConfig{TypedConfig: packed(c)}}
}

func text(format string) *corepb.SubstitutionFormatString {
	return &corepb.SubstitutionFormatString{Format: &corepb.SubstitutionFormatString_TextFormatSource{
		TextFormatSource: &corepb.DataSource{Specifier: &corepb.DataSource_InlineString{InlineString: format}},
	}}
}

func jsonFormat(tb testing.TB, format string) *corepb.SubstitutionFormatString {
	tb.Helper()
	s := new(structpb.Struct)
	if err := protojson.Unmarshal([]byte(format), s); err != nil {
		tb.Fatal(err)
	}
	return &corepb.SubstitutionFormatString{Format: &corepb.SubstitutionFormatString_JsonFormat{JsonFormat: s}}
}

func packed(m proto.Message) *anypb.Any {
	a, err := anypb.New(m)
	if err != nil {
		panic(err)
	}
	return a
}
