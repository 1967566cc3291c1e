package translate

import (
	"regexp"
	"strings"

	"meshbridge/translate/apisix"
)

// headerScope says which headers are operated on, and so which variables there are.
type headerScope struct {
	response bool
	// cluster is the upstream's name, where it is known.
	cluster string
}

// requestScope is the scope of request headers.
func requestScope() headerScope { return headerScope{} }

func responseScope(cluster string) headerScope { return headerScope{response: true, cluster: cluster} }

// variable returns nginx's variable with a header.
func (s headerScope) variable(header string) string {
	name := strings.ToLower(strings.ReplaceAll(header, "-", "_"))
	if s.response {
		return "sent_http_" + name
	}
	return "http_" + name
}

// expand translates a value with Envoy's command operators, such as %PROTOCOL%, to a template.
// unknown is the first operator that has no variable; %% is a percent sign.
func (s headerScope) expand(rx *routeContext, value string) (template, unknown string) {
	if !strings.Contains(value, "%") {
		return apisix.EscapeTemplate(value), ""
	}
	operator := regexp.MustCompile(`\A%([A-Z0-9_]+)(?:\(([^)]*)\))?(:[0-9]+)?%`)
	var b, literal strings.Builder
	for value != "" {
		if strings.HasPrefix(value, "%%") {
			literal.WriteByte('%')
			value = value[2:]
			continue
		}
		m := operator.FindStringSubmatch(value)
		if m == nil {
			literal.WriteByte(value[0])
			value = value[1:]
			continue
		}
		reference, ok := s.reference(rx, m[1], m[2])
		if !ok || m[3] != "" { // a maximal length
			return "", m[0]
		}
		b.WriteString(apisix.EscapeTemplate(literal.String()))
		literal.Reset()
		b.WriteString(reference)
		value = value[len(m[0]):]
	}
	b.WriteString(apisix.EscapeTemplate(literal.String()))
	return b.String(), ""
}

// reference returns the template for a command operator.
func (s headerScope) reference(rx *routeContext, operator, argument string) (template string, ok bool) {
	profile := rx.options.Profile
	variable := connectionVariable(operator, profile)
	switch operator {
	case "DOWNSTREAM_REMOTE_ADDRESS":
		return apisix.Var("remote_addr") + ":" + apisix.Var("remote_port"), true
	case "DOWNSTREAM_LOCAL_ADDRESS":
		addr, port := profile.OriginalDestination()
		return apisix.Var(addr) + ":" + apisix.Var(port), addr != "" && port != ""
	case "START_TIME":
		if argument == "" {
			variable = "time_iso8601"
		}
	case "REQ":
		variable = requestVariable(argument)
	case "RESP":
		if s.response && argument != "" && !strings.Contains(argument, "?") {
			variable = "upstream_http_" + strings.ToLower(strings.ReplaceAll(argument, "-", "_"))
		}
	case "RESPONSE_CODE":
		if s.response {
			variable = "status"
		}
	case "UPSTREAM_HOST", "UPSTREAM_REMOTE_ADDRESS":
		if s.response {
			variable = "upstream_addr"
		}
	case "UPSTREAM_CLUSTER", "UPSTREAM_CLUSTER_RAW":
		return apisix.EscapeTemplate(s.cluster), s.cluster != ""
	case "ROUTE_NAME":
		return apisix.EscapeTemplate(rx.route.GetName()), true
	}
	return apisix.Var(variable), variable != ""
}

// connectionVariable returns the variable for a command operator that is about the connection of a
// request, or the proxy; empty without one.
func connectionVariable(operator string, profile Profile) string {
	address, port := profile.OriginalDestination()
	switch operator {
	case "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT":
		return "remote_addr"
	case "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT":
		return profile.PeerAddress()
	case "DOWNSTREAM_REMOTE_PORT":
		return "remote_port"
	case "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT":
		return address
	case "DOWNSTREAM_LOCAL_PORT":
		return port
	case "DOWNSTREAM_PEER_URI_SAN":
		return profile.PeerIdentity()
	case "REQUESTED_SERVER_NAME":
		return profile.SNI()
	case "PROTOCOL":
		return "server_protocol"
	case "HOSTNAME":
		return "hostname"
	}
	return ""
}

// requestVariable returns the variable for the argument of %REQ(…)%; empty for a choice of headers.
func requestVariable(header string) string {
	switch header = strings.ToLower(header); {
	case header == ":method":
		return "request_method"
	case header == ":authority":
		return "http_host"
	case header == ":path":
		return "real_request_uri"
	case header == ":scheme":
		return "scheme"
	case header == "", strings.ContainsAny(header, ":?"):
		return ""
	}
	return "http_" + strings.ReplaceAll(header, "-", "_")
}
