package translate

import "google.golang.org/protobuf/reflect/protoreflect"

// codeSettingIgnored is the code of what reportUnknown reports.
const codeSettingIgnored Code = "setting_ignored"

// understoodInActions does so for actions. Fields that make no
// difference come last, with the reason.
var understoodInActions = map[protoreflect.FullName][]string{
	"envoy.config.route.v3.VirtualHost": {
		"name", "domains", "routes", "require_tls", "matcher", "metadata",
		"request_headers_to_add", "request_headers_to_remove", "response_headers_to_add", "response_headers_to_remove",
		"typed_per_filter_config", "retry_policy", "request_mirror_policies", "include_request_attempt_count",
		"virtual_clusters", // statistics only
	},
	"envoy.config.route.v3.Route": {
		"name", "match", "metadata",
		"route", "redirect", "direct_response", "filter_action", "non_forwarding_action",
		"request_headers_to_add", "request_headers_to_remove", "response_headers_to_add", "response_headers_to_remove",
		"typed_per_filter_config",
		"decorator", "tracing", "stat_prefix", // names and sampling of spans, names of statistics
	},
	"envoy.config.route.v3.RouteAction": {
		"cluster", "cluster_header", "weighted_clusters", "cluster_specifier_plugin", "inline_cluster_specifier_plugin",
		"cluster_not_found_response_code", "prefix_rewrite", "regex_rewrite", "path_rewrite_policy", "path_rewrite",
		"host_rewrite_literal", "auto_host_rewrite", "host_rewrite_header", "host_rewrite_path_regex", "host_rewrite",
		"timeout", "idle_timeout", "max_stream_duration", "retry_policy", "request_mirror_policies", "hash_policy",
		"upgrade_configs",
		"append_x_forwarded_host", // APISIX always sends X-Forwarded-Host
		"max_grpc_timeout",        // the client itself enforces the deadline that it sends in grpc-timeout
	},
	"envoy.config.route.v3.WeightedCluster": {
		"clusters",
		"total_weight", // weights count in proportion to their sum
	},
	"envoy.config.route.v3.WeightedCluster.ClusterWeight": {
		"name", "weight", "cluster_header", "host_rewrite_literal", "typed_per_filter_config",
		"request_headers_to_add", "request_headers_to_remove", "response_headers_to_add", "response_headers_to_remove",
	},
	"envoy.config.route.v3.RetryPolicy": {
		"retry_on", "num_retries", "per_try_timeout", "per_try_idle_timeout", "retriable_status_codes",
		"retriable_headers", "retry_back_off", "retry_host_predicate", "retry_priority",
		"host_selection_retry_max_attempts", // APISIX finds an endpoint that was not tried at the first attempt
	},
	"envoy.config.route.v3.RedirectAction": {
		"https_redirect", "scheme_redirect", "host_redirect", "port_redirect", "path_redirect", "prefix_rewrite",
		"regex_rewrite", "path_rewrite", "response_code", "strip_query",
	},
	"envoy.config.route.v3.DirectResponseAction": {"status", "body", "body_format"},
	"envoy.extensions.filters.http.fault.v3.HTTPFault": {
		"delay", "abort", "upstream_cluster", "headers", "downstream_nodes",
		"disable_downstream_cluster_stats", "filter_metadata", // statistics and logs
	},
	"envoy.extensions.filters.http.cors.v3.CorsPolicy": {
		"allow_origin_string_match", "allow_methods", "allow_headers", "expose_headers", "max_age", "allow_credentials",
		"filter_enabled", "forward_not_matching_preflights",
		"shadow_enabled", // statistics only
	},
}

// understoodInClusters does so for clusters and endpoints.
var understoodInClusters = map[protoreflect.FullName][]string{
	"envoy.config.cluster.v3.Cluster": {
		"name", "type", "cluster_type", "eds_cluster_config", "connect_timeout", "lb_policy", "load_balancing_policy",
		"load_assignment", "circuit_breakers", "typed_extension_protocol_options", "common_http_protocol_options",
		"http2_protocol_options", "protocol_selection", "max_requests_per_connection", "outlier_detection",
		"upstream_bind_config", "upstream_connection_options", "common_lb_config", "least_request_lb_config",
		"round_robin_lb_config", "transport_socket", "transport_socket_matches", "metadata", "dns_lookup_family",
		"ring_hash_lb_config", "maglev_lb_config", // sizes of rings and tables: APISIX has a ring of its own
		"alt_stat_name", "stats_matcher", "track_timeout_budgets", "track_cluster_stats", // statistics only
		"lrs_server", "lrs_report_endpoint_metrics", // load reports
		"per_connection_buffer_limit_bytes",          // nginx has buffers of its own
		"filters",                                    // Istio's exchange of metadata about peers
		"cleanup_interval", "original_dst_lb_config", // of endpoints that APISIX does not have
		"dns_refresh_rate", "dns_jitter", "dns_failure_refresh_rate", "respect_dns_ttl", // to the resolver, by HostNames
		"dns_resolvers", "use_tcp_for_dns_lookups", "dns_resolution_config", "typed_dns_resolver_config", // see nameServersOf
		"wait_for_warm_on_init", // a new cluster answers 503 until it has endpoints
		"health_checks",
		"close_connections_on_host_health_failure", "ignore_health_on_host_removal", // APISIX closes and removes at once
	},
	"envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig": {
		"udp_max_queries", "max_udp_channel_duration", // every query has a socket of its own
		"query_timeout_seconds", "query_tries", // those of the host's resolver apply
		"resolvers", "dns_resolver_options", "use_resolvers_as_fallback",
	},
	"envoy.config.core.v3.DnsResolverOptions": {"use_tcp_for_dns_lookups", "no_default_search_domain"},
	"envoy.config.cluster.v3.UpstreamConnectionOptions": {
		"set_local_interface_name_on_upstream_connections", // logs only
	},
	"envoy.config.cluster.v3.Cluster.CommonLbConfig": {
		"locality_weighted_lb_config", "zone_aware_lb_config",
		"healthy_panic_threshold",                                // APISIX panics when no endpoint is left, whatever the threshold
		"update_merge_window", "ignore_new_hosts_until_first_hc", // changes are merged, and endpoints healthy, as EDS has them
		"close_connections_on_host_set_change", // idle connections to endpoints that are gone time out
	},
	"envoy.config.cluster.v3.Cluster.LeastRequestLbConfig": {
		"slow_start_config",
		"choice_count", "active_request_bias", // APISIX compares all endpoints
	},
	"envoy.config.cluster.v3.Cluster.RoundRobinLbConfig":                 {"slow_start_config"},
	"envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin": {"slow_start_config", "locality_lb_config"},
	"envoy.extensions.load_balancing_policies.random.v3.Random":          {"locality_lb_config"},
	"envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest": {
		"slow_start_config", "locality_lb_config",
		"choice_count", "active_request_bias", "enable_full_scan", "selection_method", // APISIX compares all endpoints
	},
	"envoy.config.cluster.v3.Cluster.CommonLbConfig.ZoneAwareLbConfig": {"routing_enabled", "min_cluster_size"},
	"envoy.extensions.load_balancing_policies.common.v3.LocalityLbConfig.ZoneAwareLbConfig": {
		"routing_enabled", "min_cluster_size", "locality_basis",
	},
	"envoy.config.cluster.v3.CircuitBreakers": {"thresholds"},
	"envoy.config.cluster.v3.CircuitBreakers.Thresholds": {
		"priority", "max_connections", "max_pending_requests", "max_requests", "max_retries",
		"track_remaining", // statistics only
	},
	"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
		"common_http_protocol_options", "explicit_http_config", "use_downstream_protocol_config", "auto_config",
		"upstream_http_protocol_options", // TLS names, and TLS is reported as a whole
		"header_validation_config",       // nginx validates
	},
	"envoy.config.core.v3.HttpProtocolOptions": {
		"idle_timeout", "max_requests_per_connection",
		"headers_with_underscores_action", "max_headers_count", "max_response_headers_kb", // nginx has limits of its own
	},
	"envoy.config.core.v3.HealthCheck": {
		"timeout", "interval", "unhealthy_interval", "unhealthy_threshold", "healthy_threshold",
		"http_health_check", "tcp_health_check", "grpc_health_check", "custom_health_check",
		"interval_jitter", "interval_jitter_percent", "initial_jitter", // APISIX's processes take turns
		"reuse_connection",                                   // each check opens a connection
		"no_traffic_interval", "no_traffic_healthy_interval", // checks begin with the first request
		"unhealthy_edge_interval", "healthy_edge_interval", // only until a change is confirmed
		"tls_options", "transport_socket_match_criteria", // TLS is reported as a whole
		"event_log_path", "event_logger", "event_service", "always_log_health_check_failures", "always_log_health_check_success", // logs only
	},
	"envoy.config.core.v3.HealthCheck.HttpHealthCheck": {
		"host", "path", "method", "request_headers_to_add", "expected_statuses", "retriable_statuses",
		"response_buffer_size", "codec_client_type", "use_alpn_protocol", // the status is all that counts, over HTTP/1.1
	},
	"envoy.config.endpoint.v3.ClusterLoadAssignment": {"cluster_name", "endpoints", "named_endpoints", "policy"},
	"envoy.config.endpoint.v3.ClusterLoadAssignment.Policy": {
		"overprovisioning_factor", "weighted_priority_health", // APISIX uses the next priority when one has nobody left
		"endpoint_stale_after", // istiod says so when an endpoint is gone
	},
	"envoy.config.endpoint.v3.LocalityLbEndpoints": {
		"lb_endpoints", "load_balancing_weight", "priority",
		"locality", "proximity", "metadata", // names; weights and priorities say what they mean
	},
	"envoy.config.endpoint.v3.LbEndpoint": {"endpoint", "endpoint_name", "health_status", "metadata", "load_balancing_weight"},
	"envoy.config.endpoint.v3.Endpoint": {
		"address", "hostname",
		"additional_addresses", // further ways to reach the same endpoint
		"health_check_config",  // see checkedPort
		"observability_name",   // statistics only
	},
}
