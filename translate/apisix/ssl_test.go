package apisix

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"
)

// authority signs certificates for a test.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         string
}

var (
	testNotBefore = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	testNotAfter  = time.Date(2036, 1, 1, 0, 0, 0, 0, time.UTC)
)

func newAuthority(tb testing.TB, name string, parent *authority) *authority {
	tb.Helper()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	a := new(authority)
	a.certificate, a.key = issueTo(tb, template, parent)
	a.pem = encodeCertificate(a.certificate)
	return a
}

// issue returns a certificate, and certificate and key in PEM.
func (a *authority) issue(tb testing.TB, names ...string) (certificate *x509.Certificate, chain string, key PrivateKey) {
	tb.Helper()
	c, k := issueTo(tb, &x509.Certificate{Subject: pkix.Name{CommonName: names[0]}, DNSNames: names}, a)
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		tb.Fatal(err)
	}
	return c, encodeCertificate(c), PrivateKey(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func issueTo(tb testing.TB, template *x509.Certificate, by *authority) (*x509.Certificate, *ecdsa.PrivateKey) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(1), testNotBefore, testNotAfter
	parent, signer := template, key
	if by != nil {
		parent, signer = by.certificate, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		tb.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return c, key
}

func encodeCertificate(c *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

func sslObject(tb testing.TB, s *SSL) Object {
	tb.Helper()
	o, err := Marshal(KindSSL, s.ID, s)
	if err != nil {
		tb.Fatal(err)
	}
	return o
}

func sslEvaluator(tb testing.TB, options Options, ssls ...*SSL) *Evaluator {
	tb.Helper()
	objects := make([]Object, len(ssls))
	for i, s := range ssls {
		objects[i] = sslObject(tb, s)
	}
	e, err := NewEvaluator(slices.Values(objects), options)
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

// What APISIX 3.18 did with the same objects.
func TestServerNameSelectsTheSSL(t *testing.T) {
	e := sslEvaluator(
		t, Options{FallbackSNI: "no-sni.mesh"},
		&SSL{ID: "s.exact", SNIs: []string{"app.example.com"}},
		&SSL{ID: "s.wild", SNIs: []string{"*.example.com"}},
		&SSL{ID: "s.deep", SNIs: []string{"*.b.example.com", "A.Case.org."}},
		&SSL{ID: "s.long", SNIs: []string{"*.long.org", "one.two.three.long.org"}},
		&SSL{ID: "s.any", SNI: "*"},
		&SSL{ID: "s.client", Type: "client"},
	)
	for name, want := range map[string]string{
		"app.example.com":   "s.exact",
		"APP.example.com.":  "s.exact",
		"x.example.com":     "s.wild",
		"x.y.example.com":   "", // one label, and no second try with *
		"x.b.example.com":   "s.deep",
		"b.example.com":     "s.wild",
		"a.case.org":        "s.deep",
		"example.com":       "s.any",
		"":                  "s.any",
		"x.long.org":        "s.long",
		"x.y.long.org":      "s.long", // because of the longer name beside the wildcard
		"a.b.c.d.e.f.g.org": "s.any",
	} {
		s := e.Handshake(Handshake{ServerName: name})
		got := ""
		if s.SSL != nil {
			got = s.SSL.ID
		}
		if got != want || (got == "") != (s.Refused != "") {
			t.Errorf("%q: got %q (%s), want %q", name, got, s.Refused, want)
		}
	}
	if s := sslEvaluator(t, Options{}).Handshake(Handshake{}); s.Refused == "" {
		t.Error("a client without server name gets a certificate although nothing stands for the name")
	}
}

func TestClientCertificatesAreVerified(t *testing.T) {
	ca, other := newAuthority(t, "ca", nil), newAuthority(t, "other", nil)
	intermediate := newAuthority(t, "intermediate", ca)
	good, _, _ := ca.issue(t, "good")
	wrong, _, _ := other.issue(t, "wrong")
	below, _, _ := intermediate.issue(t, "below")
	e := sslEvaluator(
		t, Options{},
		&SSL{ID: "s.required", SNIs: []string{"required"}, Client: &SSLClient{CA: ca.pem, Depth: 1}},
		&SSL{ID: "s.shallow", SNIs: []string{"shallow"}, Client: &SSLClient{CA: ca.pem}},
		&SSL{ID: "s.optional", SNIs: []string{"optional"}, Client: &SSLClient{CA: ca.pem, SkipMTLSURIRegex: []string{".*"}}},
		&SSL{ID: "s.plain", SNIs: []string{"plain"}},
	)
	const fails = "the handshake"
	for _, c := range []struct {
		name   string
		client []*x509.Certificate
		want   string
	}{
		{"required", nil, fails},
		{"required", []*x509.Certificate{good}, "SUCCESS"},
		{"required", []*x509.Certificate{wrong}, fails},
		{"required", []*x509.Certificate{below, intermediate.certificate}, "SUCCESS"},
		{"required", []*x509.Certificate{below}, fails},
		{"shallow", []*x509.Certificate{below, intermediate.certificate}, fails},
		{"optional", nil, "NONE"},
		{"optional", []*x509.Certificate{good}, "SUCCESS"},
		{"optional", []*x509.Certificate{wrong}, "FAILED:"},
		{"plain", []*x509.Certificate{wrong}, "NONE"},
	} {
		s := e.Handshake(Handshake{ServerName: c.name, Certificates: c.client})
		got, _, _ := strings.Cut(s.ClientVerify, "x509")
		if s.Refused != "" {
			got = fails
		}
		if got != c.want {
			t.Errorf("%s with %d certificates: %s %s, want %s", c.name, len(c.client), s.ClientVerify, s.Refused, c.want)
		}
	}
	late := e.Handshake(Handshake{ServerName: "required", Certificates: []*x509.Certificate{good}, Time: testNotAfter.Add(time.Hour)})
	if late.Refused == "" {
		t.Error("an expired client certificate is accepted")
	}
}

// APISIX lets no client of a server with client certificates ask for another host: that host's
// certificates could be others.
func TestHostOfAServerWithClientCertificatesIsTheServerName(t *testing.T) {
	ca := newAuthority(t, "ca", nil)
	client, _, _ := ca.issue(t, "client")
	objects := []Object{
		sslObject(t, &SSL{ID: "s.m", SNIs: []string{"*.m.com"}, Client: &SSLClient{CA: ca.pem}}),
		sslObject(t, &SSL{ID: "s.p", SNIs: []string{"p.com"}}),
		{KindRoute, "r.1", []byte(`{"id":"r.1","uri":"/*","vars":[["scheme","==","https"],["ssl_server_name","~*","com"],["ssl_client_verify","in",["SUCCESS","NONE"]]],
			"plugins":{"fault-injection":{"abort":{"http_status":204}}}}`)},
	}
	e, err := NewEvaluator(slices.Values(objects), Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		sni, host string
		want      int
	}{
		{"a.m.com", "a.m.com", 204},
		{"a.m.com", "A.m.com:8443", 204},
		{"a.m.com", "b.m.com", 400},
		{"p.com", "a.m.com", 400},
		{"p.com", "p.com", 204},
		{"p.com", "elsewhere.com", 204},
		{"a.m.com", "p.com", 204},
		{"unknown.com", "p.com", 0},
	} {
		d := e.Evaluate(Request{Host: c.host, TLS: &Handshake{ServerName: c.sni, Certificates: []*x509.Certificate{client}}})
		if d.Status != c.want {
			t.Errorf("server name %s, host %s: %d %v, want %d", c.sni, c.host, d.Status, d.Notes, c.want)
		}
	}
	if d := e.Evaluate(Request{Host: "p.com"}); d.Status != 404 {
		t.Errorf("without TLS: %d, want 404", d.Status)
	}
}

func TestPrivateKeysAreShownNowhere(t *testing.T) {
	ca := newAuthority(t, "ca", nil)
	_, cert, key := ca.issue(t, "a.com")
	const canary = "canary-of-the-private-key"
	s := &SSL{ID: "s.1", SNIs: []string{"a.com"}, Cert: cert, Key: canary + key, Certs: []string{cert}, Keys: []PrivateKey{canary + key}}
	shown := map[string]string{
		"%v":       fmt.Sprintf("%v %+v %#v", *s, *s, *s),
		"%s":       fmt.Sprintf("%s %q", s.Key, s.Keys),
		"redacted": string(sslObject(t, s).Redacted().Value),
		"broken":   string(Object{KindSSL, "s.1", []byte(`{"key":1,"x":"` + canary + `"}`)}.Redacted().Value),
		"validate": fmt.Sprint(s.Validate(Version{})),
		"decode":   fmt.Sprint(Validate(Object{KindSSL, "s.1", []byte(`{"id":"s.1","sni":"a","key":["` + canary + `"]}`)}, Version{})),
	}
	_, err := NewEvaluator(slices.Values([]Object{{KindSSL, "s.1", []byte(`{"key":["` + canary + `"]}`)}}), Options{})
	shown["evaluator"] = fmt.Sprint(err)
	for where, text := range shown {
		if strings.Contains(text, canary) {
			t.Errorf("%s shows the key: %s", where, text)
		}
	}
	if !strings.Contains(string(sslObject(t, s).Value), canary) {
		t.Error("the object itself lacks the key")
	}
	route := Object{KindRoute, "r.1", []byte(`{"key":"x"}`)}
	if got := route.Redacted(); string(got.Value) != string(route.Value) {
		t.Errorf("a route is shown as %s", got.Value)
	}
}

func TestBrokenSSLsAreRefused(t *testing.T) {
	ca := newAuthority(t, "ca", nil)
	_, cert, key := ca.issue(t, "a.com")
	_, otherCert, otherKey := ca.issue(t, "b.com")
	fine := func() *SSL {
		return &SSL{
			ID: "s.1", Type: "server", SNIs: []string{"a.com", "*.a.com"}, Cert: cert, Key: key,
			Certs: []string{otherCert}, Keys: []PrivateKey{otherKey}, Protocols: []string{"TLSv1.2", "TLSv1.3"},
			Client: &SSLClient{CA: ca.pem, Depth: 100, SkipMTLSURIRegex: []string{".*"}},
		}
	}
	if err := fine().Validate(Version{}); err != nil {
		t.Fatal(err)
	}
	for field, breakIt := range map[string]func(*SSL){
		"key":               func(s *SSL) { s.Key = otherKey },
		"keys[0]":           func(s *SSL) { s.Keys[0] = key },
		"cert":              func(s *SSL) { s.Cert = strings.Repeat("x", 200) },
		"client.ca":         func(s *SSL) { s.Client.CA = strings.Repeat("x", 200) },
		"client.depth":      func(s *SSL) { s.Client.Depth = -1 },
		"snis[1]":           func(s *SSL) { s.SNIs[1] = "a b" },
		"type":              func(s *SSL) { s.Type = "other" },
		"certs":             func(s *SSL) { s.Keys = nil },
		"ssl_protocols[0]":  func(s *SSL) { s.Protocols[0] = "TLSv1.0" },
		"sni":               func(s *SSL) { s.SNIs = nil },
		"snis[0]: * never":  func(s *SSL) { s.SNIs[0] = "*" },
		"ssl_protocols[1]":  func(s *SSL) { s.Protocols[1] = "TLSv1.2" },
		"key: does not beg": func(s *SSL) { s.Key = "\n" + s.Key },
	} {
		s := fine()
		breakIt(s)
		if err := s.Validate(Version{}); err == nil || !strings.Contains(err.Error(), "ssls/s.1: "+field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	for _, old := range []Version{{3, 3}, {3, 4}} {
		if err := fine().Validate(old); err == nil || !strings.Contains(err.Error(), "ssl_protocols") {
			t.Errorf("%s: %v", old, err)
		}
	}
}

func TestAnSSLExpiresWithItsFirstCertificate(t *testing.T) {
	ca := newAuthority(t, "ca", nil)
	_, cert, _ := ca.issue(t, "a.com")
	s := SSL{Cert: cert + ca.pem}
	if at, ok := s.NotAfter(); !ok || !at.Equal(testNotAfter) {
		t.Errorf("%s %t", at, ok)
	}
	if _, ok := (&SSL{Cert: "x"}).NotAfter(); ok {
		t.Error("what is no certificate has a date")
	}
}

func TestAnSSLSurvivesJSON(t *testing.T) {
	ca := newAuthority(t, "ca", nil)
	_, cert, key := ca.issue(t, "a.com")
	in := &SSL{ID: "s.1", Type: "server", SNI: "*", Cert: cert, Key: key}
	var out SSL
	if err := json.Unmarshal(sslObject(t, in).Value, &out); err != nil || out.Key != key || out.Cert != cert {
		t.Errorf("%v, %v", out, err)
	}
}
