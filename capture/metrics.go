package capture

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"meshbridge/translate"
)

// direction is where the connections of a listener come from.
type direction int

const (
	outbound direction = iota
	inbound
	edge
	toOverlay
	directions int = iota
)

// directionOf returns that of a listener.
func directionOf(d translate.Direction) direction {
	switch d {
	case translate.Outbound:
		return outbound
	case translate.Inbound:
		return inbound
	case translate.Edge:
		return edge
	default:
		return edge
	}
}

func (d direction) String() string {
	return [directions]string{outbound: "outbound", inbound: "inbound", edge: "gateway", toOverlay: "overlay"}[d]
}

// Values of the label "outcome": how connections end.
const (
	outcomeClosed  = "closed"  // by its ends
	outcomeReset   = "reset"   // one end failed, or reset it
	outcomeIdle    = "idle"    // no byte for too long
	outcomeRefused = "refused" // meshbridge_capture_refused_total has the reason
	outcomeStopped = "stopped" // the server ended
)

// Values of the label "reason": why connections are refused.
const (
	reasonLoop          = "loop"           // going to a port of the bridge or of APISIX
	reasonNoOriginal    = "no_original"    // the kernel does not know where it was going
	reasonNoListener    = "no_listener"    // none has the original destination
	reasonLimit         = "limit"          // more than MaxConnections
	reasonProxyHeader   = "proxy_header"   // missing or damaged
	reasonTimeout       = "timeout"        // the first bytes did not arrive
	reasonNoChain       = "no_chain"       // no filter chain matches
	reasonChain         = "chain"          // the filter chain, or its cluster, is one that refuses
	reasonTLS           = "tls"            // the handshake failed
	reasonPolicy        = "policy"         // a NetworkPolicy refused
	reasonHeaderTooLong = "header_length"  // more to tell than APISIX reads
	reasonDial          = "dial"           // the destination cannot be reached
	reasonPorts         = "ports"          // no local port is left to reach the destination from
	reasonOverlay       = "not_overlay"    // a connection to the overlay's port at another address
	reasonDescriptors   = "no_descriptors" // none is left
	reasonDraining      = "draining"       // the workload is about to end
)

// metrics are what is counted.
type metrics struct {
	open           [directions]prometheus.Gauge
	accepted       [directions]prometheus.Counter
	ended          *prometheus.CounterVec
	refused        *prometheus.CounterVec
	sent, received [directions]prometheus.Counter
	inspected      *prometheus.CounterVec
	listeners      *prometheus.GaugeVec
	bindFailures   prometheus.Counter
	acceptFailures prometheus.Counter
	drained        *prometheus.CounterVec
}

func newMetrics(registerer prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "meshbridge_capture_" + name, Help: help}, labels)
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "meshbridge_capture_" + name, Help: help}, labels)
	}
	bytes := counter("bytes_total", "Bytes relayed, by direction of the connection and towards whom.", "direction", "towards")
	bind := counter("bind_failures_total", "Failed attempts to open the socket of a listener.")
	accept := counter("accept_failures_total", "Failed attempts to accept a connection.")
	open := gauge("connections", "Open connections.", "direction")
	accepted := counter("connections_total", "Accepted connections.", "direction")
	m := &metrics{
		ended:     counter("connections_ended_total", "Connections that have ended, by how.", "direction", "outcome"),
		refused:   counter("refused_total", "Connections that were refused, by why.", "direction", "reason"),
		inspected: counter("inspected_total", "Connections whose first bytes were looked at, by what they were.", "direction", "result"),
		listeners: gauge("listeners", "Sockets of listeners.", "state"),
		drained:   counter("drained_total", "Connections that were open when draining began, by how they ended.", "outcome"),
	}
	var failures []error
	for _, c := range []prometheus.Collector{bytes, bind, accept, open, accepted, m.ended, m.refused, m.inspected, m.listeners, m.drained} {
		failures = append(failures, registerer.Register(c))
	}
	if err := errors.Join(failures...); err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	m.bindFailures, m.acceptFailures = bind.WithLabelValues(), accept.WithLabelValues()
	for d := range direction(directions) {
		m.sent[d] = bytes.WithLabelValues(d.String(), "client")
		m.received[d] = bytes.WithLabelValues(d.String(), "upstream")
		m.open[d], m.accepted[d] = open.WithLabelValues(d.String()), accepted.WithLabelValues(d.String())
	}
	return m, nil
}

// bytes counts bytes that were relayed, to the client and to the upstream.
func (m *metrics) bytes(d direction, sent, received int64) {
	if sent > 0 {
		m.sent[d].Add(float64(sent))
	}
	if received > 0 {
		m.received[d].Add(float64(received))
	}
}
