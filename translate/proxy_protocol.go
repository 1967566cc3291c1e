package translate

import (
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	proxyprotocolpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"

	"meshbridge/translate/apisix"
)

// A load balancer may tell the client's address in a PROXY protocol header. nginx knows it in a variable,
// whatever it takes for the address of the connection.

const codeProxyProtocol Code = "proxy_protocol_expected"

// varProxyAddress is the client's address in the PROXY protocol header.
const varProxyAddress = "proxy_protocol_addr"

type proxyProtocol int

const (
	noProxyProtocol proxyProtocol = iota
	proxyProtocolRequired
	proxyProtocolOptional
)

// parseProxyProtocol tells whether a listener filter reads PROXY protocol headers, in a profile in which
// APISIX receives them.
func (s *State) parseProxyProtocol(f *listenerpb.ListenerFilter, base *Chain, report reporter) bool {
	if messageName(f.GetTypedConfig()) != "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol" || s.options.Profile.Captures() {
		return false
	}
	base.proxyProtocol = proxyProtocolRequired
	if decode[proxyprotocolpb.ProxyProtocol](f.GetTypedConfig()).GetAllowRequestsWithoutProxyProtocol() {
		base.proxyProtocol = proxyProtocolOptional
	}
	report(codeProxyProtocol, `listener_filters["`+f.GetName()+`"]`, base.Port)
	return true
}

// connectionAddress is the variable with the address of the client as the connection tells it: in the
// PROXY protocol header, or its own. It is empty where there is none that always has it.
func (c *Chain) connectionAddress(p Profile) string {
	switch c.proxyProtocol {
	case proxyProtocolRequired:
		return varProxyAddress
	case proxyProtocolOptional:
		return ""
	case noProxyProtocol:
	}
	return p.PeerAddress()
}

// proxied is the condition that a connection has the header that it must have.
func (c *Chain) proxied() apisix.Vars {
	if c.proxyProtocol != proxyProtocolRequired {
		return nil
	}
	return apisix.List(apisix.Present(varProxyAddress))
}
