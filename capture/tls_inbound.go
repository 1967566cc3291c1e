package capture

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"slices"

	"meshbridge/translate"
)

// terminate does the handshake of a chain's TLS, whose ClientHello is still to be read from conn, and
// tells who the peer is. It closes nothing: the caller closes conn when it returns an error, which it
// has logged and counted. Closing the result closes conn.
func (s *Server) terminate(ctx context.Context, conn net.Conn, chain *translate.FilterChain, hello inspected) (net.Conn, peer, error) {
	server := s.tls.servers.get(chain.TLS, s.tls.newServer)
	timeout := chain.HandshakeTimeout
	if timeout <= 0 {
		timeout = defaultHandshakeTimeout
	}
	handshake, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	terminated, who, err := server.terminate(handshake, conn)
	if err != nil {
		s.failedTLS(ctx, inboundTLS, err,
			slog.String("chain", chain.Key),
			slog.String("peer", conn.RemoteAddr().String()),
			slog.String("server_name", hello.serverName))
		return nil, peer{}, err
	}
	s.tls.succeeded(inboundTLS, terminated.ConnectionState().DidResume)
	return terminated, who, nil
}

// serverTLS terminates the TLS of a filter chain. It is immutable.
type serverTLS struct {
	// config is for clients that speak one of the chain's protocols or send no list, others for
	// those that speak none of them.
	config, others *tls.Config
	certificate    certificateSource
	verifier       verifier
	// identifies tells that certificates are verified, and forwards that APISIX is told of them.
	identifies, forwards bool
}

func (t *tlsState) newServer(how translate.DownstreamTLS) *serverTLS {
	server := &serverTLS{
		certificate: t.certificate(how.Credential),
		verifier: verifier{
			authorities: t.authorities(how.Authorities),
			usage:       x509.ExtKeyUsageClientAuth,
			mesh:        how.Authorities.Workload,
			trustDomain: t.trustDomain,
			sans:        how.SANs,
			pins:        newPins(how.SPKIs, how.Hashes),
			revoked:     newRevocationLists(how.CRL),
		},
	}
	server.identifies = server.verifier.authorities != nil || server.verifier.pins.any()
	server.forwards = how.ForwardClientCert && server.identifies
	if server.certificate == nil {
		server.certificate = missing[*tls.Certificate]("of the server")
	}
	lowest, highest := versions(how.MinVersion, how.MaxVersion, how.Credential.Workload)
	server.config = &tls.Config{
		MinVersion:       lowest,
		MaxVersion:       highest,
		CipherSuites:     how.CipherSuites,
		NextProtos:       how.ALPN,
		GetCertificate:   func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return server.certificate() },
		VerifyConnection: server.verify,
		Time:             resumptionTime,
	}
	switch {
	case how.RequireClientCertificate:
		server.config.ClientAuth = tls.RequireAnyClientCert
	case server.identifies:
		server.config.ClientAuth = tls.RequestClientCert
	}
	server.others = server.config.Clone()
	server.others.NextProtos = nil
	server.config.GetConfigForClient = server.configFor
	return server
}

// configFor leaves ALPN out for clients with which no protocol is shared: Envoy goes on without one,
// crypto/tls would refuse them.
func (t *serverTLS) configFor(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	shared := func(protocol string) bool { return slices.Contains(t.config.NextProtos, protocol) }
	if len(hello.SupportedProtos) == 0 || slices.ContainsFunc(hello.SupportedProtos, shared) {
		return nil, nil //nolint:nilnil // crypto/tls goes on with the configuration that it has
	}
	return t.others, nil
}

func (t *serverTLS) terminate(ctx context.Context, conn net.Conn) (*tls.Conn, peer, error) {
	// Credentials that are missing are told apart from failed handshakes.
	own, err := t.certificate()
	if err != nil {
		return nil, peer{}, err
	}
	if t.verifier.authorities != nil {
		if _, err := t.verifier.authorities(); err != nil {
			return nil, peer{}, err
		}
	}
	terminated := tls.Server(conn, t.config)
	if err := terminated.HandshakeContext(ctx); err != nil {
		return nil, peer{}, err
	}
	return terminated, t.peer(own, terminated.ConnectionState()), nil
}

// verify decides about the certificate of a client, in resumed sessions, too: one that was good under
// authorities of the past is no longer. Those who need none and show none are strangers, and welcome.
func (t *serverTLS) verify(state tls.ConnectionState) error {
	if !t.identifies || len(state.PeerCertificates) == 0 && t.config.ClientAuth != tls.RequireAnyClientCert {
		return nil
	}
	return t.verifier.verify(state.PeerCertificates, "")
}

// peer tells who has been verified.
func (t *serverTLS) peer(own *tls.Certificate, state tls.ConnectionState) peer {
	if !t.identifies || len(state.PeerCertificates) == 0 {
		return peer{}
	}
	leaf := state.PeerCertificates[0]
	who := peer{mutualTLS: true, principal: spiffeID(leaf), dnsNames: leaf.DNSNames, subject: subject(leaf)}
	for _, uri := range leaf.URIs {
		who.uris = append(who.uris, uri.String())
	}
	if t.forwards {
		who.forwarded = forwardedCertificate(own.Leaf, leaf)
	}
	return who
}

// spiffeID returns the first SPIFFE ID of a certificate; empty without one.
func spiffeID(certificate *x509.Certificate) string {
	for _, uri := range certificate.URIs {
		if _, err := trustDomainOf(uri.String()); err == nil {
			return uri.String()
		}
	}
	return ""
}
