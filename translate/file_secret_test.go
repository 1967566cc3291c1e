package translate

import (
	"encoding/pem"
	"io/fs"
	"strings"
	"testing"

	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/google/go-cmp/cmp"

	"meshbridge/translate/apisix"
	"meshbridge/xds"
)

const (
	filesCertificate = "file-cert:/tls.crt~/tls.key"
	filesAuthority   = "file-root:/ca.crt"
)

// inFiles is the recording of a gateway with a server whose certificate is in files.
func inFiles(t *testing.T) scenario {
	t.Helper()
	sc := credentialGateway(t)
	sc.snapshot = loadYAML(t, `
- "@type": type.googleapis.com/envoy.config.listener.v3.Listener
  name: 0.0.0.0_8443
  address: {socket_address: {address: "0.0.0.0", port_value: 8443}}
  filter_chains:
  - filter_chain_match: {server_names: ["file.com"]}
    transport_socket:
      name: tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
        require_client_certificate: true
        common_tls_context:
          tls_certificate_sds_secret_configs: [{name: "`+filesCertificate+`", sds_config: {api_config_source: {api_type: GRPC}}}]
          combined_validation_context:
            default_validation_context: {}
            validation_context_sds_secret_config: {name: "`+filesAuthority+`", sds_config: {api_config_source: {api_type: GRPC}}}
    filters:
    - name: hcm
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: http
        route_config: {name: shop, virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, direct_response: {status: 200}}]}]}
`)
	return sc
}

func secretOf(t *testing.T, r *xds.Resource) *tlspb.Secret {
	t.Helper()
	secret, err := xds.Decode[*tlspb.Secret](r)
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

func TestAServerComesAndGoesWithItsFiles(t *testing.T) {
	sc := inFiles(t)
	opts := sc.with(Gateway())
	ca := newAuthority(t)
	certificate := func() *tlspb.Secret {
		return secretOf(t, ca.certificate(t, filesCertificate, newKey(t), "file.com"))
	}
	authorities := secretOf(t, ca.authorities(t, filesAuthority))
	s := translated(t, opts, sc.snapshot)
	for r := range sc.snapshot.All(xds.ListenerType) {
		l, err := xds.Decode[*listenerpb.Listener](r)
		if err != nil {
			t.Fatal(err)
		}
		want := []FileSecret{
			{Name: filesCertificate, Certificate: "/tls.crt", Key: "/tls.key"}, {Name: filesAuthority, Authorities: "/ca.crt"},
		}
		if diff := cmp.Diff(want, s.FileSecrets(l)); diff != "" {
			t.Errorf("other files are asked for (-want +got):\n%s", diff)
		}
		if own := translated(t, sc.with(Mesh()), sc.snapshot).FileSecrets(l); own != nil {
			t.Errorf("files are asked for that capture reads: %v", own)
		}
	}
	if n := len(objectsOf(s)); n != 0 {
		t.Fatalf("without its files, the server has %d objects", n)
	}
	first := Inputs{Files: map[string]*tlspb.Secret{filesCertificate: certificate(), filesAuthority: authorities}}
	s.Apply(Input{Snapshot: sc.snapshot, Inputs: first})
	if diff := cmp.Diff(objectsOf(translatedWith(t, opts, sc.snapshot, first)), objectsOf(s)); diff != "" {
		t.Errorf("files that come are another world (-at once +steps):\n%s", diff)
	}
	rotated := Inputs{Files: map[string]*tlspb.Secret{filesCertificate: certificate(), filesAuthority: authorities}}
	if r := s.Apply(Input{Snapshot: sc.snapshot, Inputs: rotated}); len(r.Put) != 1 || r.Put[0].Kind != apisix.KindSSL || len(r.Delete) != 0 {
		t.Errorf("a new certificate puts %d objects and deletes %v, want its ssl and nothing", len(r.Put), r.Delete)
	}
	if r := s.Apply(Input{Snapshot: sc.snapshot, Inputs: rotated}); len(r.Put)+len(r.Delete) != 0 || r.DiagnosticsChanged {
		t.Error("the same files change something")
	}
	gone := Inputs{
		Files:      map[string]*tlspb.Secret{filesCertificate: certificate()},
		FileErrors: map[string]string{filesAuthority: "open /ca.crt: no such file"},
	}
	s.Apply(Input{Snapshot: sc.snapshot, Inputs: gone})
	if n := len(objectsOf(s)); n != 0 {
		t.Errorf("without the authorities of its clients, the server has %d objects", n)
	}
	if d := s.Diagnostics(); len(d) == 0 || !strings.Contains(d[0].String(), "cannot be read: open /ca.crt") {
		t.Errorf("nothing is said of the error: %v", d)
	}
}

// The agent beside Envoy goes on with what it has while files are being replaced.
func TestFilesThatNoServerCouldUseAreNoSecret(t *testing.T) {
	ca, key := newAuthority(t), newKey(t)
	good := secretOf(t, ca.certificate(t, "a", key, "a.com")).GetTlsCertificate()
	files := map[string][]byte{
		"/tls.crt":  good.GetCertificateChain().GetInlineBytes(),
		"/tls.key":  good.GetPrivateKey().GetInlineBytes(),
		"/other":    pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encodeKey(t, newKey(t))}),
		"/ca.crt":   pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.leaf.Raw}),
		"/half.crt": good.GetCertificateChain().GetInlineBytes()[:40],
	}
	read := func(path string) ([]byte, error) {
		if text, ok := files[path]; ok {
			return text, nil
		}
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	for name, want := range map[string]string{
		filesCertificate:              "",
		filesAuthority:                "",
		"file-cert:/tls.crt~/other":   "private key does not match public key",
		"file-cert:/half.crt~/other":  "/half.crt and /other: ",
		"file-cert:/tls.crt~/missing": "open /missing: ",
		"file-root:/half.crt":         "/half.crt: no certificate in PEM",
		"file-root:/missing":          "open /missing: ",
	} {
		f, ok := secretInFiles(name)
		if !ok {
			t.Errorf("%s is not taken for a secret in files", name)
			continue
		}
		secret, err := f.Read(read)
		switch {
		case want == "" && (err != nil || secret.GetName() != name):
			t.Errorf("%s: %v", name, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: got %v, want an error with %q", name, err, want)
		}
	}
	for _, name := range []string{"default", "kubernetes://a", "file-cert:/only", "file-root:system", ""} {
		if _, ok := secretInFiles(name); ok {
			t.Errorf("%q is taken for a secret in files", name)
		}
	}
}
