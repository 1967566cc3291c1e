package apisix

import (
	"net/url"
	"slices"
	"strings"
)

// Request is a request to evaluate.
type Request struct {
	// Method is GET where empty.
	Method string
	// Scheme is http where empty.
	Scheme string
	// Host is the Host header, as sent.
	Host string
	// URI is the path and query, as sent; / where empty.
	URI string
	// Headers are the other headers; names are case-insensitive.
	Headers map[string][]string
	// Response holds the headers that the upstream answers with, where the request gets there.
	Response map[string][]string
	// RemoteAddr is the client's address; 127.0.0.1 where empty.
	RemoteAddr string
	// TLS is the handshake of the connection; nil for a plain one, and where Vars say how it went.
	TLS *Handshake
	// Vars are further nginx variables, for example server_port, connection_original_dst,
	// proxy_protocol_tlv_0xe0 or request_id, and override what the other fields give. Without a
	// request_id, no random choice is ever for less than everything: the last of weighted
	// branches is taken.
	Vars map[string]string
}

// requestVars resolves APISIX's variables (core.ctx) for a request.
type requestVars struct {
	request       Request
	method        string
	scheme        string
	host          string // $host
	path, args    string // $uri, $args
	target        string // $real_request_uri
	addr          string
	headers       map[string]string // by variable name without http_
	rewritten     string            // $upstream_uri, which proxy-rewrite sets
	routeID, name string            // of the matched route
	// serverName and clientVerify are empty without TLS.
	serverName, clientVerify string
}

// newRequestVars returns the variables, or why nginx answers 400.
func newRequestVars(r Request) (v *requestVars, refusal string) {
	v = &requestVars{
		request: r,
		method:  orDefault(r.Method, "GET"),
		scheme:  orDefault(r.Scheme, "http"),
		target:  orDefault(r.URI, "/"),
		addr:    orDefault(r.RemoteAddr, "127.0.0.1"),
		headers: make(map[string]string, len(r.Headers)+1),
	}
	var ok bool
	if v.host, ok = normalizeHost(r.Host); !ok {
		return nil, "nginx refuses the Host header " + r.Host
	}
	var err error
	if v.path, v.args, err = normalizeURI(v.target); err != nil {
		return nil, err.Error()
	}
	names := make([]string, 0, len(r.Headers))
	for name := range r.Headers {
		names = append(names, name)
	}
	slices.Sort(names) // X-A and x_a are one variable
	for _, name := range names {
		key := headerVariable(name)
		separator := ", "
		if key == "cookie" {
			separator = "; "
		}
		for _, value := range r.Headers[name] {
			if joined, ok := v.headers[key]; ok {
				value = joined + separator + value
			}
			v.headers[key] = value
		}
	}
	v.headers["host"] = r.Host
	return v, ""
}

func orDefault(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}

func headerVariable(name string) string {
	return strings.ReplaceAll(strings.ToLower(name), "-", "_")
}

// lookup is the [Variables] of the request.
func (v *requestVars) lookup(name string) any {
	if value, ok := v.request.Vars[name]; ok {
		return value
	}
	if header, ok := strings.CutPrefix(name, "http_"); ok {
		return found(v.headers, headerVariable(header))
	}
	if arg, ok := strings.CutPrefix(name, "arg_"); ok {
		return v.arg(arg)
	}
	if cookie, ok := strings.CutPrefix(name, "cookie_"); ok {
		return v.cookie(cookie)
	}
	switch name {
	case "request_method", "method":
		return v.method
	case "scheme":
		return v.scheme
	case "host":
		return v.host
	case "uri", "document_uri":
		return v.path
	case "args", "query_string":
		if v.args == "" {
			return nil
		}
		return v.args
	case "is_args":
		return v.isArgs()
	case "request_uri":
		return v.path + v.isArgs() + v.args
	case "real_request_uri":
		return v.target
	case "upstream_uri":
		return v.rewritten
	case "remote_addr", "realip_remote_addr", "proxy_protocol_addr":
		return v.addr
	case "request":
		return v.method + " " + v.target + " HTTP/1.1"
	case "content_type", "content_length":
		return found(v.headers, name)
	case "ssl_server_name":
		return orNil(v.serverName)
	case "ssl_client_verify":
		return orNil(v.clientVerify)
	case "route_id":
		return v.routeID
	case "route_name":
		if v.name != "" {
			return v.name
		}
	}
	return nil
}

func orNil(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func found(m map[string]string, key string) any {
	if value, ok := m[key]; ok {
		return value
	}
	return nil
}

func (v *requestVars) isArgs() string {
	if v.args == "" {
		return ""
	}
	return "?"
}

// arg returns the first value of a query parameter; a name without "=" is true.
func (v *requestVars) arg(name string) any {
	for pair := range strings.SplitSeq(v.args, "&") {
		key, value, hasValue := strings.Cut(pair, "=")
		if decodeArg(key) != name || key == "" {
			continue
		}
		if !hasValue {
			return true
		}
		return decodeArg(value)
	}
	return nil
}

func decodeArg(s string) string {
	decoded, err := url.QueryUnescape(s)
	if err != nil {
		return s
	}
	return decoded
}

// cookie returns a cookie's value.
func (v *requestVars) cookie(name string) any { return found(Cookies(v.headers["cookie"]), name) }

// Cookies reads a Cookie header as lua-resty-cookie does, for all of APISIX: white space ends a value, a
// pair without "=" is a part of the next one's name, quotes are kept, and of a repeated name the last
// value counts.
func Cookies(header string) map[string]string {
	out := map[string]string{}
	for {
		name, rest, ok := strings.Cut(strings.TrimLeft(header, " \t"), "=")
		if !ok {
			return out
		}
		end := strings.IndexAny(rest, "; \t")
		if end < 0 {
			out[name] = rest
			return out
		}
		out[name], header = rest[:end], rest[end+1:]
	}
}
