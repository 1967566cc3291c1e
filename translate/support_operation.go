package translate

// operationSupport is about telemetry, extensions and what is left.
func operationSupport() []SupportSection {
	return []SupportSection{
		{"Telemetry", []Support{
			{"access log to a file", "access_log", Approximate, "the file-logger plugin: JSON, with the fields that APISIX knows; in Envoy's text or JSON by the bridge, where a chain has further ones, and with --access-log-files bridge", []Code{codeAccessLog, codeAccessLogPartial}, "access-log-bridge"},
			{"filters of access logs", "access_log.filter", Approximate, "file-logger by status and duration, also combined; the bridge by all but metadata, sampling and expressions beyond the usual; what cannot be told is logged", []Code{codeAccessLog, codeAccessLogPartial}, "access-log-services"},
			{"access log of listeners and TCP", "Listener.access_log, tcp_proxy.access_log", NeedsCapture, "written by the bridge, in Envoy's text or JSON or to services; without the endpoint, where APISIX chooses one of several", []Code{codeAccessLogPartial, "telemetry_ignored"}, "access-log-tcp"},
			{"access log to a service", "access_log, gRPC or OpenTelemetry", Approximate, "sent by the bridge, which APISIX tells of requests (docs/telemetry.md); without the filter state", []Code{codeAccessLogPartial, "telemetry_ignored"}, "access-log-services"},
			{"response flags", "%RESPONSE_FLAGS%", NotPossible, "APISIX has no such reasons", []Code{codeHeaderLeftOut}, "action-request-headers"},
			{"Istio's metrics of requests", "istio.stats filter", Approximate, "istio_requests_total and the histograms, counted by the bridge (docs/telemetry.md); without messages of gRPC", []Code{codeStatsLabel, codeStatsCustom}, "filter-stats"},
			{"Istio's metrics of TCP", "istio.stats filter", NeedsCapture, "istio_tcp_*, counted by capture (docs/telemetry.md); of clients, with what all endpoints of a service have in common", []Code{codeStatsLabel, codeStatsCustom}, "filter-stats"},
			{"exchange of metadata about peers, HTTP", "peer_metadata filter, istio_headers", Approximate, "x-envoy-peer-metadata and -id, by a global rule (docs/telemetry.md); requests that capture passes on without APISIX keep what they have", []Code{codePeerMetadata}, "filter-peer-metadata"},
			{"discovery of workloads by address", "peer_metadata filter, workload_discovery", NotPossible, "the endpoint's metadata is used; clients that send no headers are unknown", nil, "bookinfo-client"},
			{"exchange of metadata about peers, TCP", "metadata_exchange filter", NotPossible, "the peers of connections report this workload as unknown", nil, "bookinfo-client"},
			{"tracing with Zipkin", "tracing.provider", Approximate, "the zipkin plugin, with the same sampling and headers", []Code{codeTracing, "telemetry_ignored"}, "filter-tracing"},
			{"tracing with OpenTelemetry", "tracing.provider", Approximate, "the opentelemetry plugin, with the same sampling; its collector is a matter of APISIX's configuration", []Code{codeTracingCollector}, "filter-tracing-collector"},
			{"tracing with SkyWalking", "tracing.provider", Approximate, "the skywalking plugin, as above", []Code{codeTracingCollector}, "filter-tracing-collector"},
			{"tracing with others", "tracing.provider", NotPossible, "not set up: APISIX has no plugin for Datadog's spans; headers of traces are forwarded as they come", []Code{"telemetry_ignored"}, "filter-tracing-collector"},
			{"x-request-id", "generate_request_id", Approximate, "the request-id plugin; exact in sidecars, and gateways keep what a client sends", []Code{codeRequestIDKept}, "filter-request-id"},
		}},
		{"Headers of proxies", []Support{
			{"x-forwarded-client-cert", "forward_client_cert_details", NeedsCapture, "capture's word for the certificate; elsewhere removed from what clients send, and not set", []Code{"client_certificate_header"}, "TestNoClientCanForgeACertificateHeader"},
			{"x-forwarded-for", "use_remote_address, skip_xff_append", Approximate, "APISIX always appends the peer's address, as gateways of Istio do and sidecars do not", []Code{"request_normalization"}, "TestRecordingsDoWhatEnvoyDoes"},
			{"x-envoy-attempt-count", "include_request_attempt_count", Approximate, "always 1", nil, "action-request-headers"},
			{"server, via", "server_name, via", Approximate, "APISIX's own", []Code{"request_normalization", "setting_ignored"}, "listener-settings"},
		}},
		{"Extensions", []Support{
			{"EnvoyFilter that changes fields of routes and clusters", "patched xDS", Approximate, "as the rows above say of the field", []Code{"setting_ignored"}, "TestNoFieldIsLostInSilence"},
			{"EnvoyFilter that adds filters", "http_filters", NotPossible, "requests pass without the filter; what restricts access fails closed", []Code{codeFilterIgnored, "filter_fault", "listener_filter_ignored"}, "filter-unknown"},
			{"configuration of filters for routes and virtual hosts", "typed_per_filter_config", Approximate, "the most specific one, for the filters that are translated", []Code{codeFilterIgnored}, "action-other-filter"},
			{"local rate limit", "local_ratelimit filter", Approximate, "the limit-req plugin: a bucket that fills evenly, for a chain or a route", []Code{codeLocalRateLimit, codeLocalRateLimitPartial}, "filter-local-rate-limit"},
			{"global rate limit", "ratelimit filter", NotPossible, "not limited: APISIX cannot ask a rate limit service. A local rate limit is translated, and APISIX's limit-count counts in Redis where it is enabled globally", []Code{codeFilterIgnored}, "filter-unknown"},
			{"WasmPlugin", "ECDS", NotPossible, "requests pass without it", []Code{"filter_discovered"}, "filter-unknown"},
			{"proxyless gRPC", "api_listener", NotPossible, "not served", []Code{"api_listener"}, "proxyless-grpc"},
		}},
		{"Names, scopes and lifecycle", []Support{
			{"DNS proxying", "NDS", NeedsCapture, "capture answers from istiod's name table, and asks the host's servers for other names (--capture-dns); elsewhere not answered", nil, ""},
			{"addresses of ServiceEntry that are allocated", "NDS, listeners for the addresses", NeedsCapture, "APISIX serves the listeners, and capture answers the names; elsewhere nobody does", nil, ""},
			{"Sidecar egress hosts, outboundTrafficPolicy, egressProxy", "what istiod sends", Exact, "only what it sends is translated", nil, "TestApplyingStepByStepEqualsTranslatingAtOnce"},
			{"HTTP/1.0, case of headers, sizes", "http_protocol_options, max_request_headers_kb", Approximate, "nginx's: HTTP/1.0 is served, the case of headers kept, sizes are limited by its configuration", []Code{"setting_ignored", "request_normalization"}, "listener-settings"},
			{"streaming of bodies", "", Approximate, "APISIX buffers requests and responses unless its configuration says otherwise", nil, ""},
			{"graceful drain", "drain_type", Approximate, "APISIX's own on shutdown; removed routes end with the requests on them", nil, ""},
			{"route configuration that has not arrived", "rds", Exact, "404", []Code{"route_config_missing"}, "chain-rds-missing"},
			{"domains that are no host names", "VirtualHost.domains", NotPossible, "not served", []Code{"domain_invalid"}, "host-invalid"},
			{"scoped routes, connections that end in other filters", "scoped_routes, filters", NotPossible, "not served", []Code{"chain_without_proxy", "route_discovery_unsupported"}, "listener-settings"},
		}},
	}
}
