package envoytest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"maps"
	"math/big"
	"slices"
	"strings"

	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/protobuf/types/known/structpb"
)

// jwtToken is a token in its parts.
type jwtToken struct {
	parts           []string
	header, payload *structpb.Struct
	signature       []byte
}

// parseJWT returns what Envoy finds wrong with the form of a token.
func parseJWT(text string) (t *jwtToken, failure string) {
	t = &jwtToken{parts: strings.Split(text, "."), header: &structpb.Struct{}, payload: &structpb.Struct{}}
	if len(t.parts) != 3 || t.parts[0] == "" || t.parts[1] == "" || t.parts[2] == "" {
		return nil, "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"
	}
	header, err := base64.RawURLEncoding.DecodeString(t.parts[0])
	if err != nil {
		return nil, "Jwt header is an invalid Base64url encoded"
	}
	if t.header.UnmarshalJSON(header) != nil {
		return nil, "Jwt header is an invalid JSON"
	}
	if jwt.GetSigningMethod(t.header.GetFields()["alg"].GetStringValue()) == nil {
		return nil, "Jwt header [alg] is not supported"
	}
	payload, err := base64.RawURLEncoding.DecodeString(t.parts[1])
	if err != nil {
		return nil, "Jwt payload is an invalid Base64url encoded"
	}
	if t.payload.UnmarshalJSON(payload) != nil {
		return nil, "Jwt payload is an invalid JSON"
	}
	if t.signature, err = base64.RawURLEncoding.DecodeString(t.parts[2]); err != nil {
		return nil, "Jwt signature is an invalid Base64url encoded"
	}
	return t, ""
}

func (t *jwtToken) issuer() string { return t.payload.GetFields()["iss"].GetStringValue() }

func (t *jwtToken) number(claim string) float64 { return t.payload.GetFields()[claim].GetNumberValue() }

func (t *jwtToken) audiences() []string {
	aud := t.payload.GetFields()["aud"]
	if aud.GetListValue() == nil {
		return []string{aud.GetStringValue()}
	}
	var out []string
	for _, v := range aud.GetListValue().GetValues() {
		out = append(out, v.GetStringValue())
	}
	return out
}

// normalized is the payload with lists for claims that separate values by spaces.
func (t *jwtToken) normalized(claims []string) *structpb.Struct {
	out := &structpb.Struct{Fields: maps.Clone(t.payload.GetFields())}
	for _, name := range claims {
		text, ok := out.GetFields()[name].GetKind().(*structpb.Value_StringValue)
		if !ok {
			continue
		}
		list := &structpb.ListValue{}
		for part := range strings.SplitSeq(text.StringValue, " ") {
			if part != "" {
				list.Values = append(list.Values, structpb.NewStringValue(part))
			}
		}
		out.Fields[name] = structpb.NewListValue(list)
	}
	return out
}

// verifySignature tries the keys of a JWKS that the token may be signed with.
func (t *jwtToken) verifySignature(jwks string) (failure string) {
	var set struct {
		Keys []struct {
			ID        string `json:"kid"`
			Algorithm string `json:"alg"`
			Kind      string `json:"kty"`
			K, N, E   string
			X, Y      string
			Curve     string `json:"crv"`
		} `json:"keys"`
	}
	if json.Unmarshal([]byte(jwks), &set) != nil || len(set.Keys) == 0 {
		return "Jwks doesn't have any valid public key"
	}
	id, algorithm := t.header.GetFields()["kid"].GetStringValue(), t.header.GetFields()["alg"].GetStringValue()
	failure = "Jwks doesn't have key to match kid or alg from Jwt"
	for _, k := range set.Keys {
		if id != "" && k.ID != "" && id != k.ID || k.Algorithm != "" && k.Algorithm != algorithm {
			continue
		}
		failure = failureSignature
		var key any
		switch k.Kind {
		case "oct":
			key = jwkBytes(k.K)
		case "RSA":
			key = &rsa.PublicKey{N: new(big.Int).SetBytes(jwkBytes(k.N)), E: int(new(big.Int).SetBytes(jwkBytes(k.E)).Int64())}
		case "EC":
			curve := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}[k.Curve]
			public, err := ecdsa.ParseUncompressedPublicKey(curve, slices.Concat([]byte{4}, jwkBytes(k.X), jwkBytes(k.Y)))
			if err != nil {
				continue
			}
			key = public
		}
		if jwt.GetSigningMethod(algorithm).Verify(t.parts[0]+"."+t.parts[1], t.signature, key) == nil {
			return ""
		}
	}
	return failure
}

func jwkBytes(s string) []byte {
	raw, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return nil
	}
	return raw
}
