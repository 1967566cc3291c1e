package translate

// accessSupport is about who may do what, and TLS of gateways.
func accessSupport() []SupportSection {
	return []SupportSection{
		{"Mesh TLS", []Support{
			{"PeerAuthentication STRICT, PERMISSIVE, DISABLE", "filter_chain_match.transport_protocol", NeedsCapture, "plain connections where the mode allows them; a port in STRICT mode answers 403", []Code{codeUnenforcedMutualTLS, "mesh_tls_not_received"}, "closed-strict-direct"},
			{"PeerAuthentication for single ports", "chains for each port", NeedsCapture, "as above, for each port", []Code{codeUnenforcedMutualTLS}, "closed-strict-allow-unenforced"},
		}},
		{"AuthorizationPolicy and RequestAuthentication", []Support{
			{"principals, namespaces, serviceAccounts", "principals.authenticated", NeedsCapture, "identities of mesh TLS; plain peers have none, so nobody is allowed by one", nil, "authorization-allow-identity"},
			{"ipBlocks", "direct_remote_ip", Exact, "the peer's address", nil, "authorization-addresses"},
			{"remoteIpBlocks", "remote_ip", Approximate, "the address that trusted proxies say; more is refused where that is not certain", nil, "authorization-remote-address-gateway"},
			{"hosts, ports, methods", "permissions", Exact, "conditions; the port is known from the chain", nil, "authorization-methods-and-hosts"},
			{"paths", "url_path", Approximate, "both forms of the path are looked at; paths that Envoy would change first are refused", []Code{codeAuthorizationPath}, "authorization-paths"},
			{"path templates", "uri_template", Approximate, "as above, as regular expressions", []Code{codeAuthorizationPath}, "authorization-path-template"},
			{"when: headers, server name, destination address", "permissions, principals", Approximate, "conditions; headers whose names differ in - and _ are one", []Code{codeAuthorizationHeaderName, codeAuthorizationUnknown}, "authorization-headers"},
			{"when: request.auth", "metadata", NotYet, "unknown: nobody is allowed by a claim, everybody denied", []Code{codeAuthorizationUnknown}, "authorization-claims"},
			{"DENY before ALLOW, policies of single routes", "order of filters", Exact, "DENY, then ALLOW, before faults, redirects and answers", nil, "authorization-before-faults"},
			{"AUDIT, dry runs", "LOG, shadow_rules", NotPossible, "nobody is refused, as in Envoy; nothing is logged", []Code{codeAuthorizationAudit, codeAuthorizationDryRun}, "authorization-audit"},
			{"CUSTOM over HTTP", "ext_authz.http_service", NotYet, "the requests that would be asked about are refused", []Code{codeUnenforcedExtAuthz}, "authorization-custom"},
			{"CUSTOM over gRPC", "ext_authz.grpc_service", NotYet, "as above", []Code{codeUnenforcedExtAuthz}, "authorization-custom"},
			{"policies for TCP", "network RBAC", NeedsCapture, "TCP is not served; in front of HTTP, they make the chain answer 403", []Code{codeUnenforcedRBAC, "tcp_refused"}, "closed-rbac"},
			{"RequestAuthentication with keys of its own", "jwt_authn.local_jwks", NotYet, "where a token is required, requests get 403", []Code{codeUnenforcedJWT}, "closed-jwt"},
			{"RequestAuthentication with keys to fetch", "jwt_authn.remote_jwks", NotYet, "as above", []Code{codeUnenforcedJWT}, "closed-jwt"},
			{"outputClaimToHeaders, forwardOriginalToken", "jwt_authn.claim_to_headers, forward", NotYet, "as above", []Code{codeUnenforcedJWT}, "closed-jwt"},
			{"OAuth2, basic authentication, API keys, CSRF", "EnvoyFilter", NotYet, "what they protect answers 403", []Code{codeUnenforcedAuthFilter}, "closed-others-stay"},
		}},
		{"Gateways", []Support{
			{"HTTP server", "RDS http.PORT", Exact, "routes with a condition on the port", nil, "TestTheChainOfAConnectionIsThatOfItsListener"},
			{"TLS SIMPLE", "DownstreamTlsContext, SDS", Approximate, "an ssl object; a wildcard stands for one label", []Code{"server_name_depth", "server_name_invalid", "server_name_conflict", "certificate_choice", "certificate_missing", "certificate_unavailable"}, "tls-simple"},
			{"TLS MUTUAL", "require_client_certificate", Approximate, "client certificates are verified; Host must be the server name", []Code{"client_certificate_host", "client_certificate_verified", codeUnenforcedClientCertificate, codeUnenforcedClientCertificateCheck}, "tls-mutual"},
			{"TLS OPTIONAL_MUTUAL", "validation_context without require_client_certificate", Approximate, "a bad certificate gets 404 instead of a failed handshake", []Code{"client_certificate_refused_late", "client_certificate_required"}, "tls-optional-mutual"},
			{"TLS ISTIO_MUTUAL", "SDS default", NeedsCapture, "not served", []Code{"certificate_unavailable"}, "tls-unavailable"},
			{"TLS PASSTHROUGH", "tcp_proxy by server_names", NeedsCapture, "not served", []Code{"tcp_refused"}, "tls-passthrough-beside"},
			{"TLS AUTO_PASSTHROUGH", "tcp_proxy by server_names outbound_…", NeedsCapture, "not served", []Code{"tcp_refused"}, "tls-passthrough-beside"},
			{"minProtocolVersion, maxProtocolVersion", "tls_params", Approximate, "for each server, from TLS 1.1 on", []Code{"tls_version_unavailable", "tls_parameters_ignored"}, "tls-parameters"},
			{"cipherSuites, curves, ALPN", "tls_params, alpn_protocols", NotPossible, "the same for all servers of an APISIX", []Code{"tls_parameters_ignored", "alpn_ignored"}, "tls-parameters"},
			{"subjectAltNames, certificate hashes, revocation lists of clients", "validation_context", NotPossible, "such a server answers 403", []Code{codeUnenforcedClientCertificateCheck}, "tls-client-checks"},
			{"credentialName, rotation of certificates", "SDS kubernetes://", Exact, "the ssl object changes with the secret", []Code{"certificate_missing"}, "tls-several-certificates"},
			{"HTTP/3", "QUIC listener", NotPossible, "not served", []Code{"udp_listener"}, "listener-unsupported"},
			{"numTrustedProxies", "xff_num_trusted_hops", Approximate, "counts in AuthorizationPolicy; APISIX's own notion of the client's address is a matter of its configuration", []Code{"setting_ignored"}, "authorization-remote-address-gateway"},
			{"forwardClientCertDetails", "forward_client_cert_details", Approximate, "x-forwarded-client-cert of clients is always removed where Envoy removes or replaces it, and never set", []Code{"client_certificate_header"}, "TestNoClientCanForgeACertificateHeader"},
			{"PROXY protocol of load balancers", "proxy_protocol listener filter", Approximate, "APISIX reads it where its configuration says so; remoteIpBlocks see the client's address", []Code{codeProxyProtocol}, "listener-proxy-protocol"},
			{"ports that come and go", "LDS", NeedsCapture, "APISIX's configuration lists the ports", nil, ""},
			{"TLS routes by server name", "server_names", NeedsCapture, "not served", []Code{"tcp_refused"}, "gateway-tls"},
			{"TCP routes by port and subnet", "prefix_ranges", NeedsCapture, "not served", []Code{"tcp_refused"}, "tcp-client"},
			{"UDP", "udp_listener_config", NotPossible, "not served", []Code{"udp_listener"}, "listener-unsupported"},
			{"HTTPRoute, GRPCRoute", "RDS", Exact, "as VirtualService, with the rows above for what they consist of", nil, "gateway-api"},
			{"TCPRoute, TLSRoute", "LDS", NeedsCapture, "not served", []Code{"tcp_refused"}, "gateway-api-client"},
			{"InferencePool", "ext_proc", NotPossible, "requests are balanced as the cluster says", []Code{codeFilterIgnored}, "action-other-filter"},
		}},
	}
}
