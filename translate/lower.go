package translate

import (
	"maps"
	"slices"
	"strings"

	"meshbridge/translate/apisix"
)

// The compilers of actions speak to the newest release of APISIX. For older ones, what they made is
// lowered here to what those understand, just before it is emitted.

// lowering lowers plugins for a release.
type lowering struct {
	version apisix.Version
	report  reporter
}

// lowerBranches lowers the plugins of a route's branches.
func (x *routeCompiler) lowerBranches(branches []branch, report reporter) []branch {
	version := x.state.options.APISIXVersion
	if version.HasAll() {
		return branches
	}
	out := slices.Clone(branches)
	for i, b := range out {
		out[i].plugins = lowering{version, report}.plugins(b.plugins)
	}
	return out
}

func (l lowering) plugins(plugins apisix.Plugins) apisix.Plugins {
	out := maps.Clone(plugins)
	for _, name := range slices.Sorted(maps.Keys(plugins)) {
		switch config := plugins[name].(type) {
		case faultInjection:
			var headers map[string]string
			config.Abort, headers = l.abort(config.Abort)
			if len(headers) > 0 && config.Abort.Vars != nil {
				// Requests that are not aborted would get them as well.
				reportTooOld(l.report, apisix.FeatureAbortHeaders, "", "")
			} else if len(headers) > 0 {
				out[pluginResponseRewrite] = underResponseHeaders(out[pluginResponseRewrite], headers)
			}
			out[name] = config
		case conditional:
			var headers map[string]string
			config.Abort, headers = l.abort(config.Abort)
			if len(headers) > 0 {
				reportTooOld(l.report, apisix.FeatureAbortHeaders, "", "")
			}
			out[name] = config
		case *proxyRewrite:
			if lowered := l.proxyRewrite(config); lowered != nil {
				out[name] = lowered
			} else {
				delete(out, name)
			}
		case *fileLogger:
			out[name] = l.fileLogger(config)
		case limitConn:
			out[name] = l.limitConn(config)
		case *limitReq:
			if !l.version.Has(apisix.FeatureLimitPolicy) {
				limit := *config
				limit.Policy = ""
				out[name] = &limit
			}
		}
	}
	// Last, because it takes what others cannot say.
	if config, ok := out[pluginResponseRewrite].(*responseRewrite); ok {
		if lowered := l.responseRewrite(config); lowered != nil {
			out[pluginResponseRewrite] = lowered
		} else {
			delete(out, pluginResponseRewrite)
		}
	}
	return out
}

// abort returns the headers that the answer should have, where fault-injection has none.
func (l lowering) abort(abort *faultAbort) (lowered *faultAbort, headers map[string]string) {
	if abort == nil {
		return nil, nil
	}
	out := *abort
	if l.lacksDefault(out.Body) {
		reportTooOld(l.report, apisix.FeatureTemplateDefault, "", "the body of an answer")
		out.Body = ""
	}
	if len(out.Headers) > 0 && !l.version.Has(apisix.FeatureAbortHeaders) {
		headers, out.Headers = out.Headers, nil
	}
	return &out, headers
}

// underResponseHeaders returns a response-rewrite that also sets the headers of an answer. Operations of
// the route on the same ones win.
func underResponseHeaders(config any, headers map[string]string) *responseRewrite {
	out := &responseRewrite{Headers: responseHeaderChanges{Set: maps.Clone(headers)}}
	own, ok := config.(*responseRewrite)
	if !ok {
		return out
	}
	for _, name := range own.Headers.Remove {
		delete(out.Headers.Set, name)
	}
	maps.Copy(out.Headers.Set, own.Headers.Set)
	out.Headers.Add, out.Headers.Remove = own.Headers.Add, own.Headers.Remove
	return out
}

func (l lowering) lacksDefault(template string) bool {
	return apisix.HasTemplateDefault(template) && !l.version.Has(apisix.FeatureTemplateDefault)
}

// known returns the headers whose values the release can express.
func (l lowering) known(headers map[string]string) map[string]string {
	out := maps.Clone(headers)
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		if l.lacksDefault(headers[name]) {
			reportTooOld(l.report, apisix.FeatureTemplateDefault, "", "header "+name)
			delete(out, name)
		}
	}
	return out
}

// headersToSet is the form of headers in old releases. Those without a value are removed.
type headersToSet map[string]string

// oldProxyRewrite is proxyRewrite with other headers.
type oldProxyRewrite struct {
	proxyRewrite
	Headers headersToSet `json:"headers,omitempty"`
}

// oldResponseRewrite is responseRewrite with other headers.
type oldResponseRewrite struct {
	Headers headersToSet `json:"headers"`
}

// proxyRewrite returns nil where nothing is left.
func (l lowering) proxyRewrite(config *proxyRewrite) any {
	out := *config
	if l.lacksDefault(out.URI) {
		reportTooOld(l.report, apisix.FeatureTemplateDefault, "", "a rewritten path")
		out.URI, out.UseRealRequestURI = "", true
	}
	if (out.URI != "" || out.RegexURI != nil) && !l.version.Has(apisix.FeatureRewriteQuery) {
		reportTooOld(l.report, apisix.FeatureRewriteQuery, "", "")
	}
	if out.Headers == nil {
		return unlessEmpty(out)
	}
	headers := headerChanges{Add: l.known(out.Headers.Add), Set: l.known(out.Headers.Set), Remove: out.Headers.Remove}
	if l.version.Has(apisix.FeatureRequestHeaders) {
		out.Headers = &headers
		if len(headers.Add)+len(headers.Set)+len(headers.Remove) == 0 {
			out.Headers = nil
		}
		return unlessEmpty(out)
	}
	set := headersToSet{}
	for _, name := range slices.Sorted(maps.Keys(headers.Add)) {
		reportTooOld(l.report, apisix.FeatureRequestHeaders, "", "header "+name)
	}
	for _, values := range []map[string]string{headers.Add, headers.Set} {
		for name, value := range values {
			if apisix.IsPlainHeaderValue(value) {
				set[name] = value
			} else {
				reportTooOld(l.report, apisix.FeatureRequestHeaders, "", "header "+name+", which is not ASCII")
			}
		}
	}
	for _, name := range headers.Remove {
		set[name] = ""
	}
	out.Headers = nil
	if len(set) == 0 {
		return unlessEmpty(out)
	}
	return oldProxyRewrite{out, set}
}

// unlessEmpty returns nil for a configuration that does nothing.
func unlessEmpty(config proxyRewrite) any {
	if config.URI == "" && config.RegexURI == nil && config.Host == "" && config.Headers == nil {
		return nil
	}
	return &config
}

// responseRewrite returns nil where nothing is left.
func (l lowering) responseRewrite(config *responseRewrite) any {
	headers := responseHeaderChanges{Set: l.known(config.Headers.Set), Remove: config.Headers.Remove}
	for _, line := range config.Headers.Add {
		name, _, _ := strings.Cut(line, ":")
		if l.lacksDefault(line) {
			reportTooOld(l.report, apisix.FeatureTemplateDefault, "", "header "+name)
			continue
		}
		headers.Add = append(headers.Add, line)
	}
	if l.version.Has(apisix.FeatureResponseHeaders) {
		if len(headers.Add)+len(headers.Set)+len(headers.Remove) == 0 {
			return nil
		}
		return &responseRewrite{Headers: headers}
	}
	set := headersToSet{}
	for _, line := range headers.Add {
		name, value, _ := strings.Cut(line, ": ")
		reportTooOld(l.report, apisix.FeatureResponseHeaders, "", "header "+name)
		switch {
		case name == "set-cookie": // it would replace those of the upstream
		case set[name] != "":
			set[name] += ", " + value
		default:
			set[name] = value
		}
	}
	maps.Copy(set, headers.Set)
	for _, name := range headers.Remove {
		set[name] = ""
	}
	if len(set) == 0 {
		return nil
	}
	return oldResponseRewrite{set}
}

func (l lowering) fileLogger(config *fileLogger) *fileLogger {
	out := *config
	if !l.version.Has(apisix.FeatureLogFormat) {
		reportTooOld(l.report, apisix.FeatureLogFormat, "", "")
		out.LogFormat = nil
	}
	if out.Match != nil && !l.version.Has(apisix.FeatureLogMatch) {
		reportTooOld(l.report, apisix.FeatureLogMatch, "", "")
		out.Match = nil
	}
	return &out
}

func (l lowering) limitConn(config limitConn) limitConn {
	if !l.version.Has(apisix.FeatureLimitPolicy) {
		config.Policy = ""
	}
	if l.lacksDefault(config.Key) { // a dollar sign in a name
		config.Key = apisix.Var("hostname") + "-" + shortHash(config.Key)
	}
	return config
}
