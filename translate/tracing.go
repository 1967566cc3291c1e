package translate

import (
	"cmp"
	"net"
	"net/url"
	"strings"

	tracepb "github.com/envoyproxy/go-control-plane/envoy/config/trace/v3"
	http_connection_managerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	typepb "github.com/envoyproxy/go-control-plane/envoy/type/v3"
)

// Codes about spans that APISIX sends.
const (
	codeTracing          Code = "tracing_approximate"
	codeTracingCollector Code = "tracing_collector"
)

// Message names of tracers.
const (
	typeZipkin        = "envoy.config.trace.v3.ZipkinConfig"
	typeOpenTelemetry = "envoy.config.trace.v3.OpenTelemetryConfig"
	typeSkyWalking    = "envoy.config.trace.v3.SkyWalkingConfig"
)

// tracer is a plugin that reports spans.
type tracer struct {
	plugin string
	config any
}

// zipkin reports spans to Zipkin, with the B3 headers that Envoy uses for it.
type zipkin struct {
	Endpoint    string  `json:"endpoint"`
	SampleRatio float64 `json:"sample_ratio"`
	ServiceName string  `json:"service_name,omitempty"`
}

// openTelemetry reports spans to the collector that the plugin's metadata names. It goes by what the
// caller decided and, for a new trace, by Root.
type openTelemetry struct {
	Sampler struct {
		Name    string `json:"name"`
		Options struct {
			Root traceSampler `json:"root"`
		} `json:"options"`
	} `json:"sampler"`
}

type traceSampler struct {
	Name    string `json:"name"`
	Options struct {
		Fraction float64 `json:"fraction"`
	} `json:"options"`
}

// skyWalking reports spans to the collector that APISIX's configuration names.
type skyWalking struct {
	SampleRatio float64 `json:"sample_ratio"`
}

// smallestSample is the least share of requests that the plugin takes.
const smallestSample = 0.00001

// tracingOf returns nil where nothing is traced, or, after reporting, where it cannot be. A tracer that
// is not named is that of Envoy's own configuration, which istiod does not send.
func tracingOf(hcm *http_connection_managerpb.HttpConnectionManager, nodeID string, report reporter) *tracer {
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
	message := messageName(provider.GetTypedConfig())
	switch message {
	case typeZipkin, typeOpenTelemetry, typeSkyWalking:
	case "":
		report("telemetry_ignored", field, "tracing")
		return nil
	default:
		report("telemetry_ignored", field, "tracing by "+provider.GetName())
		return nil
	}
	if share < smallestSample {
		return nil // headers of traces that others began are forwarded as they come
	}
	switch message {
	case typeOpenTelemetry:
		config := decode[tracepb.OpenTelemetryConfig](provider.GetTypedConfig())
		collector := cmp.Or(config.GetHttpService().GetHttpUri().GetCluster(), config.GetGrpcService().GetEnvoyGrpc().GetClusterName(), "not named")
		report(codeTracingCollector, field, pluginOpenTelemetry, "plugin_metadata: collector.address, by OTLP over HTTP", collector)
		plugin := &openTelemetry{}
		plugin.Sampler.Name = "parent_base"
		plugin.Sampler.Options.Root.Name = "trace_id_ratio"
		plugin.Sampler.Options.Root.Options.Fraction = share
		return &tracer{pluginOpenTelemetry, plugin}
	case typeSkyWalking:
		config := decode[tracepb.SkyWalkingConfig](provider.GetTypedConfig())
		report(codeTracingCollector, field, pluginSkyWalking, "plugin_attr: endpoint_addr, by HTTP", config.GetGrpcService().GetEnvoyGrpc().GetClusterName())
		return &tracer{pluginSkyWalking, &skyWalking{share}}
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
	return &tracer{pluginZipkin, &zipkin{Endpoint: endpoint, SampleRatio: share, ServiceName: workloadName(nodeID)}}
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
