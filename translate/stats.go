package translate

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	http_connection_managerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/anypb"
	statspb "istio.io/api/envoy/extensions/stats"
)

// Stats is what Istio's filter istio.stats wants to be counted of a chain. APISIX does not count it: the
// process that is told of requests does. It is immutable.
type Stats struct {
	// Reporter is the label "reporter": source, destination or waypoint.
	Reporter string
	// NoHostFallback tells that the Host header of a request is not the name of its destination where
	// there is no other (disable_host_header_fallback): it comes from outside the mesh.
	NoHostFallback bool
	// Metrics has, by names such as "requests_total", those that are not as Istio defines them.
	Metrics map[string]MetricStats
	// ReportEvery is the time between two reports about an open connection (tcp_reporting_duration).
	ReportEvery time.Duration
	// Rotation is after how long series that nothing is counted in any more are forgotten, which then
	// takes Grace; 0 is never.
	Rotation, Grace time.Duration
}

// MetricStats says how a metric differs from Istio's definition.
type MetricStats struct {
	// Drop tells that it is not counted.
	Drop bool
	// Remove are labels that it does not have.
	Remove []string
	// Set are labels with other values, or that it has besides, by name.
	Set map[string]StatsLabel
}

// StatsLabel is the value of a label. The zero value is "unknown".
type StatsLabel struct {
	// Text is the value, where Known is set; Node is a path in the node's metadata to it.
	Text  string
	Known bool
	Node  []string
}

// Values of Stats.Reporter.
const (
	ReporterSource      = "source"
	ReporterDestination = "destination"
	ReporterWaypoint    = "waypoint"
)

// Envoy's defaults.
const (
	defaultStatsReport = 5 * time.Second
	defaultStatsGrace  = 5 * time.Minute
)

const (
	codeStatsLabel  Code = "metric_label_unknown"
	codeStatsCustom Code = "metric_definition_ignored"
)

// statsMetrics are the names of Istio's metrics, without "istio_".
var statsMetrics = []string{
	"request_bytes", "request_duration_milliseconds", "request_messages_total", "requests_total", "response_bytes",
	"response_messages_total", "tcp_connections_closed_total", "tcp_connections_opened_total",
	"tcp_received_bytes_total", "tcp_sent_bytes_total",
}

const statsFilter = "istio.stats"

// statsOfHTTP returns what is counted of the requests of a connection manager, nil for nothing.
func statsOfHTTP(hcm *http_connection_managerpb.HttpConnectionManager, direction Direction, report reporter) *Stats {
	for _, f := range hcm.GetHttpFilters() {
		if f.GetName() == statsFilter && !f.GetDisabled() {
			return statsOf(f.GetTypedConfig(), direction, report)
		}
	}
	return nil
}

// statsOfTCP is statsOfHTTP for connections.
func statsOfTCP(filters []*listenerpb.Filter, direction Direction, report reporter) *Stats {
	for _, f := range filters {
		if f.GetName() == statsFilter {
			return statsOf(f.GetTypedConfig(), direction, report)
		}
	}
	return nil
}

func statsOf(config *anypb.Any, direction Direction, report reporter) *Stats {
	const field = `filters["istio.stats"]`
	c := decode[statspb.PluginConfig](config)
	if c == nil {
		report(codeFilterIgnored, field, statsFilter, messageName(config))
		return nil
	}
	s := &Stats{Reporter: ReporterSource, NoHostFallback: c.GetDisableHostHeaderFallback(), ReportEvery: defaultStatsReport}
	switch {
	case c.GetReporter() == statspb.Reporter_SERVER_GATEWAY:
		s.Reporter = ReporterWaypoint
	case direction == Inbound:
		s.Reporter = ReporterDestination
	}
	if d := c.GetTcpReportingDuration(); d != nil {
		s.ReportEvery = d.AsDuration()
	}
	if s.Rotation = positive(c.GetRotationInterval()); s.Rotation > 0 {
		s.Grace = defaultStatsGrace
		if d := c.GetGracefulDeletionInterval(); d != nil {
			s.Grace = d.AsDuration()
		}
	}
	for _, definition := range c.GetDefinitions() {
		report(codeStatsCustom, field+".definitions", definition.GetName())
	}
	for _, m := range c.GetMetrics() {
		s.override(m, field+".metrics", report)
	}
	return s
}

// override applies one element of the configuration's list, in its order.
func (s *Stats) override(m *statspb.MetricConfig, field string, report reporter) {
	names := []string{m.GetName()}
	switch {
	case m.GetName() == "":
		names = statsMetrics
	case !slices.Contains(statsMetrics, m.GetName()):
		report(codeStatsCustom, field, m.GetName())
		return
	}
	values := make(map[string]StatsLabel, len(m.GetDimensions()))
	for _, label := range slices.Sorted(maps.Keys(m.GetDimensions())) {
		expression := m.GetDimensions()[label]
		value, ok := statsLabel(expression)
		if !ok {
			report(codeStatsLabel, field, label, expression)
		}
		values[label] = value
	}
	if s.Metrics == nil {
		s.Metrics = map[string]MetricStats{}
	}
	for _, name := range names {
		metric := s.Metrics[name]
		switch {
		case m.GetDrop():
			metric.Drop = true
		default:
			metric.Remove = append(slices.Clone(metric.Remove), m.GetTagsToRemove()...)
			metric.Set = maps.Clone(metric.Set)
			if metric.Set == nil {
				metric.Set = map[string]StatsLabel{}
			}
			maps.Copy(metric.Set, values)
		}
		s.Metrics[name] = metric
	}
}

// statsLabel reads an expression of CEL that has the same value for all requests: a literal, or one of the
// node's metadata. ok is false for others.
func statsLabel(expression string) (value StatsLabel, ok bool) {
	text := strings.TrimSpace(expression)
	if m := regexp.MustCompile(`\A(?:"([^"\\]*)"|'([^'\\]*)'|(-?[0-9]+))\z`).FindStringSubmatch(text); m != nil {
		return StatsLabel{Text: m[1] + m[2] + m[3], Known: true}, true
	}
	rest, ok := strings.CutPrefix(text, "node.metadata")
	if !ok {
		return StatsLabel{}, false
	}
	element := regexp.MustCompile(`\A(?:\.([A-Za-z_][A-Za-z0-9_]*)|\[(?:"([^"\\]+)"|'([^'\\]+)')\])`)
	for rest != "" {
		m := element.FindStringSubmatch(rest)
		if m == nil {
			return StatsLabel{}, false
		}
		value.Node = append(value.Node, m[1]+m[2]+m[3])
		rest = rest[len(m[0]):]
	}
	return value, len(value.Node) > 0
}
