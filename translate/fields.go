package translate

import (
	"cmp"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// understoodInChains lists, for the messages that this package reads as a whole, the fields that are
// translated, or that make no difference to what APISIX does. Any other field that is set becomes a
// diagnostic, also one that Envoy gains later.
var understoodInChains = map[protoreflect.FullName][]string{
	"envoy.config.listener.v3.Listener": {
		"name", "address", "additional_addresses", "filter_chains", "default_filter_chain", "use_original_dst",
		"bind_to_port", "deprecated_v1", "listener_filters", "traffic_direction", "api_listener", "filter_chain_matcher",
		"udp_listener_config", "access_log", "continue_on_listener_filters_timeout", "listener_filters_timeout",
		"stat_prefix", "metadata", "drain_type", "enable_reuse_port", "reuse_port", "connection_balance_config",
		"per_connection_buffer_limit_bytes", "tcp_backlog_size", "max_connections_to_accept_per_socket_event",
		"ignore_global_conn_limit", "bypass_overload_manager", "transparent", "freebind",
	},
	"envoy.config.listener.v3.FilterChain": {
		"filter_chain_match", "filters", "transport_socket", "name", "metadata", "transport_socket_connect_timeout",
	},
	"envoy.config.listener.v3.FilterChainMatch": {
		"destination_port", "prefix_ranges", "address_suffix", "suffix_len", "direct_source_prefix_ranges",
		"source_type", "source_prefix_ranges", "source_ports", "server_names", "transport_protocol",
		"application_protocols",
	},
	"envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager": {
		"rds", "route_config", "scoped_routes", "http_filters", "access_log", "tracing",
		"upgrade_configs", "forward_client_cert_details", "path_with_escaped_slashes_action", "codec_type",
		"stat_prefix", "server_name", "set_current_client_cert_details", "use_remote_address", "xff_num_trusted_hops", "normalize_path",
		"proxy_100_continue", "request_id_extension", "generate_request_id", "http_protocol_options",
		"http2_protocol_options", "stream_idle_timeout", "always_set_request_id_in_response", "preserve_external_request_id",
	},
	"envoy.config.core.v3.Http1ProtocolOptions": {
		"accept_http_10", "allow_absolute_url", "header_key_format", // nginx does so anyway
		"allow_chunked_length", "enable_trailers", "use_balsa_parser", // how messages are parsed, which nginx decides
	},
	"envoy.config.core.v3.Http2ProtocolOptions": {
		"max_concurrent_streams", "initial_stream_window_size", "initial_connection_window_size", "hpack_table_size",
		"max_outbound_frames", "max_outbound_control_frames", "max_consecutive_inbound_frames_with_empty_payload",
		"max_inbound_priority_frames_per_stream", "max_inbound_window_update_frames_per_data_frame_sent", // nginx has limits of its own
		"stream_error_on_invalid_http_messaging", "override_stream_error_on_invalid_http_message",
	},
	"envoy.config.route.v3.RouteConfiguration": {
		"name", "virtual_hosts", "ignore_port_in_host_matching", "validate_clusters", "metadata",
		"max_direct_response_body_size_bytes", "request_headers_to_add", "request_headers_to_remove",
		"response_headers_to_add", "response_headers_to_remove", "most_specific_header_mutations_wins",
		"request_mirror_policies", "cluster_specifier_plugins", "typed_per_filter_config",
	},
	"envoy.config.route.v3.RouteMatch": {
		"prefix", "path", "safe_regex", "connect_matcher", "path_separated_prefix", "path_match_policy",
		"case_sensitive", "runtime_fraction", "headers", "query_parameters", "cookies", "grpc", "tls_context",
		"dynamic_metadata", "filter_state",
	},
}

// understood returns the fields of the message that are understood.
func understood(message protoreflect.FullName) []string {
	for _, table := range []map[protoreflect.FullName][]string{understoodInChains, understoodInActions, understoodInClusters, understoodInTLS, understoodInAuthorization, understoodInExtensions, understoodInCapture} {
		if known, ok := table[message]; ok {
			return known
		}
	}
	return nil
}

// notUnderstood has, by message, the fields that are not understood: it is worked out when a message is
// first seen.
var notUnderstood sync.Map

func fieldsNotUnderstood(d protoreflect.MessageDescriptor) []protoreflect.FieldDescriptor {
	if fields, ok := notUnderstood.Load(d); ok {
		return fields.([]protoreflect.FieldDescriptor)
	}
	known := understood(d.FullName())
	var out []protoreflect.FieldDescriptor
	for i := range d.Fields().Len() {
		if f := d.Fields().Get(i); !slices.Contains(known, string(f.Name())) {
			out = append(out, f)
		}
	}
	slices.SortFunc(out, func(a, b protoreflect.FieldDescriptor) int { return cmp.Compare(a.Name(), b.Name()) })
	notUnderstood.Store(d, out)
	return out
}

// reportUnknown reports the fields of m that are set and not understood.
func reportUnknown(m proto.Message, report reporter, prefix string) {
	r := m.ProtoReflect()
	for _, f := range fieldsNotUnderstood(r.Descriptor()) {
		if r.Has(f) {
			report("setting_ignored", prefix+string(f.Name()), f.Name())
		}
	}
}
