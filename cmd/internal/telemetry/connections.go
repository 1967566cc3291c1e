package telemetry

import (
	"cmp"
	"context"
	"sync"
	"sync/atomic"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/prometheus/client_golang/prometheus"

	"meshbridge/capture"
	"meshbridge/translate/accesslog"
)

// Connections counts connections that carry no HTTP, and makes entries of access logs of them. It is a
// [capture.Observer].
type Connections struct {
	node     *corepb.Node
	resolver resolver
	entries  Entries
	numbers  atomic.Uint64
	unknown  prometheus.Counter

	resolving sync.Mutex
	known     map[connection]*resolved // guarded by resolving

	mu     sync.Mutex
	series series
	open   map[*capture.Connected]*following
}

// following is a connection that is counted, or will be logged.
type following struct {
	found  *resolved
	logs   []*accesslog.Log
	number uint64
	// counts is nil where it is not counted; of its bytes, these have been.
	counts         *counts
	sent, received int64
}

// NewConnections returns Connections that has counted nothing. Its methods are safe for concurrent use.
func NewConnections(c Config) *Connections {
	counter := func(name, help string) prometheus.Counter {
		x := prometheus.NewCounter(prometheus.CounterOpts{Name: "meshbridge_connection_" + name, Help: help})
		c.Registerer.MustRegister(x)
		return x
	}
	x := &Connections{
		node: c.Node, entries: c.Entries, resolver: newResolver(&c),
		unknown: counter("unattributed_total", "TCP connections that are in none of Istio's metrics: their filter chain is not known any more."),
		known:   map[connection]*resolved{}, open: map[*capture.Connected]*following{},
	}
	x.series = series{
		all:    map[seriesKey]*counts{},
		folded: counter("folded_total", "TCP connections that were counted without who their client is, because there were too many of those."),
		lost:   counter("lost_total", "TCP connections that were not counted, because there was no room for their labels."),
	}
	c.Registerer.MustRegister(connectionsCollector{x})
	return x
}

// Run forgets series that have expired, until ctx ends.
func (x *Connections) Run(ctx context.Context) error {
	tick := time.NewTicker(expireEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			x.mu.Lock()
			x.countBytes(now)
			x.series.expire(now)
			x.mu.Unlock()
		}
	}
}

// Opened counts a connection.
func (x *Connections) Opened(c *capture.Connected) {
	found, logs := x.find(c)
	if found == nil || found.rules == nil && len(logs) == 0 {
		return
	}
	f := &following{found: found, logs: logs, number: x.numbers.Add(1)}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.begin(f)
	x.open[c] = f
}

// Closed counts the end of a connection, and logs it. Event loops call it for those that have opened, about which
// everything is known.
func (x *Connections) Closed(c *capture.Connected) {
	f := x.end(c)
	if f == nil && c.Reason != "" {
		found, logs := x.find(c)
		if found == nil && len(logs) == 0 {
			return
		}
		f = &following{found: found, logs: logs, number: x.numbers.Add(1)}
		x.mu.Lock()
		x.begin(f)
		f.end(c)
		x.mu.Unlock()
	}
	if f != nil && len(f.logs) > 0 {
		x.entries.Write(f.logs, f.entry(c))
	}
}

// begin counts a connection that has opened. The caller holds mu.
func (x *Connections) begin(f *following) {
	if f.found == nil || f.found.rules == nil {
		return
	}
	if f.counts = x.series.of(time.Now(), f.found.labels, f.found.rules, 1); f.counts != nil {
		f.counts.tcp = true
		f.counts.opened++
	}
}

// end counts the end of a connection that is followed; nil for others.
func (x *Connections) end(c *capture.Connected) *following {
	x.mu.Lock()
	defer x.mu.Unlock()
	f := x.open[c]
	if f != nil {
		delete(x.open, c)
		f.end(c)
	}
	return f
}

func (f *following) end(c *capture.Connected) {
	if f.counts == nil {
		return
	}
	f.countBytes(c, c.Ended)
	f.counts.closed++
	f.counts.used = c.Ended
}

// countBytes counts what has come up since the last time.
func (f *following) countBytes(c *capture.Connected, now time.Time) {
	sent, received := c.Sent.Load(), c.Received.Load()
	if f.counts == nil || sent == f.sent && received == f.received {
		return
	}
	f.counts.bytesSent += uint64(sent - f.sent)
	f.counts.bytesReceived += uint64(received - f.received)
	f.counts.used, f.sent, f.received = now, sent, received
}

// countBytes counts the bytes of open connections. The caller holds mu.
func (x *Connections) countBytes(now time.Time) {
	for c, f := range x.open {
		f.countBytes(c, now)
	}
}

// find returns what stands behind a connection, nil where its chain is not known, and the logs that it may be in.
func (x *Connections) find(c *capture.Connected) (*resolved, []*accesslog.Log) {
	if c.Chain == "" {
		return nil, x.resolver.loggedBy(c.Listener)
	}
	key := connectionOf(c)
	x.resolving.Lock()
	defer x.resolving.Unlock()
	found := x.known[key]
	if found == nil || !found.current(x.resolver.world) {
		if next := x.resolver.findConnection(&key); next != nil {
			found = next
			if len(x.known) >= maxResolved {
				clear(x.known)
			}
			x.known[key] = found
		}
	}
	if found == nil {
		x.unknown.Inc()
		return nil, nil
	}
	return found, x.resolver.logsOf(found)
}

// entry makes an entry of a connection that has ended.
func (f *following) entry(c *capture.Connected) *accesslog.Entry {
	e := &accesslog.Entry{
		Start: c.Started, Duration: c.Ended.Sub(c.Started),
		Chain: c.Chain, Listener: c.Listener.Name, Cluster: c.Cluster,
		Source: c.Source, Direct: c.Direct, Destination: c.Destination, Upstream: c.Upstream, Local: c.Local,
		ServerName: c.ServerName, MutualTLS: c.MutualTLS, Principal: c.Principal, Connection: f.number,
		Sent: c.Sent.Load(), Received: c.Received.Load(), Detail: c.Detail,
	}
	if c.Reason == "" {
		e.UpstreamReceived, e.UpstreamSent = e.Sent, e.Received
	}
	if c.Reason == capture.ReasonPolicy {
		e.Detail = "rbac_access_denied_matched_policy[" + cmp.Or(c.Policy, "none") + "]" // what Envoy says
	}
	if f.found == nil {
		e.Flags = flagNoRoute
		return e
	}
	e.ClusterStat = f.found.clusterStat
	if c.Reason == "" && !e.Upstream.IsValid() { // APISIX has connected to it
		if e.Upstream = f.found.upstream; f.found.toOriginal {
			e.Upstream = c.Destination
		}
	}
	if flags := f.found.labels[labelResponseFlags]; flags != noFlags {
		e.Flags = flags
	}
	if c.MutualTLS {
		e.OwnPrincipal = f.found.principal
	}
	return e
}

// connectionsCollector shows Istio's metrics of connections.
type connectionsCollector struct{ x *Connections }

// Describe describes nothing: the labels are a matter of configuration.
func (connectionsCollector) Describe(chan<- *prometheus.Desc) {}

// Collect sends what is counted, the bytes of open connections among it. It works on a copy: event loops do not
// wait for labels to be put together.
func (c connectionsCollector) Collect(out chan<- prometheus.Metric) {
	x := c.x
	x.mu.Lock()
	x.countBytes(time.Now())
	all := make([]counts, 0, len(x.series.all))
	for _, one := range x.series.all {
		all = append(all, *one)
	}
	x.mu.Unlock()
	m := metricSet{}
	for i := range all {
		m.add(textOf(x.node), &all[i])
	}
	m.send(out)
}
