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
	"envoy.config.rbac.v3.Policy": {"permissions", "principals", "condition", "checked_condition", "cel_config"},
}
