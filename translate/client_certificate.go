package translate

import (
	http_connection_managerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"meshbridge/translate/apisix"
)

// headerClientCertificate tells an application of its client's certificate.
const headerClientCertificate = "x-forwarded-client-cert"

const (
	// varClientCertificate is what capture says about the certificate, in the form of the header.
	varClientCertificate = "proxy_protocol_tlv_0xe2"
	// varClientCertificates is the header as it came, with what capture says at its end. APISIX's static
	// configuration defines it.
	varClientCertificates = "meshbridge_xfcc"
)

// tellsCertificate tells whether a connection manager says in the header who its client is.
func tellsCertificate(forwarding http_connection_managerpb.HttpConnectionManager_ForwardClientCertDetails) bool {
	return forwarding == http_connection_managerpb.HttpConnectionManager_SANITIZE_SET ||
		forwarding == http_connection_managerpb.HttpConnectionManager_APPEND_FORWARD
}

// settleCertificate decides what becomes of the header on the requests of a chain that capture tells of
// its peers. Without a certificate, Envoy removes what the client sent, whatever else it is told.
func (s *State) settleCertificate(c *Chain, d *chainDraft, share reporter) {
	if !s.options.Profile.Captures() || !c.dropsClientCertificate || !c.MeshTLS && d.tlsContext == nil {
		return
	}
	const field = "http_connection_manager.forward_client_cert_details"
	if tellsCertificate(d.forwarding) && d.wholeCertificate {
		share(codeSettingIgnored, "http_connection_manager.set_current_client_cert_details", "the certificate itself, among what is told of it,")
	}
	switch d.forwarding {
	case http_connection_managerpb.HttpConnectionManager_SANITIZE, http_connection_managerpb.HttpConnectionManager_ALWAYS_FORWARD_ONLY:
	case http_connection_managerpb.HttpConnectionManager_SANITIZE_SET:
		if c.capturedTLS {
			c.clientCertificate = apisix.Var(varClientCertificate)
			return
		}
		share("client_certificate_header", field)
	case http_connection_managerpb.HttpConnectionManager_APPEND_FORWARD:
		switch {
		case c.capturedTLS && c.RequireClientCertificate:
			c.clientCertificate = apisix.Var(varClientCertificates)
			return
		case c.capturedTLS: // what a client without a certificate says must not be passed on
			c.clientCertificate = apisix.Var(varClientCertificate)
			share(codeSettingIgnored, field, "what x-forwarded-client-cert says of certificates further away")
			return
		}
		share("client_certificate_header", field)
	case http_connection_managerpb.HttpConnectionManager_FORWARD_ONLY:
		if c.capturedTLS && c.RequireClientCertificate {
			c.dropsClientCertificate = false
			return
		}
		share("client_certificate_header", field)
	}
}

// tellCertificate puts the certificate in the header, unless the route has its own idea of it.
func (rx *routeContext) tellCertificate(merged []headerOutcome) []headerOutcome {
	if rx.chain.clientCertificate == "" {
		return merged
	}
	for i, h := range merged {
		if h.name == headerClientCertificate && !h.keep && len(h.values) == 0 {
			merged[i].values = []string{rx.chain.clientCertificate}
		}
	}
	return merged
}

// originalDestination is where the client connected to, for capture to connect there.
func (rx *routeContext) originalDestination() string {
	address, port := rx.options.Profile.OriginalDestination()
	return apisix.Var(address) + ":" + apisix.Var(port)
}
