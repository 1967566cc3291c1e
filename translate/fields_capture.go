package translate

import "google.golang.org/protobuf/reflect/protoreflect"

// understoodInCapture is like understoodInChains, for what capture does.
var understoodInCapture = map[protoreflect.FullName][]string{
	"envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy": {
		"cluster", "weighted_clusters", "idle_timeout", "max_connect_attempts", "hash_policy", "tunneling_config",
		"max_downstream_connection_duration", "access_log",
		"stat_prefix",
	},
	"envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster.ClusterWeight": {"name", "weight"},
	"envoy.extensions.filters.network.rbac.v3.RBAC": {
		"rules", "matcher", "shadow_rules",
		"shadow_matcher", "shadow_rules_stat_prefix", "stat_prefix", // statistics and logs
	},
	"envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol": {
		"allow_requests_without_proxy_protocol",
		"stat_prefix",
	},
	"envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext": {
		"common_tls_context", "sni", "auto_host_sni", "auto_sni_san_validation",
		"max_session_keys",    // capture keeps sessions of its own
		"allow_renegotiation", // which Go never does
	},
	"envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport": {"config", "transport_socket"},
	"envoy.config.core.v3.ProxyProtocolConfig":                                            {"version"},
}
