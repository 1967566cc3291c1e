package translate

import (
	"slices"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	proxyprotocolpb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// transportMatch is the field of an endpoint's metadata that chooses among a cluster's transport
// sockets.
const transportMatch = "envoy.transport_socket_match"

// transport is what an endpoint expects of connections beyond TCP; the zero value is nothing.
type transport struct {
	tls *UpstreamTLS
	// hostSNI tells that the endpoint's own name is the server name.
	hostSNI       bool
	proxyProtocol int
	// unknown tells that it is something that we do not know.
	unknown bool
}

func (t *transport) plain() bool { return t.tls == nil && t.proxyProtocol == 0 }

// transports are the transport sockets of a cluster.
type transports struct {
	matches  []matchedTransport
	fallback transport
}

type matchedTransport struct {
	match *structpb.Struct
	transport
}

// of returns the transport of an endpoint: the first that its metadata matches.
func (t *transports) of(metadata *structpb.Struct) *transport {
	for i, m := range t.matches {
		if containsAll(metadata, m.match) {
			return &t.matches[i].transport
		}
	}
	return &t.fallback
}

// containsAll tells whether all fields that are wanted have their values.
func containsAll(metadata, wanted *structpb.Struct) bool {
	for name, value := range wanted.GetFields() {
		if !proto.Equal(metadata.GetFields()[name], value) {
			return false
		}
	}
	return true
}

// transportsOf reads the sockets of a cluster.
func (s *State) transportsOf(c *clusterpb.Cluster, report reporter) *transports {
	if o := c.GetOriginalDstLbConfig(); o != nil && proto.Size(o) > 0 {
		report(codeSettingIgnored, "original_dst_lb_config", "another destination than that of the connection")
	}
	t := &transports{fallback: s.transportOf(c, c.GetTransportSocket(), "transport_socket", report)}
	for _, m := range c.GetTransportSocketMatches() {
		field := `transport_socket_matches["` + m.GetName() + `"].transport_socket`
		t.matches = append(t.matches, matchedTransport{m.GetMatch(), s.transportOf(c, m.GetTransportSocket(), field, report)})
	}
	return t
}

func (s *State) transportOf(c *clusterpb.Cluster, socket *corepb.TransportSocket, field string, report reporter) transport {
	switch message := messageName(socket.GetTypedConfig()); {
	case socket == nil, isPlain(socket):
	case message == "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext":
		config := decode[tlspb.UpstreamTlsContext](socket.GetTypedConfig())
		return transport{tls: s.upstreamTLS(c, config, field+".", report), hostSNI: config.GetAutoHostSni()}
	case message == "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport":
		config := decode[proxyprotocolpb.ProxyProtocolUpstreamTransport](socket.GetTypedConfig())
		reportUnknown(config, report, field+".")
		reportUnknown(config.GetConfig(), report, field+".config.")
		report(codeProxyProtocolSource, field)
		inner := s.transportOf(c, config.GetTransportSocket(), field+".transport_socket", report)
		inner.proxyProtocol = 1
		if config.GetConfig().GetVersion() == corepb.ProxyProtocolConfig_V2 {
			inner.proxyProtocol = 2
		}
		return inner
	default:
		report(codeTransportSocket, field, socket.GetName())
		return transport{unknown: true}
	}
	return transport{}
}

// upstreamTLS is what a TLS context says. config is nil where it does not decode: nothing of it is
// known, so that no server is trusted.
func (s *State) upstreamTLS(c *clusterpb.Cluster, config *tlspb.UpstreamTlsContext, prefix string, report reporter) *UpstreamTLS {
	if config == nil {
		report(codeTransportSocket, prefix+"typed_config", "of a TLS context that does not decode")
		return &UpstreamTLS{Authorities: Credential{Missing: "a TLS context that can be decoded"}}
	}
	field := prefix + "common_tls_context."
	common := config.GetCommonTlsContext()
	reportUnknown(config, report, prefix)
	reportUnknown(common, report, field)
	reportTLSParameters(common.GetTlsParams(), report, field+"tls_params.")
	v := s.validationOf(common, report, field)
	options, _ := protocolOptionsOf(c) // reportCluster reports the error
	names := options.typed.GetUpstreamHttpProtocolOptions()
	if names.GetOverrideAutoSniHeader() != "" {
		report(codeSettingIgnored, "typed_extension_protocol_options.upstream_http_protocol_options.override_auto_sni_header",
			"the header "+names.GetOverrideAutoSniHeader()+", instead of which the host is sent as server name,")
	}
	out := &UpstreamTLS{
		ServerName:     config.GetSni(),
		AutoServerName: names.GetAutoSni(),
		ALPN:           spokenProtocols(common.GetAlpnProtocols()),
		// The filter asks the cluster, and not the route, whether to have its way.
		IstioALPN:         s.istioALPN && c.GetMetadata().GetFilterMetadata()["istio"].GetFields()["alpn_override"].GetStringValue() != "false",
		Authorities:       v.authorities,
		SystemAuthorities: v.system,
		Insecure:          v.unverified,
		SANs:              v.sans,
		AutoSAN:           names.GetAutoSanValidation() || config.GetAutoSniSanValidation(),
		SPKIs:             v.spkis,
		Hashes:            v.hashes,
		CRL:               v.crl,
		CipherSuites:      cipherSuites(common.GetTlsParams(), report, field+"tls_params."),
	}
	out.MinVersion, out.MaxVersion = tlsVersions(common.GetTlsParams())
	if secrets := common.GetTlsCertificateSdsSecretConfigs(); len(secrets) > 0 {
		out.Credential = s.certificateOf(nameSecret(secrets[0]))
	} else if inline := common.GetTlsCertificates(); len(inline) > 0 {
		out.Credential = inlineCertificate(inline[0], report)
	}
	for _, held := range []Credential{out.Credential, out.Authorities} {
		if held.Missing != "" {
			report(codeUpstreamSecret, prefix+"common_tls_context", held.Missing)
		}
	}
	return out
}

// secretsOf are the secrets that the sockets of a cluster need and that come with the configuration.
func secretsOf(c *clusterpb.Cluster) []string {
	var names []string
	add := func(socket *corepb.TransportSocket) {
		if messageName(socket.GetTypedConfig()) == "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport" {
			socket = decode[proxyprotocolpb.ProxyProtocolUpstreamTransport](socket.GetTypedConfig()).GetTransportSocket()
		}
		if !isTLS(socket) {
			return
		}
		common := decode[tlspb.UpstreamTlsContext](socket.GetTypedConfig()).GetCommonTlsContext()
		for _, secret := range slices.Concat(common.GetTlsCertificateSdsSecretConfigs(), []*tlspb.SdsSecretConfig{
			common.GetValidationContextSdsSecretConfig(), common.GetCombinedValidationContext().GetValidationContextSdsSecretConfig(),
		}) {
			if n := nameSecret(secret); n.ads && n.name != "" && !slices.Contains(names, n.name) {
				names = append(names, n.name)
			}
		}
	}
	add(c.GetTransportSocket())
	for _, m := range c.GetTransportSocketMatches() {
		add(m.GetTransportSocket())
	}
	return names
}
