package apisix

import (
	"bytes"
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// pluginRule is what is known of a plugin: the feature that it is and the check of its
// configuration, nil where nothing of it needs one.
type pluginRule struct {
	since Feature
	check func(v *pluginValidation)
}

// pluginRules returns the plugins that meshbridge emits. A plugin that APISIX has not loaded is
// skipped by it with a warning in a log, so that any other is an error.
var pluginRules = sync.OnceValue(func() map[string]pluginRule {
	return map[string]pluginRule{
		"cors":                    {0, (*pluginValidation).cors},
		"fault-injection":         {0, (*pluginValidation).faultInjection},
		"file-logger":             {0, (*pluginValidation).fileLogger},
		"forward-auth":            {0, (*pluginValidation).forwardAuth},
		"grpc-web":                {FeatureGRPCWebPath, nil},
		"http-logger":             {0, nil},
		"ip-restriction":          {0, nil},
		"limit-conn":              {0, (*pluginValidation).limitConn},
		"limit-count":             {0, nil},
		"limit-req":               {0, (*pluginValidation).limitReq},
		"mocking":                 {0, (*pluginValidation).mocking},
		"opentelemetry":           {0, (*pluginValidation).openTelemetry},
		"prometheus":              {0, nil},
		"proxy-buffering":         {FeatureProxyBuffering, nil},
		"proxy-mirror":            {0, (*pluginValidation).proxyMirror},
		"proxy-rewrite":           {0, (*pluginValidation).proxyRewrite},
		"real-ip":                 {0, nil},
		"redirect":                {0, (*pluginValidation).redirect},
		"request-id":              {0, nil},
		"response-rewrite":        {0, (*pluginValidation).responseRewrite},
		"serverless-pre-function": {0, nil},
		"skywalking":              {0, (*pluginValidation).skyWalking},
		"traffic-split":           {0, (*pluginValidation).trafficSplit},
		"workflow":                {FeatureWorkflow, (*pluginValidation).workflow},
		"zipkin":                  {0, nil},
	}
})

// KnownPlugins returns the names of the plugins that a version of APISIX has, of those that
// meshbridge emits, sorted.
func KnownPlugins(version Version) []string {
	rules := maps.Clone(pluginRules())
	maps.DeleteFunc(rules, func(_ string, r pluginRule) bool { return !version.Has(r.since) })
	return slices.Sorted(maps.Keys(rules))
}

// pluginValidation is the validation of one plugin's configuration.
type pluginValidation struct {
	*validation
	path   string // of the configuration
	config json.RawMessage
}

// ValidateForeignPlugin checks what the configurations of all plugins have in common, and whether the version
// has the plugin, as far as that is known.
func ValidateForeignPlugin(name string, config any, version Version) error {
	raw, err := json.Marshal(config)
	if err != nil {
		return err
	}
	v := &pluginValidation{validation: &validation{object: "plugin", version: version}, path: name, config: raw}
	v.needs(name, pluginRules()[name].since)
	v.meta()
	return v.err()
}

func (v *validation) plugins(plugins Plugins) {
	if len(plugins) == 0 {
		return
	}
	rules := pluginRules()
	for _, name := range slices.Sorted(maps.Keys(plugins)) {
		path := "plugins." + name
		rule, ok := rules[name]
		if !ok {
			v.fail(path, "is not a plugin that meshbridge knows; APISIX would skip one that it has not loaded")
			continue
		}
		v.needs(path, rule.since)
		config, err := json.Marshal(plugins[name])
		if err != nil {
			v.fail(path, "%v", err)
			continue
		}
		p := &pluginValidation{validation: v, path: path, config: config}
		p.meta()
		if rule.check != nil {
			rule.check(p)
		}
	}
}

func (v *pluginValidation) field(name string) string { return v.path + "." + name }

// decode reads the configuration; a value of the wrong type is an error.
func (v *pluginValidation) decode(into any) bool {
	if err := json.Unmarshal(v.config, into); err != nil {
		v.fail(v.path, "%v", err)
		return false
	}
	return true
}

// meta checks what every plugin has. A filter that does not compile lets the plugin always run.
func (v *pluginValidation) meta() {
	if !bytes.Contains(v.config, []byte(`"_meta"`)) {
		return
	}
	var c struct {
		Meta struct {
			Filter  []any `json:"filter"`
			Disable *bool `json:"disable"`
		} `json:"_meta"`
	}
	if !v.decode(&c) {
		return
	}
	if c.Meta.Filter != nil {
		v.needs(v.field("_meta.filter"), FeatureMetaFilter)
		v.expression(v.field("_meta.filter"), c.Meta.Filter)
	}
	if c.Meta.Disable != nil {
		v.needs(v.field("_meta.disable"), FeatureMetaDisable)
	}
}

// maxFaultVars is the limit on the vars of fault-injection.
const maxFaultVars = 20

// faultCondition is what abort and delay have in common.
type faultCondition struct {
	Percentage *int  `json:"percentage"`
	Vars       []any `json:"vars"`
}

func (v *pluginValidation) faultInjection() {
	var c struct {
		Abort *struct {
			faultCondition
			Status  *int           `json:"http_status"`
			Body    *string        `json:"body"`
			Headers map[string]any `json:"headers"`
		} `json:"abort"`
		Delay *struct {
			faultCondition
			Duration *float64 `json:"duration"`
		} `json:"delay"`
	}
	if !v.decode(&c) {
		return
	}
	v.require(c.Abort != nil || c.Delay != nil, v.path, "has neither abort nor delay")
	if c.Abort != nil {
		v.require(c.Abort.Status != nil && *c.Abort.Status >= 200, v.field("abort.http_status"), "must be at least 200")
		if c.Abort.Headers != nil {
			v.needs(v.field("abort.headers"), FeatureAbortHeaders)
			v.headerValues(v.field("abort.headers"), c.Abort.Headers, false)
		}
		if c.Abort.Body != nil {
			v.template(v.field("abort.body"), *c.Abort.Body)
		}
		v.fault("abort", c.Abort.faultCondition)
	}
	if c.Delay != nil {
		v.require(c.Delay.Duration != nil && *c.Delay.Duration >= 0, v.field("delay.duration"), "is required, and not below 0")
		v.fault("delay", c.Delay.faultCondition)
	}
}

func (v *pluginValidation) fault(name string, c faultCondition) {
	if c.Percentage != nil {
		v.within(v.field(name+".percentage"), *c.Percentage, 0, 100)
	}
	v.require(len(c.Vars) <= maxFaultVars, v.field(name+".vars"), "has more than %d elements", maxFaultVars)
	for i, expression := range c.Vars {
		v.expression(at(v.field(name+".vars"), i), expression)
	}
}

// headerValues checks a table of header names and values; lists are allowed in proxy-rewrite.
func (v *pluginValidation) headerValues(field string, headers map[string]any, lists bool) {
	v.require(len(headers) > 0, field, "must not be empty")
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		v.headerName(field, name)
		switch value := headers[name].(type) {
		case string:
			v.template(field+"."+name, value)
		case float64:
		case []any:
			v.require(lists && len(value) > 0, field+"."+name, "must be a string or a number")
		default:
			v.fail(field+"."+name, "must be a string or a number")
		}
	}
}

func (v *pluginValidation) headerName(field, name string) {
	valid := func(c byte) bool { return c > ' ' && c < 0x7f && c != ':' }
	v.require(name != "" && only(name, valid), field, "%q is not the name of a header", name)
}

func (v *pluginValidation) headerNames(field string, names []string) {
	v.require(len(names) > 0, field, "must not be empty")
	for _, name := range names {
		v.headerName(field, name)
	}
}

func (v *pluginValidation) proxyRewrite() {
	var c struct {
		URI      *string         `json:"uri"`
		Method   *string         `json:"method"`
		RegexURI []string        `json:"regex_uri"`
		Host     *string         `json:"host"`
		Real     *bool           `json:"use_real_request_uri_unsafe"`
		Headers  json.RawMessage `json:"headers"`
	}
	if !v.decode(&c) {
		return
	}
	v.require(c.URI != nil || c.Method != nil || c.RegexURI != nil || c.Host != nil || c.Real != nil || c.Headers != nil, v.path, "must not be empty")
	if c.URI != nil {
		v.require(strings.HasPrefix(*c.URI, "/") && len(*c.URI) <= maxURI, v.field("uri"), "does not begin with /, or is longer than %d bytes", maxURI)
	}
	if c.Method != nil {
		v.oneOf(v.field("method"), *c.Method, "GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "MKCOL", "COPY", "MOVE", "PROPFIND", "LOCK", "UNLOCK", "PATCH", "TRACE")
	}
	if c.RegexURI != nil {
		v.require(len(c.RegexURI) >= 2 && len(c.RegexURI)%2 == 0, v.field("regex_uri"), "must have pairs of an expression and a replacement")
		for i := 0; i < len(c.RegexURI); i += 2 {
			v.regex(at(v.field("regex_uri"), i), c.RegexURI[i])
		}
	}
	if c.Host != nil {
		v.matches("host", *c.Host, `^[0-9a-zA-Z-.]+(:\d{1,5})?$`)
	}
	v.headerOperations(c.Headers, FeatureRequestHeaders, v.version.Has(FeatureHeaderLists))
}

// headerOperations checks the headers of proxy-rewrite and response-rewrite. Before the feature, they are
// those to set, of which the ones without a value are removed.
func (v *pluginValidation) headerOperations(headers json.RawMessage, since Feature, lists bool) {
	if headers == nil {
		return
	}
	field := v.field("headers")
	if !v.version.Has(since) {
		var set map[string]string
		if err := json.Unmarshal(headers, &set); err != nil {
			v.needs(field, since)
			return
		}
		v.headersToSet(field, set)
		if since == FeatureRequestHeaders {
			v.plainHeaders(field, set)
		}
		return
	}
	var h struct {
		Add    json.RawMessage `json:"add"`
		Set    map[string]any  `json:"set"`
		Remove []string        `json:"remove"`
	}
	if err := json.Unmarshal(headers, &h); err != nil {
		v.fail(field, "%v", err)
		return
	}
	v.require(h.Add != nil || h.Set != nil || h.Remove != nil, field, "has none of add, set and remove")
	if h.Add != nil && since == FeatureResponseHeaders {
		v.addedLines(field+".add", h.Add)
	} else if h.Add != nil {
		var add map[string]any
		if err := json.Unmarshal(h.Add, &add); err != nil {
			v.fail(field+".add", "%v", err)
		}
		v.headerValues(field+".add", add, lists)
	}
	if h.Set != nil {
		v.headerValues(field+".set", h.Set, lists)
	}
	if h.Remove != nil {
		v.headerNames(field+".remove", h.Remove)
	}
}

// headersToSet checks headers in the form of old releases.
func (v *pluginValidation) headersToSet(field string, headers map[string]string) {
	v.require(len(headers) > 0, field, "must not be empty")
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		v.headerName(field, name)
		v.template(field+"."+name, headers[name])
	}
}

func (v *pluginValidation) plainHeaders(field string, headers map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		v.require(IsPlainHeaderValue(headers[name]), field+"."+name, "%q is not printable ASCII", headers[name])
	}
}

// IsPlainHeaderValue tells whether a value is printable ASCII, to which releases without
// [FeatureRequestHeaders] limit the headers of requests.
func IsPlainHeaderValue(s string) bool {
	return only(s, func(c byte) bool { return c >= ' ' && c < 0x7f })
}

func (v *pluginValidation) addedLines(field string, list json.RawMessage) {
	var lines []string
	if err := json.Unmarshal(list, &lines); err != nil {
		v.fail(field, "%v", err)
	}
	for i, line := range lines {
		v.template(at(field, i), line)
		v.addedHeader(at(field, i), line)
	}
}

// matches checks a string against a pattern of APISIX's schema.
func (v *pluginValidation) matches(name, s, pattern string) {
	re, err := regexp.Compile(pattern)
	v.require(err == nil && re.MatchString(s) && !strings.HasSuffix(s, "\n"), v.field(name), "%q does not match %s", s, pattern)
}

func (v *pluginValidation) responseRewrite() {
	var c struct {
		Status  *int            `json:"status_code"`
		Body    *string         `json:"body"`
		Filters []any           `json:"filters"`
		Vars    []any           `json:"vars"`
		Headers json.RawMessage `json:"headers"`
	}
	if !v.decode(&c) {
		return
	}
	if c.Status != nil {
		v.within(v.field("status_code"), *c.Status, 200, 598)
	}
	v.require(c.Body == nil || c.Filters == nil, v.field("body"), "is there beside filters")
	if c.Vars != nil {
		v.expression(v.field("vars"), c.Vars)
	}
	v.headerOperations(c.Headers, FeatureResponseHeaders, false)
}

// addedHeader checks "name: value" against the pattern of the schema, ^[^:]+:[^:]*[^/]$, and the one
// that is used at run time, where one bad line loses all header operations.
func (v *pluginValidation) addedHeader(field, line string) {
	name, value, ok := strings.Cut(line, ":")
	v.require(ok, field, "%q is not name: value", line)
	v.headerName(field, strings.TrimRight(name, " "))
	value = strings.TrimLeft(value, " ")
	v.require(ValidAddedHeaderValue(value), field, "the value of an added header cannot be empty, contain a colon, or end with a slash: %q", line)
}

// ValidAddedHeaderValue tells whether response-rewrite can add a header with the value; it can set
// any.
func ValidAddedHeaderValue(value string) bool {
	return value != "" && !strings.Contains(value, ":") && !strings.HasSuffix(value, "/") && !strings.HasSuffix(value, "\n")
}

func (v *pluginValidation) redirect() {
	var c struct {
		URI         *string  `json:"uri"`
		RegexURI    []string `json:"regex_uri"`
		HTTPS       *bool    `json:"http_to_https"`
		Code        *int     `json:"ret_code"`
		AppendQuery bool     `json:"append_query_string"`
	}
	if !v.decode(&c) {
		return
	}
	targets := 0
	for _, there := range []bool{c.URI != nil, c.RegexURI != nil, c.HTTPS != nil} {
		if there {
			targets++
		}
	}
	v.require(targets == 1, v.path, "must have exactly one of uri, regex_uri and http_to_https")
	v.require(c.URI == nil || len(*c.URI) >= 2, v.field("uri"), "must have 2 characters: use regex_uri for /")
	if c.RegexURI != nil {
		if len(c.RegexURI) == 2 {
			v.regex(v.field("regex_uri"), c.RegexURI[0])
		} else {
			v.fail(v.field("regex_uri"), "must have an expression and a replacement")
		}
	}
	v.require(c.Code == nil || *c.Code >= 200, v.field("ret_code"), "must be at least 200")
	v.require(c.HTTPS == nil || !*c.HTTPS || !c.AppendQuery, v.field("append_query_string"), "is there beside http_to_https")
}

// maxWeightedUpstreams is the limit of traffic-split.
const maxWeightedUpstreams = 20

func (v *pluginValidation) trafficSplit() {
	var c struct {
		Rules []struct {
			Match []struct {
				Vars any `json:"vars"`
			} `json:"match"`
			Upstreams []struct {
				UpstreamID *string        `json:"upstream_id"`
				Upstream   map[string]any `json:"upstream"`
				Weight     *int           `json:"weight"`
			} `json:"weighted_upstreams"`
		} `json:"rules"`
	}
	if !v.decode(&c) {
		return
	}
	for i, rule := range c.Rules {
		path := at(v.field("rules"), i)
		for j, match := range rule.Match {
			v.expression(at(path+".match", j)+".vars", match.Vars)
		}
		path += ".weighted_upstreams"
		v.require(len(rule.Upstreams) > 0 && len(rule.Upstreams) <= maxWeightedUpstreams, path,
			"has %d elements, not 1 to %d", len(rule.Upstreams), maxWeightedUpstreams)
		seen := map[string]bool{}
		for j, u := range rule.Upstreams {
			v.require(u.Weight == nil || *u.Weight >= 0, at(path, j)+".weight", "must not be below 0")
			if u.Upstream != nil {
				continue
			}
			id := ""
			if u.UpstreamID != nil {
				id = *u.UpstreamID
				v.id(at(path, j)+".upstream_id", id)
			}
			v.require(!seen[id], at(path, j)+".upstream_id", "%q is there twice, and only the last weight counts", id)
			seen[id] = true
		}
	}
}

func (v *pluginValidation) workflow() {
	var c struct {
		Rules []struct {
			Case    *[]any  `json:"case"`
			Actions [][]any `json:"actions"`
		} `json:"rules"`
	}
	if !v.decode(&c) {
		return
	}
	v.require(c.Rules != nil, v.field("rules"), "is required")
	for i, rule := range c.Rules {
		path := at(v.field("rules"), i)
		if rule.Case != nil {
			v.require(len(*rule.Case) > 0, path+".case", "must not be empty")
			// The plugin does not check this itself, and a case that does not compile always holds.
			v.expression(path+".case", *rule.Case)
		}
		v.require(len(rule.Actions) == 1, path+".actions", "has %d elements, and only the first is run", len(rule.Actions))
		for j, action := range rule.Actions {
			v.workflowAction(at(path+".actions", j), action)
		}
	}
}

func (v *pluginValidation) workflowAction(path string, action []any) {
	if len(action) != 2 {
		v.fail(path, "must have a name and parameters")
		return
	}
	name, _ := action[0].(string)
	v.oneOf(path, name, "return", "limit-count", "limit-conn", "limit-req")
	parameters, ok := action[1].(map[string]any)
	v.require(ok, path, "the parameters are not an object")
	if name == "return" {
		code, ok := parameters["code"].(float64)
		v.require(ok && code == float64(int(code)) && code >= 100 && code <= 599, path, "code must be a number from 100 to 599")
	}
}

// mockingPriority is below which the plugin runs behind what may refuse the request. Its own priority is
// that of an answer before everything.
const mockingPriority = 1006

func (v *pluginValidation) mocking() {
	var c struct {
		Meta struct {
			Priority *int `json:"priority"`
		} `json:"_meta"`
		Status      *int              `json:"response_status"`
		ContentType *string           `json:"content_type"`
		Example     *string           `json:"response_example"`
		Headers     map[string]string `json:"response_headers"`
	}
	if !v.decode(&c) {
		return
	}
	v.require(c.Meta.Priority != nil && *c.Meta.Priority < mockingPriority, v.field("_meta.priority"), "must be below %d, so that what refuses requests runs first", mockingPriority)
	v.require(c.Example != nil, v.field("response_example"), "is required")
	if c.Status != nil {
		v.within(v.field("response_status"), *c.Status, 100, 599)
	}
	if c.ContentType != nil {
		v.oneOf(v.field("content_type"), *c.ContentType, "application/xml", "application/json", "text/plain", "text/html", "text/xml")
	}
	v.require(c.Headers == nil || len(c.Headers) > 0, v.field("response_headers"), "must not be empty")
}

func (v *pluginValidation) proxyMirror() {
	var c struct {
		Host  string   `json:"host"`
		Path  *string  `json:"path"`
		Ratio *float64 `json:"sample_ratio"`
	}
	if !v.decode(&c) {
		return
	}
	v.matches("host", c.Host, `^(http(s)?|grpc(s)?):\/\/([\da-zA-Z.-]+|\[[\da-fA-F:]+\])(:\d+)?$`)
	if c.Path != nil {
		v.matches("path", *c.Path, `^/[^?&]+$`)
	}
	v.require(c.Ratio == nil || *c.Ratio >= 0.00001 && *c.Ratio <= 1, v.field("sample_ratio"), "must be within 0.00001 and 1")
}

func (v *pluginValidation) cors() {
	var c struct {
		Origins    *string  `json:"allow_origins"`
		Methods    *string  `json:"allow_methods"`
		Headers    *string  `json:"allow_headers"`
		Expose     string   `json:"expose_headers"`
		Credential bool     `json:"allow_credential"`
		Regexes    []string `json:"allow_origins_by_regex"`
		MaxAge     *int     `json:"max_age"`
	}
	if !v.decode(&c) {
		return
	}
	if c.Origins != nil {
		v.matches("allow_origins", *c.Origins, `^(\*|\*\*|null|\w+://[^,]+(,\w+://[^,]+)*)$`)
	}
	for i, pattern := range c.Regexes {
		v.require(pattern != "" && len(pattern) <= maxURI, at(v.field("allow_origins_by_regex"), i), "is empty or longer than %d bytes", maxURI)
		v.regex(at(v.field("allow_origins_by_regex"), i), pattern)
	}
	isStar := func(s *string) bool { return s == nil || *s == "*" } // which is the default
	v.require(!c.Credential || !isStar(c.Origins) && !isStar(c.Methods) && !isStar(c.Headers) && c.Expose != "*",
		v.field("allow_credential"), `does not go with "*" elsewhere, which is also the default`)
}

func (v *pluginValidation) limitConn() {
	var c struct {
		Conn    any      `json:"conn"`
		Burst   any      `json:"burst"`
		Delay   *float64 `json:"default_conn_delay"`
		Key     *string  `json:"key"`
		KeyType *string  `json:"key_type"`
		Code    *int     `json:"rejected_code"`
		Policy  *string  `json:"policy"`
		Rules   []any    `json:"rules"`
	}
	if !v.decode(&c) {
		return
	}
	v.policy(c.Policy)
	if c.Key != nil {
		v.template(v.field("key"), *c.Key)
	}
	v.require(c.Delay != nil && *c.Delay > 0, v.field("default_conn_delay"), "is required, and above 0")
	if c.Rules == nil {
		v.wholeNumber("conn", c.Conn, 1)
		v.wholeNumber("burst", c.Burst, 0)
		v.require(c.Key != nil && *c.Key != "", v.field("key"), "is required")
	}
	if c.KeyType != nil {
		v.oneOf(v.field("key_type"), *c.KeyType, "var", "var_combination")
	}
	if c.Code != nil {
		v.within(v.field("rejected_code"), *c.Code, 200, 599)
	}
}

func (v *pluginValidation) limitReq() {
	var c struct {
		Policy *string `json:"policy"`
	}
	if v.decode(&c) {
		v.policy(c.Policy)
	}
}

func (v *pluginValidation) policy(policy *string) {
	if policy != nil {
		v.needs(v.field("policy"), FeatureLimitPolicy)
	}
}

func (v *pluginValidation) fileLogger() {
	var c struct {
		Format json.RawMessage `json:"log_format"`
		Match  json.RawMessage `json:"match"`
	}
	if !v.decode(&c) {
		return
	}
	if c.Format != nil {
		v.needs(v.field("log_format"), FeatureLogFormat)
	}
	if c.Match != nil {
		v.needs(v.field("match"), FeatureLogMatch)
	}
}

// wholeNumber checks a number that may also be a template.
func (v *pluginValidation) wholeNumber(name string, value any, low float64) {
	if s, ok := value.(string); ok && s != "" {
		v.needs(v.field(name), FeatureLimitVariables)
		return
	}
	n, ok := value.(float64)
	v.require(ok && n >= low && n == float64(int64(n)), v.field(name), "must be a whole number of at least %v", low)
}

func (v *pluginValidation) forwardAuth() {
	var c struct {
		URI     string            `json:"uri"`
		Status  *int              `json:"status_on_error"`
		Timeout *int              `json:"timeout"`
		Method  *string           `json:"request_method"`
		Extra   map[string]string `json:"extra_headers"`
		Answer  []string          `json:"upstream_headers"`
	}
	if !v.decode(&c) {
		return
	}
	v.require(c.URI != "", v.field("uri"), "is required")
	if c.Status != nil {
		v.needs(v.field("status_on_error"), FeatureAuthErrorStatus)
		v.within(v.field("status_on_error"), *c.Status, 200, 599)
	}
	if c.Timeout != nil {
		v.within(v.field("timeout"), *c.Timeout, 1, 60000)
	}
	if c.Method != nil {
		v.oneOf(v.field("request_method"), *c.Method, "GET", "POST")
	}
	if c.Extra != nil {
		v.needs(v.field("extra_headers"), FeatureAuthExtraHeaders)
	}
	if c.Answer != nil {
		v.needs(v.field("upstream_headers"), FeatureAuthClearsHeaders)
	}
}
