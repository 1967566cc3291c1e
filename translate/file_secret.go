package translate

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
)

// Secrets in files of the proxy's own host. Istio's agent serves them to Envoy under names that say
// where they are; here, the caller reads the files and hands the secrets in as Inputs.Files.

// FileSecret is a secret that is in files: a certificate and its key, or authorities.
type FileSecret struct {
	Name string
	// Certificate and Key, or Authorities, are paths.
	Certificate, Key, Authorities string
}

// FileSecrets returns the secrets in files that APISIX needs to terminate the TLS of a listener, sorted by
// Name and without duplicates. In profiles with capture there are none: it terminates such TLS, and reads
// the files itself.
func (s *State) FileSecrets(l *listenerpb.Listener) []FileSecret {
	if s.options.Profile.Captures() {
		return nil
	}
	var found []FileSecret
	for _, chain := range slices.Concat(l.GetFilterChains(), []*listenerpb.FilterChain{l.GetDefaultFilterChain()}) {
		if !isDownstreamTLS(chain.GetTransportSocket()) {
			continue
		}
		common := decode[tlspb.DownstreamTlsContext](chain.GetTransportSocket().GetTypedConfig()).GetCommonTlsContext()
		names := []secretName{authorityOf(common)}
		for _, secret := range common.GetTlsCertificateSdsSecretConfigs() {
			names = append(names, nameSecret(secret))
		}
		for _, inline := range common.GetTlsCertificates() {
			names = append(names, nameFiles(inline))
		}
		for _, secret := range names {
			if in, ok := secretInFiles(secret.name); ok && !slices.Contains(found, in) {
				found = append(found, in)
			}
		}
	}
	slices.SortFunc(found, func(a, b FileSecret) int { return strings.Compare(a.Name, b.Name) })
	return found
}

func isDownstreamTLS(socket *corepb.TransportSocket) bool {
	return messageName(socket.GetTypedConfig()) == "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
}

// secretInFiles reads the name of a secret.
func secretInFiles(name string) (FileSecret, bool) {
	if certificate, key, ok := fileSecret(name); ok {
		return FileSecret{Name: name, Certificate: certificate, Key: key}, true
	}
	if path, ok := strings.CutPrefix(name, secretAuthorities); ok && path != systemAuthorities {
		return FileSecret{Name: name, Authorities: path}, true
	}
	return FileSecret{}, false
}

func isInFiles(secret secretName) bool {
	_, ok := secretInFiles(secret.name)
	return ok
}

// nameFiles is the name under which the agent would serve a certificate that the context itself has the
// files of; without a name where it has not.
func nameFiles(t *tlspb.TlsCertificate) secretName {
	certificate, key := t.GetCertificateChain().GetFilename(), t.GetPrivateKey().GetFilename()
	if certificate == "" || key == "" || t.GetPkcs12() != nil || t.GetPassword() != nil || t.GetPrivateKeyProvider() != nil {
		return secretName{}
	}
	return secretName{name: secretFiles + certificate + "~" + key}
}

// authorityOf names the secret with the authorities of client certificates; without a name where there is
// none.
func authorityOf(common *tlspb.CommonTlsContext) secretName {
	validation := common.GetValidationContext()
	if combined := common.GetCombinedValidationContext(); combined != nil {
		if config := combined.GetValidationContextSdsSecretConfig(); config != nil {
			return nameSecret(config)
		}
		validation = combined.GetDefaultValidationContext()
	}
	if config := common.GetValidationContextSdsSecretConfig(); config != nil {
		return nameSecret(config)
	}
	if path := validation.GetTrustedCa().GetFilename(); path != "" {
		return secretName{name: secretAuthorities + path}
	}
	return secretName{}
}

// Read returns the secret as the files have it. It fails where a file cannot be read and where no server
// could use what they hold, such as a certificate whose key is yet to be written; its errors hold nothing
// of a key.
func (f FileSecret) Read(read func(path string) ([]byte, error)) (*tlspb.Secret, error) {
	if f.Authorities != "" {
		text, err := read(f.Authorities)
		if err != nil {
			return nil, err
		}
		if _, err := firstCertificate(string(text)); err != nil {
			return nil, fmt.Errorf("%s: no certificate in PEM", f.Authorities)
		}
		return &tlspb.Secret{Name: f.Name, Type: &tlspb.Secret_ValidationContext{
			ValidationContext: &tlspb.CertificateValidationContext{TrustedCa: bytesSource(text)},
		}}, nil
	}
	chain, err := read(f.Certificate)
	if err != nil {
		return nil, err
	}
	key, err := read(f.Key)
	if err != nil {
		return nil, err
	}
	if _, err := tls.X509KeyPair(chain, key); err != nil {
		return nil, fmt.Errorf("%s and %s: %w", f.Certificate, f.Key, err)
	}
	return &tlspb.Secret{Name: f.Name, Type: &tlspb.Secret_TlsCertificate{
		TlsCertificate: &tlspb.TlsCertificate{CertificateChain: bytesSource(chain), PrivateKey: bytesSource(key)},
	}}, nil
}

func bytesSource(text []byte) *corepb.DataSource {
	return &corepb.DataSource{Specifier: &corepb.DataSource_InlineBytes{InlineBytes: text}}
}

// files takes over what the files of secrets hold.
func (p *step) files(old, in Inputs, all bool) {
	s := p.state
	if !all && sameMap(old.Files, in.Files) && sameMap(old.FileErrors, in.FileErrors) {
		return
	}
	p.listeners = true // what is there decides which chains are served
	for name := range old.Files {
		delete(s.credentials, name)
	}
	for name, secret := range in.Files {
		s.credentials[name] = s.readSecret(name, secret)
	}
}
