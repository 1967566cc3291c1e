package capture

import (
	"net/netip"

	"meshbridge/translate"
)

// Table is a table of listeners that decides as a Server does.
type Table struct{ table *table }

// NewTable returns the table of listeners.
func NewTable(listeners []*translate.Listener) Table { return Table{newTable(listeners)} }

// Redirected returns the listener of a connection that iptables rules redirected to the port for its
// direction; nil where nobody listens there.
func (t Table) Redirected(d translate.Direction, to netip.AddrPort) *translate.Listener {
	for _, l := range t.table.listeners {
		if l.OriginalDestination && l.direction == directionOf(d) {
			return t.table.find(to, l).Listener
		}
	}
	return nil
}

// Accepted returns the listener whose socket accepts connections to an address; nil if none.
func (t Table) Accepted(to netip.AddrPort) *translate.Listener {
	everywhere := netip.AddrPortFrom(netip.IPv4Unspecified(), to.Port())
	if to.Addr().Is6() {
		everywhere = netip.AddrPortFrom(netip.IPv6Unspecified(), to.Port())
	}
	for _, bound := range []netip.AddrPort{to, everywhere} {
		for _, l := range t.table.listeners {
			for _, key := range new(Config).socketKeys(l) {
				if key == tcpKey(bound, l.Transparent) {
					return l.Listener
				}
			}
		}
	}
	return nil
}

// Chain returns the filter chain of a connection to one of the listeners, with these first bytes.
func (t Table) Chain(l *translate.Listener, from, to netip.AddrPort, first []byte) (*translate.FilterChain, error) {
	for _, served := range t.table.listeners {
		if served.Listener != l {
			continue
		}
		look := newInspection(l, from, to)
		if err := look.look(first); err != nil {
			return nil, err
		}
		a := &arrival{listener: served, source: look.source, direct: from, destination: look.destination, hello: look.result}
		return a.match(), nil
	}
	return nil, nil
}
