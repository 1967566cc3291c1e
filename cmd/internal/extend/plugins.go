package extend

import (
	"strings"
	"sync"
)

// traits are what has to be known of a plugin before users may add it.
type traits struct {
	// changes tells that the plugin may change what rules of access look at: headers, path, query, host or
	// the address of the client.
	changes bool
	// restricts tells that the plugin may be there to refuse requests.
	restricts bool
	// early tells that the plugin runs before fault-injection, by which rules of access are enforced.
	early bool
	// consumers tells that the plugin finds out who a client is.
	consumers bool
}

// traitsOf returns what is known of a plugin. Of one that is not known, the worst is assumed.
func traitsOf(name string) traits {
	if t, ok := knownTraits()[name]; ok {
		return t
	}
	return traits{changes: true, restricts: true, early: true}
}

// knownTraits are those of the plugins that come with APISIX, up to 3.18, by their sources: which phases they
// have, their priority, and what they set.
var knownTraits = sync.OnceValue(func() map[string]traits {
	out := map[string]traits{}
	for _, group := range []struct {
		traits traits
		names  string
	}{
		// They look, log, limit, answer, or change the response.
		{traits{}, `api-breaker brotli clickhouse-logger cors datadog echo elasticsearch-logger error-log-logger
			error-page ext-plugin-post-resp file-logger google-cloud-logging grpc-web gzip http-logger inspect
			kafka-logger lago limit-conn limit-count limit-req log-rotate loggly loki-logger mocking node-status
			ocsp-stapling prometheus proxy-mirror redirect response-rewrite rocketmq-logger server-info
			skywalking-logger sls-logger splunk-hec-logging syslog tcp-logger tencent-cloud-cls udp-logger`},
		{traits{early: true}, "opentelemetry proxy-buffering proxy-control request-id skywalking zipkin"},
		{traits{early: true, restricts: true}, "client-control"},
		// They refuse requests.
		{traits{restricts: true}, `acl consumer-restriction csrf fault-injection ip-restriction referer-restriction
			request-validation ua-restriction uri-blocker`},
		{traits{restricts: true, consumers: true}, "basic-auth hmac-auth jwt-auth key-auth"},
		// They refuse requests, and tell upstreams why not by headers, or may do anything.
		{traits{restricts: true, changes: true}, `ai-aliyun-content-moderation ai-aws-content-moderation
			ai-lakera-guard ai-prompt-guard authz-casbin authz-casdoor authz-keycloak cas-auth chaitin-waf
			data-mask dingtalk-auth ext-plugin-post-req feishu-auth forward-auth graphql-limit-count jwe-decrypt
			ldap-auth ldap-auth-advanced multi-auth oas-validator opa openid-connect saml-auth
			serverless-post-function serverless-pre-function wolf-rbac workflow`},
		{traits{restricts: true, changes: true, early: true}, "ai exit-transformer ext-plugin-pre-req real-ip"},
		// They change requests, or where they go.
		{traits{changes: true}, `ai-cache ai-prompt-decorator ai-prompt-template ai-proxy ai-proxy-multi ai-rag
			ai-rate-limiting ai-request-rewrite attach-consumer-label aws-lambda azure-functions batch-requests
			body-transformer degraphql dubbo-proxy gm graphql-proxy-cache grpc-transcode http-dubbo kafka-proxy
			mcp-bridge openfunction openwhisk proxy-cache proxy-rewrite public-api traffic-label traffic-split`},
	} {
		for name := range strings.FieldsSeq(group.names) {
			out[name] = group.traits
		}
	}
	return out
})

// changesRequests tells whether a plugin, as it is configured, may change what rules of access look at.
func changesRequests(name string, config map[string]any) bool {
	t := traitsOf(name)
	if t.changes {
		return true
	}
	if meta, ok := config["_meta"].(map[string]any); ok && meta["pre_function"] != nil {
		return true // Lua
	}
	switch {
	case name == "request-id":
		return config["header_name"] != nil
	case t.consumers: // which take credentials out of the request
		return config["hide_credentials"] == true
	}
	return false
}

// restrictsAccess tells whether a plugin, as it is configured, may be there to refuse requests.
func restrictsAccess(name string, config map[string]any) bool {
	if name == pluginFaultInjection {
		return config["abort"] != nil
	}
	return traitsOf(name).restricts
}

// enforcingPriority is fault-injection's: what is above it runs first.
const enforcingPriority = 11000

// runsEarly tells whether a plugin runs before rules of access, in the order of the plugins of one route.
func runsEarly(name string, config map[string]any) bool {
	meta, _ := config["_meta"].(map[string]any)
	if priority, ok := number(meta["priority"]); ok {
		return priority >= enforcingPriority
	}
	return traitsOf(name).early
}

// What becomes of a plugin that the translation has on a route, too.
const (
	ownKept     = iota // the user's is refused
	ownMerged          // headers that the user adds are merged
	ownReplaced        // the user's may replace it
)

// conflictOf says what may become of a plugin of the translation.
func conflictOf(name string) int {
	switch name {
	case "cors", "file-logger", "limit-conn", "limit-req", "opentelemetry", "proxy-mirror", "request-id", "skywalking", "zipkin":
		return ownReplaced
	case pluginProxyRewrite, pluginResponseRewrite:
		return ownMerged
	}
	return ownKept
}

const (
	pluginFaultInjection  = "fault-injection"
	pluginForwardAuth     = "forward-auth"
	pluginProxyRewrite    = "proxy-rewrite"
	pluginResponseRewrite = "response-rewrite"
)

// enforces tells whether the translation enforces rules of access by a plugin.
func enforces(name string) bool {
	return name == pluginFaultInjection || name == pluginForwardAuth || name == "workflow"
}
