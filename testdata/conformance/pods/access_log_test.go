package pods

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	accesslogpb "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	accesslogservicepb "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	collectorlogspb "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"meshbridge/testdata/conformance/harness"
)

// logProviders are a service in the mesh and a collector outside of it.
const logProviders = `
extensionProviders:
- name: connections
  envoyTcpAls: {service: logs.default.svc.cluster.local, port: 9100, logName: connections}
- name: otel
  envoyOtelAls:
    service: collector.default.svc.cluster.local
    port: 4317
    logFormat: {text: "%HOSTNAME% %UPSTREAM_CLUSTER_RAW% %BYTES_RECEIVED% %RESPONSE_FLAGS%", labels: {peer: "%DOWNSTREAM_PEER_URI_SAN%"}}
`

// logging has all connections logged to both.
const logging = `
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: logs, namespace: default}
spec:
  accessLogging:
  - providers: [{name: connections}, {name: otel}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: default}
spec: {mtls: {mode: STRICT}}
---`

// logged is what was logged of a connection.
type logged struct{ node, cluster, principal, received, flags string }

// waitLogged waits for an entry that a log service was sent.
func waitLogged(t *testing.T, service *harness.Process, what string, is func(logged) bool) {
	t.Helper()
	service.WaitLine(t, what, func(line string) bool {
		return slices.ContainsFunc(parseLogged(line), is)
	})
}

// parseLogged reads a line of the service.
func parseLogged(line string) (out []logged) {
	envoy := new(accesslogservicepb.StreamAccessLogsMessage)
	if protojson.Unmarshal([]byte(line), envoy) == nil {
		for _, e := range envoy.GetTcpLogs().GetLogEntry() {
			out = append(out, logged{
				node: envoy.GetIdentifier().GetNode().GetMetadata().GetFields()["NAME"].GetStringValue(), cluster: e.GetCommonProperties().GetUpstreamCluster(),
				principal: principalOf(e), flags: flagsOf(e),
				received: strconv.FormatUint(e.GetConnectionProperties().GetReceivedBytes(), 10),
			})
		}
		return out
	}
	export := new(collectorlogspb.ExportLogsServiceRequest)
	if protojson.Unmarshal([]byte(line), export) != nil {
		return nil
	}
	for _, r := range export.GetResourceLogs() {
		for _, scope := range r.GetScopeLogs() {
			for _, record := range scope.GetLogRecords() {
				text := strings.Fields(record.GetBody().GetStringValue())
				out = append(out, logged{node: text[0], cluster: text[1], received: text[2], flags: text[3], principal: record.GetAttributes()[0].GetValue().GetStringValue()})
			}
		}
	}
	return out
}

func flagsOf(e *accesslogpb.TCPAccessLogEntry) string {
	if flags := e.GetCommonProperties().GetResponseFlags(); flags != nil {
		return flags.String()
	}
	return "-"
}

func principalOf(e *accesslogpb.TCPAccessLogEntry) string {
	names := e.GetCommonProperties().GetTlsProperties().GetPeerCertificateProperties().GetSubjectAltName()
	if len(names) == 0 {
		return "-"
	}
	return names[0].GetUri()
}

func TestConnectionsAreLoggedByServicesOfTheMesh(t *testing.T) {
	n := newNetwork(t)
	providers := filepath.Join(t.TempDir(), "mesh.yaml")
	if err := os.WriteFile(providers, []byte(logProviders), 0o600); err != nil {
		t.Fatal(err)
	}
	client, server, collector := n.pod(t, "client"), n.pod(t, "server"), n.pod(t, "legacy")
	m := startMesh(t, n, map[string]string{"mesh.yaml": namespace + logging +
		workload(client, meshTLS) + workload(server, meshTLS) + workload(collector, "") +
		service("server", "10.96.0.10", []string{"tcp:9000:9000"}, server) +
		service("logs", "10.96.0.11", []string{"tcp:9100:9100"}, server) +
		service("collector", "10.96.0.12", []string{"grpc:4317:4317"}, collector)}, "--mesh", providers)
	serve(t, server)
	inMesh := server.start(t, appUser, programs.echo, "logs", "--listen", ":9100")
	outside := collector.start(t, appUser, programs.echo, "logs", "--listen", ":4317")
	for _, p := range []*harness.Process{inMesh, outside} {
		p.WaitLine(t, "ready", func(line string) bool { return line == "ready" })
	}
	from, to := m.inject(t, client), m.inject(t, server)
	if a := from.send(t, "10.96.0.10:9000", "hello"); a.Body != "server hello" {
		t.Fatalf("the answer was %+v", a)
	}
	for name, service := range map[string]*harness.Process{"in the mesh": inMesh, "outside": outside} {
		t.Run("by a service "+name, func(t *testing.T) {
			waitLogged(t, service, "the client's entry", func(l logged) bool {
				return l.node == "client" && l.cluster == "outbound|9000||server.default.svc.cluster.local" &&
					l.principal == "-" && l.received == "5" && l.flags == "-"
			})
			waitLogged(t, service, "the server's entry", func(l logged) bool {
				return l.node == "server" && l.cluster == "inbound|9000||" &&
					l.principal == clientID && l.received == "5" && l.flags == "-"
			})
		})
	}
	t.Run("what is queued is sent at the end", func(t *testing.T) {
		if a := from.send(t, "10.96.0.10:9000", "hello again"); a.Body != "server hello again" {
			t.Fatalf("the answer was %+v", a)
		}
		from.bridge.Stop()
		waitLogged(t, inMesh, "the client's last entry", func(l logged) bool {
			return l.node == "client" && l.received == "11"
		})
	})
	if lost := to.metric(t, `meshbridge_access_log_entries_total{kind="grpc",outcome="lost"}`); lost != 0 {
		t.Errorf("%v entries are lost", lost)
	}
}
