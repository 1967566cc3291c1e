package authn

import (
	"net/http"
	"slices"
	"strings"

	jwtpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
)

// locations are the places where tokens of some providers are.
type locations struct {
	headers         []headerLocation
	params, cookies []namedLocation
	// sanitized are headers that only a verified token may set.
	sanitized []string
}

type headerLocation struct {
	name, prefix string
	issuers      issuers
}

type namedLocation struct {
	name    string
	issuers issuers
}

// issuers are those whose tokens a place may have; an empty one is any.
type issuers []string

func (i issuers) allow(issuer string) bool {
	return slices.Contains(i, "") || slices.Contains(i, issuer)
}

// foundToken is a token, not yet parsed.
type foundToken struct {
	text    string
	issuers issuers
	// header is where it was found; empty for other places, from which it is not removed.
	header string
}

func newLocations(providers []*jwtpb.JwtProvider) *locations {
	l := &locations{}
	for _, p := range providers {
		for _, h := range p.GetFromHeaders() {
			l.addHeader(p, h.GetName(), h.GetValuePrefix())
		}
		for _, name := range p.GetFromParams() {
			l.params = addNamed(l.params, p, name)
		}
		for _, name := range p.GetFromCookies() {
			l.cookies = addNamed(l.cookies, p, name)
		}
		if len(p.GetFromHeaders())+len(p.GetFromParams())+len(p.GetFromCookies()) == 0 {
			l.addHeader(p, "Authorization", "Bearer ")
			l.params = addNamed(l.params, p, "access_token")
		}
		if h := p.GetForwardPayloadHeader(); h != "" {
			l.sanitized = append(l.sanitized, h)
		}
		for _, c := range p.GetClaimToHeaders() {
			l.sanitized = append(l.sanitized, c.GetHeaderName())
		}
	}
	// Envoy keeps them in sorted maps.
	slices.SortStableFunc(l.headers, func(a, b headerLocation) int {
		return strings.Compare(strings.ToLower(a.name)+a.prefix, strings.ToLower(b.name)+b.prefix)
	})
	byName := func(a, b namedLocation) int { return strings.Compare(a.name, b.name) }
	slices.SortStableFunc(l.params, byName)
	slices.SortStableFunc(l.cookies, byName)
	return l
}

func (l *locations) addHeader(p *jwtpb.JwtProvider, name, prefix string) {
	name = http.CanonicalHeaderKey(name)
	for i, h := range l.headers {
		if h.name == name && h.prefix == prefix {
			l.headers[i].issuers = append(l.headers[i].issuers, p.GetIssuer())
			return
		}
	}
	l.headers = append(l.headers, headerLocation{name, prefix, issuers{p.GetIssuer()}})
}

func addNamed(list []namedLocation, p *jwtpb.JwtProvider, name string) []namedLocation {
	for i, n := range list {
		if n.name == name {
			list[i].issuers = append(list[i].issuers, p.GetIssuer())
			return list
		}
	}
	return append(list, namedLocation{name, issuers{p.GetIssuer()}})
}

// find returns all tokens of a request.
func (l *locations) find(r *request) []foundToken {
	var out []foundToken
	for _, h := range l.headers {
		for _, value := range r.headers[h.name] {
			if h.prefix != "" {
				i := strings.Index(value, h.prefix)
				if i < 0 {
					continue
				}
				value = afterPrefix(value, i+len(h.prefix))
			}
			out = append(out, foundToken{value, h.issuers, h.name})
		}
	}
	for _, p := range l.params {
		if value, ok := r.parameter(p.name); ok {
			out = append(out, foundToken{value, p.issuers, ""})
		}
	}
	for _, c := range l.cookies {
		if value, ok := r.cookie(c.name); ok {
			out = append(out, foundToken{value, c.issuers, ""})
		}
	}
	return out
}

// afterPrefix skips what no token begins with. Where nothing is left, it is the whole value.
func afterPrefix(value string, at int) string {
	i := strings.IndexFunc(value[at:], func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-_.", r)
	})
	if i < 0 {
		return value
	}
	return value[at+i:]
}

// sanitize removes headers that the client may not send.
func (l *locations) sanitize(r *request) {
	for _, name := range l.sanitized {
		r.headers.Del(name)
	}
}
