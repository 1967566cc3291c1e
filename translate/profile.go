package translate

import "meshbridge/translate/apisix"

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
	// TerminatesTLS tells whether APISIX itself terminates TLS for chains that have it.
	TerminatesTLS() bool
}
