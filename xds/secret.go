package xds

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
)

// secretRefs returns the secrets of a TLS context, of either side, whose source is ADS. Others come from
// the agent beside Envoy: the workload's own certificate, and files.
func secretRefs(socket *corepb.TransportSocket) []Key {
	var refs []Key
	add := func(s *tlspb.SdsSecretConfig) {
		if s.GetSdsConfig().GetAds() != nil {
			refs = append(refs, Key{Type: SecretType, Name: s.GetName()})
		}
	}
	common := commonTLS(socket)
	for _, s := range common.GetTlsCertificateSdsSecretConfigs() {
		add(s)
	}
	add(common.GetValidationContextSdsSecretConfig())
	add(common.GetCombinedValidationContext().GetValidationContextSdsSecretConfig())
	return refs
}

// commonTLS returns nil for what is no TLS context, or does not decode: that is reported by whoever reads
// the resource.
func commonTLS(socket *corepb.TransportSocket) *tlspb.CommonTlsContext {
	config := socket.GetTypedConfig()
	if context := (&tlspb.DownstreamTlsContext{}); config.MessageIs(context) && config.UnmarshalTo(context) == nil {
		return context.GetCommonTlsContext()
	}
	if context := (&tlspb.UpstreamTlsContext{}); config.MessageIs(context) && config.UnmarshalTo(context) == nil {
		return context.GetCommonTlsContext()
	}
	return nil
}

// checkSecret refuses what no TLS server could use. Its errors say what is wrong and never hold
// anything of a private key: they are sent to istiod and logged.
func checkSecret(m proto.Message) error {
	secret, _ := m.(*tlspb.Secret)
	if certificate := secret.GetTlsCertificate(); certificate != nil {
		return checkCertificate(certificate)
	}
	validation := secret.GetValidationContext()
	if ca := inline(validation.GetTrustedCa()); ca != nil {
		if err := checkAuthorities(ca); err != nil {
			return fmt.Errorf("trusted_ca: %w", err)
		}
	}
	return nil
}

func checkCertificate(c *tlspb.TlsCertificate) error {
	chain, key := inline(c.GetCertificateChain()), inline(c.GetPrivateKey())
	if chain == nil || key == nil {
		return nil // it comes from elsewhere
	}
	if _, err := tls.X509KeyPair(chain, key); err != nil {
		return fmt.Errorf("tls_certificate: %w", err)
	}
	return nil
}

// checkAuthorities refuses a bundle without certificates, or with one that does not parse: leaving
// that one out would shut out the clients that it is for.
func checkAuthorities(bundle []byte) error {
	found := false
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		found = true
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return err
		}
	}
	if !found {
		return errors.New("has no certificate in PEM")
	}
	return nil
}

// inline returns data that is part of the resource; nil where it is to be read from elsewhere.
func inline(d *corepb.DataSource) []byte {
	switch s := d.GetSpecifier().(type) {
	case *corepb.DataSource_InlineBytes:
		return append([]byte{}, s.InlineBytes...)
	case *corepb.DataSource_InlineString:
		return []byte(s.InlineString)
	}
	return nil
}
