// Package identity keeps the workload's certificate and the authorities of the mesh up to date: from
// istiod, from an SDS socket or from files. Keys stay in memory.
package identity

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"slices"
	"time"
)

// Identity is a certificate with its key, and the authorities that issue those of peers. It is
// immutable.
type Identity struct {
	// ID is the SPIFFE ID, such as "spiffe://cluster.local/ns/default/sa/reviews".
	ID string
	// Certificate has the chain, the key and the parsed leaf.
	Certificate *tls.Certificate
	// Authorities issue the certificates of peers. AuthoritiesPEM is the same for display.
	Authorities    *x509.CertPool
	AuthoritiesPEM []byte
	// NotBefore and NotAfter are when the certificate is valid.
	NotBefore, NotAfter time.Time
}

// same tells whether the other identity has the same certificates.
func (i *Identity) same(other *Identity) bool {
	return slices.EqualFunc(i.Certificate.Certificate, other.Certificate.Certificate, bytes.Equal) &&
		bytes.Equal(i.AuthoritiesPEM, other.AuthoritiesPEM)
}

// Source keeps an identity up to date. Its methods are safe for concurrent use.
type Source interface {
	// Run obtains and renews the identity until ctx ends, and returns nil then. Failures are
	// logged, counted and tried again: the last identity stays current. It is called once.
	Run(ctx context.Context) error
	// Current returns the identity, or nil before there is one.
	Current() *Identity
	// Changed returns a channel that is closed when Current changes next.
	Changed() <-chan struct{}
}

// ClientCertificate returns the source's present certificate in the form that tls.Config and
// xds.TLSConfig want for GetClientCertificate, so that the workload can show it to istiod instead of
// a token. It fails before there is one.
func ClientCertificate(source Source) func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		current := source.Current()
		if current == nil {
			return nil, errNone
		}
		return current.Certificate, nil
	}
}
