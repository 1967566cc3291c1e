package translate

import (
	"net/netip"
	"strings"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	proxyprotocolpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"
	networkrbacpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
)

// defaultInspectionTimeout is Envoy's listener_filters_timeout.
const defaultInspectionTimeout = 15 * time.Second

// capturedListener is a listener as capture serves it, without its chains.
func capturedListener(l *listenerpb.Listener, base *Chain, report reporter) *Listener {
	out := &Listener{
		Name:                l.GetName(),
		Direction:           base.Direction,
		Path:                base.Path,
		Bind:                base.Bound,
		OriginalDestination: redirects(l),
		Transparent:         l.GetTransparent().GetValue(),
		InspectionTimeout:   defaultInspectionTimeout,
		ContinueOnTimeout:   l.GetContinueOnListenerFiltersTimeout(),
	}
	if out.OriginalDestination {
		// It is bound, too: that is where connections are redirected to.
		out.Bind = bindsToPort(l)
	}
	if base.Path == "" {
		out.Addresses, out.Port = []netip.Addr{base.Address}, uint16(l.GetAddress().GetSocketAddress().GetPortValue())
	}
	for _, a := range l.GetAdditionalAddresses() {
		if address, port, ok := socketAddress(a.GetAddress()); ok && port == int(out.Port) && base.Path == "" {
			out.Addresses = append(out.Addresses, address)
		} else {
			report(codeSettingIgnored, "additional_addresses", "the additional address "+describeAddress(a.GetAddress()))
		}
	}
	if t := l.GetListenerFiltersTimeout(); t != nil {
		out.InspectionTimeout = t.AsDuration()
	}
	for _, f := range l.GetListenerFilters() {
		out.addFilter(f, report)
	}
	return out
}

// redirects tells whether connections to a listener are redirected ones.
func redirects(l *listenerpb.Listener) bool {
	for _, f := range l.GetListenerFilters() {
		if afterSlash(f.GetTypedConfig().GetTypeUrl()) == "envoy.extensions.filters.listener.original_dst.v3.OriginalDst" {
			return true
		}
	}
	return l.GetUseOriginalDst().GetValue()
}

func bindsToPort(l *listenerpb.Listener) bool {
	bind := l.GetBindToPort()
	if bind == nil {
		bind = l.GetDeprecatedV1().GetBindToPort() //nolint:staticcheck // still sent to older Envoys
	}
	return bind == nil || bind.GetValue()
}

func (l *Listener) addFilter(f *listenerpb.ListenerFilter, report reporter) {
	field := `listener_filters["` + f.GetName() + `"]`
	disabled, ok := portRanges(f.GetFilterDisabled())
	if !ok {
		report(codeSettingIgnored, field+".filter_disabled", "a predicate that is not about ports")
	}
	switch afterSlash(f.GetTypedConfig().GetTypeUrl()) {
	case "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector":
		l.TLSInspector = &Inspector{Disabled: disabled}
	case "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector":
		l.HTTPInspector = &Inspector{Disabled: disabled}
	case "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol":
		l.ProxyProtocol = true
		c := decode[proxyprotocolpb.ProxyProtocol](f.GetTypedConfig())
		if c == nil {
			return // without a header, connections are closed
		}
		l.ProxyProtocolOptional = c.GetAllowRequestsWithoutProxyProtocol()
		reportUnknown(c, report, field+".")
		if len(disabled) > 0 {
			report(codeSettingIgnored, field+".filter_disabled", "the list of ports without the PROXY protocol")
		}
	}
}

// isCapturedListenerFilter names what capture does beyond what redirection and inspection need.
func isCapturedListenerFilter(message string) bool {
	return message == "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"
}

// pipeChain is what all chains of a listener on a Unix domain socket have in common.
func pipeChain(l *listenerpb.Listener) (Chain, bool) {
	path := l.GetAddress().GetPipe().GetPath()
	c := Chain{Listener: l.GetName(), Address: netip.IPv4Unspecified(), Path: path, Direction: Edge, Bound: true}
	if l.GetTrafficDirection() == corepb.TrafficDirection_INBOUND {
		c.Direction = Inbound
	}
	return c, path != ""
}

// chainMatchOf reads what a chain matches; why says what cannot be checked.
func chainMatchOf(m *listenerpb.FilterChainMatch) (out ChainMatch, why string) {
	out = ChainMatch{
		DestinationPort:      uint16(m.GetDestinationPort().GetValue()),
		TransportProtocol:    m.GetTransportProtocol(),
		ApplicationProtocols: m.GetApplicationProtocols(),
	}
	for _, name := range m.GetServerNames() {
		out.ServerNames = append(out.ServerNames, strings.ToLower(name))
	}
	for _, port := range m.GetSourcePorts() {
		out.SourcePorts = append(out.SourcePorts, uint16(port))
	}
	switch m.GetSourceType() {
	case listenerpb.FilterChainMatch_ANY:
	case listenerpb.FilterChainMatch_SAME_IP_OR_LOOPBACK:
		out.SourceType = SourceLocal
	case listenerpb.FilterChainMatch_EXTERNAL:
		out.SourceType = SourceExternal
	default:
		why = "the kind of source " + m.GetSourceType().String()
	}
	for _, list := range []struct {
		from []*corepb.CidrRange
		to   *[]netip.Prefix
	}{
		{m.GetPrefixRanges(), &out.Destinations},
		{m.GetDirectSourcePrefixRanges(), &out.DirectSources},
		{m.GetSourcePrefixRanges(), &out.Sources},
	} {
		for _, r := range list.from {
			prefix, err := prefixOf(r)
			if err != nil {
				why = "the address range " + r.GetAddressPrefix()
				continue
			}
			*list.to = append(*list.to, prefix)
		}
	}
	if m.GetAddressSuffix() != "" || m.GetSuffixLen() != nil {
		why = "the end of an address"
	}
	return out, why
}

// parseCaptured reads what capture does with the connections of a chain.
func (d *chainDraft) parseCaptured(fc *listenerpb.FilterChain, share reporter) {
	var why string
	if d.match, why = chainMatchOf(fc.GetFilterChainMatch()); why != "" {
		d.unmatchable(why)
	}
	d.handshakeTimeout = positive(fc.GetTransportSocketConnectTimeout())
	filters := fc.GetFilters()
	if n := len(filters); n > 0 && messageName(filters[n-1].GetTypedConfig()) == typeTCPProxy {
		d.parseNetworkFilters(filters[:n-1], true, share)
		d.parseTCPProxy(filters[n-1].GetTypedConfig(), share)
	}
}

// unmatchable makes sure that nobody serves a chain whose connections cannot be told from others.
func (d *chainDraft) unmatchable(by string) {
	d.broken, d.brokenCode = "connections cannot be told apart by "+by, "chain_match_unsupported"
}

// parseNetworkFilters reads the filters in front of a proxy. The rules of those that capture can
// evaluate become policies.
func (d *chainDraft) parseNetworkFilters(filters []*listenerpb.Filter, captures bool, share reporter) {
	rest := filters
	if captures {
		rest = nil
		for _, f := range filters {
			field := `filters["` + f.GetName() + `"]`
			if messageName(f.GetTypedConfig()) == typeNetworkRBAC {
				if policy, ok := compileNetworkPolicy(decode[networkrbacpb.RBAC](f.GetTypedConfig()), field, share); ok {
					if policy != nil {
						d.policies = append(d.policies, policy)
					}
					continue
				}
			}
			rest = append(rest, f)
		}
	}
	d.restrictions = append(d.restrictions, inspectNetworkFilters(rest, share)...)
}
