package translate

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"meshbridge/translate/accesslog"
	"meshbridge/xds"
)

const loggedListener = `
- "@type": type.googleapis.com/envoy.config.listener.v3.Listener
  name: 10.96.0.7_5432
  address: {socket_address: {address: "10.96.0.7", port_value: 5432}}
  traffic_direction: OUTBOUND
  bind_to_port: false
  access_log:
  - name: l
    typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog, log_format: {text_format: "LISTENER"}}
  filter_chains:
  - filter_chain_match: {application_protocols: [http/1.1]}
    filters:
    - name: hcm
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: http
        rds: {route_config_name: r}
        access_log:
        - name: h
          typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StderrAccessLog, log_format: {text_format: "REQUEST"}}
  - filters:
    - name: tcp
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
        stat_prefix: tcp
        cluster: a
        access_log:
        - name: t
          typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog, log_format: {text_format: "CONNECTION %HOSTNAME%"}}
`

// A log that is written otherwise reaches those who write it, and one that is as before changes nothing.
func TestChangedAccessLogsReachThoseWhoWriteThem(t *testing.T) {
	opts := caseOptions{Internal: "127.0.0.1:15099", BridgeAccessLogs: true, Node: "sidecar~10.0.0.1~web-7.shop~shop.svc.cluster.local"}.options(t)
	s, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	allocations := newTestAllocations()
	apply := func(text string) Result {
		return s.Apply(Input{
			Snapshot: loadYAML(t, text), Changed: []xds.Key{{Type: xds.ListenerType, Name: "10.96.0.7_5432"}},
			Inputs: Inputs{Allocations: allocations},
		})
	}
	lines := func() string {
		var out []string
		add := func(logs []*accesslog.Log) {
			for _, l := range logs {
				out = append(out, string(l.Line(&accesslog.Entry{})))
			}
		}
		for _, l := range s.Listeners() {
			add(l.AccessLogs)
		}
		for _, c := range s.Chains() {
			add(c.AccessLogs)
		}
		slices.Sort(out)
		return strings.Join(out, ", ")
	}
	apply(loggedListener)
	if got, want := lines(), "CONNECTION web-7, LISTENER, REQUEST"; got != want {
		t.Fatalf("logged is %q, want %q", got, want)
	}
	if r := apply(strings.Replace(loggedListener, "stat_prefix: http", "stat_prefix: web", 1)); r.Capture.Listeners != nil || len(r.Put) > 0 {
		t.Errorf("the same logs changed %v and %v", r.Capture.Listeners, r.Put)
	}
	if r := apply(strings.Replace(loggedListener, "LISTENER", "listener", 1)); r.Capture.Listeners == nil || lines() != "CONNECTION web-7, REQUEST, listener" {
		t.Errorf("capture has %v, logged is %q", r.Capture.Listeners, lines())
	}
	apply(strings.NewReplacer("CONNECTION", "connection", "REQUEST", "request").Replace(loggedListener))
	if got, want := lines(), "LISTENER, connection web-7, request"; got != want {
		t.Errorf("logged is %q, want %q", got, want)
	}
}

// istiod repeats a log in each chain; it is parsed once.
func TestEqualAccessLogsAreShared(t *testing.T) {
	s := captured(t, caseOptions{Internal: "127.0.0.1:15099", BridgeAccessLogs: true}.options(t), loadYAML(t, loggedListener+strings.ReplaceAll(loggedListener, "10.96.0.7", "10.96.0.8")))
	distinct, all := map[*accesslog.Log]bool{}, 0
	for _, c := range s.Chains() {
		for _, l := range c.AccessLogs {
			distinct[l] = true
			all++
		}
	}
	if len(distinct) != 2 || all != 4 {
		t.Errorf("%d logs are %d different ones", all, len(distinct))
	}
}

// What istiod sends for Telemetry resources is logged as they say.
func TestRecordedAccessLogsSayWhatTheirTelemetrySays(t *testing.T) {
	var recorded scenario
	for _, sc := range loadScenarios(t) {
		if sc.name == "access-logs" {
			recorded = sc
		}
	}
	opts := recorded.with(Mesh())
	opts.BridgeAccessLogs = true
	s := captured(t, opts, recorded.snapshot)
	request := &accesslog.Entry{
		Start: time.UnixMilli(1795381506007), Received: 3, Sent: 10, Cluster: "inbound|8080||", MutualTLS: true, Principal: "spiffe://a",
		HTTP: &accesslog.HTTP{Method: "GET", Path: "/cart?n=1", Status: 503},
	}
	fine, probe := *request, *request
	fine.HTTP = &accesslog.HTTP{Method: "GET", Path: "/cart?n=1", Status: 200}
	probe.HTTP = &accesslog.HTTP{Method: "GET", Path: "/healthz?n=1", Status: 200}
	i := slices.IndexFunc(s.Chains(), func(c *Chain) bool { return c.Key == "i:8080:tls" })
	for _, c := range []struct {
		name  string
		entry *accesslog.Entry
		want  []string
	}{
		{"failed", request, []string{
			"gRPC tcp_envoy_accesslog to outbound|9000||als.observability.svc.cluster.local",
			"file /var/log/istio/access.json: {\"flags\":\"-\",\"node\":{\"host\":\"web-0\"},\"path\":\"/cart?n=1\",\"status\":503}\n",
			"OpenTelemetry otel_envoy_accesslog to outbound|4317||otel.observability.svc.cluster.local: GET /cart?n=1: cluster=inbound|8080||: status=503",
			"gRPC shop to outbound|9000||als.observability.svc.cluster.local",
			"file /var/log/istio/access.log: 1795381506.007 /cart 503 3 10 spiffe://a\n",
		}},
		{"answered", &fine, []string{
			"gRPC tcp_envoy_accesslog to outbound|9000||als.observability.svc.cluster.local",
			"OpenTelemetry otel_envoy_accesslog to outbound|4317||otel.observability.svc.cluster.local: GET /cart?n=1: cluster=inbound|8080||: status=200",
			"gRPC shop to outbound|9000||als.observability.svc.cluster.local",
		}},
		{"probe", &probe, []string{
			"gRPC tcp_envoy_accesslog to outbound|9000||als.observability.svc.cluster.local",
			"gRPC shop to outbound|9000||als.observability.svc.cluster.local",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, l := range s.Chains()[i].AccessLogs {
				if !l.Wants(c.entry) {
					continue
				}
				says := []string{l.String()}
				if line := l.Line(c.entry); line != nil {
					says = append(says, string(line))
				}
				if body := l.Body(c.entry); body != nil {
					says = append(says, body.GetStringValue())
				}
				for _, a := range l.Attributes(c.entry) {
					says = append(says, a.GetKey()+"="+a.GetValue().GetStringValue())
				}
				got = append(got, strings.Join(says, ": "))
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
