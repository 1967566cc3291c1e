package translate

import (
	"fmt"
	"slices"
	"strings"

	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"meshbridge/translate/apisix"
)

// TLS that APISIX terminates. A chain's TLS context and the secrets it names become ssl objects, which
// APISIX chooses by server name alone, whatever the port. What is between the two, in files of this
// name: what the context says (here), which chain a server name belongs to
// (gateway_tls_names.go), and the objects (gateway_tls_ssl.go).

// serverTLS is what a filter chain says about the TLS of its connections.
type serverTLS struct {
	// certificates and authority name secrets. Without an authority, no client certificate is
	// asked for.
	certificates []secretName
	authority    secretName
	// required tells that a client without certificate is refused.
	required bool
	// checks are what a client certificate must pass beyond being issued by an authority.
	checks    []string
	depth     int
	protocols []string
	// unavailable says why the context cannot be served.
	unavailable string
}

// secretName refers to a secret. Only what comes over ADS can arrive from istiod; the rest is for the
// agent beside Envoy, of which what is in files is read without it.
type secretName struct {
	name string
	ads  bool
}

func nameSecret(c *tlspb.SdsSecretConfig) secretName {
	return secretName{c.GetName(), c.GetSdsConfig() == nil || c.GetSdsConfig().GetAds() != nil}
}

// defaultDepth is Envoy's limit on intermediate certificates; APISIX's is 1.
const defaultDepth = 100

const tlsField = "transport_socket."

// parseServerTLS reads a TLS context.
func (s *State) parseServerTLS(c *tlspb.DownstreamTlsContext, share reporter) *serverTLS {
	common := c.GetCommonTlsContext()
	reportUnknown(c, share, tlsField)
	reportUnknown(common, share, tlsField+"common_tls_context.")
	t := &serverTLS{required: c.GetRequireClientCertificate().GetValue(), depth: defaultDepth}
	for _, secret := range common.GetTlsCertificateSdsSecretConfigs() {
		t.certificates = append(t.certificates, nameSecret(secret))
	}
	for _, inline := range common.GetTlsCertificates() {
		reportUnknown(inline, share, tlsField+"common_tls_context.tls_certificates.")
		files := nameFiles(inline)
		if files.name == "" {
			t.unavailable = "its certificate is neither in a secret nor in files"
		}
		t.certificates = append(t.certificates, files)
	}
	if len(t.certificates) == 0 {
		t.unavailable = "it names no secret with a certificate"
	}
	validation := common.GetValidationContext()
	if combined := common.GetCombinedValidationContext(); combined != nil {
		validation = combined.GetDefaultValidationContext()
	}
	t.authority = authorityOf(common)
	t.parseValidation(validation, share)
	s.parseTLSParameters(t, common.GetTlsParams(), share)
	if alpn := common.GetAlpnProtocols(); len(alpn) > 0 && !slices.Equal(alpn, []string{"h2", "http/1.1"}) {
		share("alpn_ignored", tlsField+"common_tls_context.alpn_protocols", strings.Join(alpn, ", "))
	}
	return t
}

func (t *serverTLS) parseValidation(v *tlspb.CertificateValidationContext, share reporter) {
	const field = tlsField + "common_tls_context.validation_context"
	const prefix = field + "."
	reportUnknown(v, share, prefix)
	t.checks = clientChecks(v)
	if depth := v.GetMaxVerifyDepth(); depth != nil {
		t.depth = int(depth.GetValue())
	}
	if v.GetTrustChainVerification() == tlspb.CertificateValidationContext_ACCEPT_UNTRUSTED {
		share("client_certificate_verified", prefix+"trust_chain_verification")
	}
	if t.authority.name == "" && v.GetTrustedCa() != nil {
		t.unavailable = "the authorities of client certificates are not in a secret"
	}
	if t.authority.name == "" && !t.required && len(t.checks) > 0 {
		// No certificate is asked for, so there is none to check.
		share("setting_ignored", field, strings.Join(t.checks, " and "))
		t.checks = nil
	}
}

// clientChecks names what a client certificate has to pass and APISIX cannot check.
func clientChecks(v *tlspb.CertificateValidationContext) []string {
	var checks []string
	for _, check := range []struct {
		present bool
		what    string
	}{
		{len(v.GetMatchTypedSubjectAltNames())+len(v.GetMatchSubjectAltNames()) > 0, "subject alternative names"}, //nolint:staticcheck // istiod sends the older field
		{len(v.GetVerifyCertificateSpki()) > 0, "the hash of the public key"},
		{len(v.GetVerifyCertificateHash()) > 0, "the hash of the certificate"},
		{v.GetCrl() != nil, "revocation"},
		{v.GetRequireSignedCertificateTimestamp().GetValue(), "signed certificate timestamps"},
		{v.GetCustomValidatorConfig() != nil, "a custom validator"},
	} {
		if check.present {
			checks = append(checks, check.what)
		}
	}
	return checks
}

// parseTLSParameters reads versions. Each ssl has its own; ciphers and curves are the same for all.
func (s *State) parseTLSParameters(t *serverTLS, p *tlspb.TlsParameters, share reporter) {
	const prefix = tlsField + "common_tls_context.tls_params."
	reportUnknown(p, share, prefix)
	for field, list := range map[string][]string{
		"cipher_suites": p.GetCipherSuites(), "ecdh_curves": p.GetEcdhCurves(), "signature_algorithms": p.GetSignatureAlgorithms(),
	} {
		if len(list) > 0 {
			share("tls_parameters_ignored", prefix+field, field)
		}
	}
	versions := []struct {
		version tlspb.TlsParameters_TlsProtocol
		name    string
	}{
		{tlspb.TlsParameters_TLSv1_0, ""}, // APISIX does not have it
		{tlspb.TlsParameters_TLSv1_1, "TLSv1.1"},
		{tlspb.TlsParameters_TLSv1_2, "TLSv1.2"},
		{tlspb.TlsParameters_TLSv1_3, "TLSv1.3"},
	}
	// Envoy's defaults for servers.
	lowest, highest := p.GetTlsMinimumProtocolVersion(), p.GetTlsMaximumProtocolVersion()
	if lowest == tlspb.TlsParameters_TLS_AUTO {
		lowest = tlspb.TlsParameters_TLSv1_2
	}
	if highest == tlspb.TlsParameters_TLS_AUTO {
		highest = tlspb.TlsParameters_TLSv1_3
	}
	for _, v := range versions {
		switch {
		case v.version < lowest || v.version > highest:
		case v.name == "":
			share("tls_version_unavailable", prefix+"tls_minimum_protocol_version")
		default:
			t.protocols = append(t.protocols, v.name)
		}
	}
	switch {
	case len(t.protocols) == 0:
		t.unavailable = "it allows no version of TLS that APISIX has"
	case !s.options.APISIXVersion.Has(apisix.FeatureTLSProtocols):
		if !slices.Equal(t.protocols, []string{"TLSv1.2", "TLSv1.3"}) {
			reportTooOld(share, apisix.FeatureTLSProtocols, prefix+"tls_minimum_protocol_version", "")
		}
		t.protocols = nil
	}
}

// optional tells whether a client may come without a certificate, but not with a bad one.
func (t *serverTLS) optional() bool { return t.authority.name != "" && !t.required }

// terms identify what connections get: chains with the same terms can share an ssl.
func (t *serverTLS) terms(certificates []*credential) string {
	parts := []string{t.authority.name, fmt.Sprint(t.required, t.depth, t.protocols)}
	for _, c := range certificates {
		parts = append(parts, c.name)
	}
	return canonicalKey(parts...)
}

// certify gives a chain whose TLS APISIX terminates its certificates. It returns what restricts its
// clients and cannot be enforced, or why the chain cannot be served: as in Envoy, nothing is until
// all of its secrets are there.
func (s *State) certify(c *Chain, t *serverTLS, report reporter) (restrictions []restriction, notServed string) {
	const field = "transport_socket"
	if !s.options.APISIXVersion.Has(apisix.FeatureSSLs) {
		reportTooOld(report, apisix.FeatureSSLs, field, "")
		return nil, "APISIX " + s.options.APISIXVersion.String() + " has its certificates elsewhere"
	}
	switch {
	case c.MeshTLS:
		notServed = "the workload's own certificate is for capture, which this profile does not have"
	case t == nil:
		notServed = "its TLS is terminated by nobody"
	case t.unavailable != "":
		notServed = t.unavailable
	}
	if notServed != "" {
		report("certificate_unavailable", field, notServed)
		return nil, notServed
	}
	needed := t.certificates
	if t.authority.name != "" {
		needed = append(slices.Clone(needed), t.authority)
	}
	checks := t.checks
	for _, secret := range needed {
		held := s.credentials[secret.name]
		certificate := secret != t.authority
		switch {
		case held == nil && s.inputs.FileErrors[secret.name] != "":
			notServed = "secret " + secret.name + " cannot be read: " + s.inputs.FileErrors[secret.name]
			report("certificate_unavailable", field, notServed)
		case held == nil && isInFiles(secret):
			notServed = "secret " + secret.name + " is in files, which have not been read"
			report("certificate_unavailable", field, notServed)
		case held == nil && !secret.ads:
			notServed = "secret " + secret.name + " is for the agent beside Envoy"
			report("certificate_unavailable", field, notServed)
		case held == nil:
			notServed = "secret " + secret.name + " has not arrived"
			report("certificate_missing", field, secret.name)
		case held.unusable != "":
			notServed = "secret " + secret.name + " cannot be used: " + held.unusable
			report("certificate_unavailable", field, notServed)
		case certificate && held.leaf == nil || !certificate && held.authorities == "":
			notServed = "secret " + secret.name + " is of another kind"
			report("certificate_unavailable", field, notServed)
		default:
			checks = append(slices.Clone(checks), held.checks...)
		}
	}
	if notServed != "" {
		return nil, notServed
	}
	c.Terminated, c.VerifiesClientCertificate, c.tls = true, t.authority.name != "", t
	s.reportServerTLS(c, report)
	if t.required && !c.VerifiesClientCertificate {
		restrictions = append(restrictions, restriction{codeUnenforcedClientCertificate, field, "the chain"})
	}
	for _, check := range slices.Compact(slices.Sorted(slices.Values(checks))) {
		restrictions = append(restrictions, restriction{codeUnenforcedClientCertificateCheck, field, check})
	}
	return restrictions, ""
}

// reportServerTLS reports how APISIX differs from Envoy for the chain's clients.
func (s *State) reportServerTLS(c *Chain, report reporter) {
	const field = "transport_socket"
	kinds := map[string]bool{}
	for _, secret := range c.tls.certificates {
		kinds[s.credentials[secret.name].leaf.PublicKeyAlgorithm.String()] = true
	}
	if len(kinds) < len(c.tls.certificates) {
		report("certificate_choice", field)
	}
	if c.VerifiesClientCertificate {
		report("client_certificate_host", field)
	}
	switch {
	case !c.tls.optional():
	case s.options.APISIXVersion.Has(apisix.FeatureSkipMTLS):
		report("client_certificate_refused_late", field)
	default:
		reportTooOld(report, apisix.FeatureSkipMTLS, field, "")
	}
	if len(c.ServerNames) == 0 && !s.options.APISIXVersion.Has(apisix.FeatureAnySNI) {
		reportTooOld(report, apisix.FeatureAnySNI, field, "")
	}
	for _, name := range c.ServerNames {
		if _, err := apisix.ServerName(name); err != nil {
			report("server_name_invalid", "filter_chain_match.server_names", name)
		} else if strings.HasPrefix(name, "*.") {
			report("server_name_depth", "filter_chain_match.server_names", name)
		}
	}
}

// Variables of APISIX about TLS that it terminates.
const (
	varScheme       = "scheme"
	varClientVerify = "ssl_client_verify"
)

// secured are the conditions on requests of a chain whose TLS APISIX terminates. They hold for all
// connections that got the chain's own certificate, and keep out any that an ssl of somebody else let
// in: APISIX chooses it by server name, without the port.
func (c *Chain) secured() apisix.Vars {
	if !c.Terminated {
		return nil
	}
	conds := apisix.List(apisix.Eq(varScheme, "https"))
	switch {
	case !c.VerifiesClientCertificate:
	case c.RequireClientCertificate:
		conds = append(conds, apisix.Eq(varClientVerify, apisix.ClientVerified))
	default:
		conds = append(conds, apisix.In(varClientVerify, apisix.ClientVerified, apisix.ClientAnonymous))
	}
	if len(c.foreignNames) > 0 {
		conds = append(conds, matchServerNames(c.foreignNames, apisix.NotMatchFold))
	}
	return conds
}

// securedVars are the variables that make the conditions hold.
func (c *Chain) securedVars(serverName string, vars map[string]string) {
	if !c.Terminated {
		return
	}
	vars[varScheme], vars[varClientVerify] = "https", apisix.ClientAnonymous
	if c.RequireClientCertificate && c.VerifiesClientCertificate {
		vars[varClientVerify] = apisix.ClientVerified
	}
	if serverName != "" {
		vars[varServerName] = serverName
	}
}
