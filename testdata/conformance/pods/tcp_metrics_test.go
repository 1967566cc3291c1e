package pods

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"meshbridge/testdata/conformance/harness"
)

// telemetry makes istiod ask for Istio's metrics, and for access logs on standard output.
const telemetry = `
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: default, namespace: istio-system}
spec:
  metrics: [{providers: [{name: prometheus}]}]
  accessLogging: [{providers: [{name: envoy}]}]
---`

// istioMetric returns the sum of a metric's series that have all of the labels, and all series.
func (s *sidecar) istioMetric(ctx context.Context, name string, labels map[string]string) (sum float64, all []string, err error) {
	a, err := s.call(ctx, proxyUser, "http", "--url", "http://127.0.0.1:15020/stats/prometheus")
	if err != nil || a.Status != http.StatusOK {
		return 0, nil, fmt.Errorf("metrics: %w %+v", err, a)
	}
series:
	for line := range strings.Lines(a.Body) {
		rest, ok := strings.CutPrefix(line, name+"{")
		if !ok {
			continue
		}
		all = append(all, rest)
		has, value, _ := strings.Cut(strings.TrimSpace(rest), "} ")
		for label, want := range labels {
			if !strings.Contains(","+has+",", fmt.Sprintf(",%s=%q,", label, want)) {
				continue series
			}
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, nil, err
		}
		sum += v
	}
	return sum, all, nil
}

// counts waits until the metrics of TCP have these values: connections opened and closed, and bytes sent and
// received by the server.
func (s *sidecar) counts(t *testing.T, opened, closed, sent, received int, labels map[string]string) {
	t.Helper()
	harness.Eventually(t, "metrics of "+s.name, func(ctx context.Context) error {
		for name, want := range map[string]int{
			"connections_opened": opened, "connections_closed": closed, "sent_bytes": sent, "received_bytes": received,
		} {
			got, all, err := s.istioMetric(ctx, "istio_tcp_"+name+"_total", labels)
			if err != nil {
				return err
			}
			if got != float64(want) {
				return fmt.Errorf("%s: %v, want %d, of %v; there are\n%s", name, got, want, labels, strings.Join(all, ""))
			}
		}
		return nil
	})
}

// logs waits for a line of the bridge's access log.
func (s *sidecar) logs(t *testing.T, pattern string) {
	t.Helper()
	line := regexp.MustCompile(pattern)
	harness.Eventually(t, "an entry of "+s.name, func(context.Context) error {
		var all []string
		for _, l := range s.bridge.Lines() {
			if line.MatchString(l) {
				return nil
			}
			if strings.Contains(l, `"- - -"`) {
				all = append(all, l)
			}
		}
		return fmt.Errorf("no line like %s in\n%s", pattern, strings.Join(all, "\n"))
	})
}

func TestBothSidesCountTheConnectionsOfAService(t *testing.T) {
	n := newNetwork(t)
	w := newWorldIn(t, n, telemetry)
	client := map[string]string{
		"reporter": "source", "request_protocol": "tcp", "response_flags": "-", "connection_security_policy": "unknown",
		"source_app":           "client",
		"destination_workload": "server", "destination_workload_namespace": "default", "destination_cluster": "Kubernetes",
		"destination_canonical_service": "server", "destination_service": "server.default.svc.cluster.local",
		"destination_service_name": "server", "destination_service_namespace": "default",
		"source_principal": clientID, "destination_principal": serverID,
	}
	server := map[string]string{
		"reporter": "destination", "request_protocol": "tcp", "response_flags": "-", "connection_security_policy": "mutual_tls",
		"source_principal": clientID, "source_workload_namespace": "default", "source_workload": "unknown",
		"destination_principal": serverID, "destination_app": "server",
		"destination_service": "server.default.svc.cluster.local", "destination_service_name": "server",
	}

	opened, sent, received := 0, 0, 0
	for _, port := range []string{"9000", "9002"} { // permissive and strict, both with mutual TLS
		for _, size := range []int{0, 1, 1000, 100_000} {
			text := strings.Repeat("x", size)
			a := w.client.send(t, "10.96.0.10:"+port, text)
			if !strings.HasPrefix(a.Body, "server ") || a.Error != "" {
				t.Fatalf("%d bytes to %s: the answer was %.100q, %s", size, port, a.Body, a.Error)
			}
			opened, sent, received = opened+1, sent+len(a.Body), received+size
		}
	}
	w.client.counts(t, opened, opened, sent, received, client)
	w.server.counts(t, opened, opened, sent, received, server)

	t.Run("one that is open", func(t *testing.T) {
		const question, answer = "hello", "server hello"
		c := w.client.start(t, appUser, programs.echo, "tcp", "--address", "10.96.0.10:9000", "--send", question, "--hold", "--every", "1h")
		w.client.counts(t, opened+1, opened, sent+len(answer), received+len(question), client)
		w.server.counts(t, opened+1, opened, sent+len(answer), received+len(question), server)
		c.Stop()
		w.client.counts(t, opened+1, opened+1, sent+len(answer), received+len(question), client)
		w.server.counts(t, opened+1, opened+1, sent+len(answer), received+len(question), server)
	})
	t.Run("a client without a sidecar", func(t *testing.T) {
		a := w.legacy.send(t, w.server.address+":9000", "hello")
		plain := maps.Clone(server)
		plain["connection_security_policy"], plain["source_principal"] = "none", "unknown"
		plain["source_workload_namespace"], plain["destination_principal"] = "unknown", "unknown"
		w.server.counts(t, 1, 1, len(a.Body), len("hello"), plain)
	})
	t.Run("a headless service, to which capture connects itself", func(t *testing.T) {
		a := w.client.send(t, w.server.address+":9000", "hello")
		w.client.counts(t, 1, 1, len(a.Body), len("hello"), map[string]string{
			"destination_service": "headless.default.svc.cluster.local", "destination_principal": serverID, "source_principal": clientID,
		})
	})
	t.Run("a destination that no service claims", func(t *testing.T) {
		a := w.client.send(t, w.legacy.address+":9100", "hello")
		if a.Body != "" {
			t.Fatalf("the answer was %+v", a)
		}
		w.client.counts(t, 1, 1, 0, 0, map[string]string{
			"destination_service_name": "PassthroughCluster", "destination_service": "unknown", "response_flags": "UF,URX",
		})
	})
	t.Run("requests that APISIX never sees", func(t *testing.T) {
		w.legacy.get(t, "http://server/", "--address", w.server.address+":8090")
		harness.Eventually(t, "metrics", func(ctx context.Context) error {
			n, all, err := w.server.istioMetric(ctx, "istio_tcp_connections_opened_total", map[string]string{"destination_service_name": "InboundPassthroughCluster"})
			if err == nil && n != 1 {
				err = fmt.Errorf("%v of\n%s", n, strings.Join(all, ""))
			}
			return err
		})
		w.server.logs(t, `"- - -" 0 - - - "-" \d+ \d+ \d+ - "-" "-" "-" "-" "10.77.1.2:8090" InboundPassthroughCluster 127.0.0.6:\d+ 10.77.1.2:8090 10.77.1.3:\d+ - `)
	})
	t.Run("access logs", func(t *testing.T) {
		w.legacy.send(t, w.server.address+":9002", "no ClientHello")
		w.server.logs(t, `"- - -" 0 NR - filter_chain_not_found "-" 0 0 0 - "-" "-" "-" "-" "-" - - 10.77.1.2:9002 10.77.1.3:\d+ - -`)
		w.client.logs(t, `"- - -" 0 - - - "-" 1000 1007 \d+ - "-" "-" "-" "-" "10.77.1.2:9000" outbound\|9000\|\|server.default.svc.cluster.local;? - 10.96.0.10:9000 10.77.1.1:\d+ - -`)
		w.server.logs(t, `"- - -" 0 - - - "-" 1000 1007 \d+ - "-" "-" "-" "-" "10.77.1.2:9000" inbound\|9000\|\|;? - 10.77.1.2:9000 10.77.1.1:\d+ (invalid:)?outbound_.9000_._.server.default.svc.cluster.local -`)
	})
}
