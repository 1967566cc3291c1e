package translate

import (
	"net/netip"
	"slices"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
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
	// Port is the port that clients connect to; 0 for the inbound chain of all ports without one.
	Port int
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
	// HTTP tells an HTTP connection manager from TCP and others.
	HTTP bool
	// RouteConfig is the name of the route configuration. Inline tells that it is part of the
	// listener.
	RouteConfig string
	Inline      bool
	// NotServed says why APISIX does not receive the chain's connections; empty where it does.
	NotServed string
	// Denied lists the diagnostic codes of the access restrictions because of which every
	// request is answered with 403.
	Denied []Code

	inline *routepb.RouteConfiguration
	// narrowed names match criteria that only a chain selection at connection level can check.
	narrowed string
}

func (c *Chain) addresses() []netip.Addr {
	return slices.Concat([]netip.Addr{c.Address}, c.AdditionalAddresses)
}

func (c *Chain) wildcard() bool { return c.Address.IsUnspecified() }
