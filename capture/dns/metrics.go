package dns

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// What becomes of a query, as the metric has it.
const (
	answeredMesh     = "mesh"      // from the name table
	answeredUpstream = "upstream"  // by a nameserver
	answeredFailed   = "failed"    // no nameserver answered: SERVFAIL
	answeredBusy     = "busy"      // too many are waiting: SERVFAIL
	answeredEarly    = "early"     // there is no name table yet: SERVFAIL
	answeredBad      = "malformed" // FORMERR, NOTIMP or, where there is no telling whom to answer, nothing
)

type metrics struct {
	queries  *prometheus.CounterVec
	names    prometheus.Gauge
	upstream prometheus.Histogram
}

func newMetrics(registerer prometheus.Registerer) (*metrics, error) {
	const namespace, subsystem = "meshbridge", "capture_dns"
	m := &metrics{
		queries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "queries_total",
			Help: "DNS queries of the application, by where the answer came from: mesh (istiod's name table), upstream, " +
				"failed, busy, early (before the name table), malformed.",
		}, []string{"answer"}),
		names: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "names",
			Help: "Names that are answered from istiod's name table, shorter ones included.",
		}),
		upstream: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "upstream_duration_seconds",
			Help:    "Time until a nameserver answered, or was given up.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 8), // to 8 s
		}),
	}
	for _, a := range []string{answeredMesh, answeredUpstream, answeredFailed, answeredBusy, answeredEarly, answeredBad} {
		m.queries.WithLabelValues(a)
	}
	if registerer == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.queries, m.names, m.upstream} {
		if err := registerer.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}
