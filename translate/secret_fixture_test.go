package translate

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"meshbridge/translate/apisix"
	"meshbridge/xds"
)

// authority signs certificates for a test.
type authority struct {
	leaf *x509.Certificate
	key  crypto.Signer
}

func newAuthority(tb testing.TB) *authority {
	tb.Helper()
	a := &authority{key: newKey(tb)}
	a.leaf = a.issue(tb, &x509.Certificate{
		Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, a.key)
	return a
}

func newKey(tb testing.TB) crypto.Signer {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func newRSAKey(tb testing.TB) crypto.Signer {
	tb.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func (a *authority) issue(tb testing.TB, template *x509.Certificate, key crypto.Signer) *x509.Certificate {
	tb.Helper()
	template.SerialNumber = big.NewInt(1)
	template.NotBefore, template.NotAfter = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2046, 1, 1, 0, 0, 0, 0, time.UTC)
	parent := a.leaf
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), a.key)
	if err != nil {
		tb.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// certificate returns a secret with a certificate for the hosts.
func (a *authority) certificate(tb testing.TB, name string, key crypto.Signer, hosts ...string) *xds.Resource {
	tb.Helper()
	leaf := a.issue(tb, &x509.Certificate{Subject: pkix.Name{CommonName: name}, DNSNames: hosts}, key)
	return newResource(tb, name, &tlspb.Secret{Name: name, Type: &tlspb.Secret_TlsCertificate{TlsCertificate: &tlspb.TlsCertificate{
		CertificateChain: inlinePEM("CERTIFICATE", leaf.Raw), PrivateKey: inlinePEM("PRIVATE KEY", encodeKey(tb, key)),
	}}})
}

// authorities returns a secret with the authority's own certificate.
func (a *authority) authorities(tb testing.TB, name string) *xds.Resource {
	tb.Helper()
	return newResource(tb, name, &tlspb.Secret{Name: name, Type: &tlspb.Secret_ValidationContext{
		ValidationContext: &tlspb.CertificateValidationContext{TrustedCa: inlinePEM("CERTIFICATE", a.leaf.Raw)},
	}})
}

func encodeKey(tb testing.TB, key crypto.Signer) []byte {
	tb.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	return der
}

func inlinePEM(kind string, der []byte) *corepb.DataSource {
	return inlineBytes(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func inlineBytes(text []byte) *corepb.DataSource {
	return &corepb.DataSource{Specifier: &corepb.DataSource_InlineBytes{InlineBytes: text}}
}

// describeCertificates replaces certificates by what they are for.
func describeCertificates(tb testing.TB, s *apisix.SSL) {
	tb.Helper()
	s.Cert = describeCertificate(tb, s.Cert)
	for i, chain := range s.Certs {
		s.Certs[i] = describeCertificate(tb, chain)
	}
	if s.Client != nil {
		s.Client.CA = describeCertificate(tb, s.Client.CA)
	}
}

func describeCertificate(tb testing.TB, chain string) string {
	tb.Helper()
	leaf, err := firstCertificate(chain)
	if err != nil {
		tb.Fatal(err)
	}
	return strings.TrimSpace(leaf.Subject.CommonName + " " + strings.Join(leaf.DNSNames, " "))
}
