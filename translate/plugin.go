package translate

import "meshbridge/translate/apisix"

// Names of the plugins that actions are made of.
const (
	pluginFaultInjection  = "fault-injection"
	pluginFileLogger      = "file-logger"
	pluginForwardAuth     = "forward-auth"
	pluginGRPCWeb         = "grpc-web"
	pluginLimitConn       = "limit-conn"
	pluginLimitReq        = "limit-req"
	pluginOpenTelemetry   = "opentelemetry"
	pluginMocking         = "mocking"
	pluginProxyMirror     = "proxy-mirror"
	pluginProxyRewrite    = "proxy-rewrite"
	pluginRedirect        = "redirect"
	pluginRequestID       = "request-id"
	pluginResponseRewrite = "response-rewrite"
	pluginServerlessPre   = "serverless-pre-function"
	pluginSkyWalking      = "skywalking"
	pluginTrafficSplit    = "traffic-split"
	pluginWorkflow        = "workflow"
	pluginZipkin          = "zipkin"
)

// faultInjection runs before all other plugins: it waits and it answers.
type faultInjection struct {
	Abort *faultAbort `json:"abort,omitempty"`
	Delay *faultDelay `json:"delay,omitempty"`
}

// faultAbort answers a request. Body and header values are templates. The body is always there,
// because without one nginx sends an HTML page of its own.
type faultAbort struct {
	HTTPStatus int               `json:"http_status"`
	Body       string            `json:"body"`
	Headers    map[string]string `json:"headers,omitempty"`
	Vars       []apisix.Vars     `json:"vars,omitempty"`
}

// faultDelay waits for Duration seconds.
type faultDelay struct {
	Duration float64       `json:"duration"`
	Vars     []apisix.Vars `json:"vars,omitempty"`
}

// proxyRewrite changes what is sent to the upstream. Without UseRealRequestURI, it sends the
// normalized path even where it rewrites none.
type proxyRewrite struct {
	URI               string         `json:"uri,omitempty"`
	RegexURI          []string       `json:"regex_uri,omitempty"`
	Host              string         `json:"host,omitempty"`
	Headers           *headerChanges `json:"headers,omitempty"`
	UseRealRequestURI bool           `json:"use_real_request_uri_unsafe,omitempty"`
}

// headerChanges are executed in the order add, set, remove.
type headerChanges struct {
	Add    map[string]string `json:"add,omitempty"`
	Set    map[string]string `json:"set,omitempty"`
	Remove []string          `json:"remove,omitempty"`
}

type responseRewrite struct {
	Meta    *orderMeta            `json:"_meta,omitempty"`
	Headers responseHeaderChanges `json:"headers"`
}

// responseHeaderChanges are headerChanges with "name: value" to add.
type responseHeaderChanges struct {
	Add    []string          `json:"add,omitempty"`
	Set    map[string]string `json:"set,omitempty"`
	Remove []string          `json:"remove,omitempty"`
}

type redirect struct {
	URI               string   `json:"uri,omitempty"`
	RegexURI          []string `json:"regex_uri,omitempty"`
	Status            int      `json:"ret_code"`
	AppendQueryString bool     `json:"append_query_string,omitempty"`
	EncodeURI         bool     `json:"encode_uri,omitempty"`
}

type trafficSplit struct {
	Rules []trafficSplitRule `json:"rules"`
}

type trafficSplitRule struct {
	WeightedUpstreams []weightedUpstream `json:"weighted_upstreams"`
}

type weightedUpstream struct {
	UpstreamID string `json:"upstream_id"`
	Weight     uint32 `json:"weight"`
}

// limitConn limits concurrent requests. A burst of 0 refuses the rest at once.
type limitConn struct {
	Conn                uint32  `json:"conn"`
	Burst               int     `json:"burst"`
	DefaultConnDelay    float64 `json:"default_conn_delay"`
	OnlyUseDefaultDelay bool    `json:"only_use_default_delay"`
	KeyType             string  `json:"key_type"`
	Key                 string  `json:"key"`
	RejectedCode        int     `json:"rejected_code"`
	// Policy is "local". By the letter of its schema, the plugin wants the settings of Redis where
	// none is named.
	Policy string `json:"policy,omitempty"`
}

// forwardAuth asks a service about the request. It refuses what the service refuses, and everything where
// there is no answer. Headers of UpstreamHeaders that the answer lacks are removed from the request.
type forwardAuth struct {
	URI             string            `json:"uri"`
	RequestHeaders  []string          `json:"request_headers"`
	ExtraHeaders    map[string]string `json:"extra_headers"`
	UpstreamHeaders []string          `json:"upstream_headers"`
	ClientHeaders   []string          `json:"client_headers"`
	StatusOnError   int               `json:"status_on_error"`
	Timeout         int               `json:"timeout"` // milliseconds
	KeepalivePool   int               `json:"keepalive_pool"`
}

// workflow runs the first action of the first rule whose case holds, behind forward-auth.
type workflow struct {
	Meta  *errorMeta     `json:"_meta,omitempty"`
	Rules []workflowRule `json:"rules"`
}

// priorityOfAnswers lets mocking run behind workflow.
const priorityOfAnswers = 900

// mocking answers in the same phase as forward-auth. Body and header values are templates.
type mocking struct {
	Meta        orderMeta         `json:"_meta"`
	Status      int               `json:"response_status"`
	ContentType string            `json:"content_type"`
	Body        string            `json:"response_example"`
	Headers     map[string]string `json:"response_headers,omitempty"`
	MarksItself bool              `json:"with_mock_header"`
}

// errorMeta has the body of a plugin's refusals.
type errorMeta struct {
	ErrorResponse string `json:"error_response"`
}

type workflowRule struct {
	Case    apisix.Vars `json:"case,omitempty"`
	Actions [][]any     `json:"actions"`
}

// answerStatus returns the plugins that answer a request with a status and an empty body.
func answerStatus(status int) apisix.Plugins {
	return apisix.Plugins{pluginFaultInjection: faultInjection{Abort: &faultAbort{HTTPStatus: status}}}
}
