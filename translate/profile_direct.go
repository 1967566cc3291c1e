package translate

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"meshbridge/translate/apisix"
)

// varOriginalDestination is "address:port" of the connection before iptables redirected it. It is
// part of every APISIX runtime since 1.19.9; for HTTP and IPv4 only.
const varOriginalDestination = "connection_original_dst"

type directProfile struct {
	outboundPort, inboundPort int
}

// Direct is the profile in which iptables redirects connections straight to APISIX: outbound ones
// to outboundPort and inbound ones to inboundPort, on which it listens for plain HTTP. Zero ports
// are 9080 and 9081. Listeners with a port of their own, such as the HTTP proxy port of a sidecar,
// are served where APISIX listens on that port as well. There is no mesh TLS, TCP or IPv6.
func Direct(outboundPort, inboundPort int) Profile {
	return directProfile{cmp.Or(outboundPort, defaultOutboundPort), cmp.Or(inboundPort, defaultInboundPort)}
}

// check tells outbound and inbound connections apart by port.
func (p directProfile) check() error {
	for _, port := range []int{p.outboundPort, p.inboundPort} {
		if port < 1 || port > 65535 {
			return fmt.Errorf("%d is no port", port)
		}
	}
	if p.outboundPort == p.inboundPort {
		return fmt.Errorf("outbound and inbound connections need different ports, not both %d", p.outboundPort)
	}
	return nil
}

func (directProfile) Name() string { return "direct" }

func (p directProfile) Guard(c *Chain) (guard apisix.Vars, ok bool, why string) {
	switch {
	case c.TLS:
		return nil, false, "TLS connections cannot be received"
	case c.narrowed != "":
		return nil, false, "connections cannot be told apart by " + c.narrowed
	}
	switch c.Port {
	case 0:
		return nil, false, "connections to destinations without a service cannot be passed through"
	case p.outboundPort, p.inboundPort:
		if c.Bound {
			return nil, false, "its port is one of those to which connections are redirected"
		}
	}
	if c.Bound {
		return ownPort(c), true, ""
	}
	port := strconv.Itoa(c.Port)
	if c.Direction == Inbound {
		return apisix.List(apisix.Eq("server_port", strconv.Itoa(p.inboundPort)), apisix.Match(varOriginalDestination, ":"+port+`\z`)), true, ""
	}
	at := apisix.Eq("server_port", strconv.Itoa(p.outboundPort))
	if c.wildcard() && slices.ContainsFunc(c.addresses(), netip.Addr.Is4) {
		guard = apisix.List(at, apisix.Match(varOriginalDestination, ":"+port+`\z`))
		if taken := ipv4Endpoints(c.Excluded, port); len(taken) > 0 {
			guard = append(guard, apisix.NotIn(varOriginalDestination, taken...))
		}
		return guard, true, ""
	}
	own := ipv4Endpoints(c.addresses(), port)
	switch len(own) {
	case 0:
		return nil, false, "APISIX cannot see the original destination of IPv6 connections"
	case 1:
		return apisix.List(at, apisix.Eq(varOriginalDestination, own[0])), true, ""
	}
	return apisix.List(at, apisix.In(varOriginalDestination, own...)), true, ""
}

// ownPort holds for connections to the very address and port of a listener. APISIX itself may listen on
// more addresses than the listener has.
func ownPort(c *Chain) apisix.Vars {
	guard := apisix.List(apisix.Eq("server_port", strconv.Itoa(c.Port)))
	if slices.ContainsFunc(c.addresses(), netip.Addr.IsUnspecified) {
		return guard
	}
	var own []string
	for _, a := range c.addresses() {
		own = append(own, a.String())
	}
	return append(guard, apisix.In("server_addr", own...))
}

// ipv4Endpoints formats the IPv4 addresses as connection_original_dst has them.
func ipv4Endpoints(addresses []netip.Addr, port string) []string {
	var out []string
	for _, a := range addresses {
		if a.Is4() {
			out = append(out, a.String()+":"+port)
		}
	}
	return out
}

func (p directProfile) Vars(c *Chain, conn Connection) map[string]string {
	if c.Bound {
		return map[string]string{"server_port": strconv.Itoa(c.Port), "server_addr": c.Address.String()}
	}
	address := conn.Address
	if !address.IsValid() || !address.Is4() || address.IsUnspecified() {
		address = c.exampleAddress()
	}
	listening := p.outboundPort
	if c.Direction == Inbound {
		listening = p.inboundPort
	}
	return map[string]string{
		"server_port":          strconv.Itoa(listening),
		varOriginalDestination: netip.AddrPortFrom(address, uint16(c.Port)).String(),
	}
}

// exampleAddress returns an address at which the chain receives connections: its own, or for a
// wildcard listener one that no other listener has.
func (c *Chain) exampleAddress() netip.Addr {
	if !c.wildcard() {
		for _, a := range c.addresses() {
			if a.Is4() {
				return a
			}
		}
	}
	a := netip.AddrFrom4([4]byte{192, 0, 2, 1}) // TEST-NET-1, RFC 5737
	for slices.Contains(c.Excluded, a) {
		a = a.Next()
	}
	return a
}

// PeerAddress is not remote_addr: with its default settings, APISIX takes that from X-Real-IP when
// the peer is on loopback, as the application of a sidecar may be.
func (directProfile) PeerAddress() string { return "realip_remote_addr" }

// OriginalDestination is unknown: address and port are one variable.
func (directProfile) OriginalDestination() (addr, port string) { return "", "" }

func (directProfile) SNI() string          { return "" }
func (directProfile) PeerIdentity() string { return "" }
func (directProfile) Overlay() bool        { return false }
func (directProfile) SourceBind() bool     { return false }
func (directProfile) TerminatesTLS() bool  { return false }
func (directProfile) Captures() bool       { return false }
