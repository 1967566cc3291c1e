package translate

// listenerSupport is about how connections reach APISIX, and which virtual host takes a request.
func listenerSupport() []SupportSection {
	return []SupportSection{
		{"Traffic interception and listeners", []Support{
			{"outbound connections redirected by iptables", "Listener virtualOutbound, use_original_dst", Approximate, "profile direct: APISIX sees the original destination itself, for HTTP over IPv4; the rest takes capture", []Code{"default_chain", "ipv6_not_received"}, "chain-wildcard-ipv6-direct"},
			{"inbound connections redirected by iptables", "Listener virtualInbound", Approximate, "profile direct: plain HTTP over IPv4 to ports of services", []Code{"inbound_passthrough", "mesh_tls_not_received"}, "TestInlineRoutesOfInboundListenersAreServed"},
			{"HTTP listener for a port, any address", "Listener 0.0.0.0_PORT, RDS", Exact, "routes that begin with a condition on the original destination's port, without the addresses that have a listener of their own", nil, "TestAWildcardListenerLeavesAddressesToTheirOwnListeners"},
			{"HTTP listener for one virtual IP", "Listener VIP_PORT, RDS HOST:PORT", Exact, "routes that begin with a condition on the original destination", nil, "chain-one-config-on-two-listeners"},
			{"TCP listener for a virtual IP", "tcp_proxy", NeedsCapture, "a stream_route for each cluster, behind capture; elsewhere connections are not served", []Code{"tcp_refused", codeStreamPorts, codeTCPClusterNotFound}, "tcp-client"},
			{"HTTP and TCP on one port", "http_inspector, application_protocols", NeedsCapture, "capture tells them apart by the first bytes; elsewhere HTTP is served, and other bytes get nginx's 400", []Code{"default_chain", "tcp_refused"}, "tcp-client"},
			{"TLS and server names on a mesh port", "tls_inspector, server_names", NeedsCapture, "capture chooses the chain by server name; elsewhere TLS connections are not served", []Code{"chain_match_unsupported", "tcp_refused"}, "service-entry-client"},
			{"no inspection on ports where the server speaks first", "listener_filters.filter_disabled", NeedsCapture, "capture waits for nothing on them; elsewhere nothing is inspected", nil, "tcp-mysql"},
			{"time limit of protocol detection", "listener_filters_timeout, continue_on_listener_filters_timeout", NeedsCapture, "capture's; elsewhere nothing is detected", nil, "tcp-client"},
			{"chains by address range or source", "prefix_ranges, source_prefix_ranges, source_ports", NeedsCapture, "capture chooses the chain; elsewhere, where chains differ in nothing else, none of them is served", []Code{"chain_match_unsupported"}, "chain-narrowed-direct"},
			{"default filter chain", "Listener.default_filter_chain", NeedsCapture, "capture chooses it; elsewhere connections that no chain claims find no route", []Code{"default_chain"}, "bookinfo-client"},
			{"passing on TCP connections to unknown destinations", "PassthroughCluster", NeedsCapture, "capture connects to where the client wanted to go; elsewhere they are not served: exclude the ports from redirection", []Code{"default_chain"}, "tcp-client"},
			{"passing on HTTP requests to unknown hosts (ALLOW_ANY)", "route to PassthroughCluster", NeedsCapture, "by way of capture, which connects to where the client wanted to go; elsewhere requests are answered with 503", []Code{codeOriginalDestination}, "action-passthrough"},
			{"black hole", "BlackHoleCluster", Exact, "an upstream without endpoints: 503", nil, "cluster-blackhole"},
			{"refusing unknown hosts (REGISTRY_ONLY)", "direct_response 502", Exact, "APISIX answers 502", nil, "action-direct-response-empty"},
			{"inbound connections to undeclared ports", "InboundPassthroughCluster", NeedsCapture, "as they are, where nothing restricts them, without a look at the requests, which go on with the x-forwarded-client-cert of the client, and are logged by connections; otherwise through APISIX; elsewhere not served", []Code{"inbound_passthrough"}, "security-ratings-permissive"},
			{"protection against loops", "chains virtualInbound-blackhole, virtualOutbound-blackhole", NeedsCapture, "capture closes connections to its own ports; in profile direct nothing answers at the ports that Envoy protects", []Code{"default_chain"}, "bookinfo-client"},
			{"listeners on ports of their own", "Listener.bind_to_port", Approximate, "served where APISIX is configured to listen on the port", []Code{"listening_port"}, "chain-bound-direct"},
			{"HTTP proxy port of a sidecar", "Listener 127.0.0.1_PORT, RDS http_proxy", Approximate, "served where APISIX is configured to listen on the port; CONNECT is refused", []Code{"listening_port"}, "chain-bound-direct"},
			{"listener on a UNIX domain socket", "address.pipe", NotPossible, "left out", []Code{"address_unsupported"}, "listener-unsupported"},
			{"transparent proxying (TPROXY)", "Listener.transparent", NotPossible, "nginx cannot bind to addresses of others; redirection has the same destinations, with the proxy's own address as source", nil, ""},
			{"balancing of connections among threads", "connection_balance_config, enable_reuse_port", Approximate, "left to nginx (reuseport in APISIX's configuration)", nil, ""},
		}},
		{"Virtual hosts", []Support{
			{"exact host", "VirtualHost.domains", Exact, "hosts of a route", nil, "host-trailing-dot"},
			{"host wildcard in front", "domains *.x, *-x.y", Exact, "hosts with a wildcard, the longest first", nil, "host-suffix-wildcard"},
			{"host wildcard behind", "domains x.*", Exact, "a condition on the host", nil, "host-prefix-wildcard"},
			{"any host", "domains *", Exact, "routes without hosts", nil, "host-any-and-exact"},
			{"ports in Host", "ignore_port_in_host_matching", Exact, "ignored; a domain that is for one port only matches all of them, with a warning", []Code{"domain_port"}, "host-port"},
			{"staying within a virtual host", "VirtualHost", Exact, "the last route of every virtual host takes what is left: 404", nil, "TestARequestStaysInItsVirtualHost"},
			{"first match in the order of the list", "VirtualHost.routes", Exact, "priorities within a path, and wider paths with conditions where narrower ones would overtake", nil, "TestRoutesAreChosenAsEnvoyChoosesThem"},
		}},
	}
}
