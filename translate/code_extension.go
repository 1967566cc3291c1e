package translate

// extensionCodes are about what the connection manager does for all its requests, and about filters
// that come from an EnvoyFilter.
func extensionCodes() []CodeInfo {
	return []CodeInfo{
		{
			codeTrustedHops, SeverityInfo, "rules of access and hash policies take the client's address from x-forwarded-for; APISIX's logs and x-real-ip do not",
			"The header is trusted as far as numTrustedProxies says. For the rest, set nginx_config.http.real_ip_header to X-Forwarded-For and real_ip_from to the addresses of the proxies in front; neither rules of access nor hash policies depend on it.",
		},
		{
			codeRequestIDKept, SeverityInfo, "an x-request-id that a client sends is kept",
			"At the edge of the mesh, Envoy replaces the ids of clients unless their address is internal. APISIX's request-id plugin gives one to requests that have none.",
		},
		{
			codeHealthCheck, SeverityInfo, "endpoints are checked by %s every %s; a new one is used until it fails",
			"Envoy sends requests to an endpoint when its first check has passed. APISIX's checks begin with the first request to the upstream, in each variant of it that routes need, and count whole seconds. They connect in plaintext. Answers with statuses that are not in use count neither as success nor as failure.",
		},
		{
			codeAccessLog, SeverityInfo, "requests are logged to %s in JSON, by APISIX's file-logger plugin%s",
			"The fields of a JSON format are kept, nested ones under names with a dot; a text format becomes fields named after its operators. APISIX adds the id of its route. Times are in seconds, sizes of requests include their headers, and addresses have no port. What APISIX has no variable for is left out, and where it cannot tell by a filter, it logs. Its processes must be allowed to open the file: where they run as another user than the one that started APISIX, /dev/stdout may not be one that they can. They write each line at once; without file-logger in the list of plugins, nothing is logged.",
		},
		{
			codeAccessLogPartial, SeverityInfo, "the access log %s is written without %s",
			"The bridge writes it. An operator that Envoy knows and the bridge does not reads as one without a value; where a part of a filter cannot be evaluated, more is logged than Envoy would log. Objects of the filter state are what filters of Envoy leave behind.",
		},
		{
			codeStatsLabel, SeverityInfo, "label %s of Istio's metrics is \"unknown\": its value would be %s",
			"What is counted of a request is what Istio's labels need. Literals and metadata of the node can be the values of other labels; what only the request has cannot.",
		},
		{
			codeStatsCustom, SeverityInfo, "metric %s is not counted",
			"Istio's own metrics are. Metrics that an EnvoyFilter defines would need the values of expressions for each request.",
		},
		{
			codePeerMetadata, SeverityInfo, "the exchange of metadata with peers leaves out %s",
			"The headers x-envoy-peer-metadata-id and x-envoy-peer-metadata are exchanged, as the filter says. Nothing else by which peers would know each other is, and of the filter's configuration, what is not understood has no effect.",
		},
		{
			codePersistentSession, SeverityInfo, "the session is kept by hashing the %s",
			"Envoy writes the address of an endpoint into the cookie or header. In APISIX, it has a random value, and the endpoint follows from it: when endpoints come or go, a few sessions move. The endpoint of a new session is chosen at random.",
		},
		{
			codeTracing, SeverityInfo, "spans are sent to %s by APISIX's zipkin plugin",
			"They are named after APISIX's routes and have no custom tags. APISIX resolves the name of the collector, and connects to it in plaintext.",
		},
		{
			codeTracingCollector, SeverityInfo, "spans are sent by APISIX's %s plugin, to the collector that its configuration names (%s); in the mesh it is %s",
			"The plugin has to be in APISIX's list of plugins. It takes the collector's address, and the name of the service, from a place that is the same for all routes and is not the bridge's to write: plugin_metadata of opentelemetry, plugin_attr of skywalking. Spans are named by APISIX and have no custom tags.",
		},
		{
			codeGRPCWeb, SeverityInfo, "gRPC-Web requests are translated where the cluster speaks gRPC, by APISIX's grpc-web plugin",
			"The plugin reads the whole request first, up to 64 MB. Requests that are no POST, and those to clusters that speak HTTP/1.1, are forwarded as they are. The plugin would open responses to all origins; what the CORS policy and the upstream say instead is put back.",
		},
		{
			codeLocalRateLimit, SeverityInfo,
			"bursts of up to %d requests are let through, and then one in %s; the rest is answered with %d",
			"The tokens of the bucket come back one by one, where Envoy fills it at intervals. The bucket is the chain's, or with a configuration of its own the route's, in each APISIX; routes to which other rules of access apply than to the rest of the chain share one of their own. Requests that the proxy answers itself take no token.",
		},
		{
			codeLocalRateLimitPartial, SeverityWarning,
			"%s",
			"APISIX's limit-req plugin has one bucket for all requests of a chain or route, and no headers.",
		},
	}
}
