package xds

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"

	"google.golang.org/grpc/credentials"
)

// Schemes of a Target.
const (
	SchemePlaintext = "grpc"
	SchemeTLS       = "grpcs"
	SchemeFile      = "file"
)

// Target says where to get resources from.
type Target struct {
	Scheme  string // SchemePlaintext, SchemeTLS or SchemeFile
	Address string // host:port, of the first two
	Path    string // of SchemeFile
}

// ParseTarget reads "grpc://HOST:PORT" (plaintext), "grpcs://HOST:PORT" (TLS) or "file:PATH".
func ParseTarget(s string) (Target, error) {
	if path, ok := strings.CutPrefix(s, SchemeFile+":"); ok {
		// file:///etc/x and file:/etc/x are the same file; file:x is a relative path.
		path = strings.TrimPrefix(path, "//")
		if path == "" {
			return Target{}, fmt.Errorf("xDS target %q: names no file or directory", s)
		}
		return Target{Scheme: SchemeFile, Path: path}, nil
	}
	u, err := url.Parse(s)
	if err != nil {
		return Target{}, fmt.Errorf("xDS target: %w", err)
	}
	if u.Scheme != SchemePlaintext && u.Scheme != SchemeTLS || u.Opaque != "" {
		return Target{}, fmt.Errorf("xDS target %q: want grpc://HOST:PORT, grpcs://HOST:PORT or file:PATH", s)
	}
	if u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return Target{}, fmt.Errorf("xDS target %q: has more than a host and a port", s)
	}
	if u.Hostname() == "" {
		return Target{}, fmt.Errorf("xDS target %q: has no host", s)
	}
	if port, err := strconv.ParseUint(u.Port(), 10, 16); err != nil || port == 0 {
		return Target{}, fmt.Errorf("xDS target %q: has no port between 1 and 65535 (istiod: 15010 plaintext, 15012 TLS)", s)
	}
	return Target{Scheme: u.Scheme, Address: net.JoinHostPort(u.Hostname(), u.Port())}, nil
}

// TLSConfig configures NewTLSCredentials.
type TLSConfig struct {
	// RootFile holds the certificates to verify istiod with, as PEM; required. It is read for
	// every connection, for istiod's root may be replaced.
	RootFile string
	// ServerName is the name that istiod's certificate must have; default: the host connected to.
	ServerName string
	// GetClientCertificate returns the workload certificate; default: none is sent.
	GetClientCertificate func(*tls.CertificateRequestInfo) (*tls.Certificate, error)
}

// NewTLSCredentials returns credentials that verify istiod. Errors, which name the file, come with
// the connection that they break.
func NewTLSCredentials(config TLSConfig) credentials.TransportCredentials {
	return &tlsCredentials{
		TransportCredentials: credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12, ServerName: config.ServerName}),
		config:               config,
	}
}

// tlsCredentials makes the TLS configuration afresh for every handshake.
type tlsCredentials struct {
	credentials.TransportCredentials // what does not depend on files
	config                           TLSConfig
}

// ClientHandshake implements credentials.TransportCredentials.
func (c *tlsCredentials) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	pem, err := os.ReadFile(c.config.RootFile)
	if err != nil {
		return nil, nil, fmt.Errorf("root certificates: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, nil, fmt.Errorf("root certificates: %s holds no PEM certificate", c.config.RootFile)
	}
	return credentials.NewTLS(&tls.Config{
		MinVersion:           tls.VersionTLS12,
		RootCAs:              roots,
		ServerName:           c.config.ServerName,
		GetClientCertificate: c.config.GetClientCertificate,
	}).ClientHandshake(ctx, authority, conn)
}

// Clone implements credentials.TransportCredentials.
func (c *tlsCredentials) Clone() credentials.TransportCredentials {
	return NewTLSCredentials(c.config)
}

// NewTokenCredentials returns credentials that send the bearer token in the file, as Kubernetes
// projects it for a service account. The file is read for every RPC, for tokens expire. They are
// refused on plaintext connections.
func NewTokenCredentials(file string) credentials.PerRPCCredentials {
	return tokenCredentials{file}
}

type tokenCredentials struct{ file string }

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (c tokenCredentials) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	token, err := os.ReadFile(c.file)
	if err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	token = bytes.TrimSpace(token)
	if len(token) == 0 {
		return nil, fmt.Errorf("token: %w", &os.PathError{Op: "read", Path: c.file, Err: errors.New("file is empty")})
	}
	return map[string]string{"authorization": "Bearer " + string(token)}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (c tokenCredentials) RequireTransportSecurity() bool { return true }
