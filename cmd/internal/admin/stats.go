package admin

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	adminpb "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"meshbridge/xds"
)

// stat is a line of /stats.
type stat struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	kind  string  // as ?type= names it
}

// serveStats lists the metrics: those of Prometheus with their labels appended to the name, and those of
// Envoy's that agents and probes look at.
func (s *Server) serveStats(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	if query.Get("format") == "prometheus" {
		s.servePrometheus(w, r)
		return
	}
	all, err := s.stats(query.Get("filter"), query.Has("usedonly"), query.Get("type"))
	if err != nil {
		writeText(w, http.StatusBadRequest, err.Error()+"\n")
		return
	}
	switch format := query.Get("format"); format {
	case "json":
		text, err := json.Marshal(map[string][]stat{"stats": all})
		if err != nil {
			writeText(w, http.StatusInternalServerError, err.Error()+"\n")
			return
		}
		jsonHeader(w)
		out := &jsonWriter{w: w}
		out.value(text, 0)
		out.text("\n")
	case "", "text":
		var b strings.Builder
		for _, s := range all {
			fmt.Fprintf(&b, "%s: %s\n", s.Name, formatNumber(s.Value))
		}
		writeText(w, http.StatusOK, b.String())
	default:
		writeText(w, http.StatusBadRequest, fmt.Sprintf("format %q: want text, json or prometheus\n", format))
	}
}

func (s *Server) servePrometheus(w http.ResponseWriter, r *http.Request) {
	promhttp.HandlerFor(s.config.Gatherer, promhttp.HandlerOpts{}).ServeHTTP(w, r)
}

// stats returns what is asked for, by name. A filter matches a part of the name.
func (s *Server) stats(filter string, usedOnly bool, kind string) ([]stat, error) {
	match, err := regexp.Compile(filter)
	if err != nil {
		return nil, fmt.Errorf("filter: %w", err)
	}
	all, err := s.metrics()
	if err != nil {
		return nil, err
	}
	all = append(all, s.envoyStats(all)...)
	all = slices.DeleteFunc(all, func(s stat) bool {
		notANumber := math.IsNaN(s.Value) || math.IsInf(s.Value, 0) // which JSON has not
		return notANumber || usedOnly && s.Value == 0 || !match.MatchString(s.Name) || kind != "" && kind != "All" && kind != s.kind
	})
	slices.SortFunc(all, func(a, b stat) int { return cmp.Compare(a.Name, b.Name) })
	return all, nil
}

const (
	counters   = "Counters"
	gauges     = "Gauges"
	histograms = "Histograms"
)

// metrics makes lines of Prometheus' metrics.
func (s *Server) metrics() ([]stat, error) {
	families, err := s.config.Gatherer.Gather()
	if err != nil {
		return nil, err
	}
	var all []stat
	for _, f := range families {
		for _, m := range f.GetMetric() {
			parts := []string{f.GetName()}
			for _, l := range m.GetLabel() {
				parts = append(parts, l.GetName(), l.GetValue())
			}
			name := strings.Join(parts, ".")
			switch {
			case m.GetCounter() != nil:
				all = append(all, stat{name, m.GetCounter().GetValue(), counters})
			case m.GetHistogram() != nil:
				h := m.GetHistogram()
				all = append(all, stat{name + ".count", float64(h.GetSampleCount()), histograms}, stat{name + ".sum", h.GetSampleSum(), histograms})
			case m.GetSummary() != nil:
				h := m.GetSummary()
				all = append(all, stat{name + ".count", float64(h.GetSampleCount()), histograms}, stat{name + ".sum", h.GetSampleSum(), histograms})
			default:
				all = append(all, stat{name, m.GetGauge().GetValue() + m.GetUntyped().GetValue(), gauges})
			}
		}
	}
	return all, nil
}

// envoyStats are the stats of Envoy that the readiness checks of Istio's agent and of others go by.
func (s *Server) envoyStats(metrics []stat) []stat {
	world, state := s.config.World(), s.state()
	valueOf := func(name string) float64 {
		for _, m := range metrics {
			if m.Name == name {
				return m.Value
			}
		}
		return 0
	}
	ready, live := 0.0, 0.0
	if s.config.Ready() {
		ready = 1
	}
	if state == adminpb.ServerInfo_LIVE {
		live = 1
	}
	all := []stat{
		{"server.state", float64(state), gauges},
		{"server.live", live, gauges},
		{"server.uptime", time.Since(s.started).Truncate(time.Second).Seconds(), gauges},
		{"server.concurrency", float64(runtime.GOMAXPROCS(0)), gauges},
		{"cluster_manager.active_clusters", float64(world.Active.Len(xds.ClusterType)), gauges},
		{"listener_manager.total_listeners_active", float64(world.Active.Len(xds.ListenerType)), gauges},
		{"listener_manager.workers_started", ready, gauges},
		{"control_plane.connected_state", valueOf("meshbridge_xds_connected"), gauges},
	}
	for _, t := range []struct{ prefix, kind string }{
		{"cluster_manager.cds", "Cluster"}, {"listener_manager.lds", "Listener"},
	} {
		received := valueOf("meshbridge_xds_pushes_total.type." + t.kind)
		rejected := valueOf("meshbridge_xds_rejects_total.type." + t.kind)
		all = append(all,
			stat{t.prefix + ".update_success", received - rejected, counters},
			stat{t.prefix + ".update_rejected", rejected, counters})
	}
	return all
}

func formatNumber(f float64) string {
	return strconv.FormatFloat(f, 'f', -1, 64)
}
