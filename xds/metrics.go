package xds

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	connected    prometheus.Gauge
	pushes       *prometheus.CounterVec
	rejects      *prometheus.CounterVec
	reconnects   prometheus.Counter
	terminations *prometheus.CounterVec
	lastPush     prometheus.Gauge
	lastUpdate   *prometheus.GaugeVec
	resources    *prometheus.GaugeVec
}

func newMetrics(registerer prometheus.Registerer) (*metrics, error) {
	const namespace, subsystem = "meshbridge", "xds"
	m := &metrics{
		connected: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "connected",
			Help: "1 while istiod has answered on the present stream, else 0.",
		}),
		pushes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "pushes_total",
			Help: "Responses received, by type.",
		}, []string{"type"}),
		rejects: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "rejects_total",
			Help: "Responses refused because a resource in them is not valid, by type.",
		}, []string{"type"}),
		reconnects: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "reconnects_total",
			Help: "Streams and attempts to connect that ended, each followed by another.",
		}),
		terminations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "connection_terminations_total",
			Help: "Streams and attempts to connect that ended, by reason: refused (istiod does not accept the identity), unreachable, oversize (a message), closed (by istiod, in order) or failed.",
		}, []string{"reason"}),
		lastUpdate: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "last_update_timestamp_seconds",
			Help: "When a response last changed something, in Unix time, by type.",
		}, []string{"type"}),
		resources: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "resources",
			Help: "Resources that are known, by type.",
		}, []string{"type"}),
		lastPush: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "last_push_timestamp_seconds",
			Help: "When the last response arrived, in Unix time.",
		}),
	}
	if registerer == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{
		m.connected, m.pushes, m.rejects, m.reconnects, m.terminations, m.lastPush, m.lastUpdate, m.resources,
	} {
		if err := registerer.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}
