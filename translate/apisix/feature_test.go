package apisix

import (
	"slices"
	"strings"
	"testing"
)

// Objects that use a feature are refused by the release before it, and only by those.
func TestValidationKnowsTheFloorOfEachFeature(t *testing.T) {
	pluginConfig := func(fields string) Object {
		return Object{KindPluginConfig, "pc.1", []byte(`{"id":"pc.1","plugins":{},` + fields + `}`)}
	}
	stream := func(fields string) Object {
		return Object{KindStreamRoute, "t.1", []byte(`{"id":"t.1","server_port":1,"upstream_id":"u.1",` + fields + `}`)}
	}
	route := func(fields string) Object { return routeJSON("r.1", `"uri":"/*","upstream_id":"u.1",`+fields) }
	uses := map[Feature]Object{
		FeatureIPMatch:            route(`"vars":[["remote_addr","ipmatch",["10.0.0.0/8"]]]`),
		FeatureResponseHeaders:    pluginObject("response-rewrite", `{"headers":{"set":{"a":"b"}}}`),
		FeatureMetaDisable:        pluginObject("request-id", `{"_meta":{"disable":true}}`),
		FeatureWorkflow:           pluginObject("workflow", `{"rules":[]}`),
		FeatureMetaFilter:         pluginObject("request-id", `{"_meta":{"filter":[["a","==","b"]]}}`),
		FeatureRequestHeaders:     pluginObject("proxy-rewrite", `{"headers":{"remove":["a"]}}`),
		FeatureLogFormat:          pluginObject("file-logger", `{"path":"a","log_format":{"a":"b"}}`),
		FeatureAbortHeaders:       pluginObject("fault-injection", `{"abort":{"http_status":200,"headers":{"a":"b"}}}`),
		FeatureLongLabels:         route(`"labels":{"a":"` + strings.Repeat("x", 65) + `"}`),
		FeatureLogMatch:           pluginObject("file-logger", `{"path":"a","match":[[["a","==","b"]]]}`),
		FeaturePluginConfigName:   pluginConfig(`"name":"a"`),
		FeatureStreamRouteLabels:  stream(`"labels":{"a":"b"}`),
		FeatureProxyProtocolTLV:   route(`"vars":[["OR",["a","==","b"],["proxy_protocol_tlv_0xe0","==","c"]]]`),
		FeatureLimitPolicy:        pluginObject("limit-req", `{"policy":"local"}`),
		FeatureAuthErrorStatus:    pluginObject("forward-auth", `{"uri":"http://a","status_on_error":403}`),
		FeatureStreamRouteName:    stream(`"name":"a"`),
		FeatureAuthClearsHeaders:  pluginObject("forward-auth", `{"uri":"http://a","upstream_headers":["a"]}`),
		FeatureAuthExtraHeaders:   pluginObject("forward-auth", `{"uri":"http://a","extra_headers":{"a":"b"}}`),
		FeatureStreamTrafficSplit: stream(`"plugins":{"traffic-split":{}}`),
		FeatureLongNames:          route(`"name":"` + strings.Repeat("x", 101) + `"`),
		FeatureTemplateDefault:    pluginObject("fault-injection", `{"abort":{"http_status":200,"body":"${a ?? b}"}}`),
		FeatureLimitVariables:     pluginObject("limit-conn", `{"conn":"$a","burst":0,"default_conn_delay":1,"key":"a"}`),
		FeatureGRPCWebPath:        pluginObject("grpc-web", `{}`),
		FeatureProxyBuffering:     pluginObject("proxy-buffering", `{}`),
		FeatureHeaderLists:        pluginObject("proxy-rewrite", `{"headers":{"add":{"a":["b"]}}}`),
	}
	// What a release does with the same object, and fields of ssls, which need certificates.
	elsewhere := []Feature{
		FeaturePluginOfRoute, FeatureRewriteQuery, FeatureHeaderLines,
		FeatureSSLs, FeatureSkipMTLS, FeatureTLSProtocols, FeatureSSLDescription, FeatureAnySNI,
	}
	newest := Version{2, 15}
	for _, f := range Features() {
		newest = slices.MaxFunc([]Version{newest, f.Since()}, Version.Compare)
		o, ok := uses[f]
		if !ok {
			if !slices.Contains(elsewhere, f) {
				t.Errorf("no object uses %s", f)
			}
			continue
		}
		since, before := f.Since(), Version{2, 15}
		if since.Minor > 0 {
			before = Version{since.Major, since.Minor - 1}
		}
		if err := Validate(o, since); err != nil {
			t.Errorf("%s: %s refuses %v", f, since, err)
		}
		if Validate(o, before) == nil {
			t.Errorf("%s: %s takes %s", f, before, o.Value)
		}
	}
	if newest != (Version{newestFeatureMajor, newestFeatureMinor}) {
		t.Errorf("the newest feature is of %s", newest)
	}
}
