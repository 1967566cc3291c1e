package capture

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"meshbridge/identity"
	"meshbridge/identity/identitytest"
	"meshbridge/translate"
)

// lockedBuffer is a log that a test reads while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// newTLSServer returns a server without listeners, whose parts are called one by one, and its log.
func newTLSServer(t *testing.T, source identity.Source) (*Server, *lockedBuffer) {
	t.Helper()
	log := &lockedBuffer{}
	s, err := New(Config{
		Identity:   source,
		Log:        slog.New(slog.NewTextHandler(log, nil)),
		Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s, log
}

// counted returns a metric of a server, by the values of its labels in the order of their names.
func counted(t *testing.T, s *Server, name string, labels ...string) float64 {
	t.Helper()
	families, err := s.config.Registerer.(*prometheus.Registry).Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			var values []string
			for _, label := range metric.GetLabel() {
				values = append(values, label.GetValue())
			}
			if family.GetName() == name && slices.Equal(values, labels) {
				return metric.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// meshChain is an inbound chain as Istio has them: STRICT, HTTP.
func meshChain() *translate.FilterChain {
	return &translate.FilterChain{
		Key: "i:9080:tls",
		TLS: &translate.DownstreamTLS{
			Credential:               translate.Credential{Workload: true},
			Authorities:              translate.Credential{Workload: true},
			RequireClientCertificate: true,
			SANs:                     []translate.SANMatch{beginning("spiffe://cluster.local/")},
			ALPN:                     []string{"h2", "http/1.1"},
			ForwardClientCert:        true,
		},
		HTTP: &translate.HTTPProxy{},
	}
}

// envoyClient is how Envoy connects to a workload of the mesh: with its ALPN and a server name that is
// no host name.
func envoyClient(certificate *tls.Certificate, protocols ...string) *tls.Config {
	config := &tls.Config{
		ServerName:         "outbound_.9080_._.b.default.svc.cluster.local",
		NextProtos:         protocols,
		InsecureSkipVerify: true,
	}
	if certificate != nil {
		config.Certificates = []tls.Certificate{*certificate}
	}
	return config
}

// tcpPair returns the two ends of a connection over loopback.
func tcpPair(t *testing.T) (client, server net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if client, err = net.Dial("tcp", listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

// handshaken is what came of a handshake: who the server says the peer is, and what the client saw of
// the first byte that the server sends behind it.
type handshaken struct {
	who         peer
	err         error
	client      *tls.Conn
	server      net.Conn
	clientError error
}

func handshake(t *testing.T, s *Server, chain *translate.FilterChain, config *tls.Config) handshaken {
	t.Helper()
	near, far := tcpPair(t)
	done := make(chan handshaken, 1)
	go func() {
		var h handshaken
		h.server, h.who, h.err = s.terminate(context.Background(), far, chain, inspected{})
		if h.err != nil {
			far.Close()
		} else {
			_, _ = h.server.Write([]byte("!"))
		}
		done <- h
	}()
	client := tls.Client(near, config)
	_, err := io.ReadFull(client, make([]byte, 1))
	if err != nil {
		client.Close()
	}
	h := <-done
	h.client, h.clientError = client, err
	return h
}

func TestWorkloadsOfTheMeshAreTerminated(t *testing.T) {
	t.Parallel()
	ca := identitytest.NewCA(t, "mesh")
	s, _ := newTLSServer(t, identitytest.NewSource(ca.Identity(t, idB)))
	client := ca.Issue(t, identitytest.Leaf{URIs: []string{idA}})
	for name, protocols := range map[string]struct {
		offered []string
		want    string
	}{
		"HTTP/1.1 of a sidecar": {[]string{"istio-http/1.1", "istio", "http/1.1"}, "http/1.1"},
		"HTTP/2 of a sidecar":   {[]string{"istio-h2", "istio", "h2"}, "h2"},
		"our preference":        {[]string{"http/1.1", "h2"}, "h2"},
		"nothing in common":     {[]string{"istio-peer-exchange", "istio"}, ""},
		"no list":               {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := handshake(t, s, meshChain(), envoyClient(client, protocols.offered...))
			if h.err != nil || h.clientError != nil {
				t.Fatal(h.err, h.clientError)
			}
			if got := h.client.ConnectionState().NegotiatedProtocol; got != protocols.want {
				t.Errorf("protocol %q, want %q", got, protocols.want)
			}
			want := peer{mutualTLS: true, principal: idA, uris: []string{idA}, forwarded: forwardedCertificate(
				s.config.Identity.Current().Certificate.Leaf, client.Leaf)}
			if diff := cmp.Diff(want, h.who, cmp.AllowUnexported(peer{})); diff != "" {
				t.Error(diff)
			}
			if got := h.client.ConnectionState().PeerCertificates[0].URIs[0].String(); got != idB {
				t.Errorf("server is %s", got)
			}
		})
	}
}

func TestStrangersAreRefused(t *testing.T) {
	t.Parallel()
	ca, other := identitytest.NewCA(t, "mesh"), identitytest.NewCA(t, "other")
	self := identitytest.NewCA(t, "self")
	issue := func(ca *identitytest.CA, leaf identitytest.Leaf) *tls.Certificate { return ca.Issue(t, leaf) }
	past := time.Now().Add(-time.Minute)
	for name, test := range map[string]struct {
		client *tls.Config
		want   tlsReason
		text   string // of the log line
	}{
		"wrong trust domain": {
			envoyClient(issue(ca, identitytest.Leaf{URIs: []string{"spiffe://evil/ns/default/sa/a"}})), tlsTrustDomain,
			"spiffe://evil/ns/default/sa/a",
		},
		"expired": {
			envoyClient(issue(ca, identitytest.Leaf{URIs: []string{idA}, NotBefore: past.Add(-time.Hour), NotAfter: past})), tlsExpired, idA,
		},
		"self-signed": {
			envoyClient(&tls.Certificate{Certificate: [][]byte{self.Certificate.Raw}, PrivateKey: self.Key()}), tlsSelfSigned, "CN=self",
		},
		"unknown authority": {
			envoyClient(issue(other, identitytest.Leaf{URIs: []string{idA}})), tlsUnknownAuthority, idA,
		},
		"no certificate":  {envoyClient(nil), tlsNoCertificate, "certificate"},
		"no SPIFFE ID":    {envoyClient(issue(ca, identitytest.Leaf{DNSNames: []string{"a"}})), tlsNotSPIFFE, "URIs"},
		"TLS 1.1 at most": {&tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10, InsecureSkipVerify: true}, tlsProtocol, "version"},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			if test.client.MaxVersion != 0 && version == tls.VersionTLS13 {
				continue
			}
			t.Run(name+" "+tls.VersionName(version), func(t *testing.T) {
				t.Parallel()
				s, log := newTLSServer(t, identitytest.NewSource(ca.Identity(t, idB)))
				config := test.client.Clone()
				if config.MaxVersion == 0 {
					config.MinVersion, config.MaxVersion = version, version
				}
				h := handshake(t, s, meshChain(), config)
				if h.err == nil || h.clientError == nil {
					t.Fatalf("accepted: %v, %v", h.err, h.clientError)
				}
				if got := counted(t, s, "meshbridge_capture_tls_refused_total", inboundTLS, string(test.want)); got != 1 {
					t.Errorf("metric for %s is %v; error %v", test.want, got, h.err)
				}
				for _, text := range []string{"TLS connection refused", "reason=" + string(test.want), test.text, "chain=i:9080:tls", "peer=127.0.0.1:"} {
					if !strings.Contains(log.String(), text) {
						t.Errorf("log has no %q:\n%s", text, log)
					}
				}
			})
		}
	}
}

func TestRotationLeavesConnectionsOpen(t *testing.T) {
	t.Parallel()
	ca := identitytest.NewCA(t, "mesh")
	source := identitytest.NewSource(ca.Identity(t, idB))
	s, _ := newTLSServer(t, source)
	client := envoyClient(ca.Issue(t, identitytest.Leaf{URIs: []string{idA}}), "h2")
	chain := meshChain()
	before := handshake(t, s, chain, client)
	if before.err != nil {
		t.Fatal(before.err)
	}
	source.Set(ca.Identity(t, idB))
	after := handshake(t, s, chain, client)
	if after.err != nil {
		t.Fatal(after.err)
	}
	first, second := before.client.ConnectionState().PeerCertificates[0], after.client.ConnectionState().PeerCertificates[0]
	if first.Equal(second) {
		t.Error("the connection after the rotation has the certificate from before")
	}
	if _, err := before.client.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(before.server, make([]byte, 1)); err != nil {
		t.Errorf("connection from before the rotation: %v", err)
	}
}

func TestSessionsAreResumedUntilTheAuthoritiesChange(t *testing.T) {
	t.Parallel()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			t.Parallel()
			ca, next := identitytest.NewCA(t, "mesh"), identitytest.NewCA(t, "next")
			source := identitytest.NewSource(ca.Identity(t, idB))
			s, _ := newTLSServer(t, source)
			client := envoyClient(ca.Issue(t, identitytest.Leaf{URIs: []string{idA}}), "http/1.1")
			client.MinVersion, client.MaxVersion = version, version
			client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
			chain := meshChain()
			for i, resumed := range []bool{false, true} {
				h := handshake(t, s, chain, client)
				if h.err != nil || h.client.ConnectionState().DidResume != resumed || h.who.principal != idA {
					t.Fatalf("handshake %d: %v, resumed %t, %+v", i, h.err, !resumed, h.who)
				}
			}
			source.Set(next.Identity(t, idB))
			h := handshake(t, s, chain, client)
			wantReason(t, h.err, tlsUnknownAuthority)
			source.Set(next.Identity(t, idB, ca))
			if h := handshake(t, s, chain, client); h.err != nil {
				t.Errorf("with both authorities: %v", h.err)
			}
		})
	}
}

func TestMissingCredentialsRefuseConnections(t *testing.T) {
	t.Parallel()
	ca := identitytest.NewCA(t, "mesh")
	client := envoyClient(ca.Issue(t, identitytest.Leaf{URIs: []string{idA}}))
	for name, test := range map[string]struct {
		source identity.Source
		change func(*translate.DownstreamTLS)
		text   string
	}{
		"no source of identity": {nil, func(*translate.DownstreamTLS) {}, "no certificate yet"},
		"no identity yet":       {identitytest.NewSource(nil), func(*translate.DownstreamTLS) {}, "no certificate yet"},
		"secret that has not arrived": {
			nil, func(d *translate.DownstreamTLS) { d.Credential = translate.Credential{Missing: "kubernetes://cert"} },
			"kubernetes://cert",
		},
		"file that is not there": {
			nil, func(d *translate.DownstreamTLS) {
				d.Credential = translate.Credential{CertificateFile: "/nowhere/cert.pem", KeyFile: "/nowhere/key.pem"}
			},
			"/nowhere/cert.pem",
		},
		"PEM that is none": {
			nil, func(d *translate.DownstreamTLS) {
				d.Credential = translate.Credential{Certificate: []byte("x"), Key: []byte("secret key")}
			},
			"certificate and key",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, log := newTLSServer(t, test.source)
			chain := meshChain()
			test.change(chain.TLS)
			h := handshake(t, s, chain, client)
			wantReason(t, h.err, tlsMissingCredential)
			if !strings.Contains(log.String(), test.text) || strings.Contains(log.String(), "secret key") {
				t.Errorf("log: %s", log)
			}
		})
	}
}

func TestServersOfGatewaysWithoutClientCertificates(t *testing.T) {
	t.Parallel()
	ca := identitytest.NewCA(t, "public")
	chainPEM, keyPEM := identitytest.PEM(t, ca.Issue(t, identitytest.Leaf{DNSNames: []string{"www.example.com"}}))
	client := &tls.Config{ServerName: "www.example.com", RootCAs: ca.Pool()}
	simple := &translate.FilterChain{Key: "https", TLS: &translate.DownstreamTLS{
		Credential: translate.Credential{Certificate: chainPEM, Key: keyPEM},
	}}
	optional := &translate.FilterChain{Key: "https", TLS: &translate.DownstreamTLS{
		Credential:  translate.Credential{Certificate: chainPEM, Key: keyPEM},
		Authorities: translate.Credential{Authorities: ca.RootPEM()},
	}}
	s, _ := newTLSServer(t, nil)
	for _, chain := range []*translate.FilterChain{simple, optional} {
		h := handshake(t, s, chain, client)
		if h.err != nil || h.clientError != nil {
			t.Fatal(h.err, h.clientError)
		}
		if diff := cmp.Diff(peer{}, h.who, cmp.AllowUnexported(peer{})); diff != "" {
			t.Error(diff)
		}
	}
	known := client.Clone()
	known.Certificates = []tls.Certificate{*ca.Issue(t, identitytest.Leaf{DNSNames: []string{"client"}})}
	if h := handshake(t, s, optional, known); h.err != nil || !h.who.mutualTLS || h.who.dnsNames[0] != "client" {
		t.Errorf("client with a certificate: %v, %+v", h.err, h.who)
	}
	unknown := client.Clone()
	unknown.Certificates = []tls.Certificate{*identitytest.NewCA(t, "other").Issue(t, identitytest.Leaf{DNSNames: []string{"client"}})}
	wantReason(t, handshake(t, s, optional, unknown).err, tlsUnknownAuthority)
	if h := handshake(t, s, simple, unknown); h.err != nil || h.who.mutualTLS {
		t.Errorf("certificate that nobody asks for: %v, %+v", h.err, h.who)
	}
}

func TestFilesOfCredentialsAreReadAgain(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	of := translate.Credential{
		CertificateFile: filepath.Join(directory, "cert.pem"),
		KeyFile:         filepath.Join(directory, "key.pem"),
	}
	write := func(path string, text []byte) {
		t.Helper()
		// As a new file, which is how they are replaced in the field.
		if err := os.WriteFile(path+".new", text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	ca := identitytest.NewCA(t, "authority")
	log := &lockedBuffer{}
	source := credentials{log: slog.New(slog.NewTextHandler(log, nil))}.certificate(of)
	if _, err := source(); err == nil {
		t.Error("there is a certificate before the files")
	}
	first, second := ca.Issue(t, identitytest.Leaf{}), ca.Issue(t, identitytest.Leaf{})
	want := func(want *tls.Certificate) {
		t.Helper()
		got, err := source()
		if err != nil || !got.Leaf.Equal(want.Leaf) {
			t.Fatalf("another certificate, or %v", err)
		}
		if again, _ := source(); again != got {
			t.Error("the same files are another certificate")
		}
	}
	chainPEM, keyPEM := identitytest.PEM(t, first)
	write(of.CertificateFile, chainPEM)
	write(of.KeyFile, keyPEM)
	want(first)
	chainPEM, keyPEM = identitytest.PEM(t, second)
	write(of.CertificateFile, chainPEM)
	want(first) // its key is still to come
	if !strings.Contains(log.String(), "last content stays") {
		t.Errorf("log: %s", log)
	}
	write(of.KeyFile, keyPEM)
	want(second)
	if err := os.Remove(of.KeyFile); err != nil {
		t.Fatal(err)
	}
	want(second)
}

func TestClientsThatSayNothingAreNotWaitedFor(t *testing.T) {
	t.Parallel()
	ca := identitytest.NewCA(t, "mesh")
	s, _ := newTLSServer(t, identitytest.NewSource(ca.Identity(t, idB)))
	chain := meshChain()
	chain.HandshakeTimeout = time.Nanosecond
	_, far := tcpPair(t)
	_, _, err := s.terminate(context.Background(), far, chain, inspected{})
	if !errors.Is(err, context.DeadlineExceeded) || reasonOf(err) != tlsTimeout {
		t.Errorf("got %v", err)
	}
	if got := counted(t, s, "meshbridge_capture_tls_refused_total", inboundTLS, string(tlsTimeout)); got != 1 {
		t.Errorf("metric is %v", got)
	}
}
