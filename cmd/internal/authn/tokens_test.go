package authn

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// signer has the private half of a key.
type signer struct {
	algorithm jose.SignatureAlgorithm
	private   any
	id        string
}

// newSigners returns a signer for each family of algorithms.
func newSigners(tb testing.TB) map[string]signer {
	tb.Helper()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		tb.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return map[string]signer{
		"rsa": {jose.RS256, rsaKey, "rsa-1"}, "pss": {jose.PS384, rsaKey, "pss-1"}, "ec": {jose.ES256, ecKey, "ec-1"},
		"ed": {jose.EdDSA, edKey, "ed-1"}, "hmac": {jose.HS256, []byte("0123456789abcdef0123456789abcdef"), "hmac-1"},
	}
}

// jwks returns the public halves.
func jwks(tb testing.TB, signers ...signer) string {
	tb.Helper()
	set := jose.JSONWebKeySet{}
	for _, s := range signers {
		key := jose.JSONWebKey{Key: s.private, KeyID: s.id, Algorithm: string(s.algorithm)}
		if _, symmetric := s.private.([]byte); !symmetric {
			key = key.Public()
		}
		set.Keys = append(set.Keys, key)
	}
	out, err := json.Marshal(set)
	if err != nil {
		tb.Fatal(err)
	}
	return string(out)
}

// sign returns a token with the claims.
func (s signer) sign(tb testing.TB, claims map[string]any) string {
	tb.Helper()
	options := (&jose.SignerOptions{}).WithType("JWT")
	if s.id != "" {
		options = options.WithHeader("kid", s.id)
	}
	by, err := jose.NewSigner(jose.SigningKey{Algorithm: s.algorithm, Key: s.private}, options)
	if err != nil {
		tb.Fatal(err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		tb.Fatal(err)
	}
	signed, err := by.Sign(payload)
	if err != nil {
		tb.Fatal(err)
	}
	out, err := signed.CompactSerialize()
	if err != nil {
		tb.Fatal(err)
	}
	return out
}
