package translate

import (
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	upstreamhttppb "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"

	"meshbridge/translate/apisix"
)

// httpProtocolOptions is the name under which clusters have their HTTP options.
const httpProtocolOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

const (
	// keepaliveSize is APISIX's default number of idle connections of an upstream per worker.
	keepaliveSize = 320
	// defaultIdleTimeout is Envoy's for connections to an upstream.
	defaultIdleTimeout = time.Hour
	// unlimitedRequests stands for no limit of requests per connection: nginx must have one.
	unlimitedRequests = 100_000_000
)

// protocolOptions is how to speak HTTP with a cluster.
type protocolOptions struct {
	// http2 says that the cluster must be spoken to in HTTP/2; downstream that it is spoken to in
	// the client's protocol.
	http2, downstream bool
	common            *corepb.HttpProtocolOptions
	// requestsPerConnection is zero where there is no limit.
	requestsPerConnection uint32
	typed                 *upstreamhttppb.HttpProtocolOptions
}

// protocolOptionsOf reads the options of a cluster, also where they are in the deprecated fields.
// After an error, the options that could be read are returned.
//
//nolint:staticcheck // configuration for older Envoys still has the deprecated fields.
func protocolOptionsOf(c *clusterpb.Cluster) (protocolOptions, error) {
	o := protocolOptions{
		http2:                 c.GetHttp2ProtocolOptions() != nil,
		downstream:            c.GetProtocolSelection() == clusterpb.Cluster_USE_DOWNSTREAM_PROTOCOL,
		common:                c.GetCommonHttpProtocolOptions(),
		requestsPerConnection: c.GetMaxRequestsPerConnection().GetValue(),
	}
	packed := c.GetTypedExtensionProtocolOptions()[httpProtocolOptions]
	if packed == nil {
		return o, nil
	}
	var typed upstreamhttppb.HttpProtocolOptions
	if err := packed.UnmarshalTo(&typed); err != nil {
		return o, err
	}
	o.typed = &typed
	switch p := typed.GetUpstreamProtocolOptions().(type) {
	case *upstreamhttppb.HttpProtocolOptions_ExplicitHttpConfig_:
		o.http2 = p.ExplicitHttpConfig.GetHttpProtocolOptions() == nil
		o.downstream = false
	case *upstreamhttppb.HttpProtocolOptions_UseDownstreamProtocolConfig,
		*upstreamhttppb.HttpProtocolOptions_AutoConfig:
		o.http2, o.downstream = false, true
	}
	if common := typed.GetCommonHttpProtocolOptions(); common != nil {
		o.common = common
	}
	if limit := o.common.GetMaxRequestsPerConnection(); limit != nil {
		o.requestsPerConnection = limit.GetValue()
	}
	return o, nil
}

func (o protocolOptions) keepalivePool() *apisix.KeepalivePool {
	pool := &apisix.KeepalivePool{
		Size:        keepaliveSize,
		IdleTimeout: defaultIdleTimeout.Seconds(),
		Requests:    unlimitedRequests,
	}
	if idle := o.common.GetIdleTimeout(); idle != nil {
		pool.IdleTimeout = noTimeout // zero disables it in Envoy
		if d := positive(idle); d > 0 {
			pool.IdleTimeout = seconds(d)
		}
	}
	if o.requestsPerConnection > 0 {
		pool.Requests = int(min(o.requestsPerConnection, unlimitedRequests))
	}
	return pool
}

func (o protocolOptions) reportTo(report reporter) {
	const field = `typed_extension_protocol_options["` + httpProtocolOptions + `"].`
	if o.typed != nil {
		reportUnknown(o.typed, report, field)
	}
	if o.common != nil {
		reportUnknown(o.common, report, field+"common_http_protocol_options.")
	}
	if o.http2 {
		report(codeHTTP2Downgraded, field+"explicit_http_config")
	}
}
