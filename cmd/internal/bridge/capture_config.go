package bridge

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"

	"github.com/prometheus/client_golang/prometheus"

	"meshbridge/capture"
	"meshbridge/capture/dns"
	"meshbridge/cmd/internal/logscope"
	"meshbridge/identity"
	"meshbridge/translate"
)

// CaptureConfig configures what is served in front of APISIX.
type CaptureConfig struct {
	// Server is as capture has it; Identity, Observer, Log, Registerer and what else is Reserved are set by New.
	Server capture.Config
	// NewIdentity makes the source of the workload's certificate; nil has none, and mesh TLS is
	// refused.
	NewIdentity func(prometheus.Registerer, *slog.Logger) (identity.Source, error)
	// FirstStreamPort and LastStreamPort are APISIX's ports for TCP, Overlay the addresses that
	// stand for endpoints.
	FirstStreamPort, LastStreamPort uint16
	Overlay                         netip.Prefix
	// DNS configures the DNS server for the workload; nil has none. Logger and Registerer are set by
	// New. The source must subscribe to the name table.
	DNS *dns.Config
}

// openCapture makes the parts that belong to capture.
func (b *Bridge) openCapture(ctx context.Context) (err error) {
	c := b.config.Capture
	if c == nil {
		return nil
	}
	server := c.Server
	server.Log, server.Registerer = logscope.Logger(b.config.Logger, logscope.Capture), b.registry
	server.Observer = b.openConnections()
	if c.NewIdentity != nil {
		if b.identity, err = c.NewIdentity(b.registry, logscope.Logger(b.config.Logger, logscope.Identity)); err != nil {
			return err
		}
		server.Identity = b.identity
	}
	server.Reserved = append(server.Reserved, translate.PortRange{First: c.FirstStreamPort, Last: c.LastStreamPort})
	for _, l := range b.ownListeners() {
		if a, ok := l.Addr().(*net.TCPAddr); ok {
			port := a.AddrPort().Port()
			server.Reserved = append(server.Reserved, translate.PortRange{First: port, Last: port})
		}
	}
	ports := b.succession.ports
	server.Listen = func(ctx context.Context, config net.ListenConfig, network, address string) (net.Listener, error) {
		return ports.Listen(ctx, config, "capture "+network, network, address)
	}
	if b.capture, err = capture.New(server); err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	if c.DNS != nil {
		config := *c.DNS
		config.Logger, config.Registerer = logscope.Logger(b.config.Logger, logscope.DNS), b.registry
		config.Listen = func(network, address string) (net.Listener, error) {
			return ports.Listen(ctx, net.ListenConfig{}, "dns", network, address)
		}
		config.ListenPacket = func(network, address string) (net.PacketConn, error) {
			return ports.ListenPacket(ctx, net.ListenConfig{}, "dns", network, address)
		}
		if b.nameServer, err = dns.New(config); err != nil {
			return fmt.Errorf("capture: %w", err)
		}
		b.pipeline.nameServer = b.nameServer
	}
	b.pipeline.feed = newCaptureFeed(b.capture, nil, b.gateway,
		newStateFile("allocations.jsonl", b.registry, b.config.Logger), logscope.Logger(b.config.Logger, logscope.Capture))
	if b.identity != nil {
		b.pipeline.feed.identity = b.identity
	}
	if b.succession.predecessor != nil {
		return nil // until it writes no more
	}
	if err := b.openNumbers(nil); err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	return nil
}

// ownListeners are the ports that New has opened.
func (b *Bridge) ownListeners() []net.Listener {
	all := []net.Listener{b.listener}
	for _, s := range b.servers {
		all = append(all, s.listener)
	}
	return all
}
