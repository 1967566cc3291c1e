package translate

import (
	"strings"
	"testing"

	"meshbridge/translate/apisix"
)

// Below the release that has them, formats, filters and gRPC-Web are left out rather than refused.
func TestOldReleasesLogInTheirOwnFormat(t *testing.T) {
	snap := loadYAML(t, `
- "@type": type.googleapis.com/envoy.config.listener.v3.Listener
  name: 0.0.0.0_8080
  address: {socket_address: {address: "0.0.0.0", port_value: 8080}}
  filter_chains:
  - filters:
    - name: hcm
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: http
        access_log:
        - name: f
          filter: {status_code_filter: {comparison: {op: GE, value: {default_value: 400, runtime_key: a}}}}
          typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: /tmp/a.log}
        http_filters:
        - {name: envoy.filters.http.grpc_web, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.grpc_web.v3.GrpcWeb}}
        - {name: envoy.filters.http.router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
        route_config: {name: r, virtual_hosts: [{name: v, domains: [a.com], routes: [{match: {prefix: /}, route: {cluster: h2}}]}]}
- {"@type": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: h2, type: STATIC, http2_protocol_options: {}}
`)
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
			s := translated(t, Options{Profile: Gateway(), APISIXVersion: c.version}, snap)
			var all strings.Builder
			for o := range s.Objects() {
				all.Write(o.Value)
			}
			for what, want := range map[string]bool{`"file-logger"`: true, `"log_format"`: c.format, `"match"`: c.match, `"grpc-web"`: c.grpcWeb} {
				if got := strings.Contains(all.String(), what); got != want {
					t.Errorf("%s is there: %v, want %v", what, got, want)
				}
			}
			for _, d := range s.Diagnostics() {
				if d.Code == "invalid_object" {
					t.Error(d)
				}
			}
		})
	}
}
