package capture

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"meshbridge/identity/identitytest"
	"meshbridge/translate"
)

// meshTLS is what Istio configures for the endpoints of b.
func meshTLS() *translate.UpstreamTLS {
	return &translate.UpstreamTLS{
		ServerName:  "outbound_.9080_._.b.default.svc.cluster.local",
		ALPN:        []string{"istio", "h2"},
		IstioALPN:   true,
		Credential:  translate.Credential{Workload: true},
		Authorities: translate.Credential{Workload: true},
		SANs:        []translate.SANMatch{exactly(idB)},
	}
}

// envoyServer is how Envoy accepts connections of the mesh at a PERMISSIVE or STRICT port.
func envoyServer(ca *identitytest.CA, certificate *tls.Certificate) *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{*certificate},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    ca.Pool(),
		NextProtos:   []string{"istio-h2", "h2", "istio-http/1.1", "http/1.1", "istio"},
	}
}

// originated is what came of a connection to a server of the test.
type originated struct {
	conn  net.Conn
	err   error
	state tls.ConnectionState // as the server saw it
	// serverErr is why the server has refused.
	serverErr error
}

func originate(t *testing.T, s *Server, how *translate.UpstreamTLS, o origination, config *tls.Config) originated {
	t.Helper()
	near, far := tcpPair(t)
	server := tls.Server(far, config)
	done := make(chan error, 1)
	go func() {
		err := server.Handshake()
		if err == nil {
			_, err = server.Write([]byte("!"))
		}
		done <- err
	}()
	var result originated
	if result.conn, result.err = s.originate(context.Background(), near, how, o); result.err == nil {
		// With TLS 1.3, the server's verdict and its session come with the first read.
		_, result.err = io.ReadFull(result.conn, make([]byte, 1))
	} else {
		far.Close()
	}
	result.serverErr = <-done
	result.state = server.ConnectionState()
	return result
}

func TestEndpointsOfTheMeshAcceptUs(t *testing.T) {
	t.Parallel()
	ca := identitytest.NewCA(t, "mesh")
	server := envoyServer(ca, ca.Issue(t, identitytest.Leaf{URIs: []string{idB}}))
	for name, test := range map[string]struct {
		speaks protocol
		want   string
	}{
		"HTTP/1.1": {speaksHTTP1, "istio-http/1.1"},
		"HTTP/2":   {speaksHTTP2, "istio-h2"},
		"TCP":      {speaksTCP, "h2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _ := newTLSServer(t, identitytest.NewSource(ca.Identity(t, idA)))
			got := originate(t, s, meshTLS(), origination{protocol: test.speaks}, server)
			if got.err != nil || got.serverErr != nil {
				t.Fatal(got.err, got.serverErr)
			}
			if got.state.NegotiatedProtocol != test.want || got.state.ServerName != meshTLS().ServerName {
				t.Errorf("protocol %q, server name %q", got.state.NegotiatedProtocol, got.state.ServerName)
			}
			if id := got.state.PeerCertificates[0].URIs[0].String(); id != idA {
				t.Errorf("we are %s", id)
			}
		})
	}
}

func TestProtocolsThatAreOffered(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		how    translate.UpstreamTLS
		speaks protocol
		want   []string
	}{
		"mesh, HTTP/1.1":  {translate.UpstreamTLS{IstioALPN: true, ALPN: []string{"istio"}}, speaksHTTP1, []string{"istio-http/1.1", "istio", "http/1.1"}},
		"mesh, HTTP/2":    {translate.UpstreamTLS{IstioALPN: true, ALPN: []string{"istio"}}, speaksHTTP2, []string{"istio-h2", "istio", "h2"}},
		"mesh, TCP":       {translate.UpstreamTLS{IstioALPN: true, ALPN: []string{"istio"}}, speaksTCP, []string{"istio"}},
		"other, HTTP/1.1": {translate.UpstreamTLS{ALPN: []string{"h2", "http/1.1"}}, speaksHTTP1, []string{"http/1.1"}},
		"other, HTTP/2":   {translate.UpstreamTLS{ALPN: []string{"h2", "http/1.1"}}, speaksHTTP2, []string{"h2"}},
		"other, TCP":      {translate.UpstreamTLS{ALPN: []string{"mqtt"}}, speaksTCP, []string{"mqtt"}},
		"none":            {translate.UpstreamTLS{}, speaksHTTP2, nil},
		"private":         {translate.UpstreamTLS{ALPN: []string{"x", "h2"}}, speaksHTTP1, []string{"x"}},
	} {
		if diff := cmp.Diff(test.want, offered(&test.how, test.speaks)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestImpostorsAreNotConnectedTo(t *testing.T) {
	t.Parallel()
	ca, other := identitytest.NewCA(t, "mesh"), identitytest.NewCA(t, "other")
	past := time.Now().Add(-time.Minute)
	for name, test := range map[string]struct {
		certificate *tls.Certificate
		want        tlsReason
	}{
		"another workload":     {ca.Issue(t, identitytest.Leaf{URIs: []string{"spiffe://cluster.local/ns/default/sa/c"}}), tlsName},
		"another trust domain": {ca.Issue(t, identitytest.Leaf{URIs: []string{"spiffe://evil/ns/default/sa/b"}}), tlsTrustDomain},
		"unknown authority":    {other.Issue(t, identitytest.Leaf{URIs: []string{idB}}), tlsUnknownAuthority},
		"expired":              {ca.Issue(t, identitytest.Leaf{URIs: []string{idB}, NotBefore: past.Add(-time.Hour), NotAfter: past}), tlsExpired},
		"no workload":          {ca.Issue(t, identitytest.Leaf{DNSNames: []string{"b.default.svc.cluster.local"}}), tlsNotSPIFFE},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, log := newTLSServer(t, identitytest.NewSource(ca.Identity(t, idA)))
			got := originate(t, s, meshTLS(), origination{cluster: "outbound|9080||b", endpoint: "10.0.0.2:9080", protocol: speaksHTTP1},
				envoyServer(ca, test.certificate))
			wantReason(t, got.err, test.want)
			if n := counted(t, s, "meshbridge_capture_tls_refused_total", outboundTLS, string(test.want)); n != 1 {
				t.Errorf("metric is %v", n)
			}
			for _, text := range []string{"cluster=outbound|9080||b", "endpoint=10.0.0.2:9080", "reason=" + string(test.want)} {
				if !strings.Contains(log.String(), text) {
					t.Errorf("log has no %q:\n%s", text, log)
				}
			}
		})
	}
}

func TestServersThatRefuseOurCertificateAreReported(t *testing.T) {
	t.Parallel()
	ca, other := identitytest.NewCA(t, "mesh"), identitytest.NewCA(t, "other")
	s, log := newTLSServer(t, identitytest.NewSource(ca.Identity(t, idA)))
	server := envoyServer(other, ca.Issue(t, identitytest.Leaf{URIs: []string{idB}}))
	got := originate(t, s, meshTLS(), origination{endpoint: "10.0.0.2:9080"}, server)
	if got.err == nil || got.serverErr == nil {
		t.Fatal("the server has accepted us")
	}
	if n := counted(t, s, "meshbridge_capture_tls_refused_total", outboundTLS, string(tlsRefusedByPeer)); n != 1 {
		t.Errorf("metric is %v", n)
	}
	if !strings.Contains(log.String(), "endpoint=10.0.0.2:9080") {
		t.Errorf("log: %s", log)
	}
}

func TestSessionsWithEndpoints(t *testing.T) {
	t.Parallel()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			t.Parallel()
			ca, next := identitytest.NewCA(t, "mesh"), identitytest.NewCA(t, "next")
			source := identitytest.NewSource(ca.Identity(t, idA))
			s, _ := newTLSServer(t, source)
			server := envoyServer(ca, ca.Issue(t, identitytest.Leaf{URIs: []string{idB}}))
			server.MinVersion, server.MaxVersion = version, version
			how := meshTLS()
			connect := func(what, endpoint string, resumed bool) {
				t.Helper()
				got := originate(t, s, how, origination{endpoint: endpoint}, server)
				if got.err != nil || got.state.DidResume != resumed {
					t.Fatalf("%s: resumed %t, %v", what, got.state.DidResume, got.err)
				}
			}
			connect("first", "a", false)
			connect("second", "a", true)
			connect("another endpoint", "b", false)
			source.Set(ca.Identity(t, idA))
			connect("after the rotation of our certificate", "a", false)
			connect("and again", "a", true)
			source.Set(next.Identity(t, idA))
			got := originate(t, s, how, origination{endpoint: "a"}, server)
			wantReason(t, got.err, tlsUnknownAuthority)
		})
	}
}

func TestSessionsEndBeforeTheirCertificates(t *testing.T) {
	t.Parallel()
	ca := identitytest.NewCA(t, "mesh")
	s, _ := newTLSServer(t, identitytest.NewSource(ca.Identity(t, idA)))
	server := envoyServer(ca, ca.Issue(t, identitytest.Leaf{URIs: []string{idB}, NotAfter: time.Now().Add(resumptionMargin / 2)}))
	how := meshTLS()
	for range 3 {
		if got := originate(t, s, how, origination{endpoint: "a"}, server); got.err != nil || got.state.DidResume {
			t.Fatalf("resumed %t, %v", got.state.DidResume, got.err)
		}
	}
}

func TestServersOutsideTheMesh(t *testing.T) {
	t.Parallel()
	ca, clients := identitytest.NewCA(t, "public"), identitytest.NewCA(t, "clients")
	certificate := ca.Issue(t, identitytest.Leaf{DNSNames: []string{"*.example.com"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}})
	key := sha256.Sum256(certificate.Leaf.RawSubjectPublicKeyInfo)
	plain := &tls.Config{Certificates: []tls.Certificate{*certificate}}
	mutual := plain.Clone()
	mutual.ClientAuth, mutual.ClientCAs = tls.RequireAndVerifyClientCert, clients.Pool()
	chainPEM, keyPEM := identitytest.PEM(t, clients.Issue(t, identitytest.Leaf{DNSNames: []string{"client"}}))
	authorities := translate.Credential{Authorities: ca.RootPEM()}
	for name, test := range map[string]struct {
		how        translate.UpstreamTLS
		host       string
		server     *tls.Config
		want       tlsReason
		serverName string
	}{
		"SIMPLE": {
			translate.UpstreamTLS{ServerName: "www.example.com", Authorities: authorities, SANs: []translate.SANMatch{exactly("www.example.com")}},
			"", plain, "", "www.example.com",
		},
		"another name": {
			translate.UpstreamTLS{ServerName: "www.example.com", Authorities: authorities, SANs: []translate.SANMatch{exactly("www.example.org")}},
			"", plain, tlsName, "www.example.com",
		},
		"another authority": {
			translate.UpstreamTLS{Authorities: translate.Credential{Authorities: clients.RootPEM()}},
			"", plain, tlsUnknownAuthority, "",
		},
		"authorities of the system": {translate.UpstreamTLS{SystemAuthorities: true}, "", plain, tlsUnknownAuthority, ""},
		"without verification":      {translate.UpstreamTLS{Insecure: true}, "", plain, "", ""},
		"name of the request": {
			translate.UpstreamTLS{ServerName: "fixed", AutoServerName: true, AutoSAN: true, Authorities: authorities},
			"a.example.com", plain, "", "a.example.com",
		},
		"name of the request that is not the server's": {
			translate.UpstreamTLS{AutoServerName: true, AutoSAN: true, Authorities: authorities},
			"a.example.org", plain, tlsName, "a.example.org",
		},
		"address of the request": {
			translate.UpstreamTLS{AutoServerName: true, AutoSAN: true, Authorities: authorities},
			"127.0.0.1", plain, "", "",
		},
		"name to verify that is missing": {
			translate.UpstreamTLS{AutoServerName: true, AutoSAN: true, Authorities: authorities},
			"", plain, tlsName, "",
		},
		"MUTUAL": {
			translate.UpstreamTLS{Authorities: authorities, Credential: translate.Credential{Certificate: chainPEM, Key: keyPEM}},
			"", mutual, "", "",
		},
		"pinned key":  {translate.UpstreamTLS{SPKIs: []string{base64.StdEncoding.EncodeToString(key[:])}}, "", plain, "", ""},
		"another pin": {translate.UpstreamTLS{SPKIs: []string{base64.StdEncoding.EncodeToString(make([]byte, 32))}}, "", plain, tlsPin, ""},
		"revoked": {
			translate.UpstreamTLS{Authorities: authorities, CRL: ca.RevocationList(t, certificate.Leaf)}, "", plain, tlsRevoked, "",
		},
		"TLS 1.2 only": {translate.UpstreamTLS{Insecure: true, MaxVersion: tls.VersionTLS12}, "", plain, "", ""},
		"missing authorities": {
			translate.UpstreamTLS{Authorities: translate.Credential{Missing: "kubernetes://ca"}}, "", plain, tlsMissingCredential, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _ := newTLSServer(t, nil)
			got := originate(t, s, &test.how, origination{host: test.host, protocol: speaksHTTP1}, test.server)
			wantReason(t, got.err, test.want)
			if got.state.ServerName != test.serverName {
				t.Errorf("server name %q", got.state.ServerName)
			}
			if most := test.how.MaxVersion; most != 0 && got.state.Version != most {
				t.Errorf("version %s", tls.VersionName(got.state.Version))
			}
		})
	}
}

func TestServersThatSayNothingAreNotWaitedFor(t *testing.T) {
	t.Parallel()
	s, _ := newTLSServer(t, nil)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, err = s.dialOriginal(context.Background(), addrPort(listener.Addr()), &translate.OriginalDestination{
		ConnectTimeout: 50 * time.Millisecond, TLS: &translate.UpstreamTLS{Insecure: true},
	})
	if err == nil || reasonOf(err) != tlsTimeout {
		t.Errorf("got %v", err)
	}
	if n := counted(t, s, "meshbridge_capture_tls_refused_total", outboundTLS, string(tlsTimeout)); n != 1 {
		t.Errorf("metric is %v", n)
	}
}
