package identity

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// spiffeID returns the one SPIFFE ID of a certificate (X.509-SVID 2: exactly one URI SAN).
func spiffeID(certificate *x509.Certificate) (string, error) {
	if len(certificate.URIs) != 1 {
		return "", fmt.Errorf("certificate has %d URI names, want its SPIFFE ID alone", len(certificate.URIs))
	}
	uri := certificate.URIs[0]
	if err := checkID(uri); err != nil {
		return "", fmt.Errorf("certificate for %q: %w", uri, err)
	}
	return uri.String(), nil
}

func checkID(uri *url.URL) error {
	switch {
	case uri.Scheme != "spiffe":
		return errors.New("is no SPIFFE ID")
	case uri.Host == "" || uri.Port() != "" || uri.User != nil:
		return errors.New("SPIFFE ID without a plain trust domain")
	case uri.RawQuery != "" || uri.Fragment != "":
		return errors.New("SPIFFE ID with a query or fragment")
	}
	return nil
}

// workloadID returns the ID of a Kubernetes service account, spiffe://TRUST_DOMAIN/ns/NS/sa/SA.
func workloadID(trustDomain, namespace, serviceAccount string) (*url.URL, error) {
	for _, part := range []struct{ what, value, and string }{
		{"trust domain", trustDomain, ".-_"}, {"namespace", namespace, ".-_"}, {"service account", serviceAccount, ".-_:"},
	} {
		if part.value == "" {
			return nil, fmt.Errorf("the %s is not set", part.what)
		}
		for _, r := range part.value {
			if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(part.and, r) {
				return nil, fmt.Errorf("the %s %q has a character that names cannot have", part.what, part.value)
			}
		}
	}
	return &url.URL{Scheme: "spiffe", Host: trustDomain, Path: "/ns/" + namespace + "/sa/" + serviceAccount}, nil
}
