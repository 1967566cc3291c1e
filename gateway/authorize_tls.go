package gateway

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
)

// requiresCertificates tells whether each client had to show a certificate. Only then does etcd take the
// name in it for that of a user.
func (s *Server) requiresCertificates() bool {
	return s.cfg.TLS != nil && s.cfg.TLS.ClientAuth == tls.RequireAndVerifyClientCert
}

// acceptedCredentials tell gRPC about connections whose handshake is over when it gets them.
type acceptedCredentials struct {
	credentials.TransportCredentials
}

func newAcceptedCredentials() acceptedCredentials {
	return acceptedCredentials{insecure.NewCredentials()}
}

// ServerHandshake implements credentials.TransportCredentials.
func (a acceptedCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if secure := tlsConn(conn); secure != nil {
		return conn, credentials.TLSInfo{
			State:          secure.ConnectionState(),
			CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		}, nil
	}
	return a.TransportCredentials.ServerHandshake(conn)
}

// Clone implements credentials.TransportCredentials.
func (a acceptedCredentials) Clone() credentials.TransportCredentials { return a }

// tlsConn returns the TLS connection that conn is made of, or nil.
func tlsConn(conn net.Conn) *tls.Conn {
	for {
		switch c := conn.(type) {
		case *tls.Conn:
			return c
		case *peekedConn:
			conn = c.Conn
		case *settingsConn:
			conn = c.Conn
		default:
			return nil
		}
	}
}

// commonName returns the name in the certificate of a client, if it had a certificate.
func commonName(state *tls.ConnectionState) (name string, ok bool) {
	for _, chain := range state.VerifiedChains {
		if len(chain) > 0 {
			return chain[0].Subject.CommonName, true
		}
	}
	return "", false
}

// commonNameOf is commonName for the client of a gRPC call. A proxy that speaks for HTTP clients shows a
// certificate of its own, which is not theirs.
func commonNameOf(ctx context.Context) (name string, ok bool) {
	p, ok := peer.FromContext(ctx)
	if !ok || len(metadata.ValueFromIncomingContext(ctx, "grpcgateway-accept")) > 0 {
		return "", false
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return "", false
	}
	return commonName(&info.State)
}

// connNameKey is the key of an HTTP connection's common name in its context.
type connNameKey struct{}

// connContext is an http.Server.ConnContext: it has the client where gRPC has it. The server itself knows
// TLS connections only by their type, which one whose first bytes were read does not have.
func connContext(ctx context.Context, conn net.Conn) context.Context {
	ctx = peer.NewContext(ctx, &peer.Peer{Addr: conn.RemoteAddr()})
	if secure := tlsConn(conn); secure != nil {
		state := secure.ConnectionState()
		if name, ok := commonName(&state); ok {
			return context.WithValue(ctx, connNameKey{}, name)
		}
	}
	return ctx
}

// refuseCommonName answers calls over HTTP from clients whose certificate has a name, while that would
// name a user over gRPC: the client would take itself for that user, and be nobody. The text is etcd's,
// and APISIX looks for it.
func (s *Server) refuseCommonName(w http.ResponseWriter, r *http.Request) (refused bool) {
	if !s.requiresCertificates() || !s.auth.Enabled() || !strings.HasPrefix(r.URL.Path, "/v3/") {
		return false
	}
	if name, ok := r.Context().Value(connNameKey{}).(string); !ok || name == "" {
		return false
	}
	http.Error(w, "CommonName of client sending a request against gateway will be ignored and not used as expected",
		http.StatusBadRequest)
	return true
}
