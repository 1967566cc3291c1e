package translate

import (
	"encoding/json"
	"net/netip"
	"time"

	"meshbridge/translate/accesslog"
)

// The types of this file tell package capture, which stands in front of APISIX in the profile mesh,
// what to do with connections. They are immutable once they have been handed over.

// CaptureChange is what a step changes for capture. An endpoint of the overlay must be known to
// capture before APISIX is told of it, and a listener must not be served before APISIX has the
// objects of its chains.
type CaptureChange struct {
	// Listeners is the whole table, sorted by Name; nil where the step did not change it.
	Listeners []*Listener
	// Overlay holds the endpoints that are new or different, sorted by Address.
	Overlay []*OverlayEndpoint
	// Gone are the addresses to which no upstream leads any more, sorted.
	Gone []netip.Addr
	// GonePorts are the stream ports that no stream_route has any more, sorted.
	GonePorts []uint16
}

// Allocations gives out numbers that nothing else has. The answer for a name is the same as long as
// the name is in use: equal answers give equal bytes.
type Allocations interface {
	// StreamPort returns APISIX's stream port for a TCP upstream; ok is false where none is left.
	StreamPort(upstream string) (port uint16, ok bool)
	// OverlayAddress returns the address at which capture stands for an endpoint; ok is false
	// where none is left.
	OverlayAddress(endpoint string) (address netip.Addr, ok bool)
}

// Listener is an Envoy listener as capture serves it.
type Listener struct {
	Name      string
	Direction Direction
	// Addresses and Port are where the listener is bound, or what the original destination of a
	// redirected connection must be; an unspecified address is any. Path is that of a Unix
	// domain socket, instead.
	Addresses []netip.Addr
	Port      uint16
	Path      string
	// Bind tells that the listener has a socket of its own (Listener.bind_to_port).
	Bind bool
	// OriginalDestination tells that connections belong to the listener of their original
	// destination, and to this one where there is none: Istio's virtualOutbound and virtualInbound
	// (Listener.use_original_dst, the listener filter original_dst).
	OriginalDestination bool
	// Transparent tells that connections are redirected by TPROXY: their local address is their
	// original destination.
	Transparent bool
	// ProxyProtocol tells that connections begin with a PROXY protocol header; with
	// ProxyProtocolOptional those without one are served, too.
	ProxyProtocol, ProxyProtocolOptional bool
	// TLSInspector and HTTPInspector are the listener filters that look at the first bytes; nil
	// where the listener has none.
	TLSInspector, HTTPInspector *Inspector
	// InspectionTimeout bounds how long the first bytes are waited for; 0 is without limit. When it
	// is over, connections are closed, or go on with what is known (ContinueOnTimeout).
	InspectionTimeout time.Duration
	ContinueOnTimeout bool
	// Chains are in the order of the listener; DefaultChain takes what none of them matches, and is
	// nil where that is closed.
	Chains       []*FilterChain
	DefaultChain *FilterChain
	// AccessLogs are those of the listener's connections (Listener.access_log). Istio's are about connections
	// that no chain takes.
	AccessLogs []*accesslog.Log
}

// Inspector says on which connections a listener filter looks at the first bytes.
type Inspector struct {
	// Disabled are the destination ports on which it does not (ListenerFilter.filter_disabled):
	// those of protocols in which the server speaks first.
	Disabled []PortRange
}

// PortRange is from First to Last, including both.
type PortRange struct{ First, Last uint16 }

// FilterChain is what happens to the connections that match. Exactly one of HTTP and TCP is set, or
// Refused.
type FilterChain struct {
	// Key names the chain among all chains; that of Chain for HTTP.
	Key string
	// Name is the filter chain's own name, which may be empty.
	Name  string
	Match ChainMatch
	// TLS is what to terminate; nil passes the bytes as they are.
	TLS *DownstreamTLS
	// HandshakeTimeout bounds the TLS handshake (FilterChain.transport_socket_connect_timeout); 0 is
	// capture's own.
	HandshakeTimeout time.Duration
	// Policies decide about each connection, in this order, once its peer is known. One that
	// refuses closes it.
	Policies []*NetworkPolicy
	HTTP     *HTTPProxy
	TCP      *TCPProxy
	// Refused says why connections are closed at once: what the chain does, such as Istio's
	// blackholes, or what cannot be enforced.
	Refused string
}

// ChainMatch is a FilterChainMatch: empty criteria match everything.
type ChainMatch struct {
	DestinationPort uint16
	Destinations    []netip.Prefix
	// ServerNames are exact or "*.suffix", in lower case.
	ServerNames          []string
	TransportProtocol    string // "tls", "raw_buffer" or any
	ApplicationProtocols []string
	DirectSources        []netip.Prefix
	SourceType           SourceType
	Sources              []netip.Prefix
	SourcePorts          []uint16
}

// SourceType is a FilterChainMatch.ConnectionSourceType.
type SourceType int

// The source types, in the numbers of the field.
const (
	SourceAny      SourceType = 0
	SourceLocal    SourceType = 1 // the address of the connection itself, or a loopback one
	SourceExternal SourceType = 2
)

// HTTPProxy is a connection manager: connections go to APISIX's PROXY-protocol ports.
type HTTPProxy struct {
	// TLS tells that APISIX terminates TLS: the bytes go to its HTTPS port.
	TLS bool
}

// TCPProxy is a tcp_proxy filter.
type TCPProxy struct {
	// Clusters share the connections by weight; one is chosen at random for each.
	Clusters []TCPCluster
	// IdleTimeout closes connections without any byte in either direction; 0 is without limit.
	IdleTimeout time.Duration
}

// TCPCluster is a destination of TCP connections. One of Port and OriginalDestination is set;
// without either, connections are closed, and Refused says why.
type TCPCluster struct {
	Name   string
	Weight uint32
	// Port is that of the stream_route in APISIX that leads to the cluster's endpoints.
	Port uint16
	// OriginalDestination is set where capture connects to where the client wanted to go.
	OriginalDestination *OriginalDestination
	Refused             string
}

// OriginalDestination is how capture connects to a client's original destination.
type OriginalDestination struct {
	// Source is the local address of the connection; invalid for any. Istio's inbound clusters have
	// 127.0.0.6, which its iptables rules let pass. OtherSource is that of the other family.
	Source, OtherSource netip.Addr
	ConnectTimeout      time.Duration
	// TLS is nil for plain connections.
	TLS *UpstreamTLS
}

// OverlayEndpoint is an endpoint that APISIX knows by an address of capture, because it wants more
// than a plain TCP connection. One of Target, Name, Path, OriginalDestination and Dynamic is set.
type OverlayEndpoint struct {
	// Address is the overlay address, and the endpoint's identity.
	Address netip.Addr
	Cluster string
	Target  netip.AddrPort
	// Name is "host:port" with a host that is resolved for each connection.
	Name string
	// Path is that of a Unix domain socket.
	Path string
	// OriginalDestination tells that each HTTP request goes to the address in its
	// OriginalDestinationHeader, which is removed.
	OriginalDestination bool
	// Dynamic tells that each HTTP request goes to where its Host resolves to; DynamicPort is the
	// port of hosts without one.
	Dynamic     bool
	DynamicPort uint16
	// TCP tells that connections carry no HTTP: nothing is read before the connection is opened.
	TCP bool
	// Source and OtherSource are local addresses of connections, as in OriginalDestination.
	Source, OtherSource netip.Addr
	// TLS is nil for plain connections.
	TLS *UpstreamTLS
	// ProxyProtocol is the version of the PROXY protocol header to send first; 0 is none.
	ProxyProtocol  int
	ConnectTimeout time.Duration
}

// OriginalDestinationHeader carries a request's original destination, "address:port", from APISIX to
// an overlay endpoint with OriginalDestination.
const OriginalDestinationHeader = "x-meshbridge-original-dst"

// DownstreamTLS is what TLS that capture terminates is like. (Where APISIX terminates it, the bytes
// pass as they are.)
type DownstreamTLS struct {
	Credential Credential
	// Authorities issue the certificates of clients; empty means that none are asked for.
	Authorities Credential
	// RequireClientCertificate fails the handshake of clients without one.
	RequireClientCertificate bool
	// SANs must match one of a client certificate's subject alternative names, if there are any.
	SANs []SANMatch
	// SPKIs, Hashes and CRL restrict client certificates as those of UpstreamTLS do servers'.
	SPKIs, Hashes []string
	CRL           []byte
	// ALPN are the protocols to select from, by our preference; empty selects none.
	ALPN []string
	// MinVersion and MaxVersion are tls.VersionTLS12 and the like; 0 is the default, 1.2 and 1.3.
	MinVersion, MaxVersion uint16
	// CipherSuites for TLS 1.2; empty is the default.
	CipherSuites []uint16
	// ForwardClientCert tells that APISIX is told of the peer's certificate.
	ForwardClientCert bool
}

// UpstreamTLS is TLS that capture originates.
type UpstreamTLS struct {
	// ServerName is sent as SNI; AutoServerName takes the host of the connection's first request
	// instead (HttpProtocolOptions auto_sni).
	ServerName     string
	AutoServerName bool
	// ALPN is what is offered. With IstioALPN, connections that carry HTTP offer what the HTTP filter
	// istio.alpn makes of it: "istio-http/1.1", "istio", "http/1.1", or "istio-h2", "istio", "h2".
	ALPN      []string
	IstioALPN bool
	// Credential is our certificate; empty is none.
	Credential Credential
	// Authorities issue the certificates of servers; empty means that these are not verified, and
	// Insecure that this is what the configuration says. SystemAuthorities takes the system's.
	Authorities       Credential
	SystemAuthorities bool
	Insecure          bool
	// SANs must match one of the server certificate's subject alternative names, if there are any.
	// AutoSAN takes the server name (HttpProtocolOptions auto_san_validation).
	SANs    []SANMatch
	AutoSAN bool
	// SPKIs and Hashes are pins, of which one must match: base64 of SHA-256 of the public key, hex of
	// SHA-256 of the certificate.
	SPKIs, Hashes []string
	// CRL is a PEM of certificate revocation lists.
	CRL                    []byte
	MinVersion, MaxVersion uint16
	CipherSuites           []uint16
}

// Credential says where a certificate or a set of authorities comes from. The zero value is none.
type Credential struct {
	// Workload tells that it is the workload's own: the secrets "default" and "ROOTCA".
	Workload bool
	// CertificateFile, KeyFile and AuthoritiesFile are paths, read again when the files change.
	CertificateFile, KeyFile, AuthoritiesFile string
	// Certificate, Key and Authorities are PEM that came with the configuration.
	Certificate, Key, Authorities []byte
	// Missing names a secret that has not arrived: nothing can be served or opened until it does.
	Missing string
}

// String names where a credential comes from, without anything of a key.
func (c Credential) String() string {
	switch {
	case c.Missing != "":
		return "missing " + c.Missing
	case c.Workload:
		return "the workload's own"
	case c.CertificateFile != "":
		return c.CertificateFile + " and " + c.KeyFile
	case c.AuthoritiesFile != "":
		return c.AuthoritiesFile
	case len(c.Certificate)+len(c.Authorities) > 0:
		return "part of the configuration"
	}
	return "none"
}

// MarshalJSON is String: a table that is shown has no keys in it.
func (c Credential) MarshalJSON() ([]byte, error) { return json.Marshal(c.String()) }

// SANMatch matches a subject alternative name of a certificate.
type SANMatch struct {
	// Kind restricts the match to a type of name; SANAny is any of them.
	Kind SANKind
	// Match decides; it is safe for concurrent use.
	Match func(name string) bool
	// Exact is the text of an exact matcher, with which a wildcard of the certificate's DNS names
	// may agree, too: "*.example.com" with "www.example.com". It is empty for other matchers.
	Exact string
	// Text is the matcher for messages, such as `exact "spiffe://cluster.local/ns/a/sa/b"`.
	Text string
}

// SANKind is a type of subject alternative name.
type SANKind int

// The types of names that Envoy tells apart (SubjectAltNameMatcher.SanType).
const (
	SANAny SANKind = iota
	SANDNS
	SANURI
	SANEmail
	SANIP
)

// NetworkPeer is what a NetworkPolicy decides by.
type NetworkPeer struct {
	// Source is the address that the connection came from, after a PROXY protocol header, and
	// DirectSource before.
	Source, DirectSource netip.AddrPort
	Destination          netip.AddrPort
	// ServerName is the TLS server name; empty without one.
	ServerName string
	// TLS tells that the connection's TLS was terminated, with or without a certificate of the peer.
	TLS bool
	// MutualTLS tells that the peer has shown a certificate that was verified. URIs and DNSNames are
	// its names, and Subject its distinguished name.
	MutualTLS      bool
	URIs, DNSNames []string
	Subject        string
}
