package translate

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// CodeInfo documents a diagnostic code.
type CodeInfo struct {
	Code     Code     `json:"code"`
	Severity Severity `json:"severity"`
	// Summary is the message, with the verbs of package fmt for what differs.
	Summary string `json:"summary"`
	// Explanation says why, and what can be done about it.
	Explanation string `json:"explanation"`
}

// Codes returns all diagnostic codes, sorted.
func Codes() []CodeInfo {
	return slices.SortedFunc(maps.Values(newCatalogue()), func(a, b CodeInfo) int {
		return strings.Compare(string(a.Code), string(b.Code))
	})
}

// catalogue finds codes by name.
type catalogue map[Code]CodeInfo

func newCatalogue() catalogue {
	c := catalogue{}
	for _, info := range slices.Concat(routingCodes(), actionCodes(), tlsCodes(), authorizationCodes(), extensionCodes(), floorCodes(), captureCodes(), sourceCodes(), userExtensionCodes()) {
		c[info.Code] = info
	}
	return c
}

// diagnostic fills in what the code says; the caller adds where.
func (c catalogue) diagnostic(code Code, args ...any) Diagnostic {
	info := c[code]
	return Diagnostic{Code: code, Severity: info.Severity, Message: fmt.Sprintf(info.Summary, args...)}
}

// routingCodes are the codes of listeners, chains, virtual hosts and matches.
func routingCodes() []CodeInfo {
	return slices.Concat(listenerCodes(), accessCodes(), matchCodes())
}

func listenerCodes() []CodeInfo {
	return []CodeInfo{
		{
			"address_unsupported", SeverityError, "APISIX cannot serve a listener at %s",
			"APISIX listens on IP addresses and ports. Listeners on UNIX domain sockets or Envoy-internal addresses are left out.",
		},
		{
			"api_listener", SeverityError, "listeners for proxyless gRPC are not served",
			"istiod sends API listeners to gRPC libraries that do their own routing (GENERATOR=grpc). A proxy has no use for them: connect with the node metadata of a sidecar or gateway.",
		},
		{
			"chain_match_unsupported", SeverityError, "the filter chain is not served: %s",
			"The profile cannot tell the chain's connections from those of others, or does not receive them. Requests on them find no route and get 404.",
		},
		{
			"chain_without_proxy", SeverityError, "the filter chain ends in %q, which APISIX has no equivalent of; it is not served",
			"HTTP connection managers are translated. Chains that end in another network filter are left out.",
		},
		{
			"client_certificate_header", SeverityWarning, "x-forwarded-client-cert is removed, where Envoy tells the client's certificate in it",
			"What a client sends in the header is never passed on, because it could be forged. Applications that read the peer's identity from it find none.",
		},
		{
			"default_chain", SeverityInfo, "connections that are not HTTP, or to destinations without a service, %s",
			"Istio's passthrough and black hole chains carry what no service claims. Without capture in front of APISIX there is nobody to carry it.",
		},
		{
			"filter_discovered", SeverityWarning, "HTTP filter %q is discovered separately (%s) and has no effect",
			"Filters that arrive over ECDS, such as WasmPlugin, have no equivalent in APISIX.",
		},
		{
			"filter_fault", SeverityWarning, "faults that are configured on the connection manager are not injected",
			"Fault injection of a route is translated; that of a whole listener, which only an EnvoyFilter can configure, is not.",
		},
		{
			"filter_ignored", SeverityWarning, "filter %q (%s) has no effect",
			"The filter has no equivalent in APISIX and is left out; requests pass without it.",
		},
		{
			"id_collision", SeverityError, "%s has the id of another object and is left out",
			"Ids hold 50 bits of a hash. Renaming one of the two resources resolves the collision.",
		},
		{
			"inbound_passthrough", SeverityWarning, "requests to ports that belong to no service %s",
			"Istio passes them to the workload, and so does capture, without a look at them: it writes no access log and leaves x-forwarded-client-cert and x-envoy-peer-metadata as the client sent them. Declaring the port in a Service gives it a chain of its own.",
		},
		{
			"invalid_object", SeverityError, "APISIX would refuse %s, which is left out: %s",
			"This is a defect of meshbridge; please report it with the resource.",
		},
		{
			"ipv6_not_received", SeverityWarning, "IPv6 connections are not routed by this listener",
			"APISIX can see the original destination of redirected IPv4 connections only.",
		},
		{
			"listener_decode", SeverityError, "the filter chain is not served: %v",
			"The connection manager's configuration could not be decoded.",
		},
		{
			"listener_filter_ignored", SeverityWarning, "listener filter %q has no effect",
			"Original destination and the inspection of TLS and HTTP are done by other means; other listener filters have no equivalent in APISIX.",
		},
		{
			"listening_port", SeverityInfo, "APISIX has to listen on port %d",
			"The ports of APISIX are a matter of its configuration (apisix.node_listen and apisix.ssl.listen), where connections to others are refused. They do not follow the listeners of the mesh.",
		},
		{
			"mesh_tls_not_received", SeverityWarning, "mesh TLS connections to port %d cannot be received, plain ones are served",
			"The port is in PERMISSIVE mode and the profile has no mesh TLS. Clients with a sidecar use mesh TLS when the workload is labelled for it: set tls mode DISABLE in a DestinationRule, or use the mesh profile.",
		},
		{
			codeProxyProtocol, SeverityInfo, "APISIX has to expect the PROXY protocol on port %d",
			"Configure the port as apisix.proxy_protocol.listen_http_port or listen_https_port. Requests without the header are refused where Envoy would refuse them. For the client's address in logs, hash policies and headers, set nginx_config.http.real_ip_header to proxy_protocol and real_ip_from to the load balancer; rules of access do not depend on it.",
		},
		{
			"request_normalization", SeverityInfo, "requests are read as nginx reads them: paths and query parameters decoded, dot segments resolved and slashes merged, lines of one header joined, the host without its port",
			"Envoy decodes the escapes of unreserved characters only, merges no slashes unless it is told to, and joins header lines by a comma alone. A request that spells a path in another way gets the route of that path. nginx answers 400 to malformed escapes, to paths that climb above the root and to hosts with empty labels, 405 to TRACE and CONNECT, and 414 to very long paths, which Envoy routes; Envoy answers 400 to fragments and to more kinds of hosts. Of a Cookie header, white space ends a value, what has no = belongs to the next name, and of a name that is repeated the last value counts. To what it forwards, APISIX adds x-forwarded-for with the peer's address appended, x-forwarded-proto, -host and -port, and x-real-ip; names of headers keep their case; the server header of responses is APISIX's.",
		},
		{
			"route_config_missing", SeverityWarning, "route configuration %q has not arrived; requests get 404",
			"Envoy answers 404 as well until the route configuration arrives.",
		},
		{
			"route_discovery_unsupported", SeverityError, "routes are not served: %s",
			"Routes come from RDS over the same stream, or are part of the listener.",
		},
		{
			"setting_ignored", SeverityWarning, "%s has no effect",
			"The setting is not translated. Envoy's behaviour without it applies, or APISIX's own.",
		},
		{
			"tcp_refused", SeverityError, "TCP connections to %s are not served: the profile has HTTP only",
			"Exclude the port from redirection (traffic.sidecar.istio.io/excludeOutboundPorts), or use the mesh profile.",
		},
		{
			"telemetry_ignored", SeverityInfo, "%s is not set up",
			"For access logs to services, of connections, and to further files of a chain, the bridge must be told of requests (--internal), be there (--access-logs) and know the kind of log: files, Envoy's gRPC services and OpenTelemetry's, reached through a cluster. Of tracing, see the kinds in the table. APISIX's own plugins can be enabled globally.",
		},
		{
			"udp_listener", SeverityError, "UDP listeners are not served",
			"APISIX has no counterpart of Envoy's UDP proxy and QUIC listeners that could be configured at run time.",
		},
		{
			"upgrade_unsupported", SeverityWarning, "upgrades to %q are refused",
			"WebSocket upgrades are the only ones that APISIX passes on.",
		},
	}
}

func accessCodes() []CodeInfo {
	return []CodeInfo{
		{
			codeUnenforcedRBAC, SeverityError, "%s restricts access, which APISIX cannot enforce; %s",
			"The filter is what an AuthorizationPolicy becomes. Its rules ask every request for something that APISIX does not know, so that nothing would be left open; or they are of a kind that is not translated. --allow-unenforced unenforced_rbac leaves the filter out.",
		},
		{
			codeUnenforcedJWT, SeverityError, "%s requires valid tokens, which APISIX cannot enforce; %s",
			"The filter is what a RequestAuthentication becomes. Everything it protects is refused rather than left open; --allow-unenforced unenforced_jwt opens it.",
		},
		{
			codeUnenforcedExtAuthz, SeverityError, "%s asks an external service about access, which APISIX cannot do; %s",
			"The filter is what an AuthorizationPolicy with action CUSTOM becomes. Every request about which it would ask is refused rather than let pass; --allow-unenforced unenforced_ext_authz lets it pass.",
		},
		{
			codeUnenforcedAuthFilter, SeverityError, "%s authenticates requests, which APISIX cannot enforce; %s",
			"Filters for OAuth2, basic authentication, API keys and CSRF come from an EnvoyFilter. --allow-unenforced unenforced_auth_filter opens what they protect.",
		},
		{
			codeUnenforcedClientCertificate, SeverityError, "%s requires a client certificate, which is not verified; %s",
			"The Gateway's server has TLS mode MUTUAL. Without verification anyone could connect; --allow-unenforced unenforced_client_certificate opens it.",
		},
		{
			codeUnenforcedMutualTLS, SeverityError, "%s requires mesh TLS, which this profile cannot receive; %s",
			"The port is in STRICT mode. Plain requests, which are all that can arrive, must be refused; use the mesh profile, or --allow-unenforced unenforced_mutual_tls to serve plain requests.",
		},
	}
}

func matchCodes() []CodeInfo {
	return []CodeInfo{
		{
			"connect_unsupported", SeverityError, "CONNECT requests cannot be routed; the route matches nothing",
			"APISIX is no forward proxy.",
		},
		{
			"domain_invalid", SeverityError, "domain %q is no host name that APISIX accepts; it is not served",
			"Hosts consist of letters, digits, dots, dashes and underscores, with a wildcard at one end.",
		},
		{
			"domain_port", SeverityWarning, "domain %q matches %q on every port",
			"APISIX matches host names without the port of the Host header.",
		},
		{
			"domain_taken", SeverityWarning, "domain %q already belongs to virtual host %q, which gets its requests",
			"Domains that differ only in port or case are the same for APISIX.",
		},
		{
			"filter_state_match_unsupported", SeverityError, "filter state %q does not exist in APISIX; the route matches nothing",
			"Filter state is Envoy's own.",
		},
		{
			"metadata_match_unsupported", SeverityError, "metadata of filter %q does not exist in APISIX; the condition %s",
			"Routing on JWT claims needs the token to be verified before a route is chosen, and APISIX chooses first.",
		},
		{
			"path_bytes", SeverityError, "%q stands for bytes that are no text in UTF-8, which APISIX's configuration cannot hold; the route matches nothing",
			"APISIX is configured in JSON, which is UTF-8.",
		},
		{
			"path_decoded", SeverityInfo, "%q is matched as %q: APISIX matches decoded paths",
			"Requests that spell the same path with other percent-escapes match too.",
		},
		{
			"path_missing", SeverityError, "the route has no path condition that is known; it matches nothing",
			"Every route of Envoy has one; this kind is not known.",
		},
		{
			"path_policy_unsupported", SeverityError, "path match policy %s is not known; the route matches nothing",
			"URI templates are the only match policy that is known. They come from an EnvoyFilter only.",
		},
		{
			"path_regex_escapes", SeverityWarning, "regular expression %q is matched against the decoded path, without percent-escapes",
			"Write the characters themselves instead of their escapes.",
		},
		{
			codePathTemplate, SeverityInfo, "template %q is matched against the decoded path",
			"A segment is whatever is between two slashes, also an escaped slash, and may have characters that Envoy would not take for a part of it.",
		},
		{
			"path_relative", SeverityError, "no path begins with %q; the route matches nothing",
			"Paths begin with a slash.",
		},
		{
			"path_slashes", SeverityWarning, "%q is matched as %q: APISIX merges slashes and decodes %%2F",
			"Requests with the merged path match too. Envoy tells them apart unless it is configured to merge slashes.",
		},
		{
			"pseudo_header_unsupported", SeverityError, "%s is not known to APISIX and is taken as missing",
			"APISIX knows :method, :authority, :path and :scheme.",
		},
		{
			"query_without_value", SeverityInfo, "parameter %q without a value, as in ?debug, does not match; with an empty value, as in ?debug=, it does",
			"APISIX gives parameters without = the value true.",
		},
		{
			"regex_backtracks", SeverityWarning, "regular expression %q may fail to match long input in APISIX: %s",
			"APISIX's matcher backtracks and gives up after 100,000 steps, which counts as no match.",
		},
		{
			"regex_unsupported", SeverityError, "%v; the condition never holds",
			"APISIX's regular expressions have no equivalent.",
		},
		{
			"require_tls_external", SeverityWarning, "plain requests are redirected to HTTPS, internal ones too",
			"APISIX cannot tell internal requests from external ones as Envoy does.",
		},
		{
			"string_match_unsupported", SeverityError, "this kind of string match is not known; the condition never holds",
			"Exact, prefix, suffix, contains and regular expression are known.",
		},
		{
			"vhost_matcher_unsupported", SeverityError, "the virtual host selects routes by a matcher tree, which is not translated; requests get 404",
			"istiod sends route lists; matcher trees come from an EnvoyFilter.",
		},
	}
}
