package bridge

import (
	"github.com/prometheus/client_golang/prometheus"

	"meshbridge/gateway"
	"meshbridge/store"
)

// storeCollector makes metrics of what the store and the etcd port know anyway, when they are asked for.
// etcd's names for some of them belong to a group that etcd calls debugging, and may change.
type storeCollector struct {
	store   *store.Store
	gateway *gateway.Server

	keys, compacted, events, watchers, lag *prometheus.Desc
}

func newStoreCollector(s *store.Store, g *gateway.Server) *storeCollector {
	describe := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("meshbridge_"+name, help, labels, nil)
	}
	return &storeCollector{
		store: s, gateway: g,
		keys:      describe("store_keys", "Keys in the store: objects, directories and what clients have written."),
		compacted: describe("store_compact_revision", "Revision of the last compaction: watchers from before it have to read everything again."),
		events:    describe("store_events_total", "Puts and deletes that were executed.", "op"),
		watchers:  describe("store_watchers", "Watch streams of the etcd port that have been sent the current revision (synced) or not yet (unsynced).", "state"),
		lag: describe("apisix_revision_lag",
			"Revisions that the watch stream which is furthest behind has not been sent yet; 0 where there is none."),
	}
}

// Describe implements prometheus.Collector.
func (c *storeCollector) Describe(descriptions chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.keys, c.compacted, c.events, c.watchers, c.lag} {
		descriptions <- d
	}
}

// Collect implements prometheus.Collector.
func (c *storeCollector) Collect(values chan<- prometheus.Metric) {
	stats, watchers := c.store.Stats(), c.gateway.Watchers()
	behind, lag := 0, int64(0)
	for _, w := range watchers {
		if missing := stats.Revision - w.Revision; missing > 0 {
			behind++
			lag = max(lag, missing)
		}
	}
	send := func(d *prometheus.Desc, kind prometheus.ValueType, value int64, labels ...string) {
		values <- prometheus.MustNewConstMetric(d, kind, float64(value), labels...)
	}
	send(c.keys, prometheus.GaugeValue, stats.Keys)
	send(c.compacted, prometheus.GaugeValue, stats.CompactRevision)
	send(c.events, prometheus.CounterValue, stats.Puts, "put")
	send(c.events, prometheus.CounterValue, stats.Deletes, "delete")
	send(c.watchers, prometheus.GaugeValue, int64(len(watchers)-behind), "synced")
	send(c.watchers, prometheus.GaugeValue, int64(behind), "unsynced")
	send(c.lag, prometheus.GaugeValue, lag)
}
