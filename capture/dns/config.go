package dns

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// DefaultPort is where Istio's rules redirect DNS to.
const DefaultPort = 15053

const (
	defaultTimeout        = 5 * time.Second // as Istio's agent
	defaultMaxForwarded   = 1000
	defaultMaxConnections = 256
)

// Config configures New.
type Config struct {
	// Addresses are served over UDP and TCP; port 0 picks one. Default: port 15053 of 127.0.0.1 and,
	// where there is IPv6, of ::1.
	Addresses []netip.AddrPort
	// Namespace is the workload's: services there are known by their first label alone.
	Namespace string
	// Domain is the domain of services, "svc.cluster.local" by default; a namespace in front of it,
	// as in a node's ID, is taken off.
	Domain string
	// ResolvConf names the nameservers and the search list; default "/etc/resolv.conf". It is read
	// again when it has changed.
	ResolvConf string
	// Upstreams are used instead of the nameservers of ResolvConf.
	Upstreams []netip.AddrPort
	// Parallel asks all nameservers at once and takes the first answer; by default the next one is
	// asked where one fails, or has not answered after a second.
	Parallel bool
	// Timeout is how long nameservers are waited for altogether; default 5 s.
	Timeout time.Duration
	// MaxForwarded is how many queries wait for nameservers at a time; more are refused with
	// SERVFAIL. Default 1,000.
	MaxForwarded int
	// MaxConnections is how many TCP connections are served at a time; more are closed. Default 256.
	MaxConnections int
	// Listen and ListenPacket open sockets; nil are those of package net.
	Listen       func(network, address string) (net.Listener, error)
	ListenPacket func(network, address string) (net.PacketConn, error)
	// Logger receives what is served and, now and then, failures of nameservers; default: discard.
	Logger *slog.Logger
	// Registerer receives the metrics meshbridge_capture_dns_*; default: none.
	Registerer prometheus.Registerer
}

func (c Config) withDefaults() (Config, error) {
	c.Domain = strings.Trim(cmp.Or(c.Domain, "svc.cluster.local"), ".")
	if c.Namespace != "" {
		c.Domain = strings.TrimPrefix(c.Domain, c.Namespace+".")
	}
	c.ResolvConf = cmp.Or(c.ResolvConf, "/etc/resolv.conf")
	c.Timeout = cmp.Or(c.Timeout, defaultTimeout)
	c.MaxForwarded = cmp.Or(c.MaxForwarded, defaultMaxForwarded)
	c.MaxConnections = cmp.Or(c.MaxConnections, defaultMaxConnections)
	if c.Timeout < 0 || c.MaxForwarded < 0 || c.MaxConnections < 0 {
		return c, errors.New("dns: a limit is negative")
	}
	for _, address := range append(c.Addresses, c.Upstreams...) {
		if !address.IsValid() {
			return c, fmt.Errorf("dns: %q is no address with a port", address)
		}
	}
	if c.Listen == nil {
		c.Listen = net.Listen
	}
	if c.ListenPacket == nil {
		c.ListenPacket = net.ListenPacket
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}
