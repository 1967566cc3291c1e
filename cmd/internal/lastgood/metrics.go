package lastgood

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	saved, size prometheus.Gauge
	failures    prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		saved: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "meshbridge_last_good_state_timestamp_seconds",
			Help: "When the last good state in the file was last known to be current, as Unix time.",
		}),
		size: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "meshbridge_last_good_state_bytes", Help: "Size of the file with the last good state.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "meshbridge_last_good_state_failures_total", Help: "Attempts to write the last good state that failed.",
		}),
	}
	if r != nil {
		r.MustRegister(m.saved, m.size, m.failures)
	}
	return m
}

func (m *metrics) wrote(now time.Time, size int64) {
	m.saved.Set(float64(now.Unix()))
	m.size.Set(float64(size))
}
