package capture

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"meshbridge/translate"
)

// sessionsPerConfiguration bounds how many sessions are kept for resumption, over all endpoints of a
// TLS configuration: a session has the server's certificates and takes a few kilobytes.
const sessionsPerConfiguration = 1024

// dialOriginal connects to a connection's original destination, with TLS where how says so.
func (s *Server) dialOriginal(ctx context.Context, to netip.AddrPort, how *translate.OriginalDestination) (net.Conn, error) {
	source := sourceFor(to.Addr(), how.Source, how.OtherSource)
	if how.TLS == nil {
		return s.dial(ctx, to, source, how.ConnectTimeout)
	}
	ctx, cancel := withConnectTimeout(ctx, how.ConnectTimeout)
	defer cancel()
	conn, err := s.dial(ctx, to, source, how.ConnectTimeout)
	if err != nil {
		return nil, err
	}
	return s.originate(ctx, conn, how.TLS, origination{endpoint: to.String(), protocol: speaksTCP})
}

// withConnectTimeout bounds the time until a connection is usable: as in Envoy, that includes the TLS
// handshake.
func withConnectTimeout(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout <= 0 {
		timeout = defaultConnectTimeout
	}
	return context.WithTimeout(ctx, timeout)
}

// origination is what a connection to an endpoint has of its own.
type origination struct {
	cluster, endpoint string
	protocol          protocol
	// host is that of the connection's first request, without port; empty for TCP.
	host string
}

// originate does the client's side of a handshake on a new connection, which it closes when that
// fails. It has logged and counted the error.
func (s *Server) originate(ctx context.Context, conn net.Conn, how *translate.UpstreamTLS, o origination) (net.Conn, error) {
	fail := func(ctx context.Context, err error) {
		s.failedTLS(ctx, outboundTLS, err, slog.String("cluster", o.cluster), slog.String("endpoint", o.endpoint))
	}
	originated, err := s.tls.handshake(ctx, conn, how, o)
	if err != nil {
		fail(ctx, err)
		_ = conn.Close()
		return nil, err
	}
	s.tls.succeeded(outboundTLS, originated.ConnectionState().DidResume)
	return &originatedConn{Conn: originated, refused: func(err error) { fail(context.WithoutCancel(ctx), err) }}, nil
}

// clients originate TLS.
type clients struct {
	credentials

	made compiled[translate.UpstreamTLS, clientTLS]
}

// handshake does the client's side of a handshake. It does not close conn.
func (c *clients) handshake(ctx context.Context, conn net.Conn, how *translate.UpstreamTLS, o origination) (*tls.Conn, error) {
	config, err := c.made.get(how, c.newClient).config(o)
	if err != nil {
		return nil, err
	}
	originated := tls.Client(conn, config)
	return originated, originated.HandshakeContext(ctx)
}

// originatedConn reports when the server refuses our certificate: with TLS 1.3, the handshake is over
// on our side before it has decided.
type originatedConn struct {
	*tls.Conn
	refused func(error)
	once    sync.Once
}

func (c *originatedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil && isAlert(err) {
		c.once.Do(func() { c.refused(err) })
	}
	return n, err
}

// clientTLS originates the TLS of a cluster.
type clientTLS struct {
	// set once
	how         translate.UpstreamTLS
	certificate certificateSource // nil without client certificate
	verifier    verifier
	base        *tls.Config

	mu       sync.Mutex
	sessions tls.ClientSessionCache
	// those that the sessions were made with
	own         *tls.Certificate
	authorities *x509.CertPool
}

func (c *clients) newClient(how translate.UpstreamTLS) *clientTLS {
	client := &clientTLS{
		how:         how,
		certificate: c.certificate(how.Credential),
		verifier: verifier{
			authorities: c.authorities(how.Authorities),
			usage:       x509.ExtKeyUsageServerAuth,
			mesh:        how.Authorities.Workload,
			trustDomain: c.trustDomain,
			sans:        how.SANs,
			pins:        newPins(how.SPKIs, how.Hashes),
			revoked:     newRevocationLists(how.CRL),
		},
	}
	if how.SystemAuthorities && client.verifier.authorities == nil {
		client.verifier.authorities = systemAuthorities()
	}
	lowest, highest := versions(how.MinVersion, how.MaxVersion, how.Authorities.Workload)
	client.base = &tls.Config{
		Time:         resumptionTime,
		MinVersion:   lowest,
		MaxVersion:   highest,
		CipherSuites: how.CipherSuites,
		// The verifier does it, since names of the mesh are not those of hosts.
		InsecureSkipVerify: true, //nolint:gosec // see VerifyConnection
	}
	return client
}

// config returns that of one connection.
func (c *clientTLS) config(o origination) (*tls.Config, error) {
	own, err := currentOf(c.certificate)
	if err != nil {
		return nil, err
	}
	authorities, err := currentOf(c.verifier.authorities)
	if err != nil {
		return nil, err
	}
	name := c.how.ServerName
	if c.how.AutoServerName && o.host != "" {
		name = o.host
	}
	var host string
	if c.how.AutoSAN {
		if host = name; host == "" {
			return nil, refuse(tlsName, "the certificate is to be that of the server name, and there is none")
		}
	}
	config := c.base.Clone()
	config.ServerName = name // crypto/tls sends no addresses
	config.NextProtos = offered(&c.how, o.protocol)
	config.ClientSessionCache = endpointSessions{c.sessionsWith(own, authorities), o.cluster + " " + o.endpoint + " "}
	config.VerifyConnection = func(state tls.ConnectionState) error {
		return c.verifier.verify(state.PeerCertificates, host)
	}
	// Whatever authorities the server names, as Envoy does.
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if own == nil {
			return &tls.Certificate{}, nil
		}
		return own, nil
	}
	return config, nil
}

func currentOf[T any](source func() (*T, error)) (*T, error) {
	if source == nil {
		return nil, nil //nolint:nilnil // nothing is configured, which is no error
	}
	return source()
}

// resumptionMargin is how long a certificate must be good for its session to be resumed.
const resumptionMargin = time.Minute

// resumptionTime is the clock of crypto/tls, which decides by it whether the certificate of a session is
// still good; certificates are verified by the real one. Without a margin, one that expires between these
// two moments, which rotation has long replaced, would fail the connection.
func resumptionTime() time.Time { return time.Now().Add(resumptionMargin) }

// sessionsWith returns the sessions that were made with our certificate and these authorities. Those
// of others are forgotten: in a resumed session, nobody shows a certificate.
func (c *clientTLS) sessionsWith(own *tls.Certificate, authorities *x509.CertPool) tls.ClientSessionCache {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sessions == nil || c.own != own || c.authorities != authorities {
		c.sessions = tls.NewLRUClientSessionCache(sessionsPerConfiguration)
		c.own, c.authorities = own, authorities
	}
	return c.sessions
}

// endpointSessions are the sessions with one endpoint: crypto/tls tells servers apart by the server
// name, which is the same for all endpoints of a cluster.
type endpointSessions struct {
	all      tls.ClientSessionCache
	endpoint string
}

func (e endpointSessions) Get(key string) (*tls.ClientSessionState, bool) {
	return e.all.Get(e.endpoint + key)
}

func (e endpointSessions) Put(key string, session *tls.ClientSessionState) {
	e.all.Put(e.endpoint+key, session)
}
