package translate

import (
	"fmt"
	"net/netip"

	"meshbridge/translate/apisix"
)

// Profile is the set of capabilities of an APISIX and what stands in front of it: what a route can
// know about the connection that a request came on. Mesh, Direct and Gateway are the profiles.
//
// A capability that a profile lacks gives diagnostics, and makes whatever would need it to restrict
// access answer 403.
type Profile interface {
	// Name is the profile's name on the command line.
	Name() string
	// Guard returns the conditions under which a request arrived on the chain; every route of
	// the chain starts with them. ok is false where the profile cannot tell the chain from
	// others, or cannot receive its traffic at all; why says so in one sentence.
	Guard(c *Chain) (guard apisix.Vars, ok bool, why string)
	// Vars returns APISIX's variables about a connection that arrives on the chain, which make
	// the chain's Guard hold and no other's.
	Vars(c *Chain, conn Connection) map[string]string
	// PeerAddress is the variable with the address that the connection came from.
	PeerAddress() string
	// OriginalDestination returns the variables with the address and the port that the client
	// connected to; empty where unknown.
	OriginalDestination() (addr, port string)
	// SNI is the variable with the TLS server name; empty where unknown.
	SNI() string
	// PeerIdentity is the variable with the verified SPIFFE identity of the peer; empty where
	// mesh TLS is not terminated in front of APISIX.
	PeerIdentity() string
	// Overlay tells whether endpoints can be published as overlay addresses behind which mesh
	// TLS, TLS origination and proxying to the original destination are done.
	Overlay() bool
	// SourceBind tells whether connections to inbound endpoints leave from 127.0.0.6.
	SourceBind() bool
	// TerminatesTLS tells whether APISIX itself terminates TLS for chains that have it, mesh TLS
	// excepted.
	TerminatesTLS() bool
	// Captures tells whether connections that are not HTTP, and those to destinations without a
	// listener, are carried without APISIX.
	Captures() bool
}

// Connection is what a client connected to, as far as it decides about the chain.
type Connection struct {
	// Address and Port are the original destination.
	Address netip.Addr
	Port    int
	// ServerName is the TLS server name; empty without TLS or without the extension.
	ServerName string
}

// Default listening ports of APISIX in the direct profile.
const (
	defaultOutboundPort = 9080
	defaultInboundPort  = 9081
)

// ParseProfile returns the profile of that name: mesh, direct or gateway. Of the options, direct
// uses OutboundPort and InboundPort.
func ParseProfile(name string, opts Options) (Profile, error) {
	switch name {
	case "mesh":
		return Mesh(), nil
	case "direct":
		return Direct(opts.OutboundPort, opts.InboundPort), nil
	case "gateway":
		return Gateway(), nil
	}
	return nil, fmt.Errorf("unknown profile %q: want mesh, direct or gateway", name)
}
