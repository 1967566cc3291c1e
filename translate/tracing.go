package translate

import (
	"net"
	"net/url"
	"strings"

	tracepb "github.com/envoyproxy/go-control-plane/envoy/config/trace/v3"
	http_connection_managerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	typepb "github.com/envoyproxy/go-control-plane/envoy/type/v3"
)

// codeTracing is about spans that APISIX sends.
const codeTracing Code = "tracing_approximate"

const typeZipkin = "envoy.config.trace.v3.ZipkinConfig"

// zipkin reports spans to Zipkin, with the B3 headers that Envoy uses for it.
type zipkin struct {
	Endpoint    string  `json:"endpoint"`
	SampleRatio float64 `json:"sample_ratio"`
	ServiceName string  `json:"service_name,omitempty"`
}

// smallestSample is the least share of requests that the plugin takes.
const smallestSample = 0.00001

// tracingOf returns nil where nothing is traced, or, after reporting, where it cannot be. A tracer that
// is not named is that of Envoy's own configuration, which istiod does not send.
func tracingOf(hcm *http_connection_managerpb.HttpConnectionManager, nodeID string, report reporter) *zipkin {
	const field = "http_connection_manager.tracing"
	tracing := hcm.GetTracing()
	if tracing == nil {
		return nil
	}
	share := 1.0
	for _, limit := range []*typepb.Percent{tracing.GetRandomSampling(), tracing.GetOverallSampling()} {
		if limit != nil {
			share = min(share, limit.GetValue()/100)
		}
	}
	provider := tracing.GetProvider()
	if messageName(provider.GetTypedConfig()) != typeZipkin {
		what := "tracing"
		if provider != nil {
			what = "tracing by " + provider.GetName()
		}
		report("telemetry_ignored", field, what)
		return nil
	}
	if share < smallestSample {
		return nil // headers of traces that others began are forwarded as they come
	}
	config := decode[tracepb.ZipkinConfig](provider.GetTypedConfig())
	cluster, path := config.GetCollectorCluster(), config.GetCollectorEndpoint()
	if service := config.GetCollectorService(); service != nil {
		cluster = service.GetHttpUri().GetCluster()
		if uri, err := url.Parse(service.GetHttpUri().GetUri()); err == nil {
			path = uri.RequestURI()
		}
		if len(service.GetRequestHeadersToAdd()) > 0 {
			report(codeSettingIgnored, field+".provider.collector_service.request_headers_to_add", "request_headers_to_add of the tracer")
		}
	}
	endpoint := serviceURL(cluster, path)
	if endpoint == "" {
		report("telemetry_ignored", field, "tracing to cluster "+cluster)
		return nil
	}
	report(codeTracing, field, endpoint)
	return &zipkin{Endpoint: endpoint, SampleRatio: share, ServiceName: workloadName(nodeID)}
}

// serviceURL is the address by which a service's cluster, such as "outbound|9411||zipkin.ns.svc", is
// known to DNS; empty for other clusters.
func serviceURL(cluster, path string) string {
	parts := strings.Split(cluster, "|")
	if len(parts) != 4 || parts[0] != "outbound" || parts[1] == "" || parts[2] != "" || parts[3] == "" || strings.HasPrefix(parts[3], "*") {
		return ""
	}
	return "http://" + net.JoinHostPort(parts[3], parts[1]) + path
}

// workloadName is the part of a node's id that names the workload: "type~address~name.namespace~domain".
func workloadName(nodeID string) string {
	parts := strings.Split(nodeID, "~")
	if len(parts) != 4 {
		return ""
	}
	return parts[2]
}
