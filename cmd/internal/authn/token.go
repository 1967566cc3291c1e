package authn

import (
	"encoding/base64"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"google.golang.org/protobuf/types/known/structpb"
)

// token is a JWT that has been parsed, and not verified.
type token struct {
	text               string
	header, payload    *structpb.Struct
	encodedPayload     string
	signature          []byte
	algorithm, keyID   string
	issuer, subject    string
	audiences          []string
	notBefore, expires uint64 // seconds since the epoch
	hasExpiration      bool
}

// algorithms are those that Envoy verifies.
func algorithms() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{
		jose.ES256, jose.ES384, jose.ES512, jose.HS256, jose.HS384, jose.HS512,
		jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.EdDSA,
	}
}

// parseToken reads a token in the order in which Envoy finds faults.
func parseToken(text string) (*token, status) {
	parts := strings.Split(text, ".")
	if len(parts) != 3 || slices.Contains(parts, "") {
		return nil, statusBadFormat
	}
	t := &token{text: text, encodedPayload: parts[1]}
	if st := t.parseHeader(parts[0]); st != statusOK {
		return nil, st
	}
	if st := t.parsePayload(parts[1]); st != statusOK {
		return nil, st
	}
	var ok bool
	if t.signature, ok = decodeBase64(parts[2]); !ok {
		return nil, statusSignatureBase64
	}
	return t, statusOK
}

func (t *token) parseHeader(encoded string) status {
	raw, ok := decodeBase64(encoded)
	if !ok {
		return statusHeaderBase64
	}
	t.header = new(structpb.Struct)
	if t.header.UnmarshalJSON(raw) != nil {
		return statusHeaderJSON
	}
	if t.algorithm, ok = text(t.header, "alg"); !ok || t.header.GetFields()["alg"] == nil {
		return statusHeaderAlgorithm
	}
	if !slices.Contains(algorithms(), jose.SignatureAlgorithm(t.algorithm)) {
		return statusAlgorithmUnknown
	}
	if t.keyID, ok = text(t.header, "kid"); !ok {
		return statusHeaderKeyID
	}
	return statusOK
}

func (t *token) parsePayload(encoded string) status {
	raw, ok := decodeBase64(encoded)
	if !ok {
		return statusPayloadBase64
	}
	t.payload = new(structpb.Struct)
	if t.payload.UnmarshalJSON(raw) != nil {
		return statusPayloadJSON
	}
	if t.issuer, ok = text(t.payload, "iss"); !ok {
		return notString("iss")
	}
	if t.subject, ok = text(t.payload, "sub"); !ok {
		return notString("sub")
	}
	var issued uint64
	for _, claim := range []struct {
		name string
		into *uint64
	}{{"iat", &issued}, {"nbf", &t.notBefore}, {"exp", &t.expires}} {
		if st := seconds(t.payload, claim.name, claim.into); st != statusOK {
			return st
		}
	}
	t.hasExpiration = t.payload.GetFields()["exp"] != nil
	if _, ok := text(t.payload, "jti"); !ok {
		return notString("jti")
	}
	if t.audiences, ok = texts(t.payload.GetFields()["aud"]); !ok {
		return statusPayloadAudiences
	}
	return statusOK
}

// checkTime tells whether the token is valid at a time, give or take the skew.
func (t *token) checkTime(now time.Time, skew time.Duration) status {
	unix, slack := uint64(max(now.Unix(), 0)), uint64(skew/time.Second)
	switch {
	case unix+slack < t.notBefore:
		return statusNotYetValid
	case t.expires != 0 && unix > t.expires+slack && t.expires+slack >= t.expires:
		return statusExpired
	}
	return statusOK
}

// decodeBase64 decodes base64url; padding is allowed.
func decodeBase64(s string) ([]byte, bool) {
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(s, "="))
	return raw, err == nil
}

// text returns a string, empty where there is none; ok is false for anything else.
func text(s *structpb.Struct, name string) (value string, ok bool) {
	v, found := s.GetFields()[name]
	if !found {
		return "", true
	}
	kind, ok := v.GetKind().(*structpb.Value_StringValue)
	if !ok {
		return "", false
	}
	return kind.StringValue, true
}

// texts returns a list of strings, which one alone may stand for.
func texts(v *structpb.Value) (list []string, ok bool) {
	switch kind := v.GetKind().(type) {
	case nil:
		return nil, true
	case *structpb.Value_StringValue:
		return []string{kind.StringValue}, true
	case *structpb.Value_ListValue:
		for _, element := range kind.ListValue.GetValues() {
			s, isString := element.GetKind().(*structpb.Value_StringValue)
			if !isString {
				return nil, false
			}
			list = append(list, s.StringValue)
		}
		return list, true
	}
	return nil, false
}

func seconds(s *structpb.Struct, name string, into *uint64) status {
	v, found := s.GetFields()[name]
	if !found {
		return statusOK
	}
	kind, ok := v.GetKind().(*structpb.Value_NumberValue)
	switch {
	case !ok:
		return notInteger(name)
	case kind.NumberValue < 0 || kind.NumberValue >= math.MaxUint64:
		return outOfRange(name)
	}
	*into = uint64(kind.NumberValue)
	return statusOK
}
