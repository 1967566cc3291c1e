package xds_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"meshbridge/xds"
	"meshbridge/xds/xdstest"
)

func TestMetricsFollowTheConnection(t *testing.T) {
	srv := xdstest.NewServer(t)
	srv.Set(staticCluster("a"), invalidCluster("b"))
	registry := prometheus.NewRegistry()
	log := &records{}
	_, o := connectWith(t, xds.Config{Address: srv.Addr(), Registerer: registry, Logger: newLogger(log)})
	o.wait("first sync", everything)
	srv.WaitAnswered(xds.ClusterType, xds.ListenerType)

	check := func(connected float64) {
		t.Helper()
		got := gather(t, registry)
		for name, want := range map[string]float64{
			"meshbridge_xds_connected":              connected,
			"meshbridge_xds_pushes_total Cluster":   1,
			"meshbridge_xds_pushes_total Listener":  1,
			"meshbridge_xds_rejects_total Cluster":  1,
			"meshbridge_xds_rejects_total Listener": 0,
		} {
			if got[name] != want {
				t.Errorf("%s is %v, want %v", name, got[name], want)
			}
		}
		if got["meshbridge_xds_last_push_timestamp_seconds"] == 0 {
			t.Error("no time of the last push")
		}
	}
	check(1)
	srv.Stop()
	awaitLog(t, log, "keeping the last", 2)
	check(0)
	if gather(t, registry)["meshbridge_xds_reconnects_total"] == 0 {
		t.Error("reconnects are not counted")
	}

	if _, err := xds.New(xds.Config{Address: srv.Addr(), Node: xdstest.Node(), Registerer: registry}); err == nil {
		t.Error("metrics were registered twice")
	}
}

func TestStatusMayBeReadAtAnyTime(t *testing.T) {
	srv := xdstest.NewServer(t)
	srv.Set(xdstest.Mesh(4, 1).Resources()...)
	client, o := connect(t, srv, false)
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					if s := client.Status(); s.Connected && s.Since.IsZero() {
						t.Errorf("%+v", s)
					}
				}
			}
		})
	}
	for n := range 5 {
		srv.WaitStreams(n + 1)
		srv.WaitAnswered(allTypes()...)
		srv.CloseStreams(nil)
	}
	o.wait("first sync", everything)
	close(done)
	readers.Wait()
}

// gRPC's own limit is 4 MiB; istiod sends all clusters of a large mesh in one response.
func TestALargeResponseIsAccepted(t *testing.T) {
	large := staticCluster("large")
	large.AltStatName = strings.Repeat("x", 5<<20)
	srv := xdstest.NewServer(t)
	srv.Set(large)
	_, o := connect(t, srv, false)
	o.wait("first sync", everything)

	log := &records{}
	connectWith(t, xds.Config{Address: srv.Addr(), MaxReceiveBytes: 1 << 20, Logger: newLogger(log)})
	awaitLog(t, log, "a message is larger than allowed", 1)
}

// gather returns the values of counters and gauges by name, followed by the label value.
func gather(t *testing.T, g prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := []string{f.GetName()}
			for _, l := range m.GetLabel() {
				name = append(name, l.GetValue())
			}
			values[strings.Join(name, " ")] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return values
}
