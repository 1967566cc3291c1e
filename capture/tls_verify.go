package capture

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"meshbridge/translate"
)

// verifier decides whether the certificate of a peer will do. crypto/tls cannot: the certificates of
// the mesh have no DNS names, and the authorities change while connections are made. It is asked about
// resumed sessions, too, whose certificates are those of the first handshake. It is immutable.
type verifier struct {
	// authorities issue the certificates; nil does not verify the chain.
	authorities authoritySource
	usage       x509.ExtKeyUsage
	// mesh wants exactly one URI, which is a SPIFFE ID: an X.509-SVID.
	mesh bool
	// trustDomain is our own, for messages.
	trustDomain func() string
	sans        []translate.SANMatch
	pins        pins
	revoked     revocationLists
}

// verify checks the certificates that a peer has shown, its own first. host is the name that the
// certificate must have, besides; empty for any. The error is a *refusal.
func (v *verifier) verify(shown []*x509.Certificate, host string) error {
	if len(shown) == 0 {
		return refuse(tlsNoCertificate, "the peer has shown no certificate")
	}
	leaf := shown[0]
	if err := v.verifyChain(shown); err != nil {
		return err
	}
	if err := v.pins.verify(leaf); err != nil {
		return err
	}
	if v.mesh {
		if err := verifySPIFFE(leaf); err != nil {
			return err
		}
	}
	if host != "" && !matchesHost(leaf, host) {
		return refuse(tlsName, "the certificate of %s is not for host %q", describe(leaf), host)
	}
	if len(v.sans) > 0 && !slices.ContainsFunc(v.sans, func(m translate.SANMatch) bool { return matches(leaf, m) }) {
		return v.unexpected(leaf)
	}
	return nil
}

func (v *verifier) verifyChain(shown []*x509.Certificate) error {
	if v.authorities == nil {
		return nil
	}
	roots, err := v.authorities()
	if err != nil {
		return err
	}
	intermediates := x509.NewCertPool()
	for _, c := range shown[1:] {
		intermediates.AddCert(c)
	}
	now := time.Now()
	chains, err := shown[0].Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: intermediates,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{v.usage},
	})
	if err != nil {
		return refuse(reasonOfChain(err, shown[0], now), "the certificate of %s: %w", describe(shown[0]), err)
	}
	return v.revoked.verify(chains, now)
}

func verifySPIFFE(leaf *x509.Certificate) error {
	if len(leaf.URIs) != 1 {
		return refuse(tlsNotSPIFFE, "the certificate of %s has %d URIs: a workload has one, its SPIFFE ID",
			describe(leaf), len(leaf.URIs))
	}
	if _, err := trustDomainOf(leaf.URIs[0].String()); err != nil {
		return refuse(tlsNotSPIFFE, "the certificate's URI %q is no SPIFFE ID: %w", leaf.URIs[0].String(), err)
	}
	return nil
}

// unexpected is the refusal of a certificate whose names match nothing.
func (v *verifier) unexpected(leaf *x509.Certificate) error {
	var texts []string
	for _, m := range v.sans {
		texts = append(texts, m.Text)
	}
	wanted := strings.Join(texts, " or ")
	if v.mesh {
		domain, _ := trustDomainOf(leaf.URIs[0].String())
		if domain != v.trustDomain() {
			return refuse(tlsTrustDomain, "trust domain %q of %s is not ours; wanted is %s", domain, describe(leaf), wanted)
		}
	}
	return refuse(tlsName, "the certificate of %s has none of the expected names; wanted is %s", describe(leaf), wanted)
}

// matches tells whether one of the certificate's names is what m wants.
func matches(leaf *x509.Certificate, m translate.SANMatch) bool {
	is := func(kind translate.SANKind) bool { return m.Kind == translate.SANAny || m.Kind == kind }
	if is(translate.SANDNS) && slices.ContainsFunc(leaf.DNSNames, func(name string) bool {
		return m.Match(name) || m.Exact != "" && agrees(name, m.Exact)
	}) {
		return true
	}
	if is(translate.SANEmail) && slices.ContainsFunc(leaf.EmailAddresses, m.Match) {
		return true
	}
	if is(translate.SANURI) {
		for _, uri := range leaf.URIs {
			if m.Match(uri.String()) {
				return true
			}
		}
	}
	if is(translate.SANIP) {
		for _, ip := range leaf.IPAddresses {
			if m.Match(ip.String()) {
				return true
			}
		}
	}
	return false
}

// matchesHost tells whether the certificate is for a host, which may be an address.
func matchesHost(leaf *x509.Certificate, host string) bool {
	if address, err := netip.ParseAddr(host); err == nil {
		for _, ip := range leaf.IPAddresses {
			if a, ok := netip.AddrFromSlice(ip); ok && a.Unmap() == address.Unmap() {
				return true
			}
		}
		return false
	}
	return slices.ContainsFunc(leaf.DNSNames, func(name string) bool { return agrees(name, host) })
}

// describe names a certificate for messages.
func describe(leaf *x509.Certificate) string {
	switch {
	case len(leaf.URIs) > 0:
		return fmt.Sprintf("%q", leaf.URIs[0].String())
	case len(leaf.DNSNames) > 0:
		return fmt.Sprintf("%q", leaf.DNSNames[0])
	default:
		return fmt.Sprintf("%q", subject(leaf))
	}
}

// pins are the hashes of public keys and of certificates of which one must be a certificate's.
type pins struct{ keys, certificates [][]byte }

// newPins reads base64 of SHA-256 of public keys and hex of SHA-256 of certificates, whose bytes may
// have colons between them. What is no hash matches nothing.
func newPins(keys, certificates []string) pins {
	var p pins
	for _, text := range keys {
		sum, _ := base64.StdEncoding.DecodeString(text)
		p.keys = append(p.keys, sum)
	}
	for _, text := range certificates {
		sum, _ := hex.DecodeString(strings.ReplaceAll(text, ":", ""))
		p.certificates = append(p.certificates, sum)
	}
	return p
}

func (p pins) any() bool { return len(p.keys)+len(p.certificates) > 0 }

// verify accepts a certificate with either of them (Envoy's verify_certificate_spki and _hash).
func (p pins) verify(leaf *x509.Certificate) error {
	if !p.any() {
		return nil
	}
	key, certificate := sha256.Sum256(leaf.RawSubjectPublicKeyInfo), sha256.Sum256(leaf.Raw)
	is := func(sum []byte) func([]byte) bool {
		return func(pin []byte) bool { return bytes.Equal(pin, sum) }
	}
	if slices.ContainsFunc(p.keys, is(key[:])) || slices.ContainsFunc(p.certificates, is(certificate[:])) {
		return nil
	}
	return refuse(tlsPin, "the certificate of %s is not one of those that are pinned", describe(leaf))
}

// revocationLists are the CRLs of authorities.
type revocationLists struct {
	lists []*x509.RevocationList
	err   error // why they could not be read: nothing is accepted then
}

func newRevocationLists(text []byte) revocationLists {
	var r revocationLists
	for len(bytes.TrimSpace(text)) > 0 {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return revocationLists{err: errors.New("certificate revocation list: not PEM")}
		}
		list, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return revocationLists{err: fmt.Errorf("certificate revocation list: %w", err)}
		}
		r.lists = append(r.lists, list)
	}
	return r
}

// verify accepts what has a chain without revoked certificates. As in Envoy, every authority of the
// chain must have a list that is valid now.
func (r revocationLists) verify(chains [][]*x509.Certificate, now time.Time) error {
	if r.err != nil {
		return refuse(tlsRevocationList, "%w", r.err)
	}
	if len(r.lists) == 0 {
		return nil
	}
	var first error
	for _, chain := range chains {
		err := r.verifyChain(chain, now)
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	return first
}

func (r revocationLists) verifyChain(chain []*x509.Certificate, now time.Time) error {
	for i, c := range chain[:len(chain)-1] {
		list, err := r.of(chain[i+1], now)
		if err != nil {
			return refuse(tlsRevocationList, "whether the certificate of %s is revoked: %w", describe(c), err)
		}
		for _, entry := range list.RevokedCertificateEntries {
			if entry.SerialNumber.Cmp(c.SerialNumber) == 0 {
				return refuse(tlsRevoked, "the certificate of %s is revoked", describe(c))
			}
		}
	}
	return nil
}

// of returns the valid list of an authority.
func (r revocationLists) of(authority *x509.Certificate, now time.Time) (*x509.RevocationList, error) {
	err := errors.New("its authority has no certificate revocation list")
	for _, list := range r.lists {
		if !bytes.Equal(list.RawIssuer, authority.RawSubject) || list.CheckSignatureFrom(authority) != nil {
			continue
		}
		if now.Before(list.ThisUpdate) || !list.NextUpdate.IsZero() && now.After(list.NextUpdate) {
			err = fmt.Errorf("the list of its authority is valid from %s to %s",
				list.ThisUpdate.Format(time.RFC3339), list.NextUpdate.Format(time.RFC3339))
			continue
		}
		return list, nil
	}
	return nil, err
}

// versions returns the bounds of the protocol version; the mesh has never had one below 1.2.
func versions(lowest, highest uint16, mesh bool) (uint16, uint16) {
	if lowest == 0 || mesh {
		lowest = max(lowest, tls.VersionTLS12)
	}
	return lowest, highest
}
