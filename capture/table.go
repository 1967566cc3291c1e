package capture

import (
	"net/netip"

	"meshbridge/translate"
)

// listener is one of the table with the index of its chains.
type listener struct {
	*translate.Listener
	direction direction
	matcher   *Matcher
}

// table is a set of listeners. It is immutable.
type table struct {
	listeners []*listener
	byAddress map[tableKey]*listener
}

// tableKey is where redirected connections go that a listener takes. Those of the workload and those to it
// do not share listeners: a service's port may be one of the workload's own.
type tableKey struct {
	inbound bool
	address netip.AddrPort // an unspecified one is any of its family
}

func newTable(listeners []*translate.Listener) *table {
	t := &table{byAddress: make(map[tableKey]*listener)}
	for _, l := range listeners {
		served := &listener{Listener: l, direction: directionOf(l.Direction), matcher: NewMatcher(l.Chains, l.DefaultChain)}
		t.listeners = append(t.listeners, served)
		if l.OriginalDestination {
			continue // where connections arrive, not where they were going
		}
		for _, a := range l.Addresses {
			key := tableKey{served.direction == inbound, netip.AddrPortFrom(a.Unmap(), l.Port)}
			if _, taken := t.byAddress[key]; !taken {
				t.byAddress[key] = served
			}
		}
	}
	return t
}

// find returns the listener of an original destination: that of the address, that of the port, or
// otherwise, the listener at which the connection arrived.
func (t *table) find(to netip.AddrPort, otherwise *listener) *listener {
	key := tableKey{otherwise.direction == inbound, to}
	if l, ok := t.byAddress[key]; ok {
		return l
	}
	everywhere := netip.IPv4Unspecified()
	if to.Addr().Is6() {
		everywhere = netip.IPv6Unspecified()
	}
	key.address = netip.AddrPortFrom(everywhere, to.Port())
	if l, ok := t.byAddress[key]; ok {
		return l
	}
	return otherwise
}
