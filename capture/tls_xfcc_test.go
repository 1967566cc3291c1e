package capture

import (
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"meshbridge/identity/identitytest"
)

func TestForwardedCertificateIsWrittenAsByEnvoy(t *testing.T) {
	t.Parallel()
	ca := identitytest.NewCA(t, "mesh")
	own := ca.Issue(t, identitytest.Leaf{URIs: []string{idB}}).Leaf
	hash := func(c *x509.Certificate) string {
		sum := sha256.Sum256(c.Raw)
		return hex.EncodeToString(sum[:])
	}
	for name, test := range map[string]struct {
		leaf identitytest.Leaf
		want string // after By and Hash
	}{
		"workload of the mesh": {
			identitytest.Leaf{URIs: []string{idA}},
			`Subject="";URI=` + idA,
		},
		"client of a gateway": {
			identitytest.Leaf{
				Subject:  pkix.Name{CommonName: "client", Organization: []string{`Sue, "Grabbit" and Runn`}, Country: []string{"GB"}},
				DNSNames: []string{"a.example.com", "b.example.com"},
			},
			`Subject="CN=client,O=Sue\, \"Grabbit\" and Runn,C=GB";URI=;DNS=a.example.com;DNS=b.example.com`,
		},
		"name that would be two fields": {
			identitytest.Leaf{URIs: []string{"https://example.com/;URI=spiffe://cluster.local/ns/admin/sa/admin"}},
			`Subject="";URI="https://example.com/;URI=spiffe://cluster.local/ns/admin/sa/admin"`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := ca.Issue(t, test.leaf).Leaf
			want := "By=" + idB + ";Hash=" + hash(client) + ";" + test.want
			if diff := cmp.Diff(want, forwardedCertificate(own, client)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSubjectIsWrittenAsByOpenSSL(t *testing.T) {
	t.Parallel()
	ca := identitytest.NewCA(t, "authority")
	value := func(oid string, value any) pkix.AttributeTypeAndValue {
		var id asn1.ObjectIdentifier
		for part := range strings.SplitSeq(oid, ".") {
			n := 0
			for _, digit := range part {
				n = 10*n + int(digit-'0')
			}
			id = append(id, n)
		}
		return pkix.AttributeTypeAndValue{Type: id, Value: value}
	}
	for _, test := range []struct {
		name pkix.Name
		want string // of openssl x509 -subject -nameopt RFC2253
	}{
		{pkix.Name{}, ""},
		{pkix.Name{Organization: []string{"Widget Inc."}, Country: []string{"US"}, CommonName: "J. Smith"}, "CN=J. Smith,O=Widget Inc.,C=US"},
		{pkix.Name{CommonName: " #a+b;<c> "}, `CN=\ #a\+b\;\<c\>\ `},
		{pkix.Name{CommonName: "#a"}, `CN=\#a`},
		{pkix.Name{CommonName: "Zoë\n"}, `CN=Zo\C3\AB\0A`},
		{pkix.Name{SerialNumber: "7", CommonName: "x"}, "serialNumber=7,CN=x"},
		{pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{value("1.2.840.113549.1.9.1", "a@b.c")}}, "emailAddress=a@b.c"},
		{pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{value("0.9.2342.19200300.100.1.25", "com")}}, "DC=com"},
		{pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{value("1.2.3.4", "x")}}, "1.2.3.4=#130178"},
	} {
		leaf := ca.Issue(t, identitytest.Leaf{Subject: test.name}).Leaf
		if diff := cmp.Diff(test.want, subject(leaf)); diff != "" {
			t.Errorf("%v: %s", test.name, diff)
		}
	}
}

// FuzzForwardedCertificate checks that no name of a certificate can break out of its field: what reads
// the element as Envoy documents it finds the names that the certificate has, and no others.
func FuzzForwardedCertificate(f *testing.F) {
	f.Add("spiffe://cluster.local/ns/a/sa/b", "a.example.com")
	f.Add(`https://x/";URI=evil`, `a\`)
	f.Add("https://x/a,b=c", "\"\r\nx: y")
	f.Fuzz(func(t *testing.T, uri, name string) {
		parsed, err := url.Parse(uri)
		if err != nil {
			t.Skip("no URI:", err)
		}
		client := &x509.Certificate{Raw: []byte{1}, URIs: []*url.URL{parsed}, DNSNames: []string{name}}
		element := forwardedCertificate(nil, client)
		if strings.ContainsFunc(element, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Fatalf("%q has control characters", element)
		}
		fields, ok := splitElement(element)
		if !ok || len(fields) != 4 || !strings.HasPrefix(fields[2], "URI=") || !strings.HasPrefix(fields[3], "DNS=") {
			t.Fatalf("%q has the fields %q", element, fields)
		}
	})
}

// splitElement returns the fields of an element; ok is false where it is more than one, or is not
// complete.
func splitElement(element string) (fields []string, ok bool) {
	quoted, escaped, start := false, false, 0
	for i := range len(element) {
		switch c := element[i]; {
		case escaped:
			escaped = false
		case c == '\\' && quoted:
			escaped = true
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			return nil, false
		case c == ';' && !quoted:
			fields = append(fields, element[start:i])
			start = i + 1
		}
	}
	return append(fields, element[start:]), !quoted && !escaped
}

func TestSPIFFEIDs(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]string{
		idA:                            "cluster.local",
		"spiffe://td/x":                "td",
		"spiffe://a.b-c_d/ns/x/sa/Y.Z": "a.b-c_d",
		"spiffe://td":                  "",
		"spiffe://td/":                 "",
		"spiffe://td//x":               "",
		"spiffe://td/../x":             "",
		"spiffe://TD/x":                "",
		"spiffe://td:80/x":             "",
		"spiffe://u@td/x":              "",
		"spiffe:///x":                  "",
		"spiffe://td/x?y":              "",
		"spiffe://td/x#y":              "",
		"spiffe://td/%41":              "",
		"https://td/x":                 "",
		"":                             "",
	} {
		got, err := trustDomainOf(id)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", id, got, err)
		}
	}
}
