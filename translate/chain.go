package translate

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"meshbridge/translate/accesslog"
	"meshbridge/translate/apisix"
)

// Direction says which connections a chain receives.
type Direction string

const (
	// Outbound chains receive connections that the workload opens and that are redirected.
	Outbound Direction = "outbound"
	// Inbound chains receive connections to the workload.
	Inbound Direction = "inbound"
	// Edge chains belong to listeners with a port of their own: those of gateways, and explicit
	// proxy ports of sidecars.
	Edge Direction = "gateway"
)

// Chain is one Envoy filter chain: a set of connections, and what happens to the requests on them.
// It is immutable.
type Chain struct {
	// Key names the chain among all chains. For chains with an RDS route configuration it is
	// that one's name; for inbound ones "i:<port>:raw" or "i:<port>:tls"; for TCP ones
	// "tcp:<listener>". Where several chains would have the same Key, the later ones by listener
	// name have the listener's name appended.
	Key string
	// Listener and FilterChain are the names of the xDS listener and of the filter chain, which
	// may be empty.
	Listener, FilterChain string
	Direction             Direction
	// Bound tells that the listener has its own port, instead of receiving redirected
	// connections by their original destination.
	Bound bool
	// Address is the listener's address; unspecified for any. AdditionalAddresses are those of
	// dual-stack listeners.
	Address             netip.Addr
	AdditionalAddresses []netip.Addr
	// Port is the port that clients connect to; 0 for chains of connections to whatever has no
	// listener, or inbound no chain, of its own.
	Port int
	// Path is that of a Unix domain socket, instead of Address and Port.
	Path string
	// Excluded are the addresses that have a listener of their own on the port of a wildcard
	// listener, sorted.
	Excluded []netip.Addr
	// TLS tells that the chain receives TLS connections. With MeshTLS, the certificate is the
	// workload's own and clients must have one too.
	TLS, MeshTLS bool
	// ServerNames are the TLS server names, exact or "*.suffix"; without any, all.
	// ExcludedServerNames are those of other chains of the listener that win over them.
	ServerNames, ExcludedServerNames []string
	// RequireClientCertificate tells that the handshake fails without a client certificate.
	RequireClientCertificate bool
	// Terminated tells that APISIX terminates the chain's TLS itself. VerifiesClientCertificate
	// tells that a client certificate, if there is one, must have been issued by an authority.
	Terminated, VerifiesClientCertificate bool
	// HTTP tells an HTTP connection manager from TCP and others.
	HTTP bool
	// RouteConfig is the name of the route configuration. Inline tells that it is part of the
	// listener.
	RouteConfig string
	Inline      bool
	// NotServed says why APISIX does not receive the chain's connections; empty where it does.
	NotServed string
	// Stats is what is to be counted of the chain's requests, or connections where it is not HTTP; nil
	// where nothing is.
	Stats *Stats
	// AccessLogs are those that APISIX does not write: the process that is told of requests and connections
	// does.
	AccessLogs []*accesslog.Log
	// Denied lists the diagnostic codes of the access restrictions because of which every
	// request is answered with 403.
	Denied []Code

	inline *routepb.RouteConfiguration
	// tls is what Terminated chains ask for; foreignNames are server names for which other chains'
	// certificates are presented.
	tls          *serverTLS
	foreignNames []string
	// dropsClientCertificate tells that x-forwarded-client-cert is removed from requests, because a
	// client could forge it: Envoy does so on every connection without mutual TLS, and otherwise
	// replaces or extends it. Outbound, too: the proxy at the other end adds to what it is told over
	// mesh TLS.
	dropsClientCertificate bool
	// facts are what happens to requests before the HTTP filters, and access what refuses some of
	// them, in the order of the filters.
	facts  requestFacts
	access []accessRule
	// plugins are for all requests that are forwarded.
	plugins chainPlugins
	// authentication is how the tokens of requests are verified; nil where they are not.
	authentication *Authentication
	// streamIdleTimeout is the idle timeout of routes without one; 0 is none, which istiod asks for.
	streamIdleTimeout time.Duration
	// filters are the names of the HTTP filters; of those that are disabled unless a route enables
	// them and that restrict access, dormant has the codes.
	filters []string
	dormant map[string]Code
	// proxyProtocol tells whether connections begin with a PROXY protocol header that APISIX reads.
	proxyProtocol proxyProtocol
	// narrowed names match criteria that only a chain selection at connection level can check.
	narrowed string
	// capturedTLS tells that capture terminates the chain's TLS, and clientCertificate is the value of
	// x-forwarded-client-cert by which it tells of the peer's certificate; empty where it does not.
	capturedTLS       bool
	clientCertificate string
	// peers is what is done with the headers by which proxies tell each other whose they are.
	peers peerExchange
	// overridesALPN tells that the filter istio.alpn chooses what is offered to upstreams.
	overridesALPN bool
	// plain tells that a TLS chain's routes are for plain connections: of a port in STRICT mode,
	// in a profile that has no mesh TLS.
	plain bool
}

// guard returns the conditions of a chain that is served.
func (c *Chain) guard(p Profile) (guard apisix.Vars, ok bool, why string) {
	guard, ok, why = p.Guard(c.received())
	return slices.Concat(guard, c.proxied(), c.secured()), ok, why
}

// received is the chain as its connections arrive.
func (c *Chain) received() *Chain {
	if !c.plain {
		return c
	}
	plain := *c
	plain.TLS, plain.MeshTLS, plain.RequireClientCertificate = false, false, false
	return &plain
}

// equal compares everything.
func (c *Chain) equal(o *Chain) bool {
	a, b := *c, *o
	a.inline, b.inline = nil, nil
	if (a.authentication == nil) != (b.authentication == nil) || a.authentication != nil && a.authentication.Key != b.authentication.Key {
		return false
	}
	a.authentication, b.authentication = nil, nil
	if !sameAccessLogs(a.AccessLogs, b.AccessLogs) {
		return false
	}
	a.AccessLogs, b.AccessLogs = nil, nil
	return reflect.DeepEqual(a, b) && proto.Equal(c.inline, o.inline)
}

// RequestVars returns the APISIX variables that a request on the chain has, so that the chain's
// routes can be evaluated. Of conn, what is zero is filled in with something that the chain
// receives. It fails for chains that are not served.
func RequestVars(p Profile, c *Chain, conn Connection) (map[string]string, error) {
	if c.NotServed != "" {
		return nil, fmt.Errorf("chain %s is not served: %s", c.Key, c.NotServed)
	}
	vars := p.Vars(c.received(), conn)
	c.securedVars(conn.ServerName, vars)
	if c.proxyProtocol == proxyProtocolRequired && vars[varProxyAddress] == "" {
		vars[varProxyAddress] = "192.0.2.1" // TEST-NET-1, RFC 5737
	}
	return vars, nil
}

// FindChain returns the chain that receives a connection, by Envoy's rules for listeners and server
// names: a listener of the very address before a wildcard one, an exact server name before a longer
// wildcard before a shorter one. It returns nil where there is none. tls says whether the
// connection begins with a TLS handshake.
func FindChain(chains []*Chain, direction Direction, conn Connection, tls bool) *Chain {
	var found *Chain
	for _, c := range chains {
		if !c.HTTP || c.Direction != direction || c.received().TLS != tls || c.Port != conn.Port && c.Port != 0 || c.Path != "" {
			continue
		}
		own := slices.Contains(c.addresses(), conn.Address)
		if direction == Outbound && !own && (!c.wildcard() || slices.Contains(c.Excluded, conn.Address)) {
			continue
		}
		if !c.acceptsServerName(conn.ServerName) {
			continue
		}
		if found == nil || c.preferredTo(found) {
			found = c
		}
	}
	return found
}

func (c *Chain) acceptsServerName(name string) bool {
	return (len(c.ServerNames) == 0 || slices.ContainsFunc(c.ServerNames, func(pattern string) bool { return serverNameMatches(pattern, name) })) &&
		!slices.ContainsFunc(c.ExcludedServerNames, func(pattern string) bool { return serverNameMatches(pattern, name) })
}

func (c *Chain) preferredTo(o *Chain) bool {
	if (c.Port == 0) != (o.Port == 0) {
		return o.Port == 0
	}
	return o.wildcard() && !c.wildcard()
}

// serverNameMatches tells whether a server name, or all names of a wildcard, match a pattern.
func serverNameMatches(pattern, name string) bool {
	if suffix, ok := strings.CutPrefix(pattern, "*"); ok {
		return len(name) > len(suffix) && strings.HasSuffix(strings.ToLower(name), strings.ToLower(suffix))
	}
	return strings.EqualFold(pattern, name)
}

func (c *Chain) addresses() []netip.Addr {
	return slices.Concat([]netip.Addr{c.Address}, c.AdditionalAddresses)
}

func (c *Chain) wildcard() bool { return c.Address.IsUnspecified() }
