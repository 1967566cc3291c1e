package translate

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/google/go-cmp/cmp"

	"meshbridge/translate/apisix"
	"meshbridge/xds"
)

// credentialGateway is the recording with all kinds of TLS servers.
func credentialGateway(t *testing.T) scenario {
	t.Helper()
	all := loadScenarios(t)
	i := slices.IndexFunc(all, func(s scenario) bool { return s.name == "gateway-credentials" })
	if i < 0 {
		t.Fatal("the recording is missing")
	}
	return all[i]
}

func secretKey(name string) xds.Key {
	return xds.Key{Type: xds.SecretType, Name: "kubernetes://" + name}
}

func TestANewCertificateChangesItsSSLsAndNothingElse(t *testing.T) {
	sc := credentialGateway(t)
	for _, p := range sc.profiles() {
		s := translated(t, sc.with(p), sc.snapshot)
		before := objectsOf(s)
		for name, want := range map[string]int{"partner": 1, "shop-rsa": 1, "shop": 3} { // by the terms they are used on
			key, hosts := newKey(t), []string{name + ".example.com", "*." + name + ".example.com"}
			if name == "shop-rsa" {
				key, hosts = newRSAKey(t), []string{"shop.example.com"}
			}
			rotated := newAuthority(t).certificate(t, secretKey(name).Name, key, hosts...)
			next := sc.snapshot.With([]*xds.Resource{rotated}, nil)
			r := s.Apply(Input{Snapshot: next, Changed: []xds.Key{rotated.Key}})
			if len(r.Put) != want || len(r.Delete) != 0 {
				t.Errorf("%s: %s: put %d objects and deleted %v; want %d", p.Name(), name, len(r.Put), r.Delete, want)
			}
			for _, o := range r.Put {
				if o.Kind != apisix.KindSSL {
					t.Errorf("%s: %s: put %s", p.Name(), name, o.Key())
				}
			}
			if diff := cmp.Diff(objectsOf(translated(t, sc.with(p), next)), objectsOf(s)); diff != "" {
				t.Errorf("%s: step by step it is another world (-at once +steps):\n%s", p.Name(), diff)
			}
			s.Apply(Input{Snapshot: sc.snapshot, Changed: []xds.Key{rotated.Key}})
		}
		if diff := cmp.Diff(before, objectsOf(s)); diff != "" {
			t.Errorf("%s: back to the old certificates, the objects differ:\n%s", p.Name(), diff)
		}
	}
}

func TestAServerComesAndGoesWithItsSecrets(t *testing.T) {
	sc := credentialGateway(t)
	for _, p := range sc.profiles() {
		s := translated(t, sc.with(p), sc.snapshot)
		before := objectsOf(s)
		for _, name := range []string{"partner", "partner-cacert"} {
			without := sc.snapshot.With(nil, []xds.Key{secretKey(name)})
			r := s.Apply(Input{Snapshot: without, Changed: []xds.Key{secretKey(name)}})
			for o := range s.Objects() {
				if strings.Contains(o.ID, "https-partner") || o.Kind == apisix.KindSSL && strings.Contains(string(o.Value), "partner.example.com") {
					t.Errorf("%s: without %s, there still is %s", p.Name(), name, o.Key())
				}
			}
			for _, o := range r.Put { // the other port's server for any name may have the name now
				if !strings.Contains(o.ID, "https-c") {
					t.Errorf("%s: without %s, %s changes", p.Name(), name, o.Key())
				}
			}
			s.Apply(Input{Snapshot: sc.snapshot, Changed: []xds.Key{secretKey(name)}})
			if diff := cmp.Diff(before, objectsOf(s)); diff != "" {
				t.Errorf("%s: with %s again, the objects differ:\n%s", p.Name(), name, diff)
			}
		}
	}
}

// Whatever a client says, it gets a chain's routes only where it got that chain's certificate and
// passed its verification, as in Envoy.
func TestAClientGetsWhatItsHandshakeIsFor(t *testing.T) {
	sc := credentialGateway(t)
	ca := newAuthority(t)
	for _, name := range []string{"partner-cacert", "optional-cacert"} {
		sc.snapshot = sc.snapshot.With([]*xds.Resource{ca.authorities(t, secretKey(name).Name)}, nil)
	}
	good := []*x509.Certificate{ca.issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "client"}}, newKey(t))}
	bad := []*x509.Certificate{newAuthority(t).leaf}
	e, err := apisix.NewEvaluator(translated(t, sc.with(Gateway()), sc.snapshot).Objects(), apisix.Options{FallbackSNI: "no-sni.mesh"})
	if err != nil {
		t.Fatal(err)
	}
	const none, refused = "", "the handshake fails"
	for _, c := range []struct {
		port, sni, host string
		client          []*x509.Certificate
		want            string
	}{
		{"8443", "shop.example.com", "shop.example.com", nil, "https.443.https-shop"},
		{"8443", "SHOP.example.com", "Shop.example.com:8443", nil, "https.443.https-shop"},
		{"8443", "shop.example.com", "a.shop.example.com", nil, none},
		{"8443", "a.shop.example.com", "a.shop.example.com", nil, "https.443.https-wild"},
		{"8443", "cart.eu.shop.example.com", "cart.eu.shop.example.com", nil, "https.443.https-wild"},
		{"8443", "shop.example.com", "partner.example.com", nil, none},
		{"8443", "partner.example.com", "partner.example.com", nil, refused},
		{"8443", "partner.example.com", "partner.example.com", bad, refused},
		{"8443", "partner.example.com", "partner.example.com", good, "https.443.https-partner"},
		{"8443", "partner.example.com", "optional.example.com", good, none},
		{"8443", "pinned.example.com", "pinned.example.com", good, "https.443.https-pinned.front.istio-ingress|denied"},
		{"8443", "optional.example.com", "optional.example.com", nil, "https.443.https-optional"},
		{"8443", "optional.example.com", "optional.example.com", good, "https.443.https-optional"},
		{"8443", "optional.example.com", "optional.example.com", bad, none},
		{"8443", "mesh.example.com", "mesh.example.com", good, none},  // with the certificate of the other port's *
		{"8443", "files.example.com", "files.example.com", nil, none}, // likewise
		{"8443", "", "shop.example.com", nil, none},                   // Envoy ends the handshake
		{"9443", "other.example.com", "other.example.com", nil, "https.9443.https-b"},
		{"9443", "shop.example.com", "shop.example.com", nil, none},
		{"9443", "", "other.example.com", nil, "https.9443.https-c"},
		{"9443", "partner.example.com", "partner.example.com", good, none}, // verified for the other port
		{"9443", "files.example.com", "files.example.com", nil, "https.9443.https-c"},
		{"8080", "shop.example.com", "shop.example.com", nil, "http.8080"},
	} {
		request := apisix.Request{Host: c.host, Vars: map[string]string{"server_port": c.port}}
		if c.port != "8080" {
			request.TLS = &apisix.Handshake{ServerName: c.sni, Certificates: c.client}
		}
		d := e.Evaluate(request)
		got := none
		switch {
		case d.AnsweredBy == "tls" && d.Status == 0:
			got = refused
		case d.Route != nil:
			got = d.Route.Name
		}
		if c.want == none && got != none || !strings.HasPrefix(got, c.want) {
			t.Errorf("port %s, server name %q, host %s, %d certificates: got %q (%d %v), want %q",
				c.port, c.sni, c.host, len(c.client), got, d.Status, d.Notes, c.want)
		}
	}
}

// A connection that is not TLS gets nothing of a TLS server, even if an operator has APISIX listen
// without TLS on its port.
func TestPlainRequestsGetNothingOfTLSServers(t *testing.T) {
	sc := credentialGateway(t)
	e, err := apisix.NewEvaluator(translated(t, sc.with(Gateway()), sc.snapshot).Objects(), apisix.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, port := range []string{"8443", "9443"} {
		for _, host := range []string{"shop.example.com", "other.example.com", "partner.example.com"} {
			d := e.Evaluate(apisix.Request{Host: host, Vars: map[string]string{"server_port": port}})
			if d.Route != nil {
				t.Errorf("port %s, host %s: got %s", port, host, d.Route.Name)
			}
		}
	}
}

// A private key begins the text, or APISIX takes it for encrypted; nothing but certificates follows
// the server's own.
func TestWhatSurroundsCertificatesAndKeysIsLeftOut(t *testing.T) {
	sc := credentialGateway(t)
	r := newAuthority(t).certificate(t, secretKey("partner").Name, newKey(t), "partner.example.com")
	m, err := xds.Decode[*tlspb.Secret](r)
	if err != nil {
		t.Fatal(err)
	}
	c := m.GetTlsCertificate()
	key := c.GetPrivateKey().GetInlineBytes()
	chain := slices.Concat([]byte("Subject: partner\n"), c.GetCertificateChain().GetInlineBytes(), key)
	messy := newResource(t, r.Name, &tlspb.Secret{Name: r.Name, Type: &tlspb.Secret_TlsCertificate{TlsCertificate: &tlspb.TlsCertificate{
		CertificateChain: inlineBytes(chain), PrivateKey: inlineBytes(slices.Concat([]byte("\n Key:\n"), key)),
	}}})
	for o := range translated(t, sc.with(Gateway()), sc.snapshot.With([]*xds.Resource{messy}, nil)).Objects() {
		if o.Kind != apisix.KindSSL || !strings.Contains(string(o.Value), "kubernetes://partner") {
			continue
		}
		var ssl apisix.SSL
		if err := json.Unmarshal(o.Value, &ssl); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(ssl.Cert, "PRIVATE") || !strings.HasPrefix(ssl.Cert, "-----BEGIN CERTIFICATE") || string(ssl.Key) != string(key) {
			t.Errorf("certificate\n%s", ssl.Cert)
		}
		return
	}
	t.Error("there is no ssl")
}

func TestOldVersionsOfAPISIXGetStricterServers(t *testing.T) {
	sc := credentialGateway(t)
	opts := sc.with(Gateway())
	opts.APISIXVersion = apisix.Version{Major: 3, Minor: 2}
	s := translated(t, opts, sc.snapshot)
	codes := map[Code]bool{}
	for _, d := range s.Diagnostics() {
		codes[d.Code] = true
	}
	for _, want := range []Code{codeTooOld} {
		if !codes[want] {
			t.Errorf("%s is not among %v", want, slices.Sorted(maps.Keys(codes)))
		}
	}
	for o := range s.Objects() {
		if err := apisix.Validate(o, opts.APISIXVersion); o.Kind == apisix.KindSSL && err != nil {
			t.Error(err)
		}
		if strings.Contains(string(o.Value), "skip_mtls_uri_regex") || strings.Contains(string(o.Value), "ssl_protocols") {
			t.Errorf("%s has what APISIX 3.2 does not know", o.Key())
		}
	}
}
