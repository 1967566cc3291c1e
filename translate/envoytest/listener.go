package envoytest

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	http_connection_managerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	networkrbacpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	tcp_proxypb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

type listener struct {
	name      string
	addresses []netip.AddrPort
	inbound   bool
	// redirected listeners take connections that have no listener of their own.
	redirected bool
	// bound listeners have their port.
	bound        bool
	chains       []*filterChain
	fallback     *filterChain
	matcher      bool // a matcher tree selects the chain
	inspectsTLS  *listenerpb.ListenerFilter
	inspectsHTTP *listenerpb.ListenerFilter
}

type filterChain struct {
	name  string
	match *listenerpb.FilterChainMatch
	tls   *tlspb.DownstreamTlsContext // nil for plain connections
	// broken says why the transport socket is not modelled.
	broken      string
	manager     *connectionManager
	tcp         *tcp_proxypb.TcpProxy
	networkRBAC []*networkrbacpb.RBAC
}

func newListener(m *listenerpb.Listener) (*listener, error) {
	l := &listener{
		name: m.GetName(), inbound: m.GetTrafficDirection() == corepb.TrafficDirection_INBOUND,
		redirected: m.GetUseOriginalDst().GetValue(), matcher: m.GetFilterChainMatcher() != nil,
	}
	bind := m.GetBindToPort()
	if bind == nil {
		bind = m.GetDeprecatedV1().GetBindToPort() //nolint:staticcheck // still sent to older Envoys
	}
	l.bound = bind == nil || bind.GetValue()
	for _, a := range append([]*corepb.Address{m.GetAddress()}, additional(m)...) {
		if address, ok := socketAddress(a); ok {
			l.addresses = append(l.addresses, address)
		}
	}
	for _, f := range m.GetListenerFilters() {
		switch messageName(f.GetTypedConfig()) {
		case "envoy.extensions.filters.listener.original_dst.v3.OriginalDst":
			l.redirected = true
		case "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector":
			l.inspectsTLS = f
		case "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector":
			l.inspectsHTTP = f
		}
	}
	for _, fc := range m.GetFilterChains() {
		c, err := newFilterChain(fc)
		if err != nil {
			return nil, err
		}
		l.chains = append(l.chains, c)
	}
	if fc := m.GetDefaultFilterChain(); fc != nil {
		c, err := newFilterChain(fc)
		if err != nil {
			return nil, err
		}
		l.fallback = c
	}
	return l, nil
}

func additional(m *listenerpb.Listener) []*corepb.Address {
	var out []*corepb.Address
	for _, a := range m.GetAdditionalAddresses() {
		out = append(out, a.GetAddress())
	}
	return out
}

func newFilterChain(fc *listenerpb.FilterChain) (*filterChain, error) {
	c := &filterChain{name: fc.GetName(), match: fc.GetFilterChainMatch()}
	if ts := fc.GetTransportSocket().GetTypedConfig(); ts != nil {
		switch name := messageName(ts); name {
		case "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer":
		case "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext":
			c.tls = new(tlspb.DownstreamTlsContext)
			if err := ts.UnmarshalTo(c.tls); err != nil {
				return nil, fmt.Errorf("filter chain %q: transport socket: %w", c.name, err)
			}
		default:
			c.broken = "transport socket " + name
		}
	}
	for _, f := range fc.GetFilters() {
		config := f.GetTypedConfig()
		var err error
		switch messageName(config) {
		case "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager":
			hcm := new(http_connection_managerpb.HttpConnectionManager)
			if err = config.UnmarshalTo(hcm); err == nil {
				c.manager = newConnectionManager(hcm)
			}
		case "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy":
			c.tcp = new(tcp_proxypb.TcpProxy)
			err = config.UnmarshalTo(c.tcp)
		case "envoy.extensions.filters.network.rbac.v3.RBAC":
			rbac := new(networkrbacpb.RBAC)
			err = config.UnmarshalTo(rbac)
			c.networkRBAC = append(c.networkRBAC, rbac)
		}
		if err != nil {
			return nil, fmt.Errorf("filter chain %q: filter %q: %w", c.name, f.GetName(), err)
		}
	}
	return c, nil
}

func messageName(a *anypb.Any) string { return string(a.MessageName()) }

// listenerFor finds the listener of a connection: that of its very address before the wildcard one of
// its port before the one that connections are redirected to.
func (e *Evaluator) listenerFor(c Connection) *listener {
	best, rank := (*listener)(nil), 0
	for _, l := range e.listeners {
		if l.inbound != (c.Direction == Inbound) || c.Direction == Edge && (!l.bound || l.redirected) {
			continue
		}
		for _, a := range l.addresses {
			r := 0
			switch {
			case l.redirected:
				r = 1
			case a.Port() != c.Destination.Port():
			case a.Addr() == c.Destination.Addr():
				r = 4
			case a.Addr().IsUnspecified() && a.Addr().Is4() == c.Destination.Addr().Is4():
				r = 3
			case a.Addr().IsUnspecified() && a.Addr().Is6():
				r = 2 // dual stack
			}
			if r > rank {
				best, rank = l, r
			}
		}
	}
	return best
}

// accepts tells whether the chain's transport socket gets anywhere with the connection.
func (c *filterChain) accepts(conn Connection) bool {
	if (c.tls != nil) != conn.TLS && c.tcp == nil {
		return false
	}
	if c.tls != nil {
		certificate := conn.Certificate
		validates := c.tls.GetCommonTlsContext().GetValidationContextType() != nil
		return conn.TLS && (certificate != nil || !c.tls.GetRequireClientCertificate().GetValue()) &&
			(certificate == nil || certificate.Validated || !validates)
	}
	return true
}

// inspected is a connection as the listener filters saw it.
type inspected struct {
	Connection
	transport string
	protocols []string
	// serverName is in lower case, as the inspector has it.
	serverName string
}

func inspect(l *listener, c Connection) inspected {
	out := inspected{Connection: c, transport: "raw_buffer"}
	switch {
	case c.TLS && l.inspectsTLS != nil && !disabled(l.inspectsTLS, c):
		out.transport, out.serverName, out.protocols = "tls", strings.ToLower(c.ServerName), c.ALPN
	case !c.TLS && l.inspectsHTTP != nil && !disabled(l.inspectsHTTP, c):
		out.protocols = []string{"http/1.1"}
		if len(c.ALPN) > 0 {
			out.protocols = c.ALPN // h2c, where the test says so
		}
	}
	return out
}

func disabled(f *listenerpb.ListenerFilter, c Connection) bool {
	return f.GetFilterDisabled() != nil && predicate(f.GetFilterDisabled(), c)
}

func predicate(p *listenerpb.ListenerFilterChainMatchPredicate, c Connection) bool {
	test := func(p *listenerpb.ListenerFilterChainMatchPredicate) bool { return predicate(p, c) }
	switch r := p.GetRule().(type) {
	case *listenerpb.ListenerFilterChainMatchPredicate_AndMatch:
		return !slices.ContainsFunc(r.AndMatch.GetRules(), func(p *listenerpb.ListenerFilterChainMatchPredicate) bool { return !test(p) })
	case *listenerpb.ListenerFilterChainMatchPredicate_OrMatch:
		return slices.ContainsFunc(r.OrMatch.GetRules(), test)
	case *listenerpb.ListenerFilterChainMatchPredicate_NotMatch:
		return !test(r.NotMatch)
	case *listenerpb.ListenerFilterChainMatchPredicate_AnyMatch:
		return r.AnyMatch
	case *listenerpb.ListenerFilterChainMatchPredicate_DestinationPortRange:
		port := int32(c.Destination.Port())
		return port >= r.DestinationPortRange.GetStart() && port < r.DestinationPortRange.GetEnd()
	}
	return false
}

// chainFor narrows the chains down criterion by criterion, in Envoy's order: what is more specific
// wins, and there is no way back to what was left behind. why says why the answer is not known.
func (l *listener) chainFor(c inspected) (chain *filterChain, why string) {
	if l.matcher {
		return nil, "a matcher tree selects the filter chain"
	}
	chains := l.chains
	for _, criterion := range []func(*listenerpb.FilterChainMatch, inspected) int{
		destinationPort, destinationAddress, serverName, transportProtocol, applicationProtocol,
		directSource, sourceType, sourceAddress, sourcePort,
	} {
		chains = mostSpecific(chains, func(fc *filterChain) int { return criterion(fc.match, c) })
	}
	if len(chains) == 0 {
		return l.fallback, ""
	}
	return chains[0], ""
}

// Criteria return how specific a match is; 0 is none, and 1 what matches everything.
const (
	noMatch  = 0
	anything = 1
)

func mostSpecific(chains []*filterChain, criterion func(*filterChain) int) []*filterChain {
	best := anything
	var out []*filterChain
	for _, c := range chains {
		switch s := criterion(c); {
		case s == noMatch || s < best:
		case s > best:
			best, out = s, []*filterChain{c}
		default:
			out = append(out, c)
		}
	}
	return out
}

// exactly is for criteria that are a value or nothing.
func exactly(set, equal bool) int {
	switch {
	case !set:
		return anything
	case equal:
		return anything + 1
	}
	return noMatch
}

func destinationPort(m *listenerpb.FilterChainMatch, c inspected) int {
	return exactly(m.GetDestinationPort() != nil, m.GetDestinationPort().GetValue() == uint32(c.Destination.Port()))
}

func destinationAddress(m *listenerpb.FilterChainMatch, c inspected) int {
	return longestPrefix(m.GetPrefixRanges(), c.Destination.Addr())
}

func directSource(m *listenerpb.FilterChainMatch, c inspected) int {
	return longestPrefix(m.GetDirectSourcePrefixRanges(), c.Source.Addr())
}

func sourceAddress(m *listenerpb.FilterChainMatch, c inspected) int {
	return longestPrefix(m.GetSourcePrefixRanges(), c.Source.Addr())
}

func longestPrefix(ranges []*corepb.CidrRange, addr netip.Addr) int {
	if len(ranges) == 0 {
		return anything
	}
	best := noMatch
	for _, r := range ranges {
		a, err := netip.ParseAddr(r.GetAddressPrefix())
		if err != nil {
			continue
		}
		p, err := a.Prefix(int(r.GetPrefixLen().GetValue()))
		if err == nil && p.Contains(addr) {
			best = max(best, anything+p.Bits()) // a length of 0 is as much as no range at all
		}
	}
	return best
}

// serverName prefers an exact name to a longer wildcard to a shorter one.
func serverName(m *listenerpb.FilterChainMatch, c inspected) int {
	if len(m.GetServerNames()) == 0 {
		return anything
	}
	best := noMatch
	for _, name := range m.GetServerNames() {
		suffix, wildcard := strings.CutPrefix(name, "*")
		switch {
		case !wildcard && name == c.serverName:
			best = 1 << 20
		case wildcard && len(c.serverName) > len(suffix) && strings.HasSuffix(c.serverName, suffix):
			best = max(best, anything+len(suffix))
		}
	}
	return best
}

func transportProtocol(m *listenerpb.FilterChainMatch, c inspected) int {
	return exactly(m.GetTransportProtocol() != "", m.GetTransportProtocol() == c.transport)
}

// applicationProtocol prefers what the client prefers.
func applicationProtocol(m *listenerpb.FilterChainMatch, c inspected) int {
	if len(m.GetApplicationProtocols()) == 0 {
		return anything
	}
	for i, p := range c.protocols {
		if slices.Contains(m.GetApplicationProtocols(), p) {
			return anything + len(c.protocols) - i
		}
	}
	return noMatch
}

func sourceType(m *listenerpb.FilterChainMatch, c inspected) int {
	local := c.Source.Addr().IsLoopback() || c.Source.Addr() == c.Destination.Addr()
	switch m.GetSourceType() {
	case listenerpb.FilterChainMatch_SAME_IP_OR_LOOPBACK:
		return exactly(true, local)
	case listenerpb.FilterChainMatch_EXTERNAL:
		return exactly(true, !local)
	case listenerpb.FilterChainMatch_ANY:
	}
	return anything
}

func sourcePort(m *listenerpb.FilterChainMatch, c inspected) int {
	return exactly(len(m.GetSourcePorts()) > 0, slices.Contains(m.GetSourcePorts(), uint32(c.Source.Port())))
}
