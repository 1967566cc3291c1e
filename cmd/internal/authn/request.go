package authn

import (
	"net/http"
	"net/url"
	"strings"
)

// Headers with which APISIX tells of the request, besides those with tokens. All are set by APISIX,
// over anything that a client sends.
const (
	headerMethod    = "X-Forwarded-Method"
	headerScheme    = "X-Forwarded-Proto"
	headerHost      = "X-Forwarded-Host"
	headerTarget    = "X-Forwarded-Uri"
	headerOrigin    = "Origin"
	headerPreflight = "Access-Control-Request-Method"
)

// request is a request to be judged. Its headers are those that may have tokens, and change when
// a token has been verified.
type request struct {
	method, scheme, host, target string
	preflight                    bool
	headers                      http.Header
}

// newRequest reads what APISIX says. A variable that does not exist is an empty header to it.
func newRequest(h http.Header) *request {
	r := &request{
		method: h.Get(headerMethod), scheme: h.Get(headerScheme), host: h.Get(headerHost), target: h.Get(headerTarget),
		headers: http.Header{},
	}
	r.preflight = r.method == http.MethodOptions && h.Get(headerOrigin) != "" && h.Get(headerPreflight) != ""
	for name, values := range h {
		if len(values) > 0 && values[0] != "" {
			r.headers[name] = values
		}
	}
	return r
}

// maxURI bounds the path in the challenge.
const maxURI = 256

// uri is what the challenge names as the realm.
func (r *request) uri() string {
	return r.scheme + "://" + r.host + r.target[:min(len(r.target), maxURI)]
}

// parameter returns the first parameter of the query with the name. A plus sign is one.
func (r *request) parameter(name string) (value string, ok bool) {
	_, query, _ := strings.Cut(r.target, "?")
	query, _, _ = strings.Cut(query, "#")
	for pair := range strings.SplitSeq(query, "&") {
		k, v, _ := strings.Cut(pair, "=")
		if unescape(k) == name {
			return unescape(v), true
		}
	}
	return "", false
}

// unescape decodes what is escaped, and leaves alone what only looks so.
func unescape(s string) string {
	if decoded, err := url.PathUnescape(s); err == nil {
		return decoded
	}
	return s
}

// cookie returns the first cookie with the name.
func (r *request) cookie(name string) (value string, ok bool) {
	for _, line := range r.headers["Cookie"] {
		for pair := range strings.SplitSeq(line, ";") {
			k, v, found := strings.Cut(strings.Trim(pair, " \t"), "=")
			if !found || k != name {
				continue
			}
			if len(v) >= 2 && v[0] == '"' && v[len(v)-1] == '"' {
				v = v[1 : len(v)-1]
			}
			return v, true
		}
	}
	return "", false
}
