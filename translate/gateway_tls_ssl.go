package translate

import (
	"crypto/x509"
	"maps"
	"slices"
	"strings"

	"meshbridge/translate/apisix"
)

// sslDraft is an ssl on its way: the terms, and the server names that have them.
type sslDraft struct {
	tls          *serverTLS
	certificates []*credential
	names        map[string]bool
	any          bool
}

// compileSSLs makes the ssl objects of all chains. What presents the same certificates on the same
// terms is one object, whatever it is used for, so that a new certificate is one change.
func (s *State) compileSSLs() (objects []apisix.Object, diagnostics []Diagnostic) {
	drafts := map[string]*sslDraft{}
	for _, c := range s.table.chains {
		if !c.Terminated || c.NotServed != "" {
			continue
		}
		for _, name := range slices.Concat(c.serverNames(), s.hostsBelow(c)) {
			name, err := apisix.ServerName(name)
			if err != nil || slices.Contains(c.foreignNames, name) || name == anyServerName && !s.options.APISIXVersion.Has(apisix.FeatureAnySNI) {
				continue // which has been reported
			}
			certificates := chooseCertificates(s.certificatesOf(c.tls), name)
			key := c.tls.terms(certificates)
			if name == anyServerName {
				key = canonicalKey(key, anyServerName)
			}
			if drafts[key] == nil {
				drafts[key] = &sslDraft{tls: c.tls, certificates: certificates, names: map[string]bool{}, any: name == anyServerName}
			}
			drafts[key].names[name] = true
		}
	}
	for _, key := range slices.Sorted(maps.Keys(drafts)) {
		ssl := s.ssl(key, drafts[key])
		o, err := encode(apisix.KindSSL, ssl.ID, ssl, ssl.Validate(s.options.APISIXVersion))
		if err != nil {
			s.reporter(&diagnostics, "Secret "+drafts[key].certificates[0].name, "", "")("invalid_object", "", "ssl "+ssl.ID, err)
			continue
		}
		objects = append(objects, o)
	}
	return objects, diagnostics
}

func (s *State) certificatesOf(t *serverTLS) []*credential {
	out := make([]*credential, len(t.certificates))
	for i, secret := range t.certificates {
		out[i] = s.credentials[secret.name]
	}
	return out
}

// chooseCertificates returns those that are presented for a server name: OpenSSL holds one for each
// kind of key, and leaves the choice between the kinds to the client. As in Envoy, certificates for
// the name come before others.
func chooseCertificates(all []*credential, name string) []*credential {
	fitting := slices.DeleteFunc(slices.Clone(all), func(c *credential) bool { return !fits(c.leaf, name) })
	if len(fitting) == 0 {
		fitting = all
	}
	kinds := map[x509.PublicKeyAlgorithm]bool{}
	return slices.DeleteFunc(slices.Clone(fitting), func(c *credential) bool {
		had := kinds[c.leaf.PublicKeyAlgorithm]
		kinds[c.leaf.PublicKeyAlgorithm] = true
		return had
	})
}

// fits tells whether a certificate is for a server name, or for all that a wildcard stands for.
func fits(leaf *x509.Certificate, name string) bool {
	if strings.HasPrefix(name, "*") {
		return slices.ContainsFunc(leaf.DNSNames, func(own string) bool { return strings.EqualFold(own, name) })
	}
	return leaf.VerifyHostname(name) == nil
}

func (s *State) ssl(key string, d *sslDraft) *apisix.SSL {
	first := d.certificates[0]
	names := []string{first.name}
	ssl := &apisix.SSL{Labels: s.labels(), Type: "server", Cert: first.chain, Key: first.key, Protocols: d.tls.protocols}
	for _, more := range d.certificates[1:] {
		ssl.Certs, ssl.Keys = append(ssl.Certs, more.chain), append(ssl.Keys, more.key)
		names = append(names, more.name)
	}
	description, readable := sslOf+strings.Join(names, ", "), first.name
	if d.any {
		ssl.SNI = anyServerName
		readable += ".any"
	} else {
		ssl.SNIs = slices.Sorted(maps.Keys(d.names))
	}
	if authority := d.tls.authority.name; authority != "" {
		ssl.Client = &apisix.SSLClient{CA: s.credentials[authority].authorities, Depth: d.tls.depth}
		if d.tls.optional() && s.options.APISIXVersion.Has(apisix.FeatureSkipMTLS) {
			ssl.Client.SkipMTLSURIRegex = []string{".*"}
		}
		description += sslVerifiedBy + authority
	}
	ssl.ID = apisix.ID("s", readable, key)
	if s.options.APISIXVersion.Has(apisix.FeatureSSLDescription) {
		ssl.Desc = apisix.Name(description)
	}
	return ssl
}
