package bridge

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"

	"github.com/prometheus/client_golang/prometheus"

	"meshbridge/capture"
	"meshbridge/capture/dns"
	"meshbridge/cmd/internal/allocate"
	"meshbridge/cmd/internal/logscope"
	"meshbridge/identity"
	"meshbridge/translate"
)

// CaptureConfig configures what is served in front of APISIX.
type CaptureConfig struct {
	// Server is as capture has it; Identity, Log, Registerer and what else is Reserved are set by New.
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
func (b *Bridge) openCapture() (err error) {
	c := b.config.Capture
	if c == nil {
		return nil
	}
	server := c.Server
	server.Log, server.Registerer = logscope.Logger(b.config.Logger, logscope.Capture), b.registry
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
	if b.capture, err = capture.New(server); err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	b.numbers, err = allocate.Open(allocate.Config{
		FirstPort: c.FirstStreamPort, LastPort: c.LastStreamPort, Overlay: c.Overlay, StateDir: b.config.StateDir,
	})
	if err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	if c.DNS != nil {
		config := *c.DNS
		config.Logger, config.Registerer = logscope.Logger(b.config.Logger, logscope.DNS), b.registry
		if b.nameServer, err = dns.New(config); err != nil {
			return fmt.Errorf("capture: %w", err)
		}
		b.pipeline.nameServer = b.nameServer
	}
	b.pipeline.feed = newCaptureFeed(b.capture, b.numbers, b.gateway,
		newStateFile("allocations.jsonl", b.registry, b.config.Logger), logscope.Logger(b.config.Logger, logscope.Capture))
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
