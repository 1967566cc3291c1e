package capture

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// trustDomainOf returns the trust domain of a SPIFFE ID, or why it is none: a lower-case trust domain
// and a path, of the characters that the SPIFFE-ID specification allows (sections 2.1 and 2.2).
func trustDomainOf(id string) (string, error) {
	rest, ok := strings.CutPrefix(id, "spiffe://")
	if !ok {
		return "", errors.New("it does not begin with spiffe://")
	}
	domain, path, ok := strings.Cut(rest, "/")
	if domain == "" || !allOf(domain, isDomainByte) {
		return "", errors.New("its trust domain is not valid")
	}
	if !ok {
		return "", errors.New("it names no workload")
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "" || segment == "." || segment == ".." || !allOf(segment, isSegmentByte) {
			return "", errors.New("its path is not valid")
		}
	}
	return domain, nil
}

func isDomainByte(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '.' || c == '-' || c == '_'
}

func isSegmentByte(c byte) bool { return isDomainByte(c) || 'A' <= c && c <= 'Z' }

func allOf(s string, is func(byte) bool) bool {
	for i := range len(s) {
		if !is(s[i]) {
			return false
		}
	}
	return true
}

// agrees tells whether a DNS name of a certificate, which may have a wildcard in its first label, is
// that of a host. As with Envoy, the wildcard may be a part of the label.
func agrees(certificate, host string) bool {
	certificate, host = strings.ToLower(certificate), strings.ToLower(host)
	if certificate == host {
		return true
	}
	pattern, domain, ok := strings.Cut(certificate, ".")
	label, rest, hasRest := strings.Cut(host, ".")
	if !ok || !hasRest || rest != domain || strings.Contains(domain, "*") || strings.HasPrefix(pattern, "xn--") {
		return false
	}
	before, after, wild := strings.Cut(pattern, "*")
	return wild && !strings.Contains(after, "*") && len(label) >= len(before)+len(after) &&
		strings.HasPrefix(label, before) && strings.HasSuffix(label, after)
}

// isSelfSigned tells whether a certificate is its own authority.
func isSelfSigned(c *x509.Certificate) bool {
	return bytes.Equal(c.RawIssuer, c.RawSubject) &&
		c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}

// distinguishedName is a Name (RFC 5280, section 4.1.2.4) whose values have their type.
type (
	distinguishedName []relativeNameSET
	relativeNameSET   []nameAttribute // encoding/asn1 takes a type …SET for a SET OF
	nameAttribute     struct {
		Type  asn1.ObjectIdentifier
		Value asn1.RawValue
	}
)

// subject returns the distinguished name of a certificate as Envoy writes it, which is OpenSSL's
// reading of RFC 2253: pkix.Name has other names of attributes and leaves characters beyond ASCII.
func subject(c *x509.Certificate) string {
	var name distinguishedName
	if rest, err := asn1.Unmarshal(c.RawSubject, &name); err != nil || len(rest) > 0 {
		return ""
	}
	var b strings.Builder
	for _, relative := range slices.Backward(name) {
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		// OpenSSL goes through the whole name backwards, also where several attributes belong together.
		for i, attribute := range slices.Backward(relative) {
			writeAttribute(&b, attribute)
			if i > 0 {
				b.WriteByte('+')
			}
		}
	}
	return b.String()
}

func writeAttribute(b *strings.Builder, a nameAttribute) {
	name, known := attributeName(a.Type.String())
	if !known {
		name = a.Type.String()
	}
	b.WriteString(name)
	b.WriteByte('=')
	var text string
	if _, err := asn1.Unmarshal(a.Value.FullBytes, &text); err != nil || !known {
		b.WriteByte('#')
		b.WriteString(strings.ToUpper(hex.EncodeToString(a.Value.FullBytes)))
		return
	}
	writeEscaped(b, text)
}

// writeEscaped writes a value with the escapes of RFC 2253, section 2.4, and those of OpenSSL's
// ASN1_STRFLGS_ESC_CTRL and ASN1_STRFLGS_ESC_MSB.
func writeEscaped(b *strings.Builder, value string) {
	for i := range len(value) {
		switch c := value[i]; {
		case strings.IndexByte(`,+"\<>;`, c) >= 0,
			c == '#' && i == 0,
			c == ' ' && (i == 0 || i == len(value)-1):
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c >= 0x7f:
			fmt.Fprintf(b, `\%02X`, c)
		default:
			b.WriteByte(c)
		}
	}
}

// attributeName returns OpenSSL's short name of an attribute of distinguished names.
func attributeName(oid string) (string, bool) {
	switch oid {
	case "2.5.4.3":
		return "CN", true
	case "2.5.4.4":
		return "SN", true
	case "2.5.4.5":
		return "serialNumber", true
	case "2.5.4.6":
		return "C", true
	case "2.5.4.7":
		return "L", true
	case "2.5.4.8":
		return "ST", true
	case "2.5.4.9":
		return "street", true
	case "2.5.4.10":
		return "O", true
	case "2.5.4.11":
		return "OU", true
	case "2.5.4.12":
		return "title", true
	case "2.5.4.13":
		return "description", true
	case "2.5.4.17":
		return "postalCode", true
	case "2.5.4.41":
		return "name", true
	case "2.5.4.42":
		return "GN", true
	case "2.5.4.43":
		return "initials", true
	case "2.5.4.46":
		return "dnQualifier", true
	case "0.9.2342.19200300.100.1.1":
		return "UID", true
	case "0.9.2342.19200300.100.1.25":
		return "DC", true
	case "1.2.840.113549.1.9.1":
		return "emailAddress", true
	default:
		return "", false
	}
}
