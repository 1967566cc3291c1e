package accesslog

import (
	"net/netip"
	"strings"
)

// attribute returns an attribute (Envoy's "Attributes"); ok is false for those that an entry does not tell.
func (x *exprParser) attribute(path string) (e expr, ok bool) {
	switch path {
	case "request.headers":
		return expr{kind: exprHeaders, header: func(name string) func(*Entry) (string, bool) {
			return x.requestHeader(strings.ToLower(name))
		}}, true
	case "response.headers":
		return expr{kind: exprHeaders, header: func(name string) func(*Entry) (string, bool) {
			return x.responseHeader(strings.ToLower(name))
		}}, true
	case "request.useragent":
		return ofHeader(x.requestHeader("user-agent")), true
	case "request.referer":
		return ofHeader(x.requestHeader("referer")), true
	case "request.id":
		return ofHeader(x.requestHeader("x-request-id")), true
	case "connection.mtls":
		return expr{kind: exprBool, eval: func(e *Entry) exprValue { return exprValue{bool: e.MutualTLS} }}, true
	}
	if text := textAttribute(path); text != nil {
		return expr{kind: exprString, eval: func(e *Entry) exprValue {
			value, ok := text(e)
			return exprValue{failed: !ok, string: value}
		}}, true
	}
	if number := numberAttribute(path); number != nil {
		return expr{kind: exprInt, eval: func(e *Entry) exprValue {
			value, ok := number(e)
			return exprValue{failed: !ok, int: value}
		}}, true
	}
	return expr{}, false
}

func ofHeader(header func(*Entry) (string, bool)) expr {
	return expr{kind: exprString, eval: func(e *Entry) exprValue {
		value, ok := header(e)
		return exprValue{failed: !ok, string: value}
	}}
}

func textAttribute(path string) func(*Entry) (value string, ok bool) {
	ofRequest := func(f func(*HTTP) string) func(*Entry) (string, bool) {
		return func(e *Entry) (string, bool) { return f(e.http()), e.HTTP != nil }
	}
	always := func(f func(*Entry) string) func(*Entry) (string, bool) {
		return func(e *Entry) (string, bool) { return f(e), true }
	}
	some := func(f func(*Entry) string) func(*Entry) (string, bool) {
		return func(e *Entry) (string, bool) {
			value := f(e)
			return value, value != ""
		}
	}
	address := func(of func(*Entry) netip.AddrPort) func(*Entry) (string, bool) {
		return func(e *Entry) (string, bool) { return of(e).String(), of(e).IsValid() }
	}
	switch path {
	case "request.path":
		return ofRequest(func(h *HTTP) string { return h.Path })
	case "request.url_path":
		return ofRequest(func(h *HTTP) string { before, _, _ := strings.Cut(h.Path, "?"); return before })
	case "request.query":
		return ofRequest(func(h *HTTP) string { _, after, _ := strings.Cut(h.Path, "?"); return after })
	case "request.host":
		return ofRequest(func(h *HTTP) string { return h.Authority })
	case "request.scheme":
		return ofRequest(func(h *HTTP) string { return h.Scheme })
	case "request.method":
		return ofRequest(func(h *HTTP) string { return h.Method })
	case "request.protocol":
		return ofRequest(func(h *HTTP) string { return h.Protocol })
	case "response.code_details":
		return some((*Entry).codeDetails)
	case "connection.requested_server_name":
		return always(func(e *Entry) string { return e.ServerName })
	case "connection.uri_san_peer_certificate":
		return some(func(e *Entry) string { return e.Principal })
	case "connection.uri_san_local_certificate":
		return some(func(e *Entry) string { return e.OwnPrincipal })
	case "connection.termination_details":
		return some((*Entry).terminationDetails)
	case "source.address":
		return address(func(e *Entry) netip.AddrPort { return e.Source })
	case "destination.address":
		return address(func(e *Entry) netip.AddrPort { return e.Destination })
	case "upstream.address":
		return address(func(e *Entry) netip.AddrPort { return e.Upstream })
	case "upstream.local_address":
		return address(func(e *Entry) netip.AddrPort { return e.Local })
	case "upstream.transport_failure_reason":
		return some((*Entry).transportFailure)
	case "xds.cluster_name":
		return some(func(e *Entry) string { return e.Cluster })
	case "xds.route_name":
		return some(func(e *Entry) string { return e.Route })
	}
	return nil
}

func numberAttribute(path string) func(*Entry) (n int64, ok bool) {
	port := func(of func(*Entry) netip.AddrPort) func(*Entry) (int64, bool) {
		return func(e *Entry) (int64, bool) { return int64(of(e).Port()), of(e).IsValid() }
	}
	ofRequest := func(f func(*Entry) int64) func(*Entry) (int64, bool) {
		return func(e *Entry) (int64, bool) { return f(e), e.HTTP != nil }
	}
	switch path {
	case "response.code":
		return func(e *Entry) (int64, bool) { return int64(e.http().Status), e.http().Status != 0 }
	case "response.flags":
		return func(e *Entry) (int64, bool) { return flagBits(e.Flags), true }
	case "response.grpc_status":
		return ofRequest((*Entry).grpcCode)
	case "request.size":
		return ofRequest(func(e *Entry) int64 { return e.Received })
	case "response.size":
		return ofRequest(func(e *Entry) int64 { return e.Sent })
	case "request.total_size":
		return ofRequest((*Entry).wireReceived)
	case "response.total_size":
		return ofRequest((*Entry).wireSent)
	case "connection.id":
		return func(e *Entry) (int64, bool) { return int64(e.Connection), true }
	case "source.port":
		return port(func(e *Entry) netip.AddrPort { return e.Source })
	case "destination.port":
		return port(func(e *Entry) netip.AddrPort { return e.Destination })
	case "upstream.port":
		return port(func(e *Entry) netip.AddrPort { return e.Upstream })
	case "upstream.request_attempt_count":
		return func(e *Entry) (int64, bool) { return e.attempts(), true }
	}
	return nil
}
