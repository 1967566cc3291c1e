package admin

import (
	"crypto/x509"
	"net/http"
	"time"

	adminpb "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"meshbridge/xds"
)

// serveCerts lists the certificates in use: the workload's with the authorities of its peers, and those of
// gateways.
func (s *Server) serveCerts(w http.ResponseWriter, _ *http.Request) {
	now := time.Now()
	all := &adminpb.Certificates{}
	if current, _ := s.identity(); current != nil {
		c := &adminpb.Certificate{CaCert: details(now, parseCertificates(current.AuthoritiesPEM))}
		for _, der := range current.Certificate.Certificate {
			if parsed, err := x509.ParseCertificate(der); err == nil {
				c.CertChain = append(c.CertChain, detail(now, parsed))
			}
		}
		all.Certificates = append(all.Certificates, c)
	}
	for r := range s.config.World().Active.All(xds.SecretType) {
		secret, err := xds.Decode[*tlspb.Secret](r)
		if err != nil {
			continue // it was decoded when it came
		}
		c := &adminpb.Certificate{
			CaCert:    details(now, parseCertificates(text(secret.GetValidationContext().GetTrustedCa()))),
			CertChain: details(now, parseCertificates(text(secret.GetTlsCertificate().GetCertificateChain()))),
		}
		if len(c.GetCaCert())+len(c.GetCertChain()) > 0 {
			all.Certificates = append(all.Certificates, c)
		}
	}
	writeMessage(w, all)
}

func text(d *corepb.DataSource) []byte {
	if s := d.GetInlineString(); s != "" {
		return []byte(s)
	}
	return d.GetInlineBytes()
}

func details(now time.Time, certificates []*x509.Certificate) []*adminpb.CertificateDetails {
	all := make([]*adminpb.CertificateDetails, 0, len(certificates))
	for _, c := range certificates {
		all = append(all, detail(now, c))
	}
	return all
}

func detail(now time.Time, c *x509.Certificate) *adminpb.CertificateDetails {
	d := &adminpb.CertificateDetails{
		Path: "<inline>", SerialNumber: c.SerialNumber.Text(16),
		DaysUntilExpiration: uint64(max(c.NotAfter.Sub(now), 0) / (24 * time.Hour)),
		ValidFrom:           timestamp(c.NotBefore), ExpirationTime: timestamp(c.NotAfter),
	}
	for _, uri := range c.URIs {
		d.SubjectAltNames = append(d.SubjectAltNames, &adminpb.SubjectAlternateName{Name: &adminpb.SubjectAlternateName_Uri{Uri: uri.String()}})
	}
	for _, name := range c.DNSNames {
		d.SubjectAltNames = append(d.SubjectAltNames, &adminpb.SubjectAlternateName{Name: &adminpb.SubjectAlternateName_Dns{Dns: name}})
	}
	for _, ip := range c.IPAddresses {
		d.SubjectAltNames = append(d.SubjectAltNames, &adminpb.SubjectAlternateName{Name: &adminpb.SubjectAlternateName_IpAddress{IpAddress: ip.String()}})
	}
	return d
}
