package accesslog

import (
	"slices"
	"testing"
	"time"
)

// The lines are those that Envoy writes: see "Access logging" in its documentation, and Istio's task about
// access logs.
func TestLinesOfIstiosFormat(t *testing.T) {
	log, problems := Parse(file(text(istioFormat)), false)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	failed := request()
	failed.Flags, failed.Detail, failed.Duration = "UF,URX", "delayed connect error: Connection refused", 0
	failed.HTTP.Status, failed.HTTP.Answered = 503, -1
	unrouted := request()
	unrouted.Route, unrouted.Cluster, unrouted.Flags, unrouted.Sent = "", "", "NR", 0
	unrouted.Upstream, unrouted.Local = connection().Upstream, connection().Local
	unrouted.HTTP.Status, unrouted.HTTP.RequestHeaders = 404, nil
	refused := connection()
	refused.Cluster, refused.Flags, refused.Detail, refused.ServerName, refused.Duration = "", "NR", "no chain takes it", "", 0
	denied := connection()
	denied.Detail, denied.ServerName = "access denied\tby a policy", "db"
	for _, c := range []struct {
		name  string
		entry *Entry
		want  string
	}{
		{"denied connection", denied, `[2026-11-22T21:05:06.000Z] "- - -" 0 - - access_denied_by_a_policy "-" 156 158 2000 - "-" "-" "-" "-" "-" outbound|5432||db.foo.svc.cluster.local - [2001:db8::2]:5432 [2001:db8::1]:46520 db -`},
		{"answered", request(), `[2026-11-22T21:05:06.007Z] "GET /status/418?a=b%20c HTTP/1.1" 418 - via_upstream - "-" 3 135 25 24 "-" "curl/7.88 "x"" "84961386-6d84-929d-98bd-c5aee93b5c88" "httpbin:8000" "10.44.1.27:80" outbound|8000||httpbin.foo.svc.cluster.local 10.44.1.23:37652 10.96.0.7:8000 10.44.1.23:46520 - default`},
		{"not reached", failed, `[2026-11-22T21:05:06.007Z] "GET /status/418?a=b%20c HTTP/1.1" 503 UF,URX upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused} - "delayed_connect_error:_Connection_refused" 3 135 0 - "-" "curl/7.88 "x"" "84961386-6d84-929d-98bd-c5aee93b5c88" "httpbin:8000" "10.44.1.27:80" outbound|8000||httpbin.foo.svc.cluster.local 10.44.1.23:37652 10.96.0.7:8000 10.44.1.23:46520 - default`},
		{"without a route", unrouted, `[2026-11-22T21:05:06.007Z] "GET /status/418?a=b%20c HTTP/1.1" 404 NR route_not_found - "-" 3 0 25 - "-" "-" "-" "httpbin:8000" "-" - - 10.96.0.7:8000 10.44.1.23:46520 - -`},
		{"connection", connection(), `[2026-11-22T21:05:06.000Z] "- - -" 0 - - - "-" 156 158 2000 - "-" "-" "-" "-" "-" outbound|5432||db.foo.svc.cluster.local - [2001:db8::2]:5432 [2001:db8::1]:46520 invalid:outbound_.5432_._.db.foo.svc.cluster.local -`},
		{"refused connection", refused, `[2026-11-22T21:05:06.000Z] "- - -" 0 NR - filter_chain_not_found "-" 156 158 0 - "-" "-" "-" "-" "-" - - [2001:db8::2]:5432 [2001:db8::1]:46520 - -`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := string(log.Line(c.entry)); got != c.want+"\n" {
				t.Errorf("\n got %s\nwant %s", got, c.want)
			}
		})
	}
	if want := []string{"user-agent", "x-forwarded-for", "x-request-id"}; !slices.Equal(log.RequestHeaders, want) || len(log.ResponseHeaders) > 0 {
		t.Errorf("asks for headers %q and %q", log.RequestHeaders, log.ResponseHeaders)
	}
}

func TestOperatorsOfText(t *testing.T) {
	for format, want := range map[string]string{
		"100%% of %PROTOCOL%":                                  "100% of HTTP/1.1",
		"%REQ(USER-AGENT):4%":                                  "curl",
		"%REQ(missing?User-Agent):6% %REQ(x-a?x-b)%":           "curl/7 -",
		"%REQ(X-ENVOY-ORIGINAL-PATH?:PATH):7%":                 "/status",
		"%REQ_WITHOUT_QUERY(X-ENVOY-ORIGINAL-PATH?:PATH)%":     "/status/418",
		"%RESP(:STATUS)% %RESP(Content-Type)% %RESP(x)%":       "418 text/plain -",
		"%START_TIME(%Y/%m/%dT%H:%M:%S.%3f%z %s %j)%":          "2026/11/22T21:05:06.007+0000 1795381506 326",
		"%START_TIME(%s.%6f %9f %f %1f%%)%":                    "1795381506.007008 007008009 007008009 0%",
		"%START_TIME(%d/%b/%Y:%k:%l:%M %a %u %w %V %U %W %C)%": "22/Nov/2026:21: 9:05 Sun 7 0 47 47 46 20",
		"%EMIT_TIME%": "2026-11-22T21:05:06.033Z",
		"%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_REMOTE_PORT%":                    "10.44.1.23 46520",
		"%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_LOCAL_PORT%":                      "10.96.0.7 8000",
		"%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%":                                                   "10.44.1.23:46520",
		"%UPSTREAM_REMOTE_ADDRESS% %UPSTREAM_REMOTE_PORT%":                                     "10.44.1.27:80 80",
		"%UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%":                                                "10.44.1.23",
		"%DOWNSTREAM_WIRE_BYTES_RECEIVED% %DOWNSTREAM_HEADER_BYTES_SENT%":                      "120 265",
		"%UPSTREAM_WIRE_BYTES_SENT% %UPSTREAM_WIRE_BYTES_RECEIVED%":                            "500 300",
		"%RESPONSE_DURATION% %RESPONSE_TX_DURATION%":                                           "24 1",
		"%UPSTREAM_REQUEST_ATTEMPT_COUNT% %CONNECTION_ID%":                                     "1 7",
		"%GRPC_STATUS% %GRPC_STATUS_NUMBER% %TRAILER(GRPC-STATUS)% %HOSTNAME%":                 "- - - pod-1",
		"%RESPONSE_FLAGS_LONG% %ACCESS_LOG_TYPE% %DOWNSTREAM_PEER_URI_SAN% %UPSTREAM_CLUSTER%": "- DownstreamEnd - outbound|8000||httpbin.foo.svc.cluster.local",
	} {
		t.Run(format, func(t *testing.T) {
			log, problems := Parse(file(text(format)), false)
			log.Hostname = "pod-1"
			if got := string(log.Line(request())); got != want || len(problems) > 0 {
				t.Errorf("%q, want %q; %q", got, want, problems)
			}
		})
	}
}

func TestStatusOfGRPC(t *testing.T) {
	log, _ := Parse(file(text("%GRPC_STATUS% %GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS(NUMBER)% %RESPONSE_FLAGS_LONG%")), false)
	for status, want := range map[string]string{
		"0":   "OK OK 0 UpstreamConnectionFailure,UpstreamRetryLimitExceeded",
		"1":   "Canceled CANCELLED 1 UpstreamConnectionFailure,UpstreamRetryLimitExceeded",
		"14":  "Unavailable UNAVAILABLE 14 UpstreamConnectionFailure,UpstreamRetryLimitExceeded",
		"4":   "DeadlineExceeded DEADLINE_EXCEEDED 4 UpstreamConnectionFailure,UpstreamRetryLimitExceeded",
		"99":  "99 99 99 UpstreamConnectionFailure,UpstreamRetryLimitExceeded",
		"bad": "- - - UpstreamConnectionFailure,UpstreamRetryLimitExceeded",
	} {
		e := request()
		e.HTTP.GRPCStatus, e.Flags = status, "UF,URX"
		if got := string(log.Line(e)); got != want {
			t.Errorf("status %s: %q, want %q", status, got, want)
		}
	}
}

// What Envoy refuses, and what entries do not tell, has no value, and is told.
func TestOperatorsThatAreLeftOut(t *testing.T) {
	log, problems := Parse(file(text("%DOWNSTREAM_TLS_CIPHER% %FOO% 5% %REQ(a?b?c)% %CEL(request.path)% %START_TIME(%Q)%")), false)
	if got, want := string(log.Line(request())), "- - 5% - - %Q"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	want := []string{
		"the operator %DOWNSTREAM_TLS_CIPHER%", "the operator %FOO%", "an operator after a percent sign",
		"the operator %REQ(a?b?c)%", "the operator %CEL(request.path)%", "the conversion %Q of a time",
	}
	if !slices.Equal(problems, want) {
		t.Errorf("%q, want %q", problems, want)
	}
}

func TestEmptyValuesAreOmitted(t *testing.T) {
	format := text("%REQ(x)%|%PROTOCOL%|%RESPONSE_FLAGS%|%UPSTREAM_CLUSTER%")
	format.OmitEmptyValues = true
	log, _ := Parse(file(format), false)
	e := request()
	e.Cluster = ""
	if got, want := string(log.Line(e)), "|HTTP/1.1|-|"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestEnvoysFormatWhereThereIsNone(t *testing.T) {
	log, problems := Parse(file(nil), false)
	if got, want := string(log.Line(request())), `[2026-11-22T21:05:06.007Z] "GET /status/418?a=b%20c HTTP/1.1" 418 - 3 135 25 24 "-" "curl/7.88 "x"" "84961386-6d84-929d-98bd-c5aee93b5c88" "httpbin:8000" "10.44.1.27:80"`+"\n"; got != want || len(problems) > 0 {
		t.Errorf("\n got %s\nwant %s%q", got, want, problems)
	}
}

func TestLinesInJSON(t *testing.T) {
	const format = `{
		"start_time": "%START_TIME%", "code": "%RESPONSE_CODE%", "text": "%RESPONSE_CODE% %REQ(x)%", "agent": "%REQ(USER-AGENT)%",
		"missing": "%REQ(x)%", "flags": "%RESPONSE_FLAGS%", "port": "%DOWNSTREAM_REMOTE_PORT%", "static": "a\tb<>&", "percent": "5%%", "n": 1.5, "whole": 3, "yes": true, "no": false, "null": null,
		"nested": {"path": "%REQ(:PATH)%", "empty": {"x": "%REQ(x)%"}}, "list": ["%PROTOCOL%", null, "%REQ(x)%", 2, ["%REQ(x)%"]]}`
	for omit, want := range map[bool]string{
		false: `{"agent":"curl/7.88 \"x\"","code":418,"flags":"-","list":["HTTP/1.1",null,null,2,[null]],"missing":null,"n":1.5,"nested":{"empty":{"x":null},"path":"/status/418?a=b%20c"},"no":false,"null":null,"percent":"5%","port":46520,"start_time":"2026-11-22T21:05:06.007Z","static":"a\tb<>&","text":"418 -","whole":3,"yes":true}`,
		true:  `{"agent":"curl/7.88 \"x\"","code":418,"flags":"-","list":["HTTP/1.1",2,[]],"n":1.5,"nested":{"path":"/status/418?a=b%20c"},"no":false,"percent":"5%","port":46520,"start_time":"2026-11-22T21:05:06.007Z","static":"a\tb<>&","text":"418 ","whole":3,"yes":true}`,
	} {
		f := jsonFormat(t, format)
		f.OmitEmptyValues = omit
		log, problems := Parse(file(f), false)
		if got := string(log.Line(request())); got != want+"\n" || len(problems) > 0 {
			t.Errorf("omitting %v:\n got %s\nwant %s\n%q", omit, got, want, problems)
		}
	}
	f := jsonFormat(t, `{"a": "%REQ(x)%", "b": {"c": "%REQ(x)%"}}`)
	f.OmitEmptyValues = true
	log, _ := Parse(file(f), false)
	if got := string(log.Line(request())); got != "{}\n" {
		t.Errorf("nothing is %q", got)
	}
}

// A client's bytes make no other JSON of a line.
func TestStringsOfJSONAreEscaped(t *testing.T) {
	log, _ := Parse(file(jsonFormat(t, `{"agent": "%REQ(USER-AGENT)%"}`)), false)
	e := request()
	e.HTTP.RequestHeaders = map[string]string{"user-agent": "\"\\\b\f\n\r\t\x00\x1f\x7fé\xff€"}
	if got, want := string(log.Line(e)), `{"agent":"\"\\\b\f\n\r\t\u0000\u001f`+"\x7fé\uFFFD€\"}\n"; got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}

func TestLogsAreEqualByTheirConfiguration(t *testing.T) {
	one, _ := Parse(file(text(istioFormat)), false)
	same, _ := Parse(file(text(istioFormat)), false)
	other, _ := Parse(file(text("x")), false)
	tcp, _ := Parse(file(text(istioFormat)), true)
	if len(tcp.RequestHeaders) > 0 {
		t.Errorf("connections are asked for %q", tcp.RequestHeaders)
	}
	if !one.Equal(same) || one.Equal(other) || one.Equal(tcp) || one.Equal(nil) {
		t.Error("equality is not that of the configuration")
	}
	if one.FlushInterval != time.Second || one.BufferSize != 16384 {
		t.Errorf("defaults %v and %d", one.FlushInterval, one.BufferSize)
	}
}
