package bridge

import (
	"runtime"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meshbridge/translate"
	"meshbridge/translate/apisix"
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
	objects     *prometheus.GaugeVec
	push        prometheus.Histogram
	expiry      prometheus.Gauge
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
		objects: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "meshbridge_translate_objects", Help: "Objects of the bridge in the store, by APISIX's name of their kind.",
		}, []string{"kind"}),
		push: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "meshbridge_push_duration_seconds",
			Help:    "Time from when a change was received until all that it leads to was committed, waiting for others that it needs included.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2.5, 14),
		}),
		expiry: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "meshbridge_certificate_expiry_timestamp_seconds",
			Help: "When the first of the certificates that are presented to clients expires, as Unix time; 0 where there is none.",
		}),
		stale: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "meshbridge_world_stale",
			Help: "1 while what is served is the last good state of an earlier process.",
		}),
	}
	r.MustRegister(m.startup, m.updates, m.translation, m.commits, m.events, m.revision, m.lastUpdate, m.rejected, m.diagnostics,
		m.objects, m.push, m.expiry, m.stale)
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

// stored is told what becomes of an object.
func (m *metrics) stored(key string, change float64) {
	if kind, _, ok := apisix.ParseKey(key); ok {
		m.objects.WithLabelValues(string(kind)).Add(change)
	}
}

func (m *metrics) diagnosed(all []translate.Diagnostic) {
	m.diagnostics.Reset()
	for _, d := range all {
		m.diagnostics.WithLabelValues(string(d.Code), string(d.Severity)).Inc()
	}
}

// buildInfo is a metric of what runs.
func buildInfo(version string) prometheus.Collector {
	revision := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, setting := range info.Settings {
			if setting.Key == "vcs.revision" {
				revision = setting.Value
			}
		}
	}
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "meshbridge_build_info", Help: "1 for the version, the revision of its source, and that of Go.",
		ConstLabels: prometheus.Labels{"version": version, "revision": revision, "go_version": runtime.Version()},
	})
	g.Set(1)
	return g
}

// tokenExpiry is a metric of the token in a file, which is read when the metric is.
func tokenExpiry(file string) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "meshbridge_xds_token_expiry_timestamp_seconds",
		Help: "When the token for istiod expires, as Unix time; 0 where it cannot be read or does not say.",
	}, func() float64 {
		expiry, err := xds.TokenExpiry(file)
		if err != nil || expiry.IsZero() {
			return 0
		}
		return float64(expiry.Unix())
	})
}
