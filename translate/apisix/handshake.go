package apisix

import (
	"crypto/x509"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Handshake is what a TLS client says.
type Handshake struct {
	// ServerName is the name it asks for; empty for none.
	ServerName string
	// Certificates is the client's chain, its own certificate first; empty for none.
	Certificates []*x509.Certificate
	// Time is when certificates are verified; zero means while the client's is valid.
	Time time.Time
}

// Security is the outcome of a handshake.
type Security struct {
	// SSL presents the certificate; nil where the handshake fails. It must not be modified.
	SSL *SSL
	// Refused says why the handshake fails.
	Refused string
	// ClientVerify is $ssl_client_verify: SUCCESS, NONE or FAILED:reason.
	ClientVerify string
	// ServerName is the client's, or what stands for none.
	serverName string
}

// Values of $ssl_client_verify.
const (
	ClientVerified    = "SUCCESS"
	ClientAnonymous   = "NONE"
	clientNotVerified = "FAILED:"
)

func (e *Evaluator) addSSL(s *SSL) {
	for _, name := range s.names() {
		e.ssls.insert(&pathEntry{pattern: reverse(name), ssl: s})
	}
}

// matchSSL returns the ssl for a server name: an exact name before the longest wildcard, and no
// second try where a wildcard does not stand for as many labels.
func (e *Evaluator) matchSSL(name string) (found *SSL, refused string) {
	e.ssls.candidates(reverse(name), func(entry *pathEntry) bool {
		found = entry.ssl
		return false
	})
	switch {
	case found == nil:
		return nil, "there is no ssl for the server name " + name
	case !found.covers(name):
		return nil, fmt.Sprintf("the wildcards of ssl %s stand for one label, and %s has more", found.ID, name)
	}
	return found, ""
}

// Handshake tells which ssl APISIX chooses for a client and whether the handshake succeeds.
func (e *Evaluator) Handshake(h Handshake) Security {
	name := strings.ToLower(strings.TrimSuffix(orDefault(h.ServerName, e.options.FallbackSNI), "."))
	if name == "" {
		return Security{Refused: "the client asks for no server name, and apisix.ssl.fallback_sni is not set"}
	}
	ssl, refused := e.matchSSL(name)
	if refused != "" {
		return Security{Refused: refused}
	}
	s := Security{SSL: ssl, serverName: name, ClientVerify: ClientAnonymous}
	if ssl.Client == nil {
		return s // what the client presents is ignored
	}
	mandatory := len(ssl.Client.SkipMTLSURIRegex) == 0
	if len(h.Certificates) > 0 {
		s.ClientVerify = ssl.Client.verify(h)
	}
	if mandatory && s.ClientVerify != ClientVerified {
		return Security{Refused: "ssl " + ssl.ID + " requires a client certificate: " + s.ClientVerify}
	}
	return s
}

func (c *SSLClient) verify(h Handshake) string {
	authorities, err := parseCertificates(c.CA)
	if err != nil {
		return clientNotVerified + err.Error()
	}
	leaf := h.Certificates[0]
	options := x509.VerifyOptions{
		Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: h.Time,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if h.Time.IsZero() {
		options.CurrentTime = leaf.NotBefore
	}
	for _, a := range authorities {
		options.Roots.AddCert(a)
	}
	for _, i := range h.Certificates[1:] {
		options.Intermediates.AddCert(i)
	}
	chains, err := leaf.Verify(options)
	if err != nil {
		return clientNotVerified + err.Error()
	}
	// Neither the leaf nor the authority counts.
	if !slices.ContainsFunc(chains, func(chain []*x509.Certificate) bool { return len(chain)-2 <= c.Depth }) {
		return clientNotVerified + "certificate chain too long"
	}
	return ClientVerified
}

// admit is APISIX's own check of requests over TLS: where the Host header stands for an ssl with
// client certificates, it must be the server name.
func (e *Evaluator) admit(s Security, vars *requestVars) (refused string) {
	if c := s.SSL.Client; c != nil && len(c.SkipMTLSURIRegex) > 0 && s.ClientVerify != ClientVerified {
		skips := slices.ContainsFunc(c.SkipMTLSURIRegex, func(pattern string) bool {
			re, err := regexp.Compile(pattern)
			return err == nil && re.MatchString(vars.path)
		})
		if !skips {
			return "the path requires a client certificate: " + s.ClientVerify
		}
	}
	if ssl, _ := e.matchSSL(vars.host); ssl != nil && ssl.Client != nil && s.serverName != vars.host {
		return fmt.Sprintf("the client certificate is for the server name %s, and the host is %s", s.serverName, vars.host)
	}
	return ""
}
