package authn

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	jwtpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"meshbridge/translate/stringmatch"
)

// provider is an issuer of tokens, and how they are verified.
type provider struct {
	config    *jwtpb.JwtProvider
	keys      keySet
	subjects  func(string) bool // nil for any
	audiences audiences
	skew      time.Duration
}

// defaultSkew is by how much clocks may differ where nothing is said.
const defaultSkew = 60 * time.Second

func newProvider(c *jwtpb.JwtProvider) (*provider, error) {
	p := &provider{config: c, audiences: newAudiences(c.GetAudiences()), skew: time.Duration(c.GetClockSkewSeconds()) * time.Second}
	if p.skew == 0 {
		p.skew = defaultSkew
	}
	if c.GetSubjects() != nil {
		var err error
		if p.subjects, err = stringmatch.New(c.GetSubjects()); err != nil {
			return nil, fmt.Errorf("subjects: %w", err)
		}
	}
	jwks := c.GetLocalJwks()
	if p.keys = parseKeys([]byte(jwks.GetInlineString())); jwks.GetInlineBytes() != nil {
		p.keys = parseKeys(jwks.GetInlineBytes())
	}
	return p, nil
}

// check verifies a token. allowed, where it is not nil, takes the place of the provider's audiences.
func (p *provider) check(t *token, allowed audiences, now time.Time) status {
	if st := t.checkTime(now, p.skew); st != statusOK {
		return st
	}
	if p.subjects != nil && !p.subjects(t.subject) || !p.allowsLifetime(t, now) {
		return statusVerificationFails
	}
	if allowed == nil {
		allowed = p.audiences
	}
	if !allowed.allow(t.audiences) {
		return statusAudienceNotAllowed
	}
	return p.keys.verify(t)
}

func (p *provider) allowsLifetime(t *token, now time.Time) bool {
	limit := p.config.GetMaxLifetime()
	if limit == nil {
		return t.hasExpiration || !p.config.GetRequireExpiration()
	}
	return t.hasExpiration && float64(t.expires)-float64(now.Unix()) <= limit.AsDuration().Seconds()
}

// accept is what becomes of the request when a token has been verified.
func (p *provider) accept(t *token, found foundToken, r *request, metadata *structpb.Struct) {
	if name := p.config.GetForwardPayloadHeader(); name != "" {
		payload := t.encodedPayload
		if p.config.GetPadForwardPayloadHeader() {
			payload = strings.TrimRight(payload, "=")
			if rest := len(payload) % 4; rest > 0 {
				payload += strings.Repeat(string(base64.StdPadding), 4-rest)
			}
		}
		r.headers.Add(name, payload)
	}
	for _, c := range p.config.GetClaimToHeaders() {
		if value := claimText(claimAt(t.payload, c)); value != "" {
			r.headers.Add(c.GetHeaderName(), value)
		}
	}
	if !p.config.GetForward() && found.header != "" {
		r.headers.Del(found.header)
	}
	if name := p.config.GetHeaderInMetadata(); name != "" {
		metadata.Fields[name] = structpb.NewStructValue(t.header)
	}
	if name := p.config.GetPayloadInMetadata(); name != "" {
		metadata.Fields[name] = structpb.NewStructValue(p.normalized(t.payload))
	}
}

// normalized is the payload with lists in the place of claims that separate several values by spaces.
func (p *provider) normalized(payload *structpb.Struct) *structpb.Struct {
	claims := p.config.GetNormalizePayloadInMetadata().GetSpaceDelimitedClaims()
	if len(claims) == 0 {
		return payload
	}
	out := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for name, value := range payload.GetFields() {
		if kind, ok := value.GetKind().(*structpb.Value_StringValue); ok && slices.Contains(claims, name) {
			list := &structpb.ListValue{}
			for part := range strings.FieldsFuncSeq(kind.StringValue, func(r rune) bool { return r == ' ' }) {
				list.Values = append(list.Values, structpb.NewStringValue(part))
			}
			value = structpb.NewListValue(list)
		}
		out.Fields[name] = value
	}
	return out
}

// claimAt returns the claim that is copied to a header; nil where there is none.
func claimAt(payload *structpb.Struct, c *jwtpb.JwtClaimToHeader) *structpb.Value {
	path := strings.Split(c.GetClaimName(), ".")
	if segments := c.GetClaimPath(); len(segments) > 0 {
		path = nil
		for _, s := range segments {
			path = append(path, s.GetKey())
		}
	}
	value := structpb.NewStructValue(payload)
	for _, key := range path {
		value = value.GetStructValue().GetFields()[key]
	}
	return value
}

// claimText is a claim as the value of a header; empty for what has no form there.
func claimText(v *structpb.Value) string {
	switch kind := v.GetKind().(type) {
	case *structpb.Value_StringValue:
		return kind.StringValue
	case *structpb.Value_BoolValue:
		return strconv.FormatBool(kind.BoolValue)
	case *structpb.Value_NumberValue:
		if n := kind.NumberValue; n >= 0 && n < 1<<64 && n == float64(uint64(n)) {
			return strconv.FormatUint(uint64(n), 10)
		}
		return strconv.FormatFloat(kind.NumberValue, 'f', 6, 64) // as C's %f
	}
	return ""
}

// audiences are those that a token may be for; without any, all.
type audiences []string

func newAudiences(list []string) audiences {
	var out audiences
	for _, a := range list {
		out = append(out, canonicalAudience(a))
	}
	return out
}

func (a audiences) allow(list []string) bool {
	return len(a) == 0 || slices.ContainsFunc(list, func(s string) bool { return slices.Contains(a, canonicalAudience(s)) })
}

// canonicalAudience leaves out the scheme and the last slash of a URL.
func canonicalAudience(s string) string {
	if rest, ok := strings.CutPrefix(s, "http://"); ok {
		s = rest
	} else {
		s = strings.TrimPrefix(s, "https://")
	}
	return strings.TrimSuffix(s, "/")
}
