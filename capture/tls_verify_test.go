package capture

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"meshbridge/identity/identitytest"
	"meshbridge/translate"
)

const (
	idA = "spiffe://cluster.local/ns/default/sa/a"
	idB = "spiffe://cluster.local/ns/default/sa/b"
)

func exactly(name string) translate.SANMatch {
	return translate.SANMatch{Match: func(s string) bool { return s == name }, Exact: name, Text: `exact "` + name + `"`}
}

func beginning(prefix string) translate.SANMatch {
	return translate.SANMatch{Match: func(s string) bool { return strings.HasPrefix(s, prefix) }, Text: `prefix "` + prefix + `"`}
}

// meshVerifier is that of an inbound chain of Istio's.
func meshVerifier(ca *identitytest.CA, sans ...translate.SANMatch) *verifier {
	return &verifier{
		authorities: func() (*x509.CertPool, error) { return ca.Pool(), nil },
		usage:       x509.ExtKeyUsageClientAuth,
		mesh:        true,
		trustDomain: func() string { return "cluster.local" },
		sans:        sans,
	}
}

// wantReason fails unless err is a refusal for that reason; "" is none.
func wantReason(t *testing.T, err error, want tlsReason) {
	t.Helper()
	var got *refusal
	switch {
	case want == "" && err != nil:
		t.Errorf("refused: %v", err)
	case want != "" && (!errors.As(err, &got) || got.reason != want):
		t.Errorf("got %v, want a refusal for %s", err, want)
	}
}

func TestCertificatesOfTheMesh(t *testing.T) {
	t.Parallel()
	ca, other := identitytest.NewCA(t, "mesh"), identitytest.NewCA(t, "other")
	below := ca.Intermediate(t, "intermediate")
	now := time.Now()
	selfSigned := identitytest.NewCA(t, "me").Certificate
	for name, test := range map[string]struct {
		ca   *identitytest.CA
		leaf identitytest.Leaf
		want tlsReason
	}{
		"good":                   {ca, identitytest.Leaf{URIs: []string{idA}}, ""},
		"below an intermediate":  {below, identitytest.Leaf{URIs: []string{idA}}, ""},
		"alias of the domain":    {ca, identitytest.Leaf{URIs: []string{"spiffe://old/ns/a/sa/b"}}, ""},
		"unknown authority":      {other, identitytest.Leaf{URIs: []string{idA}}, tlsUnknownAuthority},
		"other trust domain":     {ca, identitytest.Leaf{URIs: []string{"spiffe://evil/ns/default/sa/a"}}, tlsTrustDomain},
		"domain as prefix":       {ca, identitytest.Leaf{URIs: []string{"spiffe://cluster.local.evil/ns/default/sa/a"}}, tlsTrustDomain},
		"expired":                {ca, identitytest.Leaf{URIs: []string{idA}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(-time.Minute)}, tlsExpired},
		"not yet valid":          {ca, identitytest.Leaf{URIs: []string{idA}, NotBefore: now.Add(time.Minute), NotAfter: now.Add(time.Hour)}, tlsNotYetValid},
		"for servers only":       {ca, identitytest.Leaf{URIs: []string{idA}, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, tlsUsage},
		"no URI":                 {ca, identitytest.Leaf{DNSNames: []string{"a.default"}}, tlsNotSPIFFE},
		"two URIs":               {ca, identitytest.Leaf{URIs: []string{idA, idB}}, tlsNotSPIFFE},
		"other URI":              {ca, identitytest.Leaf{URIs: []string{"https://cluster.local/ns/default/sa/a"}}, tlsNotSPIFFE},
		"trust domain alone":     {ca, identitytest.Leaf{URIs: []string{"spiffe://cluster.local"}}, tlsNotSPIFFE},
		"SPIFFE ID with a query": {ca, identitytest.Leaf{URIs: []string{idA + "?x=y"}}, tlsNotSPIFFE},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := meshVerifier(ca, beginning("spiffe://cluster.local/"), beginning("spiffe://old/"))
			certificate := test.ca.Issue(t, test.leaf)
			var shown []*x509.Certificate
			for _, der := range certificate.Certificate {
				c, err := x509.ParseCertificate(der)
				if err != nil {
					t.Fatal(err)
				}
				shown = append(shown, c)
			}
			wantReason(t, v.verify(shown, ""), test.want)
		})
	}
	wantReason(t, meshVerifier(ca).verify(nil, ""), tlsNoCertificate)
	wantReason(t, meshVerifier(ca).verify([]*x509.Certificate{selfSigned}, ""), tlsSelfSigned)
	wantReason(t, meshVerifier(ca, exactly(idB)).verify([]*x509.Certificate{ca.Issue(t, identitytest.Leaf{URIs: []string{idA}}).Leaf}, ""), tlsName)
}

func TestNamesOfCertificates(t *testing.T) {
	t.Parallel()
	ca := identitytest.NewCA(t, "authority")
	leaf := ca.Issue(t, identitytest.Leaf{
		DNSNames: []string{"www.example.com", "*.example.org"},
		URIs:     []string{"https://example.net/x"},
		Emails:   []string{"a@example.com"},
		IPs:      []net.IP{net.IPv4(10, 0, 0, 1), netip.MustParseAddr("2001:db8::1").AsSlice()},
	}).Leaf
	kind := func(kind translate.SANKind, m translate.SANMatch) translate.SANMatch {
		m.Kind = kind
		return m
	}
	for _, test := range []struct {
		match translate.SANMatch
		want  bool
	}{
		{exactly("www.example.com"), true},
		{exactly("WWW.example.com"), true},
		{exactly("a.example.org"), true},
		{exactly("a.b.example.org"), false},
		{exactly("example.org"), false},
		{beginning("a.example"), false}, // only an exact name is compared with a wildcard
		{exactly("https://example.net/x"), true},
		{exactly("a@example.com"), true},
		{exactly("10.0.0.1"), true},
		{exactly("2001:db8::1"), true},
		{kind(translate.SANDNS, exactly("https://example.net/x")), false},
		{kind(translate.SANURI, exactly("https://example.net/x")), true},
		{kind(translate.SANURI, exactly("www.example.com")), false},
		{kind(translate.SANEmail, exactly("a@example.com")), true},
		{kind(translate.SANIP, exactly("10.0.0.1")), true},
		{kind(translate.SANIP, exactly("www.example.com")), false},
	} {
		if got := matches(leaf, test.match); got != test.want {
			t.Errorf("kind %d, %s: %t", test.match.Kind, test.match.Text, got)
		}
	}
	for host, want := range map[string]bool{
		"www.example.com": true, "x.example.org": true, "10.0.0.1": true, "2001:db8:0::1": true,
		"example.com": false, "10.0.0.2": false, "*.example.org": true, "": false,
	} {
		if got := matchesHost(leaf, host); got != want {
			t.Errorf("host %q: %t", host, got)
		}
	}
}

func TestWildcardsOfCertificates(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		certificate, host string
		want              bool
	}{
		{"a.example.com", "A.example.com", true},
		{"*.example.com", "a.example.com", true},
		{"w*.example.com", "www.example.com", true},
		{"w*w.example.com", "ww.example.com", true},
		{"w*w.example.com", "w.example.com", false},
		{"*.*.com", "a.b.com", false},
		{"a.*.com", "a.b.com", false},
		{"**.example.com", "a.example.com", false},
		{"xn--*.example.com", "xn--a.example.com", false},
		{"*", "localhost", false},
		{"*.com", "com", false},
	} {
		if got := agrees(test.certificate, test.host); got != test.want {
			t.Errorf("%q and %q: %t", test.certificate, test.host, got)
		}
	}
}

func TestPinnedCertificates(t *testing.T) {
	t.Parallel()
	ca := identitytest.NewCA(t, "authority")
	leaf, other := ca.Issue(t, identitytest.Leaf{}).Leaf, ca.Issue(t, identitytest.Leaf{}).Leaf
	key, hash := sha256.Sum256(leaf.RawSubjectPublicKeyInfo), sha256.Sum256(leaf.Raw)
	keyPin, hashPin := base64.StdEncoding.EncodeToString(key[:]), hex.EncodeToString(hash[:])
	var pairs []string
	for pair := range slices.Chunk([]byte(strings.ToUpper(hashPin)), 2) {
		pairs = append(pairs, string(pair))
	}
	for name, p := range map[string]pins{
		"key":         newPins([]string{keyPin}, nil),
		"certificate": newPins(nil, []string{hashPin}),
		"with colons": newPins(nil, []string{strings.Join(pairs, ":")}),
		"either":      newPins([]string{base64.StdEncoding.EncodeToString(hash[:])}, []string{hashPin}),
	} {
		wantReason(t, p.verify(leaf), "")
		if err := p.verify(other); err == nil {
			t.Errorf("%s: another certificate is accepted", name)
		}
	}
	wantReason(t, newPins(nil, nil).verify(other), "")
	wantReason(t, newPins([]string{"nonsense"}, nil).verify(leaf), tlsPin)
}

func TestRevokedCertificates(t *testing.T) {
	t.Parallel()
	root := identitytest.NewCA(t, "root")
	ca := root.Intermediate(t, "intermediate")
	good, bad := ca.Issue(t, identitytest.Leaf{URIs: []string{idA}}), ca.Issue(t, identitytest.Leaf{URIs: []string{idB}})
	revokes, clean := ca.RevocationList(t, bad.Leaf), root.RevocationList(t)
	for name, test := range map[string]struct {
		lists []byte
		leaf  *x509.Certificate
		want  tlsReason
	}{
		"no lists":                   {nil, bad.Leaf, ""},
		"revoked":                    {slices.Concat(revokes, clean), bad.Leaf, tlsRevoked},
		"not revoked":                {slices.Concat(clean, revokes), good.Leaf, ""},
		"no list of the root":        {revokes, good.Leaf, tlsRevocationList},
		"intermediate is revoked":    {slices.Concat(revokes, root.RevocationList(t, ca.Certificate)), good.Leaf, tlsRevoked},
		"list of another root":       {slices.Concat(revokes, identitytest.NewCA(t, "root").RevocationList(t)), good.Leaf, tlsRevocationList},
		"what cannot be read":        {[]byte("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"), good.Leaf, tlsRevocationList},
		"text that is no list in it": {[]byte("hello"), good.Leaf, tlsRevocationList},
	} {
		v := meshVerifier(root)
		v.revoked = newRevocationLists(test.lists)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wantReason(t, v.verify([]*x509.Certificate{test.leaf, ca.Certificate}, ""), test.want)
		})
	}
}
