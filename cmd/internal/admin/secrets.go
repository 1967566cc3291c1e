package admin

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"slices"

	adminpb "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"

	"meshbridge/identity"
	"meshbridge/xds"
)

// Istio's names of the workload's own certificate, and of the authorities of its peers.
const (
	workloadSecret    = "default"
	authoritiesSecret = "ROOTCA"
)

// uninitialized is the version that Envoy shows of secrets that it waits for.
const uninitialized = "uninitialized"

// identity returns the workload's certificate, and whether it is to have one.
func (s *Server) identity() (current *identity.Identity, wanted bool) {
	if s.config.Identity == nil {
		return nil, false
	}
	return s.config.Identity(), true
}

// identitySecrets are the workload's secrets, as an agent would hand them to Envoy. The key is not put in
// in the first place.
func identitySecrets(i *identity.Identity) []*tlspb.Secret {
	var chain bytes.Buffer
	for _, der := range i.Certificate.Certificate {
		_ = pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: der}) // a buffer does not fail
	}
	return []*tlspb.Secret{
		{Name: workloadSecret, Type: &tlspb.Secret_TlsCertificate{TlsCertificate: &tlspb.TlsCertificate{
			CertificateChain: inline(chain.Bytes()), PrivateKey: inline([]byte(redacted)),
		}}},
		{Name: authoritiesSecret, Type: &tlspb.Secret_ValidationContext{ValidationContext: &tlspb.CertificateValidationContext{
			TrustedCa: inline(i.AuthoritiesPEM),
		}}},
	}
}

func inline(text []byte) *corepb.DataSource {
	return &corepb.DataSource{Specifier: &corepb.DataSource_InlineBytes{InlineBytes: text}}
}

func (d *dump) activeSecrets(yield func(element) bool) {
	if current, _ := d.server.identity(); current != nil {
		for _, secret := range identitySecrets(current) {
			if !yield(element{secret.GetName(), func() proto.Message {
				return &adminpb.SecretsConfigDump_DynamicSecret{Name: secret.GetName(), Secret: d.message(secret)}
			}}) {
				return
			}
		}
	}
	for s := range d.states(xds.SecretType) {
		if s.active != nil && !yield(element{s.name, func() proto.Message { return d.secret(s, s.active) }}) {
			return
		}
	}
}

func (d *dump) secret(s state, r *xds.Resource) proto.Message {
	return &adminpb.SecretsConfigDump_DynamicSecret{
		Name: s.name, VersionInfo: versionOf(r), LastUpdated: timestamp(r.Received),
		Secret: d.redactor.body(r.Body), ErrorState: s.failure,
	}
}

// warmingSecrets are those that have not been translated, or that have not come yet.
func (d *dump) warmingSecrets(yield func(element) bool) {
	waiting := func(name string, failure *adminpb.UpdateFailureState) element {
		return element{name, func() proto.Message {
			return &adminpb.SecretsConfigDump_DynamicSecret{
				Name: name, VersionInfo: uninitialized, Secret: d.message(&tlspb.Secret{Name: name}), ErrorState: failure,
			}
		}}
	}
	if current, wanted := d.server.identity(); wanted && current == nil {
		if !yield(waiting(workloadSecret, nil)) || !yield(waiting(authoritiesSecret, nil)) {
			return
		}
	}
	for s := range d.states(xds.SecretType) {
		var e element
		switch {
		case s.warming != nil:
			e = element{s.name, func() proto.Message { return d.secret(s, s.warming) }}
		case s.active == nil:
			e = waiting(s.name, s.failure)
		default:
			continue
		}
		if !yield(e) {
			return
		}
	}
	for _, key := range d.Pending {
		if _, refused := d.rejected[key]; key.Type == xds.SecretType && !refused && d.Received.Get(key) == nil && !yield(waiting(key.Name, nil)) {
			return
		}
	}
}

// parseCertificates returns the certificates in a PEM text.
func parseCertificates(text []byte) []*x509.Certificate {
	var all []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if c, err := x509.ParseCertificate(block.Bytes); err == nil && block.Type == "CERTIFICATE" {
			all = append(all, c)
		}
	}
	return slices.Clip(all)
}
