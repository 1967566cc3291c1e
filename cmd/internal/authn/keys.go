package authn

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/json"
	"hash"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// keySet is a JWKS: those of its keys that can be used. Envoy leaves the others out, too.
type keySet []key

type key struct {
	id, algorithm string
	// family is how the names of the key's algorithms begin.
	families []string
	public   any // or secret
}

// parseKeys reads a JWKS. It never fails: a token for which there is no key is refused.
func parseKeys(jwks []byte) keySet {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if json.Unmarshal(jwks, &set) != nil {
		return nil
	}
	var out keySet
	for _, raw := range set.Keys {
		var k jose.JSONWebKey
		if k.UnmarshalJSON(raw) != nil {
			continue
		}
		families := familiesOf(k.Key)
		fits := slices.ContainsFunc(families, func(f string) bool { return strings.HasPrefix(k.Algorithm, f) })
		if len(families) > 0 && (k.Algorithm == "" || fits) {
			out = append(out, key{k.KeyID, k.Algorithm, families, k.Key})
		}
	}
	return out
}

func familiesOf(public any) []string {
	switch public := public.(type) {
	case *rsa.PublicKey:
		if public.E == 3 || public.E == 65537 {
			return []string{"RS", "PS"}
		}
	case *ecdsa.PublicKey:
		return []string{"ES"}
	case ed25519.PublicKey:
		return []string{"EdDSA"}
	case []byte:
		if len(public) > 0 {
			return []string{"HS"}
		}
	}
	return nil
}

// verify looks for a key that has signed the token.
func (s keySet) verify(t *token) status {
	if len(s) == 0 {
		return statusNoValidKeys
	}
	matched := false
	for _, k := range s {
		if t.keyID != "" && k.id != "" && t.keyID != k.id || k.algorithm != "" && k.algorithm != t.algorithm {
			continue
		}
		matched = true
		if !slices.ContainsFunc(k.families, func(f string) bool { return strings.HasPrefix(t.algorithm, f) }) {
			continue
		}
		if secret, symmetric := k.public.([]byte); symmetric {
			if t.hasCode(secret) {
				return statusOK
			}
			continue
		}
		if t.algorithm == string(jose.EdDSA) && len(t.signature) != ed25519.SignatureSize {
			return statusEd25519Length
		}
		signed, err := jose.ParseSignedCompact(t.text, algorithms())
		if err != nil {
			return statusVerificationFails // extensions in the header that must be understood
		}
		if _, err := signed.Verify(k.public); err == nil {
			return statusOK
		}
	}
	if !matched {
		return statusNoMatchingKey
	}
	return statusVerificationFails
}

// hasCode tells whether the signature is the authentication code that a secret gives. Envoy takes secrets
// of any length; go-jose those alone that RFC 7518 allows.
func (t *token) hasCode(secret []byte) bool {
	hashes := map[string]func() hash.Hash{string(jose.HS256): sha256.New, string(jose.HS384): sha512.New384, string(jose.HS512): sha512.New}
	code := hmac.New(hashes[t.algorithm], secret)
	code.Write([]byte(t.text[:strings.LastIndexByte(t.text, '.')]))
	return hmac.Equal(code.Sum(nil), t.signature)
}
