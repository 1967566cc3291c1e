package translate

import "google.golang.org/protobuf/reflect/protoreflect"

// understoodInExtensions does so for filters that come from an EnvoyFilter.
var understoodInExtensions = map[protoreflect.FullName][]string{
	"envoy.extensions.filters.http.stateful_session.v3.StatefulSession": {
		"session_state", "stat_prefix",
	},
	"envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit": {
		"token_bucket", "filter_enabled", "filter_enforced", "status", "descriptors", "response_headers_to_add",
		"enable_x_ratelimit_headers", "local_rate_limit_per_downstream_connection",
		"stat_prefix",                            // statistics only
		"always_consume_default_token_bucket",    // of requests with descriptors
		"stage", "vh_rate_limits", "rate_limits", // where descriptors come from
	},
}
