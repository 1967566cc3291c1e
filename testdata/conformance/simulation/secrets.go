package simulation

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"maps"
	"math/big"
	"slices"
	"strings"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
)

// secrets returns what the filter chains have their TLS from. Most cases are without the Kubernetes
// secrets, and listeners wait for those that are missing.
func (s *Simulation) secrets() []*tlspb.Secret {
	secrets := map[string]*tlspb.Secret{}
	for _, l := range s.Listeners {
		for _, fc := range l.GetFilterChains() {
			context := s.tlsOf(fc)
			configs := slices.Clone(context.GetTlsCertificateSdsSecretConfigs())
			configs = append(configs, context.GetCombinedValidationContext().GetValidationContextSdsSecretConfig(), context.GetValidationContextSdsSecretConfig())
			for _, config := range configs {
				if name := config.GetName(); strings.HasPrefix(name, "kubernetes://") && secrets[name] == nil {
					secrets[name] = s.newSecret(name)
				}
			}
		}
	}
	return slices.Collect(maps.Values(secrets))
}

// tlsOf returns how a filter chain terminates TLS; nil where it does not.
func (s *Simulation) tlsOf(fc *listenerpb.FilterChain) *tlspb.CommonTlsContext {
	config := fc.GetTransportSocket().GetTypedConfig()
	if config == nil || !config.MessageIs(new(tlspb.DownstreamTlsContext)) {
		return nil
	}
	context := new(tlspb.DownstreamTlsContext)
	if err := config.UnmarshalTo(context); err != nil {
		s.t.Fatal(err)
	}
	return context.GetCommonTlsContext()
}

// newSecret returns a certificate for any server, or authorities if that is what the name asks for.
func (s *Simulation) newSecret(name string) *tlspb.Secret {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"*.test"},
		NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		s.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		s.t.Fatal(err)
	}
	chain := inline(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})
	if strings.HasSuffix(name, "-cacert") {
		return &tlspb.Secret{Name: name, Type: &tlspb.Secret_ValidationContext{ValidationContext: &tlspb.CertificateValidationContext{TrustedCa: chain}}}
	}
	return &tlspb.Secret{Name: name, Type: &tlspb.Secret_TlsCertificate{TlsCertificate: &tlspb.TlsCertificate{
		CertificateChain: chain, PrivateKey: inline(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	}}}
}

func inline(block *pem.Block) *corepb.DataSource {
	return &corepb.DataSource{Specifier: &corepb.DataSource_InlineBytes{InlineBytes: pem.EncodeToMemory(block)}}
}
