package translate

import "google.golang.org/protobuf/reflect/protoreflect"

// understoodInAuthorization does so for RBAC filters.
var understoodInAuthorization = map[protoreflect.FullName][]string{
	"envoy.extensions.filters.http.rbac.v3.RBAC": {
		"rules", "shadow_rules", "shadow_rules_stat_prefix", "matcher",
		"shadow_matcher",                            // logs only
		"rules_stat_prefix", "track_per_rule_stats", // statistics only
	},
	"envoy.config.rbac.v3.RBAC": {
		"action", "policies",
		"audit_logging_options", // logs only
	},
	"envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication": {
		"providers", "rules", "filter_state_rules", "bypass_cors_preflight", "requirement_map", "strip_failure_response",
		"stat_prefix", // statistics only
	},
	"envoy.extensions.filters.http.jwt_authn.v3.JwtProvider": {
		"issuer", "audiences", "subjects", "require_expiration", "max_lifetime", "remote_jwks", "local_jwks", "forward",
		"from_headers", "from_params", "from_cookies", "forward_payload_header", "pad_forward_payload_header",
		"payload_in_metadata", "normalize_payload_in_metadata", "header_in_metadata", "failed_status_in_metadata", "clock_skew_seconds", "claim_to_headers",
		"jwt_cache_config", // every token is verified
	},
	"envoy.config.rbac.v3.Policy": {"permissions", "principals", "condition", "checked_condition", "cel_config"},
}
