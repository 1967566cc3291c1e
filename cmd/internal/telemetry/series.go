package telemetry

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meshbridge/translate"
)

// Limits of what is kept.
const (
	maxSeries = 4_000
	// idleFor is how long nothing must have been counted in a series that makes room for others.
	idleFor = 10 * time.Minute
)

// counts are what is counted of one set of labels; of connections, or of requests.
type counts struct {
	labels labels
	rules  *translate.Stats
	used   time.Time

	requests                 uint64
	duration, received, sent distribution

	opened, closed, bytesSent, bytesReceived uint64
	tcp                                      bool
}

// seriesKey tells series apart. Chains whose rules differ have series of their own, which are added up where
// their labels turn out to be the same.
type seriesKey struct {
	labels labels
	rules  string
}

// series are all that is counted. They are not safe for concurrent use.
type series struct {
	all map[seriesKey]*counts
	// folded counts what was counted without names that clients make up, lost what was not counted.
	folded, lost prometheus.Counter
	searched     time.Time // when room was last looked for
}

// of returns the series with the labels; nil where there is no room.
func (s *series) of(now time.Time, l labels, rules *translate.Stats, requests uint64) *counts {
	id := rulesID(rules)
	key := seriesKey{l, id}
	c := s.all[key]
	if c == nil && len(s.all) >= maxSeries && !s.makeRoom(now) {
		l.anonymous()
		key = seriesKey{l, id}
		s.folded.Add(float64(requests))
		if c = s.all[key]; c == nil && len(s.all) >= maxSeries+maxSeries/10 {
			s.lost.Add(float64(requests))
			return nil
		}
	}
	if c == nil {
		c = &counts{labels: l, rules: rules}
		s.all[key] = c
	}
	c.used, c.rules = now, rules
	return c
}

// rulesID is equal for rules that make equal labels.
func rulesID(rules *translate.Stats) string {
	if len(rules.Metrics) == 0 {
		return ""
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(rules.Metrics)) {
		m := rules.Metrics[name]
		b.WriteString(name)
		if m.Drop {
			b.WriteString("\x00drop")
		}
		for _, r := range m.Remove {
			b.WriteString("\x00-" + r)
		}
		for _, label := range slices.Sorted(maps.Keys(m.Set)) {
			v := m.Set[label]
			b.WriteString("\x00" + label + "=" + v.Text + strings.Join(v.Node, "."))
		}
		b.WriteString("\x01")
	}
	return b.String()
}

// makeRoom forgets the series that have been idle, and tells whether there were any.
func (s *series) makeRoom(now time.Time) bool {
	if now.Sub(s.searched) < expireEvery {
		return false
	}
	s.searched = now
	return s.forget(func(c *counts) bool { return now.Sub(c.used) >= idleFor && !c.open() })
}

// expire forgets series by the rules of their chains.
func (s *series) expire(now time.Time) {
	s.forget(func(c *counts) bool {
		return c.rules.Rotation > 0 && now.Sub(c.used) >= c.rules.Rotation+c.rules.Grace && !c.open()
	})
}

func (s *series) forget(which func(*counts) bool) (any bool) {
	for key, c := range s.all {
		if which(c) {
			delete(s.all, key)
			any = true
		}
	}
	return any
}

// open tells that more will be counted.
func (c *counts) open() bool { return c.opened > c.closed }

// collect sends the metrics of all series.
func (s *series) collect(node labelSource, out chan<- prometheus.Metric) {
	m := metricSet{}
	for _, c := range s.all {
		m.add(node, c)
	}
	m.send(out)
}

// labelSource has the values of labels that rules take from the node.
type labelSource func(path []string) string

// metricSet adds up series that have the same labels by their rules.
type metricSet map[string]*metric

type metric struct {
	name          string
	names, values []string
	counter       float64
	histogram     *distribution // nil for counters
}

func (m metricSet) add(node labelSource, c *counts) {
	counter := func(name string, value uint64) {
		if x := m.metric(node, name, c); x != nil {
			x.counter += float64(value)
		}
	}
	histogram := func(name string, d *distribution) {
		x := m.metric(node, name, c)
		if x == nil {
			return
		}
		if x.histogram == nil {
			x.histogram = &distribution{}
		}
		x.histogram.add(d)
	}
	if c.tcp {
		counter("tcp_connections_opened_total", c.opened)
		counter("tcp_connections_closed_total", c.closed)
		counter("tcp_sent_bytes_total", c.bytesSent)
		counter("tcp_received_bytes_total", c.bytesReceived)
		return
	}
	counter("requests_total", c.requests)
	histogram("request_duration_milliseconds", &c.duration)
	histogram("request_bytes", &c.received)
	histogram("response_bytes", &c.sent)
}

// metric returns a metric with the labels that it has by the rules; nil where it is dropped.
func (m metricSet) metric(node labelSource, name string, c *counts) *metric {
	rules := c.rules.Metrics[name]
	if rules.Drop {
		return nil
	}
	x := &metric{name: name}
	for i, label := range labelNames {
		if c.tcp && (label == labelNames[labelResponseCode] || label == labelNames[labelGRPCStatus]) || slices.Contains(rules.Remove, label) {
			continue
		}
		if _, set := rules.Set[label]; !set {
			x.names, x.values = append(x.names, label), append(x.values, c.labels[i])
		}
	}
	for _, label := range slices.Sorted(maps.Keys(rules.Set)) {
		v, value := rules.Set[label], unknown
		switch {
		case v.Known:
			value = v.Text
		case v.Node != nil:
			value = cmp.Or(node(v.Node), unknown)
		}
		x.names, x.values = append(x.names, label), append(x.values, value)
	}
	key := name + "\x00" + strings.Join(x.names, "\x00") + "\x01" + strings.Join(x.values, "\x00")
	if same := m[key]; same != nil {
		return same
	}
	m[key] = x
	return x
}

func (m metricSet) send(out chan<- prometheus.Metric) {
	for _, x := range m {
		desc := prometheus.NewDesc("istio_"+x.name, help(x.name), x.names, nil)
		if x.histogram == nil {
			if c, err := prometheus.NewConstMetric(desc, prometheus.CounterValue, x.counter, x.values...); err == nil {
				out <- c
			}
			continue
		}
		cumulative, n := make(map[float64]uint64, buckets), uint64(0)
		for i, bound := range bounds() {
			n += x.histogram.counts[i]
			cumulative[bound] = n
		}
		if h, err := prometheus.NewConstHistogram(desc, x.histogram.count(), x.histogram.sum, cumulative, x.values...); err == nil {
			out <- h
		}
	}
}

func help(name string) string {
	switch name {
	case "requests_total":
		return "Requests, by Istio's labels."
	case "request_duration_milliseconds":
		return "Time from the start of a request to the end of its response."
	case "request_bytes":
		return "Size of requests with their headers."
	case "response_bytes":
		return "Size of responses with their headers."
	case "tcp_connections_opened_total":
		return "TCP connections that were opened."
	case "tcp_connections_closed_total":
		return "TCP connections that have ended."
	case "tcp_sent_bytes_total":
		return "Bytes sent to clients of TCP connections."
	default:
		return "Bytes received from clients of TCP connections."
	}
}
