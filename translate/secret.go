package translate

import (
	"crypto/x509"
	"encoding/pem"
	"strings"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"meshbridge/translate/apisix"
	"meshbridge/xds"
)

// credential is what a secret holds, in the form in which an ssl has it. It is immutable.
type credential struct {
	name string
	// chain is the certificate chain, leaf its first certificate.
	chain string
	key   apisix.PrivateKey
	leaf  *x509.Certificate
	// authorities verify client certificates, and checks are what else they must pass.
	authorities string
	checks      []string
	// validation is all that the secret says about how peers are verified.
	validation *tlspb.CertificateValidationContext
	// unusable says why nothing can be made of the secret.
	unusable    string
	diagnostics []Diagnostic
}

// parseSecret reads a secret that istiod sent. Package xds has refused those that no server could use.
func (s *State) parseSecret(r *xds.Resource) *credential {
	secret, err := xds.Decode[*tlspb.Secret](r)
	if err != nil {
		return &credential{name: r.Name, unusable: "it does not decode"}
	}
	return s.readSecret(r.Name, secret)
}

func (s *State) readSecret(name string, secret *tlspb.Secret) *credential {
	c := &credential{name: name}
	report := s.reporter(&c.diagnostics, "Secret "+name, "", "")
	reportUnknown(secret, report, "")
	switch {
	case secret.GetTlsCertificate() != nil:
		c.takeCertificate(secret.GetTlsCertificate(), report)
	case secret.GetValidationContext() != nil:
		c.takeAuthorities(secret.GetValidationContext(), report)
	default:
		c.unusable = "it holds neither a certificate nor authorities"
	}
	return c
}

func (c *credential) takeCertificate(t *tlspb.TlsCertificate, report reporter) {
	const prefix = "tls_certificate."
	reportUnknown(t, report, prefix)
	chain, key := inlineData(t.GetCertificateChain()), inlineData(t.GetPrivateKey())
	switch {
	case t.GetPkcs12() != nil, t.GetPassword() != nil:
		c.unusable = "its private key is encrypted"
		return
	case t.GetPrivateKeyProvider() != nil:
		c.unusable = "its private key is kept by " + t.GetPrivateKeyProvider().GetProviderName()
		return
	case chain == "" || key == "":
		c.unusable = "certificate and private key are not part of it"
		return
	}
	leaf, err := firstCertificate(chain)
	if err != nil {
		c.unusable = err.Error()
		return
	}
	c.leaf = leaf
	// What else is in the files stays here: certificates are public, and a key must begin the text.
	c.chain = blocks(chain, func(kind string) bool { return kind == "CERTIFICATE" })
	c.key = apisix.PrivateKey(blocks(key, func(kind string) bool { return strings.HasSuffix(kind, "PRIVATE KEY") }))
}

func (c *credential) takeAuthorities(v *tlspb.CertificateValidationContext, report reporter) {
	reportUnknown(v, report, "validation_context.")
	c.checks, c.validation = clientChecks(v), v
	c.authorities = blocks(inlineData(v.GetTrustedCa()), func(kind string) bool { return kind == "CERTIFICATE" })
	if c.authorities == "" {
		c.unusable = "it has no certificates of authorities"
	}
}

// inlineData returns data that is part of a resource.
func inlineData(d *corepb.DataSource) string {
	if s, ok := d.GetSpecifier().(*corepb.DataSource_InlineString); ok {
		return s.InlineString
	}
	return string(d.GetInlineBytes())
}

// blocks returns the PEM blocks of a kind, without the text around them.
func blocks(text string, wanted func(kind string) bool) string {
	var out strings.Builder
	for block, rest := pem.Decode([]byte(text)); block != nil; block, rest = pem.Decode(rest) {
		if wanted(block.Type) {
			out.Write(pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes}))
		}
	}
	return out.String()
}

func firstCertificate(chain string) (*x509.Certificate, error) {
	for block, rest := pem.Decode([]byte(chain)); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			return x509.ParseCertificate(block.Bytes)
		}
	}
	return nil, x509.ErrUnsupportedAlgorithm
}
