package accesslog

import (
	"github.com/prometheus/client_golang/prometheus"

	access "meshbridge/translate/accesslog"
)

// counts are of what became of the entries of one kind of log.
type counts struct{ written, lost prometheus.Counter }

// metrics has the counts of each kind.
type metrics map[access.Kind]counts

func newMetrics(r prometheus.Registerer) (metrics, error) {
	entries := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "meshbridge_access_log_entries_total",
		Help: "Entries of access logs that the bridge writes, by kind of log (file, grpc, opentelemetry) and what became of them.",
	}, []string{"kind", "outcome"})
	if err := r.Register(entries); err != nil {
		return nil, err
	}
	m := metrics{}
	for kind, name := range map[access.Kind]string{
		access.KindFile: "file", access.KindGRPC: "grpc", access.KindOpenTelemetry: "opentelemetry",
	} {
		m[kind] = counts{entries.WithLabelValues(name, "written"), entries.WithLabelValues(name, "lost")}
	}
	return m, nil
}
