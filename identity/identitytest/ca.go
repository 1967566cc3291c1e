// Package identitytest has what tests of mutual TLS need: a certificate authority that issues SPIFFE
// certificates, and an identity.Source that a test rotates.
package identitytest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"testing"
	"time"

	"meshbridge/identity"
)

// CA issues certificates.
type CA struct {
	// Certificate is the authority's own. Chain are the certificates between it and the root,
	// itself first; it is empty for a root.
	Certificate *x509.Certificate
	Chain       [][]byte
	root        *x509.Certificate
	key         crypto.Signer
}

// Leaf says what a certificate is like; zero fields have the defaults of a workload certificate.
type Leaf struct {
	// URIs, DNSNames, IPs and Emails are its subject alternative names.
	URIs, DNSNames, Emails []string
	IPs                    []net.IP
	// Subject is empty in Istio's certificates.
	Subject pkix.Name
	// NotBefore is one minute ago by default, NotAfter in one hour.
	NotBefore, NotAfter time.Time
	// Usages are those of servers and of clients by default.
	Usages []x509.ExtKeyUsage
}

// NewCA returns a new root authority of that common name.
func NewCA(tb testing.TB, name string) *CA {
	tb.Helper()
	ca := &CA{key: newKey(tb)}
	ca.Certificate = ca.sign(tb, authority(tb, name), ca.key.Public())
	ca.root = ca.Certificate
	return ca
}

// Intermediate returns a new authority below this one.
func (ca *CA) Intermediate(tb testing.TB, name string) *CA {
	tb.Helper()
	below := &CA{key: newKey(tb), root: ca.root}
	below.Certificate = ca.sign(tb, authority(tb, name), below.key.Public())
	below.Chain = append([][]byte{below.Certificate.Raw}, ca.Chain...)
	return below
}

// Key returns the authority's key.
func (ca *CA) Key() crypto.Signer { return ca.key }

// RootPEM returns the certificate of the root.
func (ca *CA) RootPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.root.Raw})
}

// Pool returns the root as a set of authorities.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.root)
	return pool
}

// Issue returns a certificate with a new key.
func (ca *CA) Issue(tb testing.TB, leaf Leaf) *tls.Certificate {
	tb.Helper()
	key := newKey(tb)
	certificate := ca.IssueFor(tb, leaf, key.Public())
	return &tls.Certificate{
		Certificate: append([][]byte{certificate.Raw}, ca.Chain...),
		PrivateKey:  key,
		Leaf:        certificate,
	}
}

// IssueFor returns a certificate for a key, such as that of a certificate signing request.
func (ca *CA) IssueFor(tb testing.TB, leaf Leaf, public crypto.PublicKey) *x509.Certificate {
	tb.Helper()
	template := &x509.Certificate{
		SerialNumber:   newSerial(tb),
		Subject:        leaf.Subject,
		NotBefore:      leaf.NotBefore,
		NotAfter:       leaf.NotAfter,
		KeyUsage:       x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage:    leaf.Usages,
		DNSNames:       leaf.DNSNames,
		EmailAddresses: leaf.Emails,
		IPAddresses:    leaf.IPs,
		URIs:           parse(tb, leaf.URIs),
	}
	if template.NotBefore.IsZero() {
		template.NotBefore = time.Now().Add(-time.Minute)
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(time.Hour)
	}
	if template.ExtKeyUsage == nil {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	return ca.sign(tb, template, public)
}

// Identity returns a workload's identity with a new certificate, whose peers are those of the
// authority and of the others.
func (ca *CA) Identity(tb testing.TB, id string, others ...*CA) *identity.Identity {
	tb.Helper()
	certificate := ca.Issue(tb, Leaf{URIs: []string{id}})
	pool, text := ca.Pool(), ca.RootPEM()
	for _, other := range others {
		pool.AddCert(other.root)
		text = append(text, other.RootPEM()...)
	}
	return &identity.Identity{
		ID:             id,
		Certificate:    certificate,
		Authorities:    pool,
		AuthoritiesPEM: text,
		NotBefore:      certificate.Leaf.NotBefore,
		NotAfter:       certificate.Leaf.NotAfter,
	}
}

// RevocationList returns the PEM of a list that revokes the certificates.
func (ca *CA) RevocationList(tb testing.TB, revoked ...*x509.Certificate) []byte {
	tb.Helper()
	list := &x509.RevocationList{
		Number:     newSerial(tb),
		ThisUpdate: time.Now().Add(-time.Minute),
		NextUpdate: time.Now().Add(time.Hour),
	}
	for _, certificate := range revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber:   certificate.SerialNumber,
			RevocationTime: time.Now().Add(-time.Minute),
		})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, ca.Certificate, ca.key)
	if err != nil {
		tb.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

// PEM returns a certificate's chain and its key as files have them.
func PEM(tb testing.TB, certificate *tls.Certificate) (chain, key []byte) {
	tb.Helper()
	for _, der := range certificate.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	der, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
	if err != nil {
		tb.Fatal(err)
	}
	return chain, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func (ca *CA) sign(tb testing.TB, template *x509.Certificate, public crypto.PublicKey) *x509.Certificate {
	tb.Helper()
	parent := ca.Certificate
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, ca.key)
	if err != nil {
		tb.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return certificate
}

func authority(tb testing.TB, name string) *x509.Certificate {
	tb.Helper()
	return &x509.Certificate{
		SerialNumber:          newSerial(tb),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

func newKey(tb testing.TB) crypto.Signer {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func newSerial(tb testing.TB) *big.Int {
	tb.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		tb.Fatal(err)
	}
	return serial
}

func parse(tb testing.TB, texts []string) []*url.URL {
	tb.Helper()
	var uris []*url.URL
	for _, text := range texts {
		uri, err := url.Parse(text)
		if err != nil {
			tb.Fatal(err)
		}
		uris = append(uris, uri)
	}
	return uris
}
