package envoytest

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// Unpredictable stands in header values for what a request and a configuration do not determine, such
// as the time or the endpoint that was chosen.
const Unpredictable = "\ufffd"

// commandOperator is %NAME%, %NAME(arguments)% or with :length.
var commandOperator = regexp.MustCompile(`\A%([A-Z0-9_]+)(?:\(([^)]*)\))?(?::([0-9]+))?%`)

// format expands a header value. What does not exist is empty. response is nil for request headers.
func (s *Stream) format(value string, response *headerMap) string {
	var b strings.Builder
	for value != "" {
		if value[0] != '%' {
			end := strings.IndexByte(value, '%')
			if end < 0 {
				end = len(value)
			}
			b.WriteString(value[:end])
			value = value[end:]
			continue
		}
		if strings.HasPrefix(value, "%%") {
			b.WriteByte('%')
			value = value[2:]
			continue
		}
		m := commandOperator.FindStringSubmatch(value)
		if m == nil { // Envoy rejects such a configuration
			b.WriteByte('%')
			value = value[1:]
			continue
		}
		text := s.operator(m[1], m[2], response)
		if limit, err := strconv.Atoi(m[3]); err == nil && limit < len(text) {
			text = text[:limit]
		}
		b.WriteString(text)
		value = value[len(m[0]):]
	}
	return b.String()
}

func (s *Stream) operator(name, argument string, response *headerMap) string {
	conn := s.request.Connection
	switch name {
	case "REQ":
		return headerChoice(s.headers, argument)
	case "RESP":
		if response != nil {
			return headerChoice(response, argument)
		}
		return ""
	case "PROTOCOL":
		return orDefault(s.request.Protocol, "HTTP/1.1")
	case "ROUTE_NAME":
		return s.decision.Route
	case "VIRTUAL_HOST_NAME":
		return s.decision.VirtualHost
	case "UPSTREAM_CLUSTER", "UPSTREAM_CLUSTER_RAW":
		if response == nil {
			return Unpredictable // whether the cluster is known by then depends on the version
		}
		return s.decision.Cluster
	case "RESPONSE_CODE":
		return strconv.Itoa(s.decision.Status)
	case "DOWNSTREAM_REMOTE_ADDRESS":
		return withPort(s.remote)
	case "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT":
		return s.remote.Addr().String()
	case "DOWNSTREAM_REMOTE_PORT":
		return strconv.Itoa(int(s.remote.Port()))
	case "DOWNSTREAM_DIRECT_REMOTE_ADDRESS":
		return withPort(conn.Source)
	case "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT":
		return conn.Source.Addr().String()
	case "DOWNSTREAM_LOCAL_ADDRESS":
		return withPort(conn.Destination)
	case "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT":
		return conn.Destination.Addr().String()
	case "DOWNSTREAM_LOCAL_PORT":
		return strconv.Itoa(int(conn.Destination.Port()))
	case "REQUESTED_SERVER_NAME":
		return strings.ToLower(conn.ServerName)
	case "DOWNSTREAM_PEER_URI_SAN":
		if conn.Certificate != nil {
			return strings.Join(conn.Certificate.URIs, ",")
		}
		return ""
	}
	return Unpredictable
}

// headerChoice is the argument of %REQ(X?Y)%: the first value of X, or else of Y.
func headerChoice(headers *headerMap, argument string) string {
	main, alternative, _ := strings.Cut(strings.ToLower(argument), "?")
	if headers.has(main) {
		return headers.get(main)
	}
	return headers.get(alternative)
}

func withPort(a netip.AddrPort) string { return a.String() }
