package translate

// Diagnostic codes of actions and clusters.
const (
	codeActionUnsupported    Code = "action_unsupported"
	codeClusterChoice        Code = "cluster_choice_unsupported"
	codeClusterNotFound      Code = "cluster_not_found"
	codeOriginalDestination  Code = "original_destination_unsupported"
	codeRegexUnsupported     Code = "rewrite_regex_unsupported"
	codeRegexFirstMatch      Code = "regex_rewrite_first_match"
	codePathRewrite          Code = "path_rewrite_unsupported"
	codeHostRewrite          Code = "host_rewrite_unsupported"
	codeHeaderLeftOut        Code = "header_left_out"
	codeHeaderMayBeEmpty     Code = "header_may_be_empty"
	codeHeaderReplaced       Code = "response_header_replaced"
	codeRedirectLocation     Code = "redirect_location"
	codeResponseBody         Code = "direct_response_body_unsupported"
	codeResponseStatus       Code = "direct_response_status_invalid"
	codeTimeoutPerRead       Code = "timeout_per_read"
	codeRetryCondition       Code = "retry_condition_unsupported"
	codeRetryBackOff         Code = "retry_without_back_off"
	codeMirror               Code = "mirror_not_sent"
	codeFault                Code = "fault_not_injected"
	codeCORS                 Code = "cors_unsupported"
	codeHashPolicy           Code = "hash_policy_unsupported"
	codeHashCookie           Code = "hash_cookie_not_set"
	codeClusterType          Code = "cluster_type_unsupported"
	codeLoadBalancing        Code = "load_balancing_unsupported"
	codeEndpoint             Code = "endpoint_unsupported"
	codeMeshTLS              Code = "mesh_tls_not_originated"
	codeTLSOrigination       Code = "tls_not_originated"
	codeTransportSocket      Code = "transport_socket_unsupported"
	codeHTTP2Downgraded      Code = "http2_downgraded"
	codeCircuitBreaker       Code = "circuit_breaker_approximate"
	codeOutlierDetection     Code = "outlier_detection_approximate"
	codeProtocolOptions      Code = "protocol_options_invalid"
	codeNameResolvedByAPISIX Code = "name_resolved_by_apisix"
	codeNameNotResolved      Code = "name_not_resolved"
	codeLogicalDNS           Code = "logical_dns_by_apisix"
	codeSlowStart            Code = "slow_start_stepwise"
	codeZoneAware            Code = "zone_aware_approximate"
	codeZoneUnknown          Code = "zone_unknown"
	codeInstanceAddress      Code = "instance_address_unknown"
	codeSourceNotBound       Code = "inbound_source_not_bound"
)

// actionCodes documents the codes above.
func actionCodes() []CodeInfo {
	return []CodeInfo{
		{
			codeActionUnsupported, SeverityError,
			"the route action %s has no counterpart in APISIX; requests are answered with 500",
			"APISIX forwards, redirects or answers requests. Other actions exist for proxyless gRPC and custom Envoy filters.",
		},
		{
			codeClusterChoice, SeverityError,
			"the cluster is chosen by %s, which APISIX cannot do; requests are answered with 503",
			"APISIX needs to know the upstreams of a route in advance. Istio itself never chooses a cluster this way.",
		},
		{
			codeClusterNotFound, SeverityInfo,
			"there is no cluster %q; requests are answered with %d, as Envoy does",
			"The destination does not exist, is not visible to the workload, or has not arrived yet. As in Envoy, requests are answered at once and are forwarded as soon as the cluster arrives.",
		},
		{
			codeOriginalDestination, SeverityError,
			"cluster %q forwards to the address that the client connected to, which APISIX cannot do; requests are answered with 503",
			"APISIX's endpoints are fixed addresses. Requests to hosts that are not in the mesh's registry (PassthroughCluster), to headless services and to services with resolution NONE need a ServiceEntry with resolution STATIC or DNS.",
		},
		{
			codeRegexUnsupported, SeverityError,
			"%v; %s",
			"Envoy's regular expressions are RE2, APISIX's are PCRE without Unicode mode. A few expressions have no equivalent.",
		},
		{
			codeRegexFirstMatch, SeverityWarning,
			"only the first match of %q is replaced; Envoy replaces all",
			"APISIX substitutes once. Anchor the expression, or let it match the whole path, to get the same result in both.",
		},
		{
			codePathRewrite, SeverityError,
			"the path rewrite %s has no counterpart in APISIX; the path is not rewritten",
			"Prefix, full path, regular expression and template rewrites are supported.",
		},
		{
			codePathRewriteFormats, SeverityInfo,
			"the path is rewritten to %q with values percent-encoded",
			"Envoy puts a value into the path as it is. APISIX encodes what a path cannot hold, percent signs too.",
		},
		{
			codeHostRewrite, SeverityWarning,
			"the host rewrite %s has no counterpart in APISIX; %s",
			"APISIX sends the client's Host, a fixed one, or the name of the endpoint.",
		},
		{
			codeHeaderLeftOut, SeverityWarning,
			"header %q is not changed as configured: %s",
			"APISIX sets, adds and removes headers, with values made of literals and of nginx's variables.",
		},
		{
			codeHeaderMayBeEmpty, SeverityInfo,
			"header %q is removed, or added to without a value, where what it is set to is missing",
			"Where an operator such as %REQ(x-user)% has no value, Envoy skips the operation. nginx sends no header that is empty, and removes one that is set to nothing.",
		},
		{
			codeHeaderReplaced, SeverityWarning,
			"header %q replaces the upstream's instead of being added to it: %s",
			"APISIX's response-rewrite plugin refuses to add values that have a colon or end in a slash, but can set them.",
		},
		{
			codeRedirectLocation, SeverityInfo,
			"the location of the redirect is not spelled as Envoy does: %s",
			"APISIX's redirect plugin has no conditions and no escape for a dollar sign. Clients get to the same place, unless a server tells the spellings apart.",
		},
		{
			codeResponseBody, SeverityWarning,
			"the body is left out: %s",
			"The body of a direct response must be text that is part of the configuration.",
		},
		{
			codeResponseStatus, SeverityError,
			"%d is not the status of a final response; requests are answered with 500",
			"Envoy refuses such a configuration as well.",
		},
		{
			codeTimeoutPerRead, SeverityInfo,
			"a response may take longer than %v: APISIX times out when nothing arrives for %v",
			"nginx limits the time between two reads, not that of the whole response; a response that trickles in does not time out. No retry starts after the route's timeout; where retries were left, the answer is then 502 instead of 504.",
		},
		{
			codeRetryCondition, SeverityWarning,
			"there are no retries on %s",
			"nginx retries when it cannot connect, when the connection breaks and when the upstream times out: requests that are not idempotent only before they were sent. It decides by status for all routes of an APISIX at once, if at all, and not by gRPC status.",
		},
		{
			codeRetryBackOff, SeverityInfo,
			"retries follow at once, without the back-off of %v",
			"nginx has no delay between attempts; it moves on to another endpoint.",
		},
		{
			codeMirror, SeverityWarning,
			"requests are not mirrored to cluster %q",
			"APISIX mirrors to one address, not to an upstream: without capture, a cluster's endpoints, such as those of a subset, cannot be balanced that way. It has one mirror for a route, does not rewrite the path of copies, and sends them over HTTP/1.1.",
		},
		{
			codeMirrorApproximate, SeverityInfo,
			"copies of requests to cluster %q go to %s",
			"APISIX's proxy-mirror plugin sends them to an address: for a service of Kubernetes its own, behind which Kubernetes balances; with capture, one of the overlay, behind which APISIX balances connections, in mesh TLS where the endpoints want it. Copies keep the Host, to which Envoy appends -shadow. Requests whose path has escapes, upgrades and gRPC are not copied: the plugin writes the decoded path, with which clients could forge requests.",
		},
		{
			codeFault, SeverityWarning,
			"%s",
			"Delays and aborts that depend on a percentage alone are supported.",
		},
		{
			codeCORS, SeverityWarning,
			"%s",
			"Preflight requests are answered by a route of their own, and the headers of other responses are set where the origin is allowed.",
		},
		{
			codeHashPolicy, SeverityWarning,
			"the hash policy is not supported: %s",
			"APISIX hashes a header, a cookie, a query parameter, the client's address, or a combination of these. Without a key, requests are balanced round robin.",
		},
		{
			codeHashCookie, SeverityWarning,
			"APISIX does not set the cookie %q; clients without it are hashed by their address",
			"The cookie is set by the response-rewrite plugin, which refuses values with a colon, in a path or an attribute.",
		},
		{
			codeClusterType, SeverityError,
			"APISIX cannot discover the endpoints of clusters of type %s; requests are answered with 503",
			"Endpoints come from EDS, from the cluster itself, or from DNS.",
		},
		{
			codeLoadBalancing, SeverityWarning,
			"the load balancing policy %s has no counterpart in APISIX; round robin is used",
			"APISIX has round robin, least connections and consistent hashing.",
		},
		{
			codeEndpoint, SeverityWarning,
			"endpoint %s is left out: %s",
			"APISIX connects to TCP addresses with a port.",
		},
		{
			codeMeshTLS, SeverityWarning,
			"%s endpoints expect mesh mTLS, but APISIX connects to them in plaintext; those in STRICT mode refuse that",
			"APISIX cannot originate Istio's mTLS: it sends no ALPN and cannot verify SPIFFE identities. Endpoints in PERMISSIVE mode accept plaintext.",
		},
		{
			codeTLSOrigination, SeverityError,
			"the cluster's endpoints expect TLS, but APISIX connects to them in plaintext",
			"APISIX cannot verify the certificate of an upstream, so TLS is not originated. Requests fail unless the endpoint accepts plaintext as well.",
		},
		{
			codeTransportSocket, SeverityError,
			"the transport socket %s has no counterpart in APISIX, which connects in plaintext",
			"PROXY protocol headers, HBONE tunnels and custom transports need a proxy behind APISIX.",
		},
		{
			codeHTTP2Downgraded, SeverityInfo,
			"gRPC requests are sent in HTTP/2, all others in HTTP/1.1",
			"nginx speaks HTTP/2 to upstreams for gRPC only. A server that understands nothing but HTTP/2 fails on other requests. Where a route rewrites the path of gRPC requests, escapes in the new path are escaped again.",
		},
		{
			codeCircuitBreaker, SeverityWarning,
			"at most %d requests at a time are let through, counted for each route and APISIX process; the rest is answered with 503",
			"APISIX limits concurrent requests, not connections. For HTTP/1.1 the limit is the connections plus the pending requests of the connection pool, and none of them waits in a queue.",
		},
		{
			codeOutlierDetection, SeverityWarning,
			"an endpoint is ejected after %d failures in a row and comes back when it accepts a TCP connection within %d s; there is no limit of ejections",
			"APISIX's passive health checks need an active one to recover, and have no maximum ejection percentage, success rate or growing ejection time. If all endpoints are ejected, all are used.",
		},
		{
			codeProtocolOptions, SeverityError,
			"the protocol options cannot be decoded: %v",
			"HTTP/1.1 and the default limits are used.",
		},
		{
			codeNameResolvedByAPISIX, SeverityInfo,
			"APISIX resolves %s itself and uses one of its addresses at a time",
			"Where the addresses are known, they are all used, as Envoy does for STRICT_DNS clusters. They are not known when xDS is translated offline without --resolve, and when --dns-servers is off.",
		},
		{
			codeNameNotResolved, SeverityWarning,
			"%s cannot be resolved: %s; %s",
			"No DNS server that was asked has a usable answer. It is tried again as often as the cluster says (dns_failure_refresh_rate, or else dns_refresh_rate). That a name does not exist is an answer, and leaves the cluster without endpoints, as in Envoy.",
		},
		{
			codeLogicalDNS, SeverityInfo,
			"APISIX resolves %s itself: a random one of its addresses for each request, IPv4 if there is one, for as long as DNS says",
			"Envoy uses the first address of the newest answer for new connections, and keeps it while DNS fails, when APISIX soon answers 503. The refresh rates and other DNS settings of the cluster have no effect; APISIX has its own (apisix.dns_resolver).",
		},
		{
			codeSlowStart, SeverityInfo,
			"the weights of new endpoints grow in about ten steps over %v",
			"The bridge follows Envoy's formula and commits the upstream at each step, at most once a second. New are endpoints that join others: those of the first configuration after a start, and of a new cluster, have their full weights.",
		},
		{
			codeZoneAware, SeverityInfo,
			"requests are kept in %s as far as its endpoints suffice, as if clients were spread evenly over the zones",
			"Envoy compares the endpoints of each zone with the instances of its own service there, which it has to be told (ISTIO_META_ENABLE_SELF_DISCOVERY). The bridge does not know them and takes them to be as many in each zone that has endpoints.",
		},
		{
			codeZoneUnknown, SeverityWarning,
			"the zone of the workload is not known; endpoints of all zones get requests",
			"Label the pod topology.istio.io/locality: REGION/ZONE/SUBZONE (with dots instead of slashes), as its endpoints are.",
		},
		{
			codeInstanceAddress, SeverityWarning,
			"the workload's own address is not known; the application is expected at %s",
			"Envoy connects to the application at the pod's address. Set the INSTANCE_IP environment variable or the node id to it.",
		},
		{
			codeSourceNotBound, SeverityInfo,
			"the application is reached at %s, where Envoy connects to the pod's own address from 127.0.0.6",
			"Istio's iptables rules exempt 127.0.0.6, and send what else the proxy's user opens to the pod's own address back to the proxy. An application that does not listen on the loopback address is not reached.",
		},
	}
}
