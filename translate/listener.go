package translate

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	http_connection_managerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcp_proxypb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"

	"meshbridge/translate/apisix"
	"meshbridge/xds"
)

// defaultChainField is the field of the chain that takes what no other does.
const defaultChainField = "default_filter_chain"

// listenerUnit is what one listener contributes to the chain table.
type listenerUnit struct {
	name   string
	chains []*chainDraft
	// capture is the listener as capture serves it, without its chains; nil in profiles without capture.
	capture     *Listener
	diagnostics []Diagnostic
	notes       []note
}

// note is a diagnostic that many listeners have in common and that is reported once.
type note struct {
	Diagnostic
	listener string
}

// chainDraft is a filter chain before it is known what other listeners there are.
type chainDraft struct {
	Chain
	field        string
	restrictions []restriction
	// accessFilters have rules of access that are compiled for the profile.
	accessFilters []accessFilter
	// tokens is the filter that verifies tokens; nil where there is none, or where it is a restriction.
	tokens *tokenFilter
	// tls is the chain's TLS context; nil where it has none.
	tls *serverTLS
	// proxy is what the chain ends in, where that is neither HTTP nor TCP.
	proxy string
	// broken says why the chain cannot be served in any profile, and brokenCode which code that has.
	broken     string
	brokenCode Code
	// ipv6 tells that the listener has an IPv6 address.
	ipv6 bool
	chainCapture
	// unclaimed tells that the chain is for TCP connections that no service claims.
	unclaimed bool
}

// parseListener reads one listener. It never fails: what cannot be served is reported.
func (s *State) parseListener(r *xds.Resource) *listenerUnit {
	u := &listenerUnit{name: r.Name}
	resource := "Listener " + r.Name
	report := s.reporter(&u.diagnostics, resource, "", "")
	share := func(code Code, field string, args ...any) {
		d := s.catalogue.diagnostic(code, args...)
		d.Field = field
		u.notes = append(u.notes, note{d, r.Name})
	}
	l, err := xds.Decode[*listenerpb.Listener](r)
	if err != nil {
		report("listener_decode", "", err)
		return u
	}
	switch {
	case l.GetApiListener() != nil:
		share("api_listener", "api_listener")
		return u
	case l.GetUdpListenerConfig() != nil:
		report("udp_listener", "udp_listener_config")
		return u
	}
	captures := s.options.Profile.Captures()
	base, ok := listenerChain(l)
	if !ok && captures {
		base, ok = pipeChain(l)
	}
	if !ok {
		report("address_unsupported", "address", describeAddress(l.GetAddress()))
		return u
	}
	reportUnknown(l, share, "")
	for _, f := range l.GetListenerFilters() {
		if s.parseProxyProtocol(f, &base, share) {
			continue
		}
		switch afterSlash(f.GetTypedConfig().GetTypeUrl()) {
		case "envoy.extensions.filters.listener.original_dst.v3.OriginalDst",
			"envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
			"envoy.extensions.filters.listener.http_inspector.v3.HttpInspector":
		default:
			if captures && isCapturedListenerFilter(afterSlash(f.GetTypedConfig().GetTypeUrl())) {
				continue
			}
			share("listener_filter_ignored", `listener_filters["`+f.GetName()+`"]`, f.GetName())
		}
	}
	logs := s.accessLogs(l.GetAccessLog(), true, captures && !s.options.NoAccessLogs, "access_log", share)
	if captures {
		u.capture = capturedListener(l, &base, share)
		u.capture.AccessLogs = logs
	}
	add := func(fc *listenerpb.FilterChain, field string) {
		if fc != nil {
			u.chains = append(u.chains, s.parseFilterChain(base, fc, field, share))
		}
	}
	for i, fc := range l.GetFilterChains() {
		field := fmt.Sprintf("filter_chains[%d]", i)
		if fc.GetName() != "" {
			field = `filter_chains["` + fc.GetName() + `"]`
		}
		add(fc, field)
	}
	add(l.GetDefaultFilterChain(), defaultChainField)
	if l.GetFilterChainMatcher() != nil {
		for _, d := range u.chains {
			d.narrowed = "a matcher tree"
			if captures {
				d.unmatchable(d.narrowed)
			}
		}
	}
	markNarrowed(u.chains)
	return u
}

// listenerChain returns what all chains of a listener have in common.
func listenerChain(l *listenerpb.Listener) (Chain, bool) {
	address, port, ok := socketAddress(l.GetAddress())
	if !ok {
		return Chain{}, false
	}
	c := Chain{Listener: l.GetName(), Address: address, Port: port, Direction: Outbound}
	for _, a := range l.GetAdditionalAddresses() {
		if address, _, ok := socketAddress(a.GetAddress()); ok {
			c.AdditionalAddresses = append(c.AdditionalAddresses, address)
		}
	}
	redirected := l.GetUseOriginalDst().GetValue() || slices.ContainsFunc(l.GetListenerFilters(), func(f *listenerpb.ListenerFilter) bool {
		return afterSlash(f.GetTypedConfig().GetTypeUrl()) == "envoy.extensions.filters.listener.original_dst.v3.OriginalDst"
	})
	bind := l.GetBindToPort()
	if bind == nil {
		bind = l.GetDeprecatedV1().GetBindToPort() //nolint:staticcheck // still sent to older Envoys
	}
	c.Bound = !redirected && (bind == nil || bind.GetValue())
	switch {
	case l.GetTrafficDirection() == corepb.TrafficDirection_INBOUND:
		c.Direction = Inbound
	case c.Bound:
		c.Direction = Edge
	}
	if redirected { // its port is where connections are redirected to
		c.Port = 0
	}
	return c, true
}

func socketAddress(a *corepb.Address) (address netip.Addr, port int, ok bool) {
	sa := a.GetSocketAddress()
	if sa == nil || sa.GetProtocol() != corepb.SocketAddress_TCP {
		return netip.Addr{}, 0, false
	}
	address, err := netip.ParseAddr(sa.GetAddress())
	return address.Unmap(), int(sa.GetPortValue()), err == nil
}

func describeAddress(a *corepb.Address) string {
	switch {
	case a.GetPipe() != nil:
		return "the UNIX domain socket " + a.GetPipe().GetPath()
	case a.GetEnvoyInternalAddress() != nil:
		return "the internal address " + a.GetEnvoyInternalAddress().GetServerListenerName()
	case a.GetSocketAddress() != nil:
		return fmt.Sprintf("%s %s:%d", a.GetSocketAddress().GetProtocol(), a.GetSocketAddress().GetAddress(), a.GetSocketAddress().GetPortValue())
	}
	return "no address"
}

func (s *State) parseFilterChain(base Chain, fc *listenerpb.FilterChain, field string, share reporter) *chainDraft {
	d := &chainDraft{Chain: base, field: field}
	d.FilterChain = fc.GetName()
	d.ipv6 = slices.ContainsFunc(base.addresses(), netip.Addr.Is6)
	match := fc.GetFilterChainMatch()
	if p := match.GetDestinationPort(); p != nil {
		d.Port = int(p.GetValue())
	}
	d.ServerNames = match.GetServerNames()
	d.narrowed = narrowing(match)
	reportUnknown(fc, share, "filter_chain.")
	reportUnknown(match, share, "filter_chain_match.")
	s.parseTransportSocket(d, fc.GetTransportSocket(), share)
	if match.GetTransportProtocol() == "tls" || len(match.GetServerNames()) > 0 {
		d.TLS = true
	}

	filters := fc.GetFilters()
	if len(filters) == 0 {
		d.proxy = "nothing"
		return d
	}
	last := filters[len(filters)-1]
	switch message := messageName(last.GetTypedConfig()); message {
	case typeHTTPConnectionManager:
		d.HTTP = true
		d.parseNetworkFilters(filters[:len(filters)-1], s.options.Profile.Captures(), share)
		hcm := decode[http_connection_managerpb.HttpConnectionManager](last.GetTypedConfig())
		if hcm == nil {
			d.broken = "its connection manager does not decode"
			break
		}
		d.parseConnectionManager(hcm, &s.options, share)
		d.Stats = statsOfHTTP(hcm, d.Direction, share)
		d.AccessLogs = s.httpAccessLogs(d, hcm, share)
		if !s.options.APISIXVersion.Has(apisix.FeatureHeaderLines) {
			reportTooOld(share, apisix.FeatureHeaderLines, "http_connection_manager", "")
		}
		d.facts.mayHaveCertificate = looksAtCertificates(fc.GetTransportSocket())
	case typeTCPProxy:
		d.Stats = statsOfTCP(filters, d.Direction, share)
		proxy := decode[tcp_proxypb.TcpProxy](last.GetTypedConfig())
		d.unclaimed = isUnclaimed(proxy.GetCluster())
		if s.options.Profile.Captures() { // elsewhere the connections are reported
			d.AccessLogs = s.accessLogs(proxy.GetAccessLog(), true, !s.options.NoAccessLogs, "tcp_proxy.access_log", share)
		}
	default:
		d.proxy = last.GetName()
	}
	if s.options.Profile.Captures() {
		d.parseCaptured(fc, share)
	}
	d.Key = d.baseKey(match)
	return d
}

// isUnclaimed names Istio's clusters for what no service claims.
func isUnclaimed(cluster string) bool {
	switch cluster {
	case "PassthroughCluster", "InboundPassthroughCluster", "BlackHoleCluster":
		return true
	}
	return false
}

// narrowing names the conditions of a filter chain that are about addresses within a listener.
func narrowing(m *listenerpb.FilterChainMatch) string {
	var by []string
	if len(m.GetPrefixRanges()) > 0 || m.GetAddressSuffix() != "" || m.GetSuffixLen() != nil {
		by = append(by, "destination address")
	}
	if len(m.GetSourcePrefixRanges()) > 0 || len(m.GetDirectSourcePrefixRanges()) > 0 || len(m.GetSourcePorts()) > 0 ||
		m.GetSourceType() != listenerpb.FilterChainMatch_ANY {
		by = append(by, "source address")
	}
	return strings.Join(by, " and ")
}

// markNarrowed makes chains that would receive the connections of a narrower one known as such: a
// profile that cannot tell those apart must not serve either.
func markNarrowed(chains []*chainDraft) {
	for _, narrow := range chains {
		if narrow.narrowed == "" {
			continue
		}
		for _, c := range chains {
			if c.TLS == narrow.TLS && c.Port == narrow.Port && c.narrowed == "" {
				c.narrowed = narrow.narrowed
			}
		}
	}
}

func (s *State) parseTransportSocket(d *chainDraft, ts *corepb.TransportSocket, share reporter) {
	if ts == nil {
		return
	}
	switch message := messageName(ts.GetTypedConfig()); message {
	case "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer":
	case "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext":
		d.TLS = true
		c := decode[tlspb.DownstreamTlsContext](ts.GetTypedConfig())
		if c == nil {
			d.broken = "its TLS context does not decode"
			return
		}
		d.RequireClientCertificate = c.GetRequireClientCertificate().GetValue()
		for _, secret := range c.GetCommonTlsContext().GetTlsCertificateSdsSecretConfigs() {
			if secret.GetName() == "default" { // the workload's own certificate
				d.MeshTLS = true
			}
		}
		if s.options.Profile.Captures() {
			d.tlsContext = c
			about := share
			share = func(code Code, field string, args ...any) {
				if isBeyondAPISIX(code) {
					d.beyond = true // and capture will do it
					return
				}
				about(code, field, args...)
			}
		}
		if !d.MeshTLS {
			d.tls = s.parseServerTLS(c, share)
		}
	default:
		d.broken = "transport socket " + message + " has no equivalent"
	}
}

func (d *chainDraft) parseConnectionManager(hcm *http_connection_managerpb.HttpConnectionManager, options *Options, share reporter) {
	for _, f := range hcm.GetHttpFilters() {
		d.filters = append(d.filters, f.GetName())
	}
	restrictions, dormant, access := inspectHTTPFilters(hcm, share)
	d.restrictions, d.dormant, d.accessFilters = append(d.restrictions, restrictions...), dormant, access
	if d.tokens = tokenFilterOf(hcm, options, share); d.tokens != nil {
		d.restrictions = slices.DeleteFunc(d.restrictions, func(r restriction) bool { return r.field == d.tokens.field })
	}
	d.facts = requestFactsOf(hcm)
	d.plugins = chainPluginsOf(hcm, options, share)
	d.peers = peerExchangeOf(hcm, share)
	d.overridesALPN = slices.ContainsFunc(hcm.GetHttpFilters(), isALPNFilter)
	if options.Profile.Captures() && d.Port == 0 && d.Path == "" {
		d.passthrough = passthroughCluster(d, hcm)
	}
	switch {
	case hcm.GetRds() != nil:
		d.RouteConfig = hcm.GetRds().GetRouteConfigName()
	case hcm.GetRouteConfig() != nil:
		d.Inline, d.inline, d.RouteConfig = true, hcm.GetRouteConfig(), hcm.GetRouteConfig().GetName()
	default:
		d.broken, d.brokenCode = "scoped routes are not supported", "route_discovery_unsupported"
	}
	const prefix = "http_connection_manager."
	reportUnknown(hcm, share, prefix)
	if o := hcm.GetHttpProtocolOptions(); o != nil {
		reportUnknown(o, share, prefix+"http_protocol_options.")
	}
	if o := hcm.GetHttp2ProtocolOptions(); o != nil {
		reportUnknown(o, share, prefix+"http2_protocol_options.")
	}
	for _, u := range hcm.GetUpgradeConfigs() {
		if !strings.EqualFold(u.GetUpgradeType(), "websocket") {
			share("upgrade_unsupported", prefix+"upgrade_configs", u.GetUpgradeType())
		}
	}
	share("request_normalization", "http_connection_manager")
	if hcm.GetXffNumTrustedHops() > 0 {
		share(codeTrustedHops, prefix+"xff_num_trusted_hops")
	}
	d.streamIdleTimeout = positive(hcm.GetStreamIdleTimeout())
	switch hcm.GetPathWithEscapedSlashesAction() {
	case http_connection_managerpb.HttpConnectionManager_IMPLEMENTATION_SPECIFIC_DEFAULT, http_connection_managerpb.HttpConnectionManager_KEEP_UNCHANGED:
	default:
		share("setting_ignored", prefix+"path_with_escaped_slashes_action", "path_with_escaped_slashes_action")
	}
	forwarding := hcm.GetForwardClientCertDetails()
	d.dropsClientCertificate = forwarding != http_connection_managerpb.HttpConnectionManager_ALWAYS_FORWARD_ONLY
	d.forwarding = forwarding
	d.wholeCertificate = hcm.GetSetCurrentClientCertDetails().GetCert() || hcm.GetSetCurrentClientCertDetails().GetChain()
	if options.Profile.Captures() {
		return // it depends on who terminates TLS
	}
	if d.dropsClientCertificate && (d.MeshTLS || d.RequireClientCertificate) && forwarding != http_connection_managerpb.HttpConnectionManager_SANITIZE {
		share("client_certificate_header", prefix+"forward_client_cert_details")
	}
}

// baseKey is the Key that the chain has unless another one has it too.
func (d *chainDraft) baseKey(match *listenerpb.FilterChainMatch) string {
	transport := "raw"
	if d.TLS {
		transport = "tls"
	}
	switch {
	case !d.HTTP && d.Direction == Inbound:
		return "i:tcp:" + d.Listener + matchSuffix(match)
	case !d.HTTP:
		return "tcp:" + d.Listener + matchSuffix(match)
	case d.Direction == Inbound && d.Path != "":
		return "i:" + d.Path
	case d.Direction == Inbound && d.Port == 0:
		return "i:any:" + transport
	case d.Direction == Inbound:
		return fmt.Sprintf("i:%d:%s", d.Port, transport)
	}
	return d.RouteConfig
}

// matchSuffix tells the chains of a listener apart by what they match.
func matchSuffix(match *listenerpb.FilterChainMatch) string {
	if match == nil || proto.Size(match) == 0 {
		return ""
	}
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(match)
	if err != nil {
		return "" // a message that was decoded encodes
	}
	return "#" + shortHash(string(body))
}
