package apisix

import "slices"

// Feature is something of APISIX that is newer than 2.15, the oldest release that meshbridge serves,
// and that objects may use. The zero Feature is what every release has.
type Feature int

const (
	// FeatureSSLs is the collection /ssls, which was /ssl before.
	FeatureSSLs Feature = iota + 1
	// FeatureIPMatch is the operator ipmatch of expressions.
	FeatureIPMatch
	// FeatureResponseHeaders are the operations add, set and remove of response-rewrite, which could
	// only set headers before.
	FeatureResponseHeaders
	// FeaturePluginOfRoute is that a plugin of a route replaces the one of its plugin_config. Before,
	// it was the other way round.
	FeaturePluginOfRoute
	// FeatureMetaDisable is _meta.disable of plugins.
	FeatureMetaDisable
	// FeatureWorkflow is the plugin workflow.
	FeatureWorkflow
	// FeatureMetaFilter is that _meta.filter of plugins sees APISIX's own variables. Before, they were
	// missing, so that a condition on one could hold the wrong way.
	FeatureMetaFilter
	// FeatureRequestHeaders are the operations add, set and remove of proxy-rewrite, which could only
	// set headers before.
	FeatureRequestHeaders
	// FeatureRewriteQuery is that an encoded question mark in a path that proxy-rewrite rewrites does
	// not begin a query.
	FeatureRewriteQuery
	// FeatureLogFormat is log_format of single file-loggers and http-loggers.
	FeatureLogFormat
	// FeatureAbortHeaders is abort.headers of fault-injection.
	FeatureAbortHeaders
	// FeatureSkipMTLS is client.skip_mtls_uri_regex of ssls.
	FeatureSkipMTLS
	// FeatureLongLabels are values of labels that are longer than 64 bytes.
	FeatureLongLabels
	// FeatureTLSProtocols is ssl_protocols of ssls.
	FeatureTLSProtocols
	// FeatureLogMatch is match of file-logger.
	FeatureLogMatch
	// FeaturePluginConfigName is the name of plugin_configs.
	FeaturePluginConfigName
	// FeatureStreamRouteLabels are the labels of stream_routes.
	FeatureStreamRouteLabels
	// FeatureProxyProtocolTLV are the variables with values of PROXY protocol's header.
	FeatureProxyProtocolTLV
	// FeatureHeaderLines is that the variable of a header has all its lines. Before, it had the first.
	FeatureHeaderLines
	// FeatureLimitPolicy is policy of limit-conn and limit-req, which always counted locally before.
	FeatureLimitPolicy
	// FeatureAuthErrorStatus is status_on_error of forward-auth.
	FeatureAuthErrorStatus
	// FeatureSSLDescription is the desc of ssls.
	FeatureSSLDescription
	// FeatureStreamRouteName is the name of stream_routes.
	FeatureStreamRouteName
	// FeatureAuthExtraHeaders is extra_headers of forward-auth.
	FeatureAuthExtraHeaders
	// FeatureStreamTrafficSplit is the plugin traffic-split of stream_routes.
	FeatureStreamTrafficSplit
	// FeatureLongNames are names that are longer than 100 bytes.
	FeatureLongNames
	// FeatureAnySNI is an ssl for "*" that is presented for any server name.
	FeatureAnySNI
	// FeatureGRPCWebPath is that grpc-web works without a part of the path that it takes for the whole.
	FeatureGRPCWebPath
	// FeatureTemplateDefault is ${name ?? default} in templates, without which they cannot have a
	// literal dollar sign.
	FeatureTemplateDefault
	// FeatureLimitVariables are conn and burst of limit-conn as templates.
	FeatureLimitVariables
	// FeatureAuthClearsHeaders is that forward-auth removes the headers that the answer lacks. Before,
	// what the client sent got to the upstream.
	FeatureAuthClearsHeaders
	// FeatureProxyBuffering is the plugin proxy-buffering.
	FeatureProxyBuffering
	// FeatureHeaderLists are lists as values of headers in proxy-rewrite.
	FeatureHeaderLists
)

// newestFeature is the floor of the newest feature: from it on, there is nothing to ask.
const newestFeatureMajor, newestFeatureMinor = 3, 18

// featureInfo is what is known of a feature.
type featureInfo struct {
	feature      Feature
	major, minor int
	name         string
}

// featureTable has the oldest release of each feature. A comment has the source: APISIX's changes by
// the number of their pull request, or the file of its tags in which it appears.
func featureTable() []featureInfo {
	return []featureInfo{
		{FeatureSSLs, 3, 0, "certificates in the collection ssls"},                                    // apisix/ssl/router/radixtree_sni.lua
		{FeatureIPMatch, 3, 0, "conditions on ranges of addresses"},                                   // 7655: lua-resty-expr 1.3.2
		{FeatureResponseHeaders, 3, 0, "adding headers to those of a response"},                       // 7794
		{FeaturePluginOfRoute, 3, 0, "plugins of a route before those of its plugin_config"},          // 7614
		{FeatureMetaDisable, 3, 0, "plugins that are disabled by _meta"},                              // 7707
		{FeatureWorkflow, 3, 0, "the plugin workflow"},                                                // apisix/plugins/workflow.lua
		{FeatureMetaFilter, 3, 1, "plugins that run under a condition"},                               // 8256
		{FeatureRequestHeaders, 3, 1, "adding headers to those of a request"},                         // 8336
		{FeatureRewriteQuery, 3, 2, "rewriting paths with an encoded question mark"},                  // 8888
		{FeatureLogFormat, 3, 2, "formats of single loggers"},                                         // apisix/plugins/file-logger.lua
		{FeatureAbortHeaders, 3, 3, "headers of answers by fault-injection"},                          // 9039
		{FeatureSkipMTLS, 3, 4, "client certificates that are optional"},                              // 9322
		{FeatureLongLabels, 3, 4, "long values of labels"},                                            // 9301
		{FeatureTLSProtocols, 3, 5, "versions of TLS for single servers"},                             // 9903
		{FeatureLogMatch, 3, 5, "loggers that run under a condition"},                                 // apisix/plugins/file-logger.lua
		{FeaturePluginConfigName, 3, 7, "names of plugin_configs"},                                    // 10315
		{FeatureStreamRouteLabels, 3, 8, "labels of stream_routes"},                                   // apisix/schema_def.lua
		{FeatureProxyProtocolTLV, 3, 9, "values of PROXY protocol as variables"},                      // 10887: nginx 1.23.2, OpenResty 1.25.3
		{FeatureHeaderLines, 3, 9, "all lines of a header that is repeated"},                          // 10887: nginx 1.23.0, OpenResty 1.25.3
		{FeatureLimitPolicy, 3, 9, "a policy of limit-conn and limit-req"},                            // 10866, 10874
		{FeatureAuthErrorStatus, 3, 9, "the status of forward-auth without an answer"},                // apisix/plugins/forward-auth.lua
		{FeatureSSLDescription, 3, 13, "descriptions of certificates"},                                // apisix/schema_def.lua
		{FeatureStreamRouteName, 3, 13, "names of stream_routes"},                                     // apisix/schema_def.lua
		{FeatureAuthExtraHeaders, 3, 14, "headers that forward-auth adds"},                            // apisix/plugins/forward-auth.lua
		{FeatureStreamTrafficSplit, 3, 14, "weighted destinations of stream_routes"},                  // apisix/stream/plugins/traffic-split.lua
		{FeatureLongNames, 3, 15, "long names"},                                                       // 11822
		{FeatureAnySNI, 3, 15, "certificates for any server name"},                                    // 12668
		{FeatureGRPCWebPath, 3, 15, "gRPC-Web on any route"},                                          // apisix/plugins/grpc-web.lua
		{FeatureTemplateDefault, 3, 16, "dollar signs, and values for what is missing, in templates"}, // 12963
		{FeatureLimitVariables, 3, 16, "variable limits of limit-conn"},                               // 12967
		{FeatureAuthClearsHeaders, 3, 17, "removing headers by forward-auth"},                         // 13183
		{FeatureProxyBuffering, 3, 17, "the plugin proxy-buffering"},                                  // apisix/plugins/proxy-buffering.lua
		{FeatureHeaderLists, 3, 18, "several values of one header in proxy-rewrite"},                  // 13597
	}
}

// Features returns all features, the oldest first.
func Features() []Feature {
	var out []Feature
	for _, info := range featureTable() {
		out = append(out, info.feature)
	}
	return out
}

func (f Feature) info() featureInfo {
	table := featureTable()
	i := slices.IndexFunc(table, func(info featureInfo) bool { return info.feature == f })
	if i < 0 {
		return featureInfo{major: 2, minor: 15}
	}
	return table[i]
}

// Since returns the oldest release that has the feature.
func (f Feature) Since() Version {
	info := f.info()
	return Version{Major: info.major, Minor: info.minor}
}

// String names the feature, for sentences such as "NAME needs APISIX 3.3".
func (f Feature) String() string { return f.info().name }

// HasAll tells whether the version has all features.
func (v Version) HasAll() bool { return v.AtLeast(newestFeatureMajor, newestFeatureMinor) }

// Has tells whether the version has the feature.
func (v Version) Has(f Feature) bool { return v.HasAll() || v.Compare(f.Since()) >= 0 }
