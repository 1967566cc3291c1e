package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// maxProxyHeader is how long a PROXY protocol header may be that APISIX reads
// (NGX_PROXY_PROTOCOL_MAX_HEADER).
const maxProxyHeader = 4096

// The types of the TLVs that tell APISIX about a connection, from the range for applications. Their
// values are text: nginx has each as the variable $proxy_protocol_tlv_0x….
const (
	tlvChain     = 0xe0 // FilterChain.Key
	tlvPrincipal = 0xe1 // the peer's SPIFFE ID
	tlvForwarded = 0xe2 // an element of x-forwarded-client-cert
	tlvSNI       = 0xe3 // the server name of TLS
	tlvTransport = 0xe4 // how the connection arrived: "tls" or "raw"
)

// The parts of a version 2 header.
const (
	proxySignature    = "\r\n\r\n\x00\r\nQUIT\n"
	proxyHeaderLength = len(proxySignature) + 4
	proxyVersionLocal = 0x20
	proxyVersionProxy = 0x21
	proxyUnspecified  = 0x00
	proxyTCP4         = 0x11
	proxyTCP6         = 0x21
	proxyTCP4Length   = 2*4 + 2*2
	proxyTCP6Length   = 2*16 + 2*2
)

// proxyHeader is what capture tells APISIX in front of a connection's bytes. Empty texts are left out.
type proxyHeader struct {
	source, destination                            netip.AddrPort
	chain, principal, forwarded, sni, transportTLV string
}

// errHeaderTooLong tells that a header would be longer than APISIX reads.
var errHeaderTooLong = errors.New("PROXY protocol header is longer than APISIX reads")

// errNoProxyHeader tells that a connection of a listener that requires a PROXY protocol header has none.
var errNoProxyHeader = errors.New("connection has no PROXY protocol header")

// append writes the header, in version 2, behind b. Where one address is IPv6, the other is, too. An
// address that is not valid, that of a Unix domain socket, is loopback: nginx skips the TLVs of a header
// without addresses.
func (h *proxyHeader) append(b []byte) ([]byte, error) {
	start := len(b)
	source, destination := ipOrLoopback(h.source), ipOrLoopback(h.destination)
	b = append(b, proxySignature...)
	if source.Addr().Is4() && destination.Addr().Is4() {
		b = append(b, proxyVersionProxy, proxyTCP4, 0, 0)
		b = append(b, source.Addr().AsSlice()...)
		b = append(b, destination.Addr().AsSlice()...)
	} else {
		b = append(b, proxyVersionProxy, proxyTCP6, 0, 0)
		from, to := source.Addr().As16(), destination.Addr().As16()
		b = append(append(b, from[:]...), to[:]...)
	}
	b = binary.BigEndian.AppendUint16(b, source.Port())
	b = binary.BigEndian.AppendUint16(b, destination.Port())
	for _, tlv := range [...]struct {
		kind  byte
		value string
	}{
		{tlvChain, h.chain},
		{tlvPrincipal, h.principal},
		{tlvForwarded, h.forwarded},
		{tlvSNI, h.sni},
		{tlvTransport, h.transportTLV},
	} {
		if tlv.value == "" {
			continue
		}
		if len(tlv.value) > maxProxyHeader {
			return nil, errHeaderTooLong
		}
		b = append(b, tlv.kind)
		b = binary.BigEndian.AppendUint16(b, uint16(len(tlv.value)))
		b = append(b, tlv.value...)
	}
	if len(b)-start > maxProxyHeader {
		return nil, errHeaderTooLong
	}
	binary.BigEndian.PutUint16(b[start+len(proxySignature)+2:], uint16(len(b)-start-proxyHeaderLength))
	return b, nil
}

// ipOrLoopback returns an address for the header: IPv4 as such, without a zone.
func ipOrLoopback(a netip.AddrPort) netip.AddrPort {
	if !a.IsValid() {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), a.Port())
	}
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// proxied is what a PROXY protocol header says. The addresses are invalid where it does not say any: the
// connection's own hold.
type proxied struct {
	source, destination netip.AddrPort
	length              int // of the header
}

// readProxyHeader reads a PROXY protocol header of either version. no tells that there is none; a header
// that is damaged is an error.
func readProxyHeader(b []byte) (proxied, verdict, error) {
	if v := hasPrefix(b, proxySignature); v == yes {
		return readProxyV2(b)
	} else if v == undecided {
		return proxied{}, undecided, nil
	}
	switch hasPrefix(b, proxyV1Prefix) {
	case yes:
		return readProxyV1(b)
	case undecided:
		return proxied{}, undecided, nil
	case no:
	}
	return proxied{}, no, nil
}

// readProxyV2 reads a header of version 2, whose signature has been seen.
func readProxyV2(b []byte) (proxied, verdict, error) {
	if len(b) < proxyHeaderLength {
		return proxied{}, undecided, nil
	}
	version, family := b[len(proxySignature)], b[len(proxySignature)+1]
	length := int(binary.BigEndian.Uint16(b[len(proxySignature)+2:]))
	if version != proxyVersionLocal && version != proxyVersionProxy {
		return proxied{}, no, fmt.Errorf("PROXY protocol: version and command 0x%02x are unknown", version)
	}
	if proxyHeaderLength+length > maxInspected {
		return proxied{}, no, fmt.Errorf("PROXY protocol: header of %d bytes is too long", length)
	}
	if len(b) < proxyHeaderLength+length {
		return proxied{}, undecided, nil
	}
	header := proxied{length: proxyHeaderLength + length}
	if version == proxyVersionLocal {
		return header, yes, nil
	}
	body := b[proxyHeaderLength:header.length]
	var addresses, size int
	switch family {
	case proxyTCP4:
		addresses, size = proxyTCP4Length, 4
	case proxyTCP6:
		addresses, size = proxyTCP6Length, 16
	case proxyUnspecified:
		return header, yes, nil
	default:
		return proxied{}, no, fmt.Errorf("PROXY protocol: family and transport 0x%02x are not TCP", family)
	}
	if len(body) < addresses {
		return proxied{}, no, errors.New("PROXY protocol: header is too short for its addresses")
	}
	from, _ := netip.AddrFromSlice(body[:size])
	to, _ := netip.AddrFromSlice(body[size : 2*size])
	header.source = netip.AddrPortFrom(from.Unmap(), binary.BigEndian.Uint16(body[2*size:]))
	header.destination = netip.AddrPortFrom(to.Unmap(), binary.BigEndian.Uint16(body[2*size+2:]))
	return header, yes, nil
}
