package apisix

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// redacted stands for a private key wherever people look.
const redacted = "[redacted]"

// PrivateKey is a private key in PEM. Only its JSON holds it; formatted, it is redacted.
type PrivateKey string

// String implements fmt.Stringer.
func (PrivateKey) String() string { return redacted }

// GoString implements fmt.GoStringer.
func (PrivateKey) GoString() string { return redacted }

// Redacted returns the object as people may see it: an ssl without its private keys, a
// consumer without its credentials, a secret without what opens the store of secrets, any other as it is. What
// is not such a thing in JSON loses its value altogether.
func (o Object) Redacted() Object {
	switch o.Kind {
	case KindSSL:
	case KindConsumer, KindSecret:
		return o.withoutTexts()
	default:
		return o
	}
	hidden := Object{Kind: o.Kind, ID: o.ID, Value: []byte(`"` + redacted + `"`)}
	s := new(SSL)
	if json.Unmarshal(o.Value, s) != nil {
		return hidden
	}
	s.Key = redacted
	for i := range s.Keys {
		s.Keys[i] = redacted
	}
	if shown, err := Marshal(o.Kind, o.ID, s); err == nil {
		return shown
	}
	return hidden
}

// withoutTexts hides every text but those that name the object.
func (o Object) withoutTexts() Object {
	hidden := Object{Kind: o.Kind, ID: o.ID, Value: []byte(`"` + redacted + `"`)}
	var value map[string]any
	if json.Unmarshal(o.Value, &value) != nil {
		return hidden
	}
	for key := range value {
		switch key {
		case "id", "username", "desc", "labels", "group_id":
		default:
			value[key] = redactTexts(value[key])
		}
	}
	if shown, err := Marshal(o.Kind, o.ID, value); err == nil {
		return shown
	}
	return hidden
}

func redactTexts(value any) any {
	switch value := value.(type) {
	case string:
		return redacted
	case map[string]any:
		for key := range value {
			value[key] = redactTexts(value[key])
		}
	case []any:
		for i := range value {
			value[i] = redactTexts(value[i])
		}
	}
	return value
}

// NotAfter returns when the first of the certificates that the ssl presents expires; intermediate
// ones count as well. ok is false where there is none that parses.
func (s *SSL) NotAfter() (at time.Time, ok bool) {
	for _, chain := range append([]string{s.Cert}, s.Certs...) {
		certificates, err := parseCertificates(chain)
		if err != nil {
			return time.Time{}, false
		}
		for _, c := range certificates {
			if !ok || c.NotAfter.Before(at) {
				at, ok = c.NotAfter, true
			}
		}
	}
	return at, ok
}

// parseCertificates parses a PEM bundle, of which there must be something.
func parseCertificates(bundle string) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for block, rest := pem.Decode([]byte(bundle)); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, errors.New("there is no certificate in PEM")
	}
	return out, nil
}

// Limits of the schema on certificates and keys, in bytes.
const minCertificate, minPrivateKey, maxPEM = 128, 64, 65536

// Validate checks the ssl. See [Validate]. APISIX parses what it loads, and finds out in the handshake
// that a key does not belong to its certificate.
func (s *SSL) Validate(version Version) error {
	v := &validation{object: string(KindSSL) + "/" + s.ID, version: version}
	v.common(s.ID, "", s.Desc, s.Labels)
	v.needs("kind", FeatureSSLs)
	if s.Desc != "" {
		v.needs("desc", FeatureSSLDescription)
	}
	if s.SNI == "*" {
		v.needs("sni", FeatureAnySNI)
	}
	if s.Type != "" {
		v.oneOf("type", s.Type, "server", "client")
	}
	if s.Type != "client" {
		v.require((s.SNI == "") != (len(s.SNIs) == 0), "sni", "there must be either sni or snis")
	}
	v.require(s.SNI == "" || isHostPattern(s.SNI), "sni", "%q is not a host", s.SNI)
	for i, sni := range s.SNIs {
		v.require(isHostPattern(sni), at("snis", i), "%q is not a host", sni)
		v.require(sni != "*", at("snis", i), "* never matches in snis, only in sni")
	}
	v.unique("snis", s.SNIs)
	v.keyPair("cert", "key", s.Cert, s.Key)
	v.require(len(s.Certs) == len(s.Keys), "certs", "there are %d, and %d keys", len(s.Certs), len(s.Keys))
	for i := range min(len(s.Certs), len(s.Keys)) {
		v.keyPair(at("certs", i), at("keys", i), s.Certs[i], s.Keys[i])
	}
	if len(s.Protocols) > 0 {
		v.needs("ssl_protocols", FeatureTLSProtocols)
	}
	v.unique("ssl_protocols", s.Protocols)
	for i, protocol := range s.Protocols {
		v.oneOf(at("ssl_protocols", i), protocol, tls11, tls12, tls13)
	}
	if s.Client != nil {
		v.client(s.Client)
	}
	return v.err()
}

// APISIX's names of TLS versions.
const tls11, tls12, tls13 = "TLSv1.1", "TLSv1.2", "TLSv1.3"

// keyPair never lets anything of the key into an error.
func (v *validation) keyPair(certField, keyField, cert string, key PrivateKey) {
	before := len(v.errs)
	v.within(certField, len(cert), minCertificate, maxPEM)
	v.within(keyField, len(key), minPrivateKey, maxPEM)
	if len(v.errs) > before {
		return
	}
	if _, err := parseCertificates(cert); err != nil {
		v.fail(certField, "%v", err)
		return
	}
	v.require(strings.HasPrefix(string(key), "---"), keyField, "does not begin with ---: APISIX takes it for encrypted")
	if _, err := tls.X509KeyPair([]byte(cert), []byte(key)); err != nil {
		v.fail(keyField, "%v", err)
	}
}

func (v *validation) client(c *SSLClient) {
	v.within("client.ca", len(c.CA), minCertificate, maxPEM)
	if _, err := parseCertificates(c.CA); err != nil && len(c.CA) >= minCertificate {
		v.fail("client.ca", "%v", err)
	}
	v.require(c.Depth >= 0, "client.depth", "is negative")
	if len(c.SkipMTLSURIRegex) > 0 {
		v.needs("client.skip_mtls_uri_regex", FeatureSkipMTLS)
	}
	for i, pattern := range c.SkipMTLSURIRegex {
		v.regex(at("client.skip_mtls_uri_regex", i), pattern)
	}
}

// ServerName returns a TLS server name as an ssl holds it, or why none can.
func ServerName(name string) (string, error) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if !isHostPattern(name) {
		return "", fmt.Errorf("%q is no name that an ssl can have", name)
	}
	return name, nil
}

// covers tells whether APISIX sticks to an ssl that it has found by the tree of server names: what is
// left of the server name beyond a wildcard must have no dot. It asks that of every name of the ssl,
// not only of the one that was found, so that a long one lets in names with more labels than the
// wildcard stands for.
func (s *SSL) covers(name string) bool {
	if s.SNI == "*" {
		return true
	}
	reversed := reverse(name)
	return slices.ContainsFunc(s.names(), func(pattern string) bool {
		pattern = reverse(pattern)
		return reversed == pattern || len(pattern) > len(reversed) || !strings.Contains(reversed[len(pattern)-1:], ".")
	})
}

// names returns the server names, lower case and without a final dot, as APISIX makes them.
func (s *SSL) names() []string {
	list := s.SNIs
	if s.SNI != "" {
		list = []string{s.SNI}
	}
	out := make([]string, len(list))
	for i, name := range list {
		out[i] = strings.ToLower(strings.TrimSuffix(name, "."))
	}
	return out
}
