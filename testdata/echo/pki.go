package main

import (
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"os"
)

// pki are files with certificates.
type pki struct{ certificate, key, authorities string }

func (p *pki) add(flags *flag.FlagSet) {
	flags.StringVar(&p.certificate, "cert", "", "file with the certificate to show")
	flags.StringVar(&p.key, "key", "", "file with its key")
	flags.StringVar(&p.authorities, "ca", "", "file with the authorities that issue the peer's certificate, which is demanded then")
}

// server returns the configuration of a server; without files it has a certificate that nobody knows.
func (p *pki) server() (*tls.Config, error) {
	c := &tls.Config{}
	err := p.fill(c)
	if err == nil && c.Certificates == nil {
		c.Certificates = make([]tls.Certificate, 1)
		c.Certificates[0], err = selfSigned()
	}
	if c.RootCAs != nil {
		c.ClientCAs, c.ClientAuth = c.RootCAs, tls.RequireAndVerifyClientCert
	}
	return c, err
}

// client returns the configuration of a client; without authorities it takes any certificate.
func (p *pki) client(serverName string) (*tls.Config, error) {
	c := &tls.Config{ServerName: serverName}
	err := p.fill(c)
	c.InsecureSkipVerify = c.RootCAs == nil
	return c, err
}

func (p *pki) fill(c *tls.Config) error {
	if p.certificate != "" {
		pair, err := tls.LoadX509KeyPair(p.certificate, p.key)
		if err != nil {
			return err
		}
		c.Certificates = []tls.Certificate{pair}
	}
	if p.authorities != "" {
		text, err := os.ReadFile(p.authorities)
		if err != nil {
			return err
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(text) {
			return fmt.Errorf("%s has no certificate", p.authorities)
		}
	}
	return nil
}

// names returns those of a peer's certificate: its number, common name, and alternative names.
func names(chain []*x509.Certificate) []string {
	if len(chain) == 0 {
		return nil
	}
	leaf := chain[0]
	all := append([]string{leaf.SerialNumber.Text(16), leaf.Subject.CommonName}, leaf.DNSNames...)
	for _, u := range leaf.URIs {
		all = append(all, u.String())
	}
	return all
}
