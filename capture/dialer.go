package capture

import (
	"context"
	"log/slog"
	"net"

	"meshbridge/identity"
	"meshbridge/translate"
)

// Dialer connects to endpoints for the process itself, as a Server does for APISIX: with the TLS, and the
// certificate, that the endpoint's cluster says. It is safe for concurrent use.
type Dialer struct{ clients clients }

// NewDialer returns a Dialer with the workload's certificate; nil has none, and TLS that needs it fails with
// ErrMissingCredential. The logger is told of files with certificates that cannot be read.
func NewDialer(source identity.Source, log *slog.Logger) *Dialer {
	return &Dialer{clients{credentials: credentials{identity: source, log: log}}}
}

// Dial opens a connection that is to carry HTTP/2, to a host without port. The time until it can be used is
// bounded by the endpoint's ConnectTimeout. Never is an endpoint with TLS connected to without.
func (d *Dialer) Dial(ctx context.Context, to *translate.OverlayEndpoint, host string) (net.Conn, error) {
	ctx, cancel := withConnectTimeout(ctx, to.ConnectTimeout)
	defer cancel()
	e := overlayEndpoint{OverlayEndpoint: to}
	conn, err := e.dial(ctx)
	if err != nil {
		return nil, err
	}
	if err := writeProxyHeader(conn, to.ProxyProtocol); err != nil {
		_ = conn.Close()
		return nil, err
	}
	if to.TLS == nil {
		return conn, nil
	}
	secured, err := d.clients.handshake(ctx, conn, to.TLS, origination{cluster: to.Cluster, endpoint: e.target(), protocol: speaksHTTP2, host: host})
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return secured, nil
}
