package telemetry

import (
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// What a short connection costs, and a scrape with many that are open.
func BenchmarkConnections(b *testing.B) {
	x := func(b *testing.B) *Connections {
		b.Helper()
		return NewConnections(Config{World: newTCPWorld(b, "db;data;db;v3;Kubernetes"), Node: node(), Registerer: prometheus.NewRegistry()})
	}
	b.Run("opened and closed", func(b *testing.B) {
		x := x(b)
		for b.Loop() {
			c := connected("tcp:db", database)
			x.Opened(c)
			x.Closed(c)
		}
	})
	for _, open := range []int{100, 10_000} {
		b.Run(fmt.Sprintf("scrape with %d open", open), func(b *testing.B) {
			x := x(b)
			for range open {
				x.Opened(connected("tcp:db", database))
			}
			for b.Loop() {
				out := make(chan prometheus.Metric, 100)
				connectionsCollector{x}.Collect(out)
			}
		})
	}
}
