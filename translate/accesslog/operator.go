package accesslog

import (
	"cmp"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// parseOperator returns a command operator (Envoy's "Access logging: Command operators"); ok is false for one
// that Envoy does not have, or that asks for what an Entry does not tell.
func (p *parser) parseOperator(name, argument string) (op operator, ok bool) {
	switch name {
	case "START_TIME":
		return p.timeOperator(argument, func(e *Entry) time.Time { return e.Start }), true
	case "EMIT_TIME":
		return p.timeOperator(argument, func(e *Entry) time.Time { return e.Start.Add(e.Duration) }), true
	case "REQ":
		return p.headerOperator(argument, p.requestHeader)
	case "REQ_WITHOUT_QUERY":
		op, ok = p.headerOperator(argument, p.requestHeader)
		return withoutQuery(op), ok
	case "RESP":
		return p.headerOperator(argument, p.responseHeader)
	case "TRAILER":
		if strings.EqualFold(argument, "grpc-status") {
			return grpcStatus("NUMBER")
		}
		return operator{}, false
	case "GRPC_STATUS":
		return grpcStatus(argument)
	case "GRPC_STATUS_NUMBER":
		return grpcStatus("NUMBER")
	case "HOSTNAME":
		return operator{append: func(dst []byte, l *Log, _ *Entry) ([]byte, bool) {
			return append(dst, l.Hostname...), l.Hostname != ""
		}}, true
	}
	if text := textOperator(name); text != nil {
		return operator{append: func(dst []byte, _ *Log, e *Entry) ([]byte, bool) {
			value := text(e)
			return append(dst, value...), value != ""
		}}, true
	}
	if number := numberOperator(name); number != nil {
		return operator{number: true, append: func(dst []byte, _ *Log, e *Entry) ([]byte, bool) {
			value, ok := number(e)
			if !ok {
				return dst, false
			}
			return strconv.AppendInt(dst, value, 10), true
		}}, true
	}
	return addressOperator(name)
}

// textOperator returns what has a text, or none.
func textOperator(name string) func(*Entry) string {
	switch name {
	case "PROTOCOL":
		return func(e *Entry) string { return e.http().Protocol }
	case "RESPONSE_CODE_DETAILS":
		return (*Entry).codeDetails
	case "CONNECTION_TERMINATION_DETAILS":
		return (*Entry).terminationDetails
	case "UPSTREAM_TRANSPORT_FAILURE_REASON":
		return func(e *Entry) string { return strings.ReplaceAll(e.transportFailure(), " ", "_") }
	case "RESPONSE_FLAGS":
		return func(e *Entry) string { return orNone(e.Flags) }
	case "RESPONSE_FLAGS_LONG":
		return func(e *Entry) string { return orNone(longFlags(e.Flags)) }
	case "ROUTE_NAME":
		return func(e *Entry) string { return e.Route }
	case "UPSTREAM_CLUSTER":
		return func(e *Entry) string { return cmp.Or(e.ClusterStat, e.Cluster) }
	case "UPSTREAM_CLUSTER_RAW":
		return func(e *Entry) string { return e.Cluster }
	case "REQUESTED_SERVER_NAME":
		return func(e *Entry) string { return sanitizedHost(e.ServerName) }
	case "DOWNSTREAM_PEER_URI_SAN":
		return func(e *Entry) string { return e.Principal }
	case "DOWNSTREAM_LOCAL_URI_SAN":
		return func(e *Entry) string { return e.OwnPrincipal }
	case "ACCESS_LOG_TYPE":
		return func(e *Entry) string { return e.logType().String() }
	}
	return nil
}

// orNone is how an empty list of response flags reads, wherever it is asked for.
func orNone(flags string) string {
	if flags == "" {
		return "-"
	}
	return flags
}

// numberOperator returns what has a number; ok is false where it is not known.
func numberOperator(name string) func(*Entry) (n int64, ok bool) {
	always := func(f func(e *Entry) int64) func(*Entry) (int64, bool) {
		return func(e *Entry) (int64, bool) { return f(e), true }
	}
	switch name {
	case "RESPONSE_CODE":
		return always(func(e *Entry) int64 { return int64(e.http().Status) })
	case "BYTES_RECEIVED":
		return always(func(e *Entry) int64 { return e.Received })
	case "BYTES_SENT":
		return always(func(e *Entry) int64 { return e.Sent })
	case "DOWNSTREAM_WIRE_BYTES_RECEIVED":
		return always((*Entry).wireReceived)
	case "DOWNSTREAM_WIRE_BYTES_SENT":
		return always((*Entry).wireSent)
	case "DOWNSTREAM_HEADER_BYTES_RECEIVED":
		return always(func(e *Entry) int64 { return max(0, e.wireReceived()-e.Received) })
	case "DOWNSTREAM_HEADER_BYTES_SENT":
		return always(func(e *Entry) int64 { return max(0, e.wireSent()-e.Sent) })
	case "UPSTREAM_WIRE_BYTES_RECEIVED":
		return always(func(e *Entry) int64 { return e.UpstreamReceived })
	case "UPSTREAM_WIRE_BYTES_SENT":
		return always(func(e *Entry) int64 { return e.UpstreamSent })
	case "UPSTREAM_REQUEST_ATTEMPT_COUNT":
		return always((*Entry).attempts)
	case "CONNECTION_ID":
		return always(func(e *Entry) int64 { return int64(e.Connection) })
	case "DURATION":
		return always(func(e *Entry) int64 { return e.Duration.Milliseconds() })
	case "RESPONSE_DURATION":
		return func(e *Entry) (int64, bool) {
			d, ok := e.untilAnswer()
			return d.Milliseconds(), ok
		}
	case "RESPONSE_TX_DURATION":
		return func(e *Entry) (int64, bool) {
			d, ok := e.untilAnswer()
			return (e.Duration - d).Milliseconds(), ok
		}
	}
	return nil
}

// addressOperator returns what has an address, a part of one, or none.
func addressOperator(name string) (op operator, ok bool) {
	name, withoutPort := strings.CutSuffix(name, "_WITHOUT_PORT")
	if port, found := strings.CutSuffix(name, "_PORT"); found && !withoutPort {
		of := addressOf(port + "_ADDRESS")
		return operator{number: true, append: func(dst []byte, _ *Log, e *Entry) ([]byte, bool) {
			a := of(e)
			if !a.IsValid() {
				return dst, false
			}
			return strconv.AppendUint(dst, uint64(a.Port()), 10), true
		}}, of != nil
	}
	of := addressOf(name)
	if of == nil || withoutPort && name == "UPSTREAM_HOST" {
		return operator{}, false
	}
	return operator{append: func(dst []byte, _ *Log, e *Entry) ([]byte, bool) {
		a := of(e)
		switch {
		case !a.IsValid():
			return dst, false
		case withoutPort:
			return a.Addr().AppendTo(dst), true
		}
		return a.AppendTo(dst), true
	}}, true
}

func addressOf(name string) func(*Entry) netip.AddrPort {
	switch name {
	case "UPSTREAM_HOST", "UPSTREAM_REMOTE_ADDRESS":
		return func(e *Entry) netip.AddrPort { return e.Upstream }
	case "UPSTREAM_LOCAL_ADDRESS":
		return func(e *Entry) netip.AddrPort { return e.Local }
	case "DOWNSTREAM_LOCAL_ADDRESS":
		return func(e *Entry) netip.AddrPort { return e.Destination }
	case "DOWNSTREAM_REMOTE_ADDRESS":
		return func(e *Entry) netip.AddrPort { return e.Source }
	case "DOWNSTREAM_DIRECT_REMOTE_ADDRESS":
		return (*Entry).direct
	}
	return nil
}

// headerOperator returns the first of "A" or "A?B" that there is.
func (p *parser) headerOperator(argument string, header func(name string) func(*Entry) (string, bool)) (op operator, ok bool) {
	first, second, choice := strings.Cut(strings.ToLower(argument), "?")
	if first == "" || strings.Contains(second, "?") {
		return operator{}, false
	}
	if first == "x-envoy-original-path" && choice {
		first, second, choice = second, "", false // entries have the path as the client sent it
	}
	value := header(first)
	var other func(*Entry) (string, bool)
	if choice {
		other = header(second)
	}
	return operator{append: func(dst []byte, _ *Log, e *Entry) ([]byte, bool) {
		if e.HTTP == nil {
			return dst, false
		}
		text, ok := value(e)
		if !ok && other != nil {
			text, ok = other(e)
		}
		return append(dst, text...), ok
	}}, true
}

// requestHeader returns a header of requests, by its name in lower case. Entries without HTTP have none.
func (p *parser) requestHeader(name string) func(*Entry) (value string, ok bool) {
	some := func(f func(*HTTP) string) func(*Entry) (string, bool) {
		return func(e *Entry) (string, bool) {
			value := f(e.http())
			return value, value != ""
		}
	}
	switch name {
	case ":method":
		return some(func(h *HTTP) string { return h.Method })
	case ":authority", "host":
		return some(func(h *HTTP) string { return h.Authority })
	case ":path":
		return some(func(h *HTTP) string { return h.Path })
	case ":scheme":
		return some(func(h *HTTP) string { return h.Scheme })
	}
	p.request = append(p.request, name)
	return func(e *Entry) (string, bool) {
		value, ok := e.http().RequestHeaders[name]
		return value, ok
	}
}

// responseHeader is requestHeader for responses.
func (p *parser) responseHeader(name string) func(*Entry) (value string, ok bool) {
	switch name {
	case ":status":
		return func(e *Entry) (string, bool) {
			status := e.http().Status
			return strconv.Itoa(status), status != 0
		}
	case "x-envoy-upstream-service-time": // Envoy sets it, over that of an endpoint
		return func(e *Entry) (string, bool) {
			if e.HTTP == nil || !e.Upstream.IsValid() || e.HTTP.Answered < 0 || e.HTTP.Status == 0 {
				return "", false
			}
			return strconv.FormatInt(e.HTTP.Answered.Milliseconds(), 10), true
		}
	}
	p.response = append(p.response, name)
	return func(e *Entry) (string, bool) {
		value, ok := e.http().ResponseHeaders[name]
		return value, ok
	}
}

// withoutQuery cuts a value at its first question mark.
func withoutQuery(op operator) operator {
	whole := op.append
	return operator{append: func(dst []byte, l *Log, e *Entry) ([]byte, bool) {
		out, ok := whole(dst, l, e)
		path, _, _ := strings.Cut(string(out[len(dst):]), "?")
		return out[:len(dst)+len(path)], ok
	}}
}

// sanitizedHost replaces what no name of a host has, and says so, as Envoy does with what a client has sent. That
// is also so of Istio's names with underscores.
func sanitizedHost(name string) string {
	out, invalid := []byte(name), false
	for i, c := range out {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '.':
		default:
			out[i], invalid = '_', true
		}
	}
	if invalid {
		return "invalid:" + string(out)
	}
	return name
}
