package translate

import (
	"crypto/tls"
	"strings"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherpb "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"

	"meshbridge/translate/stringmatch"
)

// What TLS that capture speaks has in common on both sides of a proxy.

// Names by which Istio's agent serves secrets.
const (
	secretWorkload    = "default"
	secretRoot        = "ROOTCA"
	secretFiles       = "file-cert:" // CERTIFICATE~KEY
	secretAuthorities = "file-root:" // PATH, or system
	systemAuthorities = "system"
)

// certificateOf is the credential of a certificate in a secret.
func (s *State) certificateOf(secret secretName) Credential {
	switch certificate, key, files := fileSecret(secret.name); {
	case secret.name == secretWorkload:
		return Credential{Workload: true}
	case files:
		return Credential{CertificateFile: certificate, KeyFile: key}
	}
	held := s.credentials[secret.name]
	if held == nil || held.leaf == nil {
		return Credential{Missing: secret.name}
	}
	return Credential{Certificate: []byte(held.chain), Key: []byte(held.key)}
}

// fileSecret returns the files of a certificate and its key.
func fileSecret(name string) (certificate, key string, ok bool) {
	files, ok := strings.CutPrefix(name, secretFiles)
	if !ok {
		return "", "", false
	}
	certificate, key, ok = strings.Cut(files, "~")
	return certificate, key, ok
}

// peerValidation is how the certificates of peers are verified.
type peerValidation struct {
	authorities   Credential
	system        bool
	unverified    bool // this is what the configuration says
	sans          []SANMatch
	spkis, hashes []string
	crl           []byte
}

// validationOf reads how peers are verified: from the context itself, and from a secret with one.
func (s *State) validationOf(common *tlspb.CommonTlsContext, report reporter, field string) peerValidation {
	context := common.GetValidationContext()
	var secret secretName
	if combined := common.GetCombinedValidationContext(); combined != nil {
		context = combined.GetDefaultValidationContext()
		secret = nameSecret(combined.GetValidationContextSdsSecretConfig())
	}
	if config := common.GetValidationContextSdsSecretConfig(); config != nil {
		secret = nameSecret(config)
	}
	var v peerValidation
	path, files := strings.CutPrefix(secret.name, secretAuthorities)
	switch {
	case secret.name == "":
	case secret.name == secretRoot:
		v.authorities.Workload = true
	case files && path == systemAuthorities:
		v.system = true
	case files:
		v.authorities.AuthoritiesFile = path
	default:
		held := s.credentials[secret.name]
		if held == nil || held.validation == nil {
			v.authorities.Missing = secret.name
			break
		}
		merged := &tlspb.CertificateValidationContext{}
		proto.Merge(merged, context)
		proto.Merge(merged, held.validation) // as Envoy combines them
		context = merged
	}
	v.read(context, report, field+"validation_context.")
	if v.authorities.empty() && !v.system {
		v.unverified = true
	}
	return v
}

func (c Credential) empty() bool {
	return !c.Workload && c.CertificateFile == "" && c.AuthoritiesFile == "" && c.Certificate == nil && c.Authorities == nil && c.Missing == ""
}

func (v *peerValidation) read(c *tlspb.CertificateValidationContext, report reporter, field string) {
	reportUnknown(c, report, field)
	if ca := c.GetTrustedCa(); ca != nil {
		if path := ca.GetFilename(); path != "" {
			v.authorities.AuthoritiesFile = path
		} else if pem := dataOf(ca); pem != nil {
			v.authorities.Authorities = pem
		} else {
			v.authorities.Missing = "the trusted authorities, which are not part of the configuration"
		}
	}
	if c.GetSystemRootCerts() != nil {
		v.system = true
	}
	if custom := c.GetCustomValidatorConfig(); custom != nil {
		// What it would verify is not known, so nobody is let through.
		report(codeSettingIgnored, field+"custom_validator_config", "the validator "+custom.GetName()+", for want of which all certificates are refused,")
		v.authorities = Credential{Missing: "validator " + custom.GetName()}
	}
	if c.GetTrustChainVerification() == tlspb.CertificateValidationContext_ACCEPT_UNTRUSTED {
		v.authorities, v.system, v.unverified = Credential{}, false, true
	}
	if c.GetRequireSignedCertificateTimestamp().GetValue() {
		report(codeSettingIgnored, field+"require_signed_certificate_timestamp", "require_signed_certificate_timestamp")
	}
	if c.GetMaxVerifyDepth() != nil {
		report(codeSettingIgnored, field+"max_verify_depth", "max_verify_depth")
	}
	v.spkis, v.hashes = c.GetVerifyCertificateSpki(), c.GetVerifyCertificateHash()
	switch crl := c.GetCrl(); {
	case crl == nil:
	case dataOf(crl) != nil:
		v.crl = dataOf(crl)
	default:
		report(codeSettingIgnored, field+"crl", "a revocation list that is not part of the configuration, for want of which all certificates are refused,")
		v.authorities = Credential{Missing: "the revocation list " + crl.GetFilename()}
	}
	for _, m := range c.GetMatchTypedSubjectAltNames() {
		v.sans = append(v.sans, sanMatch(m.GetSanType(), m.GetMatcher(), report, field+"match_typed_subject_alt_names"))
	}
	if len(v.sans) > 0 { // Envoy then ignores the older field
		return
	}
	for _, m := range c.GetMatchSubjectAltNames() { //nolint:staticcheck // istiod sends the older field
		v.sans = append(v.sans, sanMatch(tlspb.SubjectAltNameMatcher_SAN_TYPE_UNSPECIFIED, m, report, field+"match_subject_alt_names"))
	}
}

// sanMatch compiles a matcher of names. What is not known matches nothing: there must be an entry, or
// any name would do.
func sanMatch(kind tlspb.SubjectAltNameMatcher_SanType, m *matcherpb.StringMatcher, report reporter, field string) SANMatch {
	out := SANMatch{Text: describeString(m)}
	accepts, err := stringmatch.New(m)
	switch kind {
	case tlspb.SubjectAltNameMatcher_SAN_TYPE_UNSPECIFIED:
		out.Kind = SANAny
	case tlspb.SubjectAltNameMatcher_DNS:
		out.Kind = SANDNS
	case tlspb.SubjectAltNameMatcher_URI:
		out.Kind = SANURI
	case tlspb.SubjectAltNameMatcher_EMAIL:
		out.Kind = SANEmail
	case tlspb.SubjectAltNameMatcher_IP_ADDRESS:
		out.Kind = SANIP
	default:
		report(codeSettingIgnored, field, "a name of type "+kind.String()+", which no certificate has,")
		accepts = nil
	}
	if err != nil {
		report("regex_unsupported", field, err)
	}
	if accepts == nil {
		out.Match = func(string) bool { return false }
		return out
	}
	out.Match = accepts
	if exact, ok := m.GetMatchPattern().(*matcherpb.StringMatcher_Exact); ok && !m.GetIgnoreCase() {
		out.Exact = exact.Exact
	}
	return out
}

// dataOf returns data that is part of the configuration, or nil.
func dataOf(d *corepb.DataSource) []byte {
	if text := inlineData(d); text != "" {
		return []byte(text)
	}
	return nil
}

// tlsVersions are those of TlsParameters; 0 is the default.
func tlsVersions(p *tlspb.TlsParameters) (lowest, highest uint16) {
	version := func(v tlspb.TlsParameters_TlsProtocol) uint16 {
		switch v {
		case tlspb.TlsParameters_TLSv1_0:
			return tls.VersionTLS10
		case tlspb.TlsParameters_TLSv1_1:
			return tls.VersionTLS11
		case tlspb.TlsParameters_TLSv1_2:
			return tls.VersionTLS12
		case tlspb.TlsParameters_TLSv1_3:
			return tls.VersionTLS13
		case tlspb.TlsParameters_TLS_AUTO:
		}
		return 0
	}
	return version(p.GetTlsMinimumProtocolVersion()), version(p.GetTlsMaximumProtocolVersion())
}

// cipherSuites reads BoringSSL's names, of which those in brackets are equally good. Go has an order
// of its own.
func cipherSuites(p *tlspb.TlsParameters, report reporter, field string) []uint16 {
	var ids []uint16
	for _, entry := range p.GetCipherSuites() {
		for name := range strings.SplitSeq(strings.Trim(entry, "[]"), "|") {
			if id, known := cipherSuite(name); known {
				ids = append(ids, id)
			} else {
				report(codeCipherSuite, field+"cipher_suites", name)
			}
		}
	}
	if len(ids) == 0 && len(p.GetCipherSuites()) > 0 {
		// None must be left over, and no list would mean all of the default.
		return []uint16{tls.TLS_FALLBACK_SCSV}
	}
	return ids
}

func cipherSuite(name string) (id uint16, known bool) {
	switch name {
	case "ECDHE-ECDSA-AES128-GCM-SHA256":
		return tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, true
	case "ECDHE-RSA-AES128-GCM-SHA256":
		return tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, true
	case "ECDHE-ECDSA-AES256-GCM-SHA384":
		return tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, true
	case "ECDHE-RSA-AES256-GCM-SHA384":
		return tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, true
	case "ECDHE-ECDSA-CHACHA20-POLY1305":
		return tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, true
	case "ECDHE-RSA-CHACHA20-POLY1305":
		return tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, true
	case "ECDHE-ECDSA-AES128-SHA":
		return tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, true
	case "ECDHE-RSA-AES128-SHA":
		return tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, true
	case "ECDHE-ECDSA-AES256-SHA":
		return tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA, true
	case "ECDHE-RSA-AES256-SHA":
		return tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA, true
	case "AES128-GCM-SHA256":
		return tls.TLS_RSA_WITH_AES_128_GCM_SHA256, true
	case "AES256-GCM-SHA384":
		return tls.TLS_RSA_WITH_AES_256_GCM_SHA384, true
	case "AES128-SHA":
		return tls.TLS_RSA_WITH_AES_128_CBC_SHA, true
	case "AES256-SHA":
		return tls.TLS_RSA_WITH_AES_256_CBC_SHA, true
	case "DES-CBC3-SHA":
		return tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA, true
	}
	return 0, false
}

// reportTLSParameters reports what capture has no setting for.
func reportTLSParameters(p *tlspb.TlsParameters, report reporter, field string) {
	reportUnknown(p, report, field)
	if len(p.GetEcdhCurves()) > 0 {
		report(codeSettingIgnored, field+"ecdh_curves", "the list of curves")
	}
	if len(p.GetSignatureAlgorithms()) > 0 {
		report(codeSettingIgnored, field+"signature_algorithms", "the list of signature algorithms")
	}
}
