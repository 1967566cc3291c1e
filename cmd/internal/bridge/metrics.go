package bridge

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meshbridge/translate"
	"meshbridge/xds"
)

// metrics are the pipeline's own; xds and gateway register theirs.
type metrics struct {
	startup     prometheus.Gauge
	updates     prometheus.Counter
	translation prometheus.Histogram
	commits     prometheus.Counter
	events      prometheus.Counter
	revision    prometheus.Gauge
	lastUpdate  prometheus.Gauge
	rejected    prometheus.Gauge
	diagnostics *prometheus.GaugeVec
	expiry      *prometheus.GaugeVec
	stale       prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		startup: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "meshbridge_startup_duration_seconds",
			Help: "How long it took from the start until the bridge was ready for traffic for the first time; 0 before that.",
		}),
		updates: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "meshbridge_updates_total", Help: "Updates received from the xDS source that changed something.",
		}),
		translation: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "meshbridge_translation_duration_seconds", Help: "Time to translate one change set.",
			Buckets: prometheus.ExponentialBuckets(0.00001, 4, 10),
		}),
		commits: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "meshbridge_commits_total", Help: "Transactions committed to the store.",
		}),
		events: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "meshbridge_committed_objects_total", Help: "Objects put or deleted by commits.",
		}),
		revision: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "meshbridge_revision", Help: "Revision of the last commit.",
		}),
		lastUpdate: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "meshbridge_last_update_timestamp_seconds",
			Help: "When the newest configuration in the store was received, as Unix time: the age of the world.",
		}),
		rejected: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "meshbridge_rejected_resources", Help: "Resources that are refused at the moment.",
		}),
		diagnostics: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "meshbridge_diagnostics", Help: "Diagnostics of the current translation.",
		}, []string{"code", "severity"}),
		expiry: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "meshbridge_certificate_expiry_timestamp_seconds",
			Help: "When the certificate that an ssl object presents to clients expires, as Unix time.",
		}, []string{"ssl"}),
		stale: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "meshbridge_world_stale",
			Help: "1 while what is served is the last good state of an earlier process.",
		}),
	}
	r.MustRegister(m.startup, m.updates, m.translation, m.commits, m.events, m.revision, m.lastUpdate, m.rejected, m.diagnostics,
		m.expiry, m.stale)
	return m
}

func (m *metrics) received(u *xds.Update) {
	m.updates.Inc()
	m.rejected.Set(float64(len(u.Rejected)))
	m.lastUpdate.Set(float64(u.Received.UnixMilli()) / 1000)
}

func (m *metrics) translated(d time.Duration) { m.translation.Observe(d.Seconds()) }

func (m *metrics) committed(objects int, revision int64) {
	m.commits.Inc()
	m.events.Add(float64(objects))
	m.revision.Set(float64(revision))
}

func (m *metrics) diagnosed(all []translate.Diagnostic) {
	m.diagnostics.Reset()
	for _, d := range all {
		m.diagnostics.WithLabelValues(string(d.Code), string(d.Severity)).Inc()
	}
}
