package translate

import (
	"testing"

	accesslogpb "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filelogpb "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	grpcwebpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_web/v3"
	http_connection_managerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"meshbridge/translate/apisix"
)

// Below the release that has them, formats, filters and gRPC-Web are left out rather than refused.
func TestOldReleasesLogInTheirOwnFormat(t *testing.T) {
	errors := &accesslogpb.AccessLogFilter{FilterSpecifier: &accesslogpb.AccessLogFilter_StatusCodeFilter{
		StatusCodeFilter: &accesslogpb.StatusCodeFilter{Comparison: &accesslogpb.ComparisonFilter{
			Op: accesslogpb.ComparisonFilter_GE, Value: &corepb.RuntimeUInt32{DefaultValue: 400, RuntimeKey: "a"},
		}},
	}}
	hcm := &http_connection_managerpb.HttpConnectionManager{
		AccessLog: []*accesslogpb.AccessLog{{
			Name: "f", Filter: errors,
			ConfigType: &accesslogpb.AccessLog_TypedConfig{TypedConfig: packed(&filelogpb.FileAccessLog{Path: "/tmp/a.log"})},
		}},
		HttpFilters: []*http_connection_managerpb.HttpFilter{{
			Name: "web", ConfigType: &http_connection_managerpb.HttpFilter_TypedConfig{TypedConfig: packed(&grpcwebpb.GrpcWeb{})},
		}},
	}
	for _, c := range []struct {
		version                apisix.Version
		format, match, grpcWeb bool
	}{
		{apisix.Version{Major: 3, Minor: 1}, false, false, false},
		{apisix.Version{Major: 3, Minor: 2}, true, false, false},
		{apisix.Version{Major: 3, Minor: 14}, true, true, false},
		{apisix.Version{Major: 3, Minor: 15}, true, true, true},
	} {
		t.Run(c.version.String(), func(t *testing.T) {
			var diagnostics []string
			p := chainPluginsOf(hcm, &Options{Profile: Gateway(), APISIXVersion: c.version}, collect(t, &diagnostics))
			if format, match := p.accessLog.LogFormat != nil, p.accessLog.Match != nil; format != c.format || match != c.match || p.grpcWeb != c.grpcWeb {
				t.Errorf("format %v, match %v, gRPC-Web %v; %v", format, match, p.grpcWeb, diagnostics)
			}
			if len(diagnostics) != 2 {
				t.Error(diagnostics)
			}
		})
	}
}
