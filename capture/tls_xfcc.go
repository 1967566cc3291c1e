package capture

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"strings"
)

// forwardedCertificate returns the element of x-forwarded-client-cert that tells of a client's
// certificate, with the fields that Istio asks Envoy for (set_current_client_cert_details: subject,
// dns, uri) in Envoy's order:
//
//	By=spiffe://…/sa/b;Hash=4f2…;Subject="CN=…";URI=spiffe://…/sa/a;DNS=…
//
// own is our certificate. Values with characters that separate fields and elements are quoted, which
// Envoy documents and omits: no certificate can pretend to be another one.
func forwardedCertificate(own, client *x509.Certificate) string {
	var b strings.Builder
	field := func(name, value string) {
		if b.Len() > 0 {
			b.WriteByte(';')
		}
		b.WriteString(name)
		b.WriteByte('=')
		b.WriteString(value)
	}
	if own != nil {
		for _, uri := range own.URIs {
			field("By", quoteIfNeeded(uri.String()))
		}
	}
	hash := sha256.Sum256(client.Raw)
	field("Hash", hex.EncodeToString(hash[:]))
	field("Subject", quote(subject(client)))
	for _, uri := range client.URIs {
		field("URI", quoteIfNeeded(uri.String()))
	}
	if len(client.URIs) == 0 {
		field("URI", "")
	}
	for _, name := range client.DNSNames {
		field("DNS", quoteIfNeeded(name))
	}
	return b.String()
}

func quoteIfNeeded(value string) string {
	for i := range len(value) {
		if c := value[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`,;="\`, c) >= 0 {
			return quote(value)
		}
	}
	return value
}

// quote returns a value in double quotes. Quotes in it have a backslash, unless they have one already
// by the rules of distinguished names; control characters, which no header may have, are left out.
func quote(value string) string {
	var b strings.Builder
	b.WriteByte('"')
	escaped := false
	for i := range len(value) {
		c := value[i]
		switch {
		case c < ' ' || c == 0x7f:
			continue
		case c == '"' && !escaped:
			b.WriteByte('\\')
		}
		escaped = c == '\\' && !escaped
		b.WriteByte(c)
	}
	if escaped {
		b.WriteByte('\\') // or it would hide the closing quote
	}
	b.WriteByte('"')
	return b.String()
}
