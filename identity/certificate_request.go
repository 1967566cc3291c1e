package identity

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/structpb"
	securitypb "istio.io/api/security/v1alpha1"
)

const (
	requestTimeout = 10 * time.Second
	rsaBits        = 2048
)

// newRequest makes a key and a signing request for the ID. Like Istio's, its subject is empty, which
// makes the ID a critical extension.
func newRequest(id *url.URL, useRSA bool) (crypto.Signer, []byte, error) {
	var key crypto.Signer
	var err error
	if useRSA {
		key, err = rsa.GenerateKey(rand.Reader, rsaBits)
	} else {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{URIs: []*url.URL{id}}, key)
	if err != nil {
		return nil, nil, fmt.Errorf("make a certificate signing request: %w", err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

// createCertificate has the request signed. Every request has a connection of its own: they are hours
// apart, and the root certificates and the token may be others each time.
func (s *istiod) createCertificate(ctx context.Context, csr []byte) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	text, err := os.ReadFile(s.config.RootFile)
	if err != nil {
		return nil, fileError{fmt.Errorf("root certificates: %w", err)}
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fileError{fmt.Errorf("root certificates: %s holds no PEM certificate", s.config.RootFile)}
	}
	token, err := os.ReadFile(s.config.TokenFile)
	if err != nil {
		return nil, fileError{fmt.Errorf("token: %w", err)}
	}
	token = bytes.TrimSpace(token)
	switch {
	case len(token) == 0:
		return nil, fileError{fmt.Errorf("token: %s is empty", s.config.TokenFile)}
	case bytes.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return nil, fileError{fmt.Errorf("token: %s holds more than a token", s.config.TokenFile)}
	}

	conn, err := grpc.NewClient("dns:///"+s.config.Address,
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
			MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: s.config.ServerName,
		})),
		// The control plane is a neighbour: HTTPS_PROXY and TXT records are not about it.
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
	)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	request := &securitypb.IstioCertificateRequest{Csr: string(csr), ValidityDuration: int64(s.config.TTL / time.Second)}
	if s.config.CertSigner != "" {
		request.Metadata = &structpb.Struct{Fields: map[string]*structpb.Value{
			"CertSigner": structpb.NewStringValue(s.config.CertSigner),
		}}
	}
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+string(token), "clusterid", s.config.ClusterID)
	response, err := securitypb.NewIstioCertificateServiceClient(conn).CreateCertificate(ctx, request)
	if err != nil {
		return nil, fmt.Errorf("request a certificate: %w", err)
	}
	return response.GetCertChain(), nil
}

// accept checks the answer to a request: the certificate, intermediates, and the root last, which
// may be several certificates while roots are being replaced.
func (s *istiod) accept(answer []string, key crypto.Signer, rootFile []byte) (*Identity, error) {
	if len(answer) < 2 {
		return nil, errors.New("has no root: want the certificate, intermediates and the root")
	}
	last := len(answer) - 1
	chain, err := parseCertificates([]byte(strings.Join(answer[:last], "\n")))
	if err != nil {
		return nil, fmt.Errorf("chain: %w", err)
	}
	roots, err := parseCertificates([]byte(answer[last]))
	if err != nil {
		return nil, fmt.Errorf("root: %w", err)
	}
	now := time.Now()
	next, err := assemble(chain, key, authorities(roots, rootFile), now)
	if err != nil {
		return nil, err
	}
	if want := s.id.String(); next.ID != want {
		return nil, fmt.Errorf("is for %q, not for %q", next.ID, want)
	}
	if err := verifyChain(chain, roots, now); err != nil {
		return nil, fmt.Errorf("does not come from its root: %w", err)
	}
	return next, nil
}

// authorities returns the roots of an answer, and with them those of the root file where it is about
// the same authority: while the mesh's root is being replaced, the file may have the old and the new
// one, and peers certificates of either. A file without the answer's root is about another matter,
// such as the authority of istiod's own server certificate, whose other certificates are no
// workloads'.
func authorities(roots []*x509.Certificate, rootFile []byte) []*x509.Certificate {
	verifying, err := parseCertificates(rootFile)
	if err != nil {
		return roots // it was good enough for the connection
	}
	for _, root := range roots {
		if contains(verifying, root) {
			return appendNew(roots, verifying...)
		}
	}
	return roots
}
