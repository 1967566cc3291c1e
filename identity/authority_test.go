package identity_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	securitypb "istio.io/api/security/v1alpha1"

	"meshbridge/identity"
	"meshbridge/identity/identitytest"
)

const (
	serverName = "istiod.istio-system.svc"
	goodToken  = "token-canary-4711"
)

// authority is istiod's certificate authority: gRPC with TLS, and what it was asked.
type authority struct {
	securitypb.UnimplementedIstioCertificateServiceServer

	t       *testing.T
	ca      *identitytest.CA
	address string

	mu      sync.Mutex
	server  *grpc.Server
	serving chan struct{}
	request *securitypb.IstioCertificateRequest // the last one
	header  metadata.MD
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, ca: identitytest.NewCA(t, "root"), address: "127.0.0.1:0"}
	a.start()
	t.Cleanup(a.stop)
	return a
}

func (a *authority) start() {
	a.t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(a.t.Context(), "tcp", a.address)
	if err != nil {
		a.t.Fatal(err)
	}
	certificate := a.ca.Issue(a.t, identitytest.Leaf{DNSNames: []string{serverName}})
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{*certificate}})))
	securitypb.RegisterIstioCertificateServiceServer(server, a)
	serving := make(chan struct{})
	a.mu.Lock()
	defer a.mu.Unlock()
	a.address, a.server, a.serving = listener.Addr().String(), server, serving
	go func() {
		defer close(serving)
		_ = server.Serve(listener)
	}()
}

func (a *authority) stop() {
	a.mu.Lock()
	server, serving := a.server, a.serving
	a.mu.Unlock()
	server.Stop()
	<-serving
}

// CreateCertificate answers as istiod does.
func (a *authority) CreateCertificate(ctx context.Context, request *securitypb.IstioCertificateRequest) (*securitypb.IstioCertificateResponse, error) {
	header, _ := metadata.FromIncomingContext(ctx)
	if token := header.Get("authorization"); len(token) != 1 || token[0] != "Bearer "+goodToken {
		return nil, status.Error(codes.Unauthenticated, "authentication failure")
	}
	a.mu.Lock()
	a.request, a.header = request, header
	a.mu.Unlock()
	life := time.Duration(request.GetValidityDuration()) * time.Second
	chain, err := answer(a.t, a.ca, []byte(request.GetCsr()), identitytest.Leaf{NotAfter: time.Now().Add(life)})
	return &securitypb.IstioCertificateResponse{CertChain: chain}, err
}

// asked returns the last request that was granted.
func (a *authority) asked() (*securitypb.IstioCertificateRequest, metadata.MD) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.request, a.header
}

// config returns what a workload needs to know of the authority.
func (a *authority) config(log *logbook) identity.IstiodConfig {
	a.t.Helper()
	return identity.IstiodConfig{
		Address: a.address, ServerName: serverName, Namespace: "default", ServiceAccount: "reviews",
		TokenFile: tempFile(a.t, "istio-token", []byte(goodToken+"\n")),
		RootFile:  tempFile(a.t, "root-cert.pem", a.ca.RootPEM()),
		Backoff:   identity.Backoff{Base: time.Millisecond, Max: 10 * time.Millisecond},
		Logger:    log.logger(),
	}
}

func newSource(t *testing.T, config identity.IstiodConfig) identity.Source {
	t.Helper()
	source, err := identity.Istiod(config)
	if err != nil {
		t.Fatal(err)
	}
	return source
}

// answer signs a request, and returns the chain with the root at the end.
func answer(t *testing.T, ca *identitytest.CA, csr []byte, leaf identitytest.Leaf) ([]string, error) {
	t.Helper()
	block, rest := pem.Decode(csr)
	if block == nil || len(rest) > 0 {
		return nil, errors.New("no certificate signing request")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	if err := request.CheckSignature(); err != nil {
		return nil, err
	}
	if leaf.URIs == nil {
		for _, uri := range request.URIs {
			leaf.URIs = append(leaf.URIs, uri.String())
		}
	}
	certificate := ca.IssueFor(t, leaf, request.PublicKey)
	var chain []string
	for _, der := range append([][]byte{certificate.Raw}, ca.Chain...) {
		chain = append(chain, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	}
	return append(chain, string(ca.RootPEM())), nil
}

func count(pemText []byte) int { return strings.Count(string(pemText), "BEGIN CERTIFICATE") }
