package capture

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"

	"github.com/prometheus/client_golang/prometheus"

	"meshbridge/identity"
	"meshbridge/translate"
)

// Config says how a Server is set up. Its zero value, with a Log, serves the bound listeners of the
// table that lead to original destinations, and nothing that leads to APISIX.
type Config struct {
	// Outbound and Inbound are the addresses to which connections are redirected, such as
	// 0.0.0.0:15001 and [::]:15001. They replace those of the table's listeners with
	// OriginalDestination in that direction. Without any, these listeners are not opened.
	Outbound, Inbound []netip.AddrPort
	// Overlay is where APISIX connects to for endpoints that want more than plain TCP, such as
	// 0.0.0.0:15011: the address that it connects to is that of the endpoint. Invalid is off.
	Overlay netip.AddrPort
	// HTTP and HTTPS are APISIX's ports that expect a PROXY protocol header.
	HTTP, HTTPS netip.AddrPort
	// Stream is the address of APISIX's stream ports; the default is 127.0.0.1.
	Stream netip.Addr
	// Identity is the workload's certificate; nil refuses what needs it.
	Identity identity.Source
	// OriginalDestination tells where a redirected connection was going. The default asks the
	// kernel (SO_ORIGINAL_DST, IP6T_SO_ORIGINAL_DST), and takes the local address of transparent
	// listeners.
	OriginalDestination func(net.Conn) (netip.AddrPort, error)
	// Reserved are ports of this host that connections may not go to as their original destination:
	// those of APISIX and of the bridge. The ports of this Config are, in any case.
	Reserved []translate.PortRange
	// MaxConnections is how many connections may be open at a time; more are reset. 0 is without
	// limit.
	MaxConnections int
	// Listen opens sockets; nil is net.ListenConfig's.
	Listen func(ctx context.Context, config net.ListenConfig, network, address string) (net.Listener, error)
	// Observer is told of connections that carry no HTTP; nil is nobody.
	Observer Observer
	// Log receives state changes and, at a bounded rate, refused connections. The default discards
	// them.
	Log *slog.Logger
	// Registerer registers the metrics meshbridge_capture_*; nil registers none.
	Registerer prometheus.Registerer
}

// withDefaults returns the configuration with defaults filled in, or what is wrong with it.
func (c *Config) withDefaults() (Config, error) {
	filled := *c
	err := filled.fill()
	return filled, err
}

// fill fills in defaults.
func (c *Config) fill() error {
	if c.MaxConnections < 0 {
		return errors.New("maximum of connections is negative")
	}
	for _, addresses := range [][]netip.AddrPort{c.Outbound, c.Inbound} {
		for _, a := range addresses {
			if !a.IsValid() {
				return errors.New("address for redirected connections is not valid")
			}
		}
	}
	if !c.Stream.IsValid() {
		c.Stream = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	if c.Listen == nil {
		c.Listen = func(ctx context.Context, config net.ListenConfig, network, address string) (net.Listener, error) {
			return config.Listen(ctx, network, address)
		}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	return nil
}
