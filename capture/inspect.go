package capture

import (
	"net/netip"

	"meshbridge/translate"
)

// maxInspected is how many bytes of a connection are looked at; more than a ClientHello in small records,
// a request line or a PROXY protocol header needs.
const maxInspected = 80 << 10

// The transport protocols of filter chain matches.
const (
	transportTLS = "tls"
	transportRaw = "raw_buffer"
)

// inspection looks at the first bytes of a connection as a listener's filters do: it is asked again
// whenever there are more, until it has decided.
type inspection struct {
	listener            *translate.Listener
	source, destination netip.AddrPort // as a PROXY protocol header says
	consumed            int            // bytes of the PROXY protocol header
	result              inspected

	proxy, tls, http verdict
}

func newInspection(l *translate.Listener, source, destination netip.AddrPort) *inspection {
	i := &inspection{listener: l, source: source, destination: destination, result: inspected{transport: transportRaw}}
	if !l.ProxyProtocol {
		i.proxy = no
		i.choose()
	}
	return i
}

// choose decides which filters look at the bytes, by the destination port: servers of some protocols
// speak first, and a client that waits for that sends nothing to look at.
func (i *inspection) choose() {
	port := i.destination.Port()
	if !inspects(i.listener.TLSInspector, port) {
		i.tls = no
	}
	if !inspects(i.listener.HTTPInspector, port) {
		i.http = no
	}
}

func inspects(inspector *translate.Inspector, port uint16) bool {
	if inspector == nil {
		return false
	}
	for _, disabled := range inspector.Disabled {
		if disabled.First <= port && port <= disabled.Last {
			return false
		}
	}
	return true
}

// done tells whether no more bytes need to be looked at.
func (i *inspection) done() bool {
	return i.proxy != undecided && i.tls != undecided && i.http != undecided
}

// look decides what it can by the bytes so far, all from the first one.
func (i *inspection) look(b []byte) error {
	if i.proxy == undecided {
		if err := i.lookForProxy(b); err != nil || i.proxy == undecided {
			return err
		}
	}
	b = b[i.consumed:]
	if len(b) == 0 {
		return nil
	}
	if i.tls == undecided {
		if i.tls = readClientHello(b, &i.result); i.tls == yes {
			i.http = no
		}
	}
	if i.tls != undecided && i.http == undecided {
		i.http = readRequestLine(b, &i.result)
	}
	return nil
}

func (i *inspection) lookForProxy(b []byte) error {
	header, v, err := readProxyHeader(b)
	switch {
	case err != nil:
		return err
	case v == undecided:
		return nil
	case v == no && !i.listener.ProxyProtocolOptional:
		return errNoProxyHeader
	case header.source.IsValid():
		i.source, i.destination = header.source, header.destination
	}
	i.proxy, i.consumed = v, header.length
	i.choose()
	return nil
}

// outcome is the result for metrics.
func (i *inspection) outcome() string {
	switch {
	case i.tls == yes:
		return transportTLS
	case i.http == yes:
		return i.result.protocols[0]
	default:
		return transportRaw
	}
}
