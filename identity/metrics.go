package identity

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	expiry   prometheus.Gauge
	renewals prometheus.Counter
	failures *prometheus.CounterVec
}

func newMetrics(registerer prometheus.Registerer) (*metrics, error) {
	const namespace, subsystem = "meshbridge", "identity"
	m := &metrics{
		expiry: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "expiry_timestamp_seconds",
			Help: "When the current workload certificate expires, in Unix time; 0 before there is one.",
		}),
		renewals: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "renewals_total",
			Help: "Identities that became current, the first one included.",
		}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "failures_total",
			Help: "Attempts to get an identity that failed, by reason: file (token, root or certificate " +
				"file), unreachable, refused, invalid (what was received).",
		}, []string{"reason"}),
	}
	for _, r := range []string{reasonFile, reasonUnreachable, reasonRefused, reasonInvalid} {
		m.failures.WithLabelValues(r)
	}
	if registerer == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.expiry, m.renewals, m.failures} {
		if err := registerer.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}
