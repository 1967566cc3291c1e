package dns

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	lookups *prometheus.CounterVec
	names   prometheus.Gauge
	failing prometheus.Gauge
	oldest  prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		lookups: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "meshbridge_dns_lookups_total", Help: "Lookups of names of STRICT_DNS clusters; that a name does not exist is a success.",
		}, []string{"result"}),
		names: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "meshbridge_dns_names", Help: "Names of STRICT_DNS clusters that are kept resolved.",
		}),
		failing: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "meshbridge_dns_failing_names", Help: "Names whose last lookup failed; their last good answers are used.",
		}),
		oldest: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "meshbridge_dns_oldest_failing_answer_timestamp_seconds",
			Help: "When the oldest answer that is used although its name fails to resolve was received, as Unix time; 0 where there is none.",
		}),
	}
	if r != nil {
		r.MustRegister(m.lookups, m.names, m.failing, m.oldest)
	}
	return m
}

func (m *metrics) observe(entries map[string]*entry) {
	failing := 0
	var oldest time.Time
	for _, e := range entries {
		if e.failure == "" {
			continue
		}
		failing++
		if e.known && (oldest.IsZero() || e.answered.Before(oldest)) {
			oldest = e.answered
		}
	}
	m.names.Set(float64(len(entries)))
	m.failing.Set(float64(failing))
	if oldest.IsZero() {
		m.oldest.Set(0)
	} else {
		m.oldest.Set(float64(oldest.UnixMilli()) / 1000)
	}
}
