package envoytest

import (
	"net/netip"
	"strconv"
	"strings"

	http_connection_managerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
)

type connectionManager struct {
	hcm     *http_connection_managerpb.HttpConnectionManager
	inline  *routeConfig // nil where routes are discovered
	filters []*httpFilter
}

func newConnectionManager(hcm *http_connection_managerpb.HttpConnectionManager) *connectionManager {
	m := &connectionManager{hcm: hcm}
	if hcm.GetRouteConfig() != nil {
		m.inline = newRouteConfig(hcm.GetRouteConfig())
	}
	for _, f := range hcm.GetHttpFilters() {
		m.filters = append(m.filters, newHTTPFilter(f))
	}
	return m
}

// Stream is a request on its way through a connection manager: what filters see of it.
type Stream struct {
	evaluator *Evaluator
	decision  *Decision
	manager   *connectionManager
	request   Request
	// headers are the request's, pseudo headers included.
	headers *headerMap
	// remote is the client's address: the peer's, or what trusted proxies say.
	remote netip.AddrPort

	config *routeConfig
	route  *selectedRoute // nil without a route
	cors   corsState
	// session is what the session filter adds to responses of endpoints, grpcWeb tells that the response
	// is translated.
	session []Header
	grpcWeb bool
}

// serve takes a request through the connection manager.
func (e *Evaluator) serve(d *Decision, chain *filterChain, r Request) {
	s := &Stream{evaluator: e, decision: d, manager: chain.manager, request: r, headers: newHeaderMap(r.Headers)}
	for _, rbac := range chain.networkRBAC {
		if rbac.GetRules() != nil || rbac.GetMatcher() != nil {
			d.note("the network RBAC filter is not evaluated")
			d.answer(Unknown, 0)
			return
		}
	}
	if !s.admit() {
		return
	}
	switch hcm := chain.manager.hcm; {
	case chain.manager.inline != nil:
		s.config = chain.manager.inline
	case hcm.GetRds() != nil:
		s.config = e.routes[hcm.GetRds().GetRouteConfigName()]
	default:
		d.note("scoped routes are not evaluated")
		d.answer(Unknown, 0)
		return
	}
	if s.config != nil {
		d.RouteConfig = s.config.config.GetName()
		s.selectRoute()
	}
	if d.Outcome == Unknown {
		return
	}
	s.runFilters()
}

// admit does what the connection manager does before it routes; false where it answers.
func (s *Stream) admit() bool {
	hcm, conn, d := s.manager.hcm, s.request.Connection, s.decision
	method := orDefault(s.request.Method, "GET")
	target := orDefault(s.request.Target, "/")
	for _, name := range []string{"host", "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"} {
		s.headers.remove(name)
	}
	if s.request.Host == "" || !validAuthority(s.request.Host) {
		d.answer(Rejected, 400)
		return false
	}
	s.trustForwarded()
	scheme := s.headers.get("x-forwarded-proto")
	if scheme != "http" && scheme != "https" {
		scheme = schemeOf(conn)
	}
	s.headers.set(":method", method)
	s.headers.set(":authority", s.request.Host)
	s.headers.set(":scheme", scheme)
	s.headers.set(":path", target)
	if !strings.HasPrefix(target, "/") {
		d.answer(Rejected, 404)
		return false
	}
	normalized, redirect, ok := normalizeTarget(hcm, target)
	switch {
	case !ok:
		d.answer(Rejected, 400)
		return false
	case redirect:
		d.answer(Redirect, 307)
		d.Location = normalized
		return false
	}
	s.headers.set(":path", normalized)
	s.headers.set(":authority", s.normalizedHost())
	s.setClientCertificate()
	return true
}

func orDefault(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}

func schemeOf(c Connection) string {
	if c.TLS {
		return "https"
	}
	return "http"
}

// validAuthority is nghttp2's check of an authority, which Envoy uses for all protocols.
func validAuthority(host string) bool {
	for i := range len(host) {
		c := host[i]
		alphanumeric := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !alphanumeric && strings.IndexByte("!$%&'()*+,-.:;=@[]_~", c) < 0 {
			return false
		}
	}
	return true
}

// normalizedHost is the Host that routes and the upstream see.
func (s *Stream) normalizedHost() string {
	hcm := s.manager.hcm
	host := s.request.Host
	if hcm.GetStripTrailingHostDot() {
		if name, port, ok := cutPort(host); ok {
			host = strings.TrimSuffix(name, ".") + ":" + port
		} else {
			host = strings.TrimSuffix(host, ".")
		}
	}
	name, port, ok := cutPort(host)
	if !ok {
		return host
	}
	if _, err := strconv.ParseUint(port, 10, 32); err != nil {
		return host
	}
	if hcm.GetStripAnyHostPort() || hcm.GetStripMatchingHostPort() && port == strconv.Itoa(int(s.request.Connection.Destination.Port())) {
		return name
	}
	return host
}

// cutPort cuts at the last colon that is not part of an IPv6 address.
func cutPort(host string) (name, port string, ok bool) {
	i := strings.LastIndexByte(host, ':')
	if i < 0 || strings.LastIndexByte(host, ']') > i {
		return host, "", false
	}
	return host[:i], host[i+1:], true
}

// trustForwarded finds the client's address, and drops what clients may not say.
func (s *Stream) trustForwarded() {
	hcm, conn := s.manager.hcm, s.request.Connection
	s.remote = conn.Source
	hops := int(hcm.GetXffNumTrustedHops())
	if hcm.GetUseRemoteAddress().GetValue() {
		if hops > 0 {
			if a, ok := forwardedFor(s.headers, hops-1); ok {
				s.remote = a
			}
		}
		if !hcm.GetSkipXffAppend() {
			s.appendTo("x-forwarded-for", conn.Source.Addr().String())
		}
		if hops == 0 || !s.headers.has("x-forwarded-proto") {
			s.headers.set("x-forwarded-proto", schemeOf(conn))
		}
	} else if a, ok := forwardedFor(s.headers, hops); ok {
		s.remote = a
	}
	if !s.headers.has("x-forwarded-proto") {
		s.headers.set("x-forwarded-proto", schemeOf(conn))
	}
	s.decision.SourceAddress = s.remote.Addr().String()
}

func (s *Stream) appendTo(name, value string) {
	if old, ok := s.headers.joined(name); ok && old != "" {
		value = old + "," + value
	}
	s.headers.set(name, value)
}

// forwardedFor returns the address behind which there are so many further ones.
func forwardedFor(headers *headerMap, skip int) (netip.AddrPort, bool) {
	list, ok := headers.joined("x-forwarded-for")
	if !ok {
		return netip.AddrPort{}, false
	}
	addresses := strings.Split(list, ",")
	if skip >= len(addresses) {
		return netip.AddrPort{}, false
	}
	text := strings.Trim(addresses[len(addresses)-1-skip], " \t")
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.AddrPortFrom(a, 0), true
	}
	a, err := netip.ParseAddrPort(text)
	return a, err == nil
}

// setClientCertificate is what becomes of x-forwarded-client-cert.
func (s *Stream) setClientCertificate() {
	const name = "x-forwarded-client-cert"
	certificate := s.request.Connection.Certificate
	mutual := s.request.Connection.TLS && certificate != nil
	switch details := s.manager.hcm.GetForwardClientCertDetails(); {
	case details == http_connection_managerpb.HttpConnectionManager_ALWAYS_FORWARD_ONLY:
	case details == http_connection_managerpb.HttpConnectionManager_SANITIZE || !mutual:
		s.headers.remove(name)
	case details == http_connection_managerpb.HttpConnectionManager_FORWARD_ONLY:
	case details == http_connection_managerpb.HttpConnectionManager_SANITIZE_SET:
		s.headers.set(name, Unpredictable)
	default:
		s.appendTo(name, Unpredictable)
	}
}
