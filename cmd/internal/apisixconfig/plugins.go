package apisixconfig

import "meshbridge/translate/apisix"

// plugin is one that is loaded, from a version on.
type plugin struct {
	name string
	// since is the first minor release of APISIX 3 that loads it unless told otherwise; -1 is 2.15.
	since int
}

// plugins are those that APISIX loads where its configuration has no list, from 2.15 to 3.18, and that
// translation uses. APISIX reports a name that it does not know at every start.
var plugins = []plugin{
	{"acl", 17},
	{"ai", 0},
	{"ai-aliyun-content-moderation", 14},
	{"ai-aws-content-moderation", 12},
	{"ai-cache", 18},
	{"ai-lakera-guard", 18},
	{"ai-prompt-decorator", 11},
	{"ai-prompt-guard", 12},
	{"ai-prompt-template", 11},
	{"ai-proxy", 11},
	{"ai-proxy-multi", 12},
	{"ai-rag", 12},
	{"ai-rate-limiting", 12},
	{"ai-request-rewrite", 13},
	{"api-breaker", -1},
	{"attach-consumer-label", 11},
	{"authz-casbin", -1},
	{"authz-casdoor", -1},
	{"authz-keycloak", -1},
	{"aws-lambda", -1},
	{"azure-functions", -1},
	{"basic-auth", -1},
	{"body-transformer", 2},
	{"cas-auth", 0},
	{"chaitin-waf", 5},
	{"clickhouse-logger", -1},
	{"client-control", -1},
	{"consumer-restriction", -1},
	{"cors", -1},
	{"csrf", -1},
	{"data-mask", 17},
	{"datadog", -1},
	{"degraphql", 2},
	{"dingtalk-auth", 17},
	{"echo", -1},
	{"elasticsearch-logger", 0},
	{"ext-plugin-post-req", -1},
	{"ext-plugin-post-resp", -1},
	{"ext-plugin-pre-req", -1},
	{"fault-injection", -1},
	{"feishu-auth", 17},
	{"file-logger", -1},
	{"forward-auth", -1},
	{"google-cloud-logging", -1},
	{"graphql-limit-count", 17},
	{"graphql-proxy-cache", 17},
	{"grpc-transcode", -1},
	{"grpc-web", -1},
	{"gzip", -1},
	{"hmac-auth", -1},
	{"http-dubbo", 9},
	{"http-logger", -1},
	{"inspect", 1},
	{"ip-restriction", -1},
	{"jwe-decrypt", 8},
	{"jwt-auth", -1},
	{"kafka-logger", -1},
	{"kafka-proxy", -1},
	{"key-auth", -1},
	{"lago", 13},
	{"ldap-auth", -1},
	{"ldap-auth-advanced", 18},
	{"limit-conn", -1},
	{"limit-count", -1},
	{"limit-req", -1},
	{"loggly", -1},
	{"loki-logger", 4},
	{"mcp-bridge", 13},
	{"mocking", -1},
	{"multi-auth", 8},
	{"oas-validator", 17},
	{"opa", -1},
	{"openfunction", 0},
	{"openid-connect", -1},
	{"opentelemetry", -1},
	{"openwhisk", -1},
	{"prometheus", -1},
	{"proxy-buffering", 17},
	{"proxy-cache", -1},
	{"proxy-control", -1},
	{"proxy-mirror", -1},
	{"proxy-rewrite", -1},
	{"public-api", -1},
	{"real-ip", -1},
	{"redirect", -1},
	{"referer-restriction", -1},
	{"request-id", -1},
	{"request-validation", -1},
	{"response-rewrite", -1},
	{"rocketmq-logger", -1},
	{"saml-auth", 17},
	{"serverless-post-function", -1},
	{"serverless-pre-function", -1},
	{"skywalking-logger", -1},
	{"sls-logger", -1},
	{"splunk-hec-logging", -1},
	{"syslog", -1},
	{"tcp-logger", -1},
	{"tencent-cloud-cls", 0},
	{"traffic-label", 17},
	{"traffic-split", -1},
	{"ua-restriction", -1},
	{"udp-logger", -1},
	{"uri-blocker", -1},
	{"wolf-rbac", -1},
	{"workflow", 0},
	{"zipkin", -1},
}

// optional are those that come with APISIX and that it does not load unless told to.
var optional = []plugin{
	{"batch-requests", -1},
	{"brotli", 6},
	{"dubbo-proxy", -1},
	{"error-log-logger", -1},
	{"error-page", 18},
	{"exit-transformer", 18},
	{"log-rotate", -1},
	{"node-status", -1},
	{"ocsp-stapling", 7},
	{"server-info", -1},
	{"skywalking", -1},
}

var streamPlugins = []plugin{{"ip-restriction", -1}, {"limit-conn", -1}, {"mqtt-proxy", -1}, {"syslog", -1}, {"traffic-split", 14}}

func pluginsOf(v apisix.Version) []string       { return loaded(plugins, v) }
func streamPluginsOf(v apisix.Version) []string { return loaded(streamPlugins, v) }

// Plugins returns the plugins that an APISIX loads whose configuration is rendered with these in addition.
func Plugins(v apisix.Version, more []string) []string {
	return view{Config{Version: v.OrDefault(), Plugins: more}}.AllPlugins()
}

// StreamPlugins returns those for TCP.
func StreamPlugins(v apisix.Version) []string { return streamPluginsOf(v.OrDefault()) }

// OptionalPlugins returns those that APISIX has, but does not load unless told to.
func OptionalPlugins(v apisix.Version) []string { return loaded(optional, v.OrDefault()) }

func loaded(all []plugin, v apisix.Version) []string {
	var names []string
	for _, p := range all {
		if p.since < 0 || v.AtLeast(3, p.since) {
			names = append(names, p.name)
		}
	}
	return names
}
