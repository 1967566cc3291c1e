package translate

import (
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
)

// downstreamTLS is the TLS of a chain that capture terminates: with the workload's own certificate, or
// in a way that APISIX cannot.
func (s *State) downstreamTLS(c *tlspb.DownstreamTlsContext, report reporter) *DownstreamTLS {
	const field = tlsField + "common_tls_context."
	common := c.GetCommonTlsContext()
	reportUnknown(c, report, tlsField)
	reportUnknown(common, report, field)
	reportTLSParameters(common.GetTlsParams(), report, field+"tls_params.")
	v := s.validationOf(common, report, field)
	out := &DownstreamTLS{
		Authorities:              v.authorities,
		RequireClientCertificate: c.GetRequireClientCertificate().GetValue(),
		SANs:                     v.sans,
		SPKIs:                    v.spkis,
		Hashes:                   v.hashes,
		CRL:                      v.crl,
		ALPN:                     spokenProtocols(common.GetAlpnProtocols()),
		CipherSuites:             cipherSuites(common.GetTlsParams(), report, field+"tls_params."),
	}
	if v.system {
		// A client is known to the mesh or the operator, never to the world's authorities.
		report(codeSettingIgnored, field+"validation_context", "the system's authorities, for want of which all client certificates are refused,")
		out.Authorities = Credential{Missing: "the system's authorities"}
	}
	out.MinVersion, out.MaxVersion = tlsVersions(common.GetTlsParams())
	out.Credential = s.serverCertificate(common, report)
	for _, held := range []Credential{out.Credential, out.Authorities} {
		if held.Missing != "" {
			report("certificate_missing", "transport_socket", held.Missing)
		}
	}
	return out
}

func (s *State) serverCertificate(common *tlspb.CommonTlsContext, report reporter) Credential {
	secrets := common.GetTlsCertificateSdsSecretConfigs()
	if len(secrets)+len(common.GetTlsCertificates()) > 1 {
		report("certificate_choice", "transport_socket")
	}
	for _, secret := range secrets {
		return s.certificateOf(nameSecret(secret))
	}
	for _, inline := range common.GetTlsCertificates() {
		return inlineCertificate(inline, report)
	}
	return Credential{Missing: "a certificate of the server's"}
}

// inlineCertificate is a certificate that is part of the context, or that it has the files of.
func inlineCertificate(t *tlspb.TlsCertificate, report reporter) Credential {
	const field = tlsField + "common_tls_context.tls_certificates"
	reportUnknown(t, report, field+".")
	chain, key := t.GetCertificateChain(), t.GetPrivateKey()
	switch {
	case t.GetPkcs12() != nil, t.GetPassword() != nil, t.GetPrivateKeyProvider() != nil:
		return Credential{Missing: "a private key that is encrypted or kept elsewhere"}
	case chain.GetFilename() != "" && key.GetFilename() != "":
		return Credential{CertificateFile: chain.GetFilename(), KeyFile: key.GetFilename()}
	case dataOf(chain) != nil && dataOf(key) != nil:
		return Credential{Certificate: dataOf(chain), Key: dataOf(key)}
	}
	return Credential{Missing: "a certificate that is not part of the configuration"}
}

// spokenProtocols leaves out what capture does not speak: the exchange of metadata between Istio's
// proxies.
func spokenProtocols(alpn []string) []string {
	var out []string
	for _, protocol := range alpn {
		if protocol != "istio-peer-exchange" {
			out = append(out, protocol)
		}
	}
	return out
}
