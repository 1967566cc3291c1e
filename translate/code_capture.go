package translate

// Diagnostic codes of what capture does.
const (
	codeCipherSuite         Code = "cipher_suite_unknown"
	codeOverlayChecks       Code = "overlay_checks_approximate"
	codeOverlayExhausted    Code = "overlay_exhausted"
	codeProxyProtocolSource Code = "proxy_protocol_source"
	codeStreamPorts         Code = "stream_ports_exhausted"
	codeTCPClosed           Code = "tcp_closed"
	codeTCPClusterNotFound  Code = "tcp_cluster_not_found"
	codeUpstreamSecret      Code = "upstream_secret_missing"
)

func captureCodes() []CodeInfo {
	return []CodeInfo{
		{
			codeCipherSuite, SeverityWarning, "cipher suite %s is not offered",
			"Capture speaks TLS with Go's library, which does not have it. TLS 1.3 has suites of its own, which cannot be chosen.",
		},
		{
			codeOverlayChecks, SeverityInfo, "health checks of endpoints that capture connects to go through capture, to the port of requests; those that only open a connection find out nothing",
			"APISIX knows such endpoints by an address of capture, which accepts connections before it opens one to the endpoint. An endpoint that outlier detection has ejected comes back at the next check.",
		},
		{
			codeOverlayExhausted, SeverityError, "endpoints are left out: there is no address left by which APISIX could know them",
			"Endpoints that want TLS or the like are known to APISIX by an address of capture in 127.96.0.0/11. An address rests for some minutes before another endpoint gets it.",
		},
		{
			codeProxyProtocolSource, SeverityWarning, "the PROXY protocol header names the connection from APISIX to capture, not the client",
			"Capture adds the header behind APISIX, which shares connections between clients.",
		},
		{
			codeStreamPorts, SeverityError, "TCP connections to cluster %q are closed: no stream port of APISIX is left",
			"Each TCP cluster has a port of its own on which APISIX listens: --apisix-stream-ports, which must be those in APISIX's stream_proxy.tcp. Fewer services are visible with a Sidecar resource or exportTo.",
		},
		{
			codeTCPClosed, SeverityError, "TCP connections are closed: %s",
			"What would carry them further has no counterpart.",
		},
		{
			codeTCPClusterNotFound, SeverityInfo, "there is no cluster %q; connections are closed, as Envoy does",
			"The destination does not exist, is not visible to the workload, or has not arrived yet.",
		},
		{
			codeUpstreamSecret, SeverityError, "connections fail: %s has not arrived",
			"TLS to the endpoints needs a certificate or authorities that come with the configuration. istiod sends secrets to gateways only, and over its authenticated port.",
		},
	}
}
