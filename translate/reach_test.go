package translate

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"meshbridge/xds"
)

const reachedCluster = `
resources:
- "@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
  name: "80"
- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: logs
  type: EDS
  connect_timeout: 2s
  eds_cluster_config: {service_name: logs-endpoints}
  transport_socket_matches:
  - name: istio
    match: {tlsMode: istio}
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: logs.example.com
        common_tls_context:
          tls_certificate_sds_secret_configs: [{name: default, sds_config: {api_config_source: {api_type: GRPC}}}]
          validation_context_sds_secret_config: {name: ROOTCA, sds_config: {api_config_source: {api_type: GRPC}}}
  - name: strange
    match: {tlsMode: strange}
    transport_socket: {name: strange, typed_config: {"@type": type.googleapis.com/google.protobuf.Duration, value: 1s}}
  - name: plain
    match: {}
    transport_socket: {name: envoy.transport_sockets.raw_buffer}
- "@type": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment
  cluster_name: logs-endpoints
  endpoints:
  - priority: 1
    lb_endpoints:
    - endpoint: {address: {socket_address: {address: 10.0.0.9, port_value: 9}}}
  - lb_endpoints:
    - endpoint: {address: {socket_address: {address: 10.0.0.1, port_value: 1}}}
      metadata: {filter_metadata: {envoy.transport_socket_match: {tlsMode: istio}}}
    - endpoint: {address: {socket_address: {address: 10.0.0.2, port_value: 2}}}
    - endpoint: {address: {socket_address: {address: 10.0.0.3, port_value: 3}}}
      metadata: {filter_metadata: {envoy.transport_socket_match: {tlsMode: strange}}}
    - endpoint: {address: {socket_address: {address: 10.0.0.4, port_value: 4}}}
      health_status: DRAINING
    - endpoint: {address: {pipe: {path: /run/logs.sock}}}
- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: named
  type: STRICT_DNS
  load_assignment:
    cluster_name: named
    endpoints:
    - lb_endpoints:
      - endpoint: {address: {socket_address: {address: logs.example.com, port_value: 443}}}
        health_status: DRAINING
- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: anywhere
  type: ORIGINAL_DST
  lb_policy: CLUSTER_PROVIDED
`

// reached says how a cluster is connected to, a level a line.
func reached(r *Reach) string {
	var b strings.Builder
	for _, level := range r.Levels {
		for i, e := range level {
			if i > 0 {
				b.WriteString(", ")
			}
			switch {
			case e.Path != "":
				b.WriteString(e.Path)
			case e.Name != "":
				b.WriteString(e.Name)
			default:
				b.WriteString(e.Target.String())
			}
			if e.TLS != nil {
				fmt.Fprintf(&b, " with TLS to %s, certificate %s", e.TLS.ServerName, e.TLS.Credential)
			}
			fmt.Fprintf(&b, " in %s", e.ConnectTimeout)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func TestHowTheProcessItselfConnectsToAService(t *testing.T) {
	snapshot := loadYAML(t, reachedCluster)
	for cluster, want := range map[string]string{
		"logs": "10.0.0.1:1 with TLS to logs.example.com, certificate the workload's own in 2s, 10.0.0.2:2 in 2s, /run/logs.sock in 2s\n" +
			"10.0.0.9:9 in 2s\n",
		"named":    "logs.example.com:443 in 5s\n",
		"anywhere": "", // where each connection goes is for the client to say
	} {
		r := ReachOf(snapshot, cluster)
		if diff := cmp.Diff(want, reached(r)); diff != "" || !r.Known {
			t.Errorf("%s (-want +got):\n%s", cluster, diff)
		}
	}
	if r := ReachOf(snapshot, "nobody"); r.Known || len(r.Levels) > 0 {
		t.Errorf("a cluster that there is not: %v", r)
	}
}

func TestHowAServiceIsReachedHoldsAsLongAsItsResources(t *testing.T) {
	snapshot := loadYAML(t, reachedCluster)
	r := ReachOf(snapshot, "logs")
	for key, current := range map[xds.Key]bool{
		{Type: xds.ClusterType, Name: "named"}:           true,
		{Type: xds.EndpointType, Name: "logs-endpoints"}: false,
		{Type: xds.ClusterType, Name: "logs"}:            false,
	} {
		if got := r.Current(snapshot.With(nil, []xds.Key{key})); got != current {
			t.Errorf("without %s: current %v, want %v", key, got, current)
		}
	}
	absent := ReachOf(snapshot, "nobody")
	if !absent.Current(snapshot) || absent.Current(snapshot.With([]*xds.Resource{{Key: xds.Key{Type: xds.ClusterType, Name: "nobody"}}}, nil)) {
		t.Error("a cluster that comes later is not noticed")
	}
}
