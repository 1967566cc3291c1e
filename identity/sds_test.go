package identity_test

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretpb "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"meshbridge/identity"
	"meshbridge/identity/identitytest"
)

// agent serves secrets on a Unix socket as Istio's agent does: one state-of-the-world stream for
// each secret, and none for a client that does not say who it is.
type agent struct {
	secretpb.UnimplementedSecretDiscoveryServiceServer

	t      *testing.T
	socket string

	mu      sync.Mutex
	changed *sync.Cond
	server  *grpc.Server
	serving chan struct{}
	version int
	secrets map[string]*tlspb.Secret
	nacks   []string
	acks    map[string]string // the version by secret
}

func newAgent(t *testing.T) *agent {
	t.Helper()
	dir, err := os.MkdirTemp("", "sds") //nolint:usetesting // t.TempDir is too long for the address of a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	a := &agent{t: t, socket: filepath.Join(dir, "socket"), secrets: map[string]*tlspb.Secret{}, acks: map[string]string{}}
	a.changed = sync.NewCond(&a.mu)
	a.start()
	t.Cleanup(a.stop)
	return a
}

func (a *agent) start() {
	a.t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(a.t.Context(), "unix", a.socket)
	if err != nil {
		a.t.Fatal(err)
	}
	server, serving := grpc.NewServer(), make(chan struct{})
	secretpb.RegisterSecretDiscoveryServiceServer(server, a)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.server, a.serving = server, serving
	go func() {
		defer close(serving)
		_ = server.Serve(listener)
	}()
}

func (a *agent) stop() {
	a.mu.Lock()
	server, serving := a.server, a.serving
	a.mu.Unlock()
	server.Stop()
	<-serving
}

// set changes secrets and pushes them.
func (a *agent) set(secrets ...*tlspb.Secret) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version++
	for _, s := range secrets {
		a.secrets[s.GetName()] = s
	}
	a.changed.Broadcast()
}

// await waits until a condition on what the client answered holds.
func (a *agent) await(what string, condition func() bool) {
	a.t.Helper()
	deadline := time.Now().Add(patience)
	timeout := time.AfterFunc(patience, a.changed.Broadcast)
	defer timeout.Stop()
	a.mu.Lock()
	defer a.mu.Unlock()
	for !condition() {
		if time.Now().After(deadline) {
			a.t.Fatalf("%s: not within %s", what, patience)
		}
		a.changed.Wait()
	}
}

// StreamSecrets implements the service.
func (a *agent) StreamSecrets(stream secretpb.SecretDiscoveryService_StreamSecretsServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if first.GetNode().GetId() == "" || len(first.GetResourceNames()) != 1 {
		return status.Error(codes.InvalidArgument, "missing node information")
	}
	name := first.GetResourceNames()[0]
	ended := false
	received := make(chan struct{})
	go func() {
		defer close(received)
		for {
			request, err := stream.Recv()
			a.mu.Lock()
			switch {
			case err != nil:
				ended = true
			case request.GetErrorDetail() != nil:
				a.nacks = append(a.nacks, request.GetErrorDetail().GetMessage())
			default:
				a.acks[name] = request.GetVersionInfo()
			}
			a.changed.Broadcast()
			a.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	defer func() { <-received }()
	var sent *tlspb.Secret
	for {
		a.mu.Lock()
		for !ended && (a.secrets[name] == nil || a.secrets[name] == sent) {
			a.changed.Wait()
		}
		stop, version := ended, a.version
		sent = a.secrets[name]
		a.mu.Unlock()
		if stop {
			return io.EOF
		}
		body, err := anypb.New(sent)
		if err != nil {
			return err
		}
		text := strings.Repeat("v", version)
		if err := stream.Send(&discoverypb.DiscoveryResponse{
			TypeUrl: body.GetTypeUrl(), VersionInfo: text, Nonce: "nonce-" + text, Resources: []*anypb.Any{body},
		}); err != nil {
			return err
		}
	}
}

func data(text []byte) *corepb.DataSource {
	return &corepb.DataSource{Specifier: &corepb.DataSource_InlineBytes{InlineBytes: text}}
}

func certificateSecret(chain, key []byte) *tlspb.Secret {
	return &tlspb.Secret{Name: "default", Type: &tlspb.Secret_TlsCertificate{TlsCertificate: &tlspb.TlsCertificate{
		CertificateChain: data(chain), PrivateKey: data(key),
	}}}
}

func authoritiesSecret(roots ...*identitytest.CA) *tlspb.Secret {
	var text []byte
	for _, ca := range roots {
		text = append(text, ca.RootPEM()...)
	}
	return &tlspb.Secret{Name: "ROOTCA", Type: &tlspb.Secret_ValidationContext{ValidationContext: &tlspb.CertificateValidationContext{
		TrustedCa: data(text),
	}}}
}

func (a *agent) source(log *logbook, registry prometheus.Registerer) identity.Source {
	a.t.Helper()
	source, err := identity.SDS(identity.SDSConfig{
		Socket: a.socket, Logger: log.logger(), Registerer: registry,
		Backoff: identity.Backoff{Base: time.Millisecond, Max: 10 * time.Millisecond},
	})
	if err != nil {
		a.t.Fatal(err)
	}
	return source
}

func TestSecretsOfTheAgentAreFollowed(t *testing.T) {
	a := newAgent(t)
	ca := identitytest.NewCA(t, "root")
	a.set(certificateSecret(identitytest.PEM(t, ca.Issue(t, identitytest.Leaf{URIs: []string{workload}}))), authoritiesSecret(ca))
	log := newLogbook()
	source := a.source(log, nil)
	run(t, source)
	first := await(t, source, "identity", anyIdentity)
	if first.ID != workload {
		t.Errorf("ID %q", first.ID)
	}
	a.await("both to be accepted", func() bool { return a.acks["default"] == "v" && a.acks["ROOTCA"] == "v" })

	a.set(certificateSecret(identitytest.PEM(t, ca.Issue(t, identitytest.Leaf{URIs: []string{workload}}))))
	second := await(t, source, "rotation", unlike(first))
	a.set(authoritiesSecret(ca, identitytest.NewCA(t, "new")))
	third := await(t, source, "more authorities", unlike(second))
	if count(third.AuthoritiesPEM) != 2 || third.Certificate.Leaf != second.Certificate.Leaf {
		t.Errorf("after new authorities: %d of them", count(third.AuthoritiesPEM))
	}
	a.await("all to be accepted", func() bool { return a.acks["default"] == "vv" && a.acks["ROOTCA"] == "vvv" })
	checkSecrets(t, log, third)
}

func TestThereIsNoIdentityWithoutAuthorities(t *testing.T) {
	a := newAgent(t)
	ca := identitytest.NewCA(t, "root")
	a.set(certificateSecret(identitytest.PEM(t, ca.Issue(t, identitytest.Leaf{URIs: []string{workload}}))))
	source := a.source(newLogbook(), nil)
	run(t, source)
	a.await("the certificate to be accepted", func() bool { return a.acks["default"] == "v" })
	if source.Current() != nil {
		t.Error("there is an identity")
	}
	a.set(authoritiesSecret(ca))
	await(t, source, "identity", anyIdentity)
}

func TestBadSecretsAreRefusedAndTheLastOnesStay(t *testing.T) {
	ca := identitytest.NewCA(t, "root")
	chain, key := identitytest.PEM(t, ca.Issue(t, identitytest.Leaf{URIs: []string{workload}}))
	_, otherKey := identitytest.PEM(t, ca.Issue(t, identitytest.Leaf{URIs: []string{workload}}))
	expired, expiredKey := identitytest.PEM(t, ca.Issue(t, identitytest.Leaf{URIs: []string{workload}, NotAfter: time.Now().Add(-time.Minute), NotBefore: time.Now().Add(-time.Hour)}))
	provider := certificateSecret(chain, nil)
	provider.GetTlsCertificate().PrivateKeyProvider = &tlspb.PrivateKeyProvider{ProviderName: "cryptomb"}
	const canary = "canary-of-a-key"
	for _, test := range []struct {
		name   string
		secret *tlspb.Secret
		want   string
	}{
		{"another key", certificateSecret(chain, otherKey), "the key is not that of the certificate"},
		{"broken key", certificateSecret(chain, []byte("-----BEGIN PRIVATE KEY-----\n"+canary+"\n-----END PRIVATE KEY-----\n")), "private_key: holds"},
		{"expired", certificateSecret(expired, expiredKey), "expired"},
		{"no certificate", certificateSecret(nil, key), "certificate_chain: "},
		{"key provider", provider, "private_key_provider"},
		{"file", &tlspb.Secret{Name: "default", Type: &tlspb.Secret_TlsCertificate{TlsCertificate: &tlspb.TlsCertificate{
			CertificateChain: &corepb.DataSource{Specifier: &corepb.DataSource_Filename{Filename: "/x"}},
		}}}, "is not in the response itself"},
		{"no authority", &tlspb.Secret{Name: "ROOTCA"}, "trusted_ca: "},
		{"broken authority", &tlspb.Secret{Name: "ROOTCA", Type: &tlspb.Secret_ValidationContext{ValidationContext: &tlspb.CertificateValidationContext{
			TrustedCa: data(ca.RootPEM()[:200]),
		}}}, "damaged or cut off"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := newAgent(t)
			a.set(certificateSecret(chain, key), authoritiesSecret(ca))
			log, registry := newLogbook(), prometheus.NewRegistry()
			source := a.source(log, registry)
			run(t, source)
			first := await(t, source, "identity", anyIdentity)
			a.set(test.secret)
			a.await("refusal", func() bool {
				return slices.ContainsFunc(a.nacks, func(s string) bool { return strings.Contains(s, test.want) })
			})
			log.await(t, "reason=invalid", 1)
			if source.Current() != first {
				t.Error("the identity was replaced")
			}
			if value(t, registry, "meshbridge_identity_failures_total") != 1 {
				t.Error("the failure is not counted once")
			}
			if strings.Contains(log.String()+strings.Join(a.nacks, ""), canary) {
				t.Error("a key is shown")
			}
		})
	}
}

func TestTheAgentRestarts(t *testing.T) {
	a := newAgent(t)
	ca := identitytest.NewCA(t, "root")
	a.set(certificateSecret(identitytest.PEM(t, ca.Issue(t, identitytest.Leaf{URIs: []string{workload}}))), authoritiesSecret(ca))
	log := newLogbook()
	source := a.source(log, nil)
	run(t, source)
	first := await(t, source, "identity", anyIdentity)

	a.stop()
	log.await(t, "keeping the last", 2)
	if source.Current() != first {
		t.Error("the identity was given up")
	}
	a.mu.Lock()
	clear(a.acks)
	a.mu.Unlock()
	a.start()
	a.await("the same secrets to be accepted again", func() bool { return len(a.acks) == 2 })
	a.set(certificateSecret(identitytest.PEM(t, ca.Issue(t, identitytest.Leaf{URIs: []string{workload}}))))
	second := await(t, source, "rotation", unlike(first))
	if second.Certificate.Leaf == first.Certificate.Leaf {
		t.Error("what was sent again counts as a rotation")
	}
}

func TestAMissingSocketIsNamed(t *testing.T) {
	log := newLogbook()
	source, err := identity.SDS(identity.SDSConfig{Socket: "/nonexistent/socket", Logger: log.logger(), Backoff: identity.Backoff{Base: time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	run(t, source)
	log.await(t, "/nonexistent/socket: connect: no such file or directory", 2)
}
