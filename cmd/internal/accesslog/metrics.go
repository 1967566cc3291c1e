package accesslog

import (
	"github.com/prometheus/client_golang/prometheus"

	access "meshbridge/translate/accesslog"
)

// counts are of what became of the entries of one kind of log.
type counts struct{ written, lost prometheus.Counter }

type metrics struct {
	of       map[access.Kind]counts
	failures *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	entries := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "meshbridge_access_log_entries_total",
		Help: "Entries of access logs that the bridge writes, by kind of log (file, grpc, opentelemetry) and what became of them.",
	}, []string{"kind", "outcome"})
	failures := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "meshbridge_access_log_failures_total",
		Help: "Attempts to send entries of access logs to a service that failed, by reason: unknown_cluster, no_endpoints, " +
			"no_certificate (the service wants TLS for which the bridge has none), connect, refused (by the service).",
	}, []string{"reason"})
	for _, c := range []prometheus.Collector{entries, failures} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	m := &metrics{of: map[access.Kind]counts{}, failures: failures}
	for kind, name := range map[access.Kind]string{
		access.KindFile: "file", access.KindGRPC: "grpc", access.KindOpenTelemetry: "opentelemetry",
	} {
		m.of[kind] = counts{entries.WithLabelValues(name, "written"), entries.WithLabelValues(name, "lost")}
	}
	return m, nil
}
