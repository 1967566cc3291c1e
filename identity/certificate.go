package identity

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// assemble makes an identity of a certificate chain, the leaf first, its key, and the authorities of
// peers, after checking that they fit together. Its errors hold nothing of the key.
func assemble(chain []*x509.Certificate, key crypto.PrivateKey, authorities []*x509.Certificate, now time.Time) (*Identity, error) {
	if len(chain) == 0 {
		return nil, errors.New("there is no certificate")
	}
	if len(authorities) == 0 {
		return nil, errors.New("there are no certificates of authorities")
	}
	leaf := chain[0]
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("the key cannot sign")
	}
	public, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(signer.Public()) {
		return nil, errors.New("the key is not that of the certificate")
	}
	if leaf.IsCA {
		return nil, errors.New("the certificate is an authority's, not a workload's")
	}
	id, err := spiffeID(leaf)
	if err != nil {
		return nil, err
	}
	// The monotonic reading of now is of no use here: certificates are about the wall clock.
	switch now := now.Round(0); {
	case now.Before(leaf.NotBefore):
		return nil, fmt.Errorf("the certificate is valid from %s on, which is not yet: are the clocks right?",
			leaf.NotBefore.Format(time.RFC3339))
	case now.After(leaf.NotAfter):
		return nil, fmt.Errorf("the certificate expired at %s", leaf.NotAfter.Format(time.RFC3339))
	}

	certificate := &tls.Certificate{PrivateKey: key, Leaf: leaf}
	for i, c := range chain {
		// Peers have the root already.
		if i == 0 || !bytes.Equal(c.RawIssuer, c.RawSubject) {
			certificate.Certificate = append(certificate.Certificate, c.Raw)
		}
	}
	pool := x509.NewCertPool()
	var text []byte
	for _, c := range authorities {
		pool.AddCert(c)
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return &Identity{
		ID:             id,
		Certificate:    certificate,
		Authorities:    pool,
		AuthoritiesPEM: text,
		NotBefore:      leaf.NotBefore,
		NotAfter:       leaf.NotAfter,
	}, nil
}

// verifyChain tells whether the certificate comes from the roots.
func verifyChain(chain, roots []*x509.Certificate, now time.Time) error {
	options := x509.VerifyOptions{
		Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}
	for _, c := range roots {
		options.Roots.AddCert(c)
	}
	for _, c := range chain[1:] {
		options.Intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(options)
	return err
}

// parseCertificates reads all certificates of a PEM text, without duplicates. What is there but no
// certificate is an error: half of a file must not count.
func parseCertificates(text []byte) ([]*x509.Certificate, error) {
	var list []*x509.Certificate
	// pem.Decode passes over blocks that it cannot read.
	begun, read := bytes.Count(text, []byte("-----BEGIN ")), 0
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		read++
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(list)+1, err)
		}
		list = appendNew(list, c)
	}
	if read < begun {
		return nil, errors.New("has a PEM block that is damaged or cut off")
	}
	if len(list) == 0 {
		return nil, errors.New("holds no certificate in PEM")
	}
	return list, nil
}

func appendNew(list []*x509.Certificate, more ...*x509.Certificate) []*x509.Certificate {
	for _, c := range more {
		if !contains(list, c) {
			list = append(list, c)
		}
	}
	return list
}

func contains(list []*x509.Certificate, c *x509.Certificate) bool {
	for _, other := range list {
		if other.Equal(c) {
			return true
		}
	}
	return false
}

// parseKey reads the private key of a PEM text: PKCS #8, PKCS #1 or SEC 1. Its errors hold nothing
// of the text: those of the decoders may.
func parseKey(text []byte) (crypto.PrivateKey, error) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return nil, errors.New("holds no private key in PEM")
		}
		if block.Type != "PRIVATE KEY" && block.Type != "RSA PRIVATE KEY" && block.Type != "EC PRIVATE KEY" {
			continue // the parameters of an elliptic curve may come first
		}
		if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			return key, nil
		}
		if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
			return key, nil
		}
		if key, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
			return key, nil
		}
		return nil, errors.New("holds a private key that cannot be read")
	}
}

// join makes an identity of PEM texts.
func join(chain, key, authorities []byte, now time.Time) (*Identity, error) {
	certificates, err := parseCertificates(chain)
	if err != nil {
		return nil, fmt.Errorf("certificate chain: %w", err)
	}
	private, err := parseKey(key)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	roots, err := parseCertificates(authorities)
	if err != nil {
		return nil, fmt.Errorf("authorities: %w", err)
	}
	return assemble(certificates, private, roots, now)
}
