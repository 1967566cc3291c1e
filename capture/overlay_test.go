package capture_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"meshbridge/capture"
	"meshbridge/identity/identitytest"
	"meshbridge/translate"
)

const (
	idA = "spiffe://cluster.local/ns/default/sa/a"
	idB = "spiffe://cluster.local/ns/default/sa/b"
)

// alias is the overlay address of the endpoint that a test uses.
var alias = netip.MustParseAddr("127.96.0.1")

// overlays counts the servers with an overlay: each has a loopback address of its own.
var overlays atomic.Uint32 //nolint:gochecknoglobals // addresses are the machine's

// startOverlay runs a server to whose listener "virtualoutbound" connections to the alias are redirected,
// as iptables does with those of APISIX.
func startOverlay(t *testing.T, config capture.Config, endpoints ...*translate.OverlayEndpoint) *fixture {
	t.Helper()
	n := overlays.Add(1)
	config.Overlay = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 95, byte(n >> 8), byte(n)}), 15011)
	f := start(t, config, virtual(translate.Outbound))
	f.sends(netip.AddrPortFrom(alias, 15011))
	f.SetOverlay(endpoints, nil)
	return f
}

// toAlias connects as APISIX does.
func (f *fixture) toAlias() *net.TCPConn {
	f.t.Helper()
	return f.dial("virtual" + string(translate.Outbound))
}

// aliasResets tells whether a connection to the alias is reset, which may be before it is known to be
// open.
func (f *fixture) aliasResets() bool {
	f.t.Helper()
	conn, err := net.Dial("tcp", f.Addr("virtual"+string(translate.Outbound)).String())
	if err != nil {
		return errors.Is(err, syscall.ECONNRESET)
	}
	defer conn.Close()
	return isReset(conn)
}

// get sends a request over a connection and returns the body of the response.
func get(t *testing.T, conn net.Conn, host string) string {
	t.Helper()
	request, err := http.NewRequest(http.MethodGet, "http://"+host+"/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if err := request.Write(conn); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// answer serves requests over HTTP/1.1 with a text.
func answer(text string) func(*bufio.Reader, *net.TCPConn) {
	return func(r *bufio.Reader, conn *net.TCPConn) {
		for {
			request, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, request.Body)
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: "+strconv.Itoa(len(text))+"\r\n\r\n"+text)
		}
	}
}

// inboundChain is a PERMISSIVE or STRICT chain of Istio's for HTTP.
func inboundChain() *translate.FilterChain {
	return &translate.FilterChain{
		Key: "i:9080:tls",
		Match: translate.ChainMatch{
			TransportProtocol:    "tls",
			ApplicationProtocols: []string{"istio", "istio-http/1.0", "istio-http/1.1", "istio-h2"},
		},
		TLS: &translate.DownstreamTLS{
			Credential:               translate.Credential{Workload: true},
			Authorities:              translate.Credential{Workload: true},
			RequireClientCertificate: true,
			SANs: []translate.SANMatch{{
				Match: func(name string) bool { return strings.HasPrefix(name, "spiffe://cluster.local/") },
				Text:  `prefix "spiffe://cluster.local/"`,
			}},
			ALPN:              []string{"h2", "http/1.1"},
			ForwardClientCert: true,
		},
		HTTP: new(translate.HTTPProxy),
	}
}

// meshUpstream is how Istio connects to b.
func meshUpstream() *translate.UpstreamTLS {
	return &translate.UpstreamTLS{
		ServerName:  "outbound_.9080_._.b.default.svc.cluster.local",
		ALPN:        []string{"istio", "h2"},
		IstioALPN:   true,
		Credential:  translate.Credential{Workload: true},
		Authorities: translate.Credential{Workload: true},
		SANs:        []translate.SANMatch{{Match: func(name string) bool { return name == idB }, Exact: idB, Text: `exact "` + idB + `"`}},
	}
}

// pair is two sidecars: connections to the alias of the first arrive at the second.
type pair struct {
	client, server *fixture
	clientID       *identitytest.Source
	serverID       *identitytest.Source
	apisix         *backend
}

func startPair(t *testing.T, ca *identitytest.CA, clientID, serverID string) *pair {
	t.Helper()
	p := &pair{
		clientID: identitytest.NewSource(ca.Identity(t, clientID)),
		serverID: identitytest.NewSource(ca.Identity(t, serverID)),
		apisix:   serve(t, true, answer("hello")),
	}
	inbound := virtual(translate.Inbound, inboundChain())
	inbound.TLSInspector = new(translate.Inspector)
	p.server = start(t, capture.Config{Identity: p.serverID, HTTP: p.apisix.addr}, inbound)
	p.server.sends(netip.MustParseAddrPort("10.0.0.2:9080"))
	p.server.dial(inbound.Name).Close()
	p.client = startOverlay(t, capture.Config{Identity: p.clientID}, &translate.OverlayEndpoint{
		Address: alias,
		Cluster: "outbound|9080||b.default.svc.cluster.local",
		Target:  p.server.Addr(inbound.Name).(*net.TCPAddr).AddrPort(),
		TLS:     meshUpstream(),
	})
	return p
}

func TestMutualTLSBetweenTwoSidecars(t *testing.T) {
	t.Parallel()
	ca := identitytest.NewCA(t, "mesh")
	p := startPair(t, ca, idA, idB)
	for _, resumed := range []string{"false", "true"} {
		conn := p.client.toAlias()
		for range 3 {
			if got := get(t, conn, "b:9080"); got != "hello" {
				t.Fatalf("got %q", got)
			}
		}
		header := <-p.apisix.headers
		forwarded := header.tlvs[0xe2]
		if !strings.HasPrefix(forwarded, "By="+idB+";Hash=") || !strings.HasSuffix(forwarded, `;Subject="";URI=`+idA) {
			t.Errorf("x-forwarded-client-cert is %q", forwarded)
		}
		delete(header.tlvs, 0xe2)
		if diff := cmp.Diff(map[byte]string{
			0xe0: "i:9080:tls", 0xe1: idA, 0xe3: "outbound_.9080_._.b.default.svc.cluster.local", 0xe4: "tls",
		}, header.tlvs); diff != "" {
			t.Error(diff)
		}
		p.client.awaitMetric(1, "tls_handshakes_total", "direction", "outbound", "resumed", resumed)
		p.server.awaitMetric(1, "tls_handshakes_total", "direction", "inbound", "resumed", resumed)
		conn.Close()
	}
}

func TestConnectionsBetweenSidecarsSurviveRotation(t *testing.T) {
	t.Parallel()
	ca, next := identitytest.NewCA(t, "mesh"), identitytest.NewCA(t, "next")
	p := startPair(t, ca, idA, idB)
	conn := p.client.toAlias()
	get(t, conn, "b")
	// As Istio does it: both authorities first, then certificates of the next.
	p.clientID.Set(ca.Identity(t, idA, next))
	p.serverID.Set(ca.Identity(t, idB, next))
	get(t, conn, "b")
	get(t, p.client.toAlias(), "b")
	p.clientID.Set(next.Identity(t, idA, ca))
	get(t, p.client.toAlias(), "b")
	p.serverID.Set(next.Identity(t, idB, ca))
	get(t, p.client.toAlias(), "b")
	get(t, conn, "b")
}

func TestEndpointsThatAreImpostorsResetConnections(t *testing.T) {
	t.Parallel()
	ca := identitytest.NewCA(t, "mesh")
	p := startPair(t, ca, idA, "spiffe://cluster.local/ns/default/sa/impostor")
	conn := p.client.toAlias()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: b\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if !isReset(conn) {
		t.Error("the connection is not reset: APISIX would not try the next node")
	}
	p.client.awaitMetric(1, "tls_refused_total", "direction", "outbound", "reason", "name")
	p.client.awaitMetric(1, "overlay_failed_total", "reason", "tls")
	p.server.awaitMetric(1, "tls_refused_total", "direction", "inbound", "reason", "refused_by_peer")
}

func TestStrangersAreRefusedByAnotherSidecar(t *testing.T) {
	t.Parallel()
	ca := identitytest.NewCA(t, "mesh")
	p := startPair(t, ca, "spiffe://evil/ns/default/sa/a", idB)
	conn := p.client.toAlias()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: b\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if !isReset(conn) {
		t.Error("the connection is not reset")
	}
	p.server.awaitMetric(1, "tls_refused_total", "direction", "inbound", "reason", "trust_domain")
	p.client.awaitMetric(1, "tls_refused_total", "direction", "outbound", "reason", "refused_by_peer")
	select {
	case <-p.apisix.headers:
		t.Error("a stranger's connection has come to APISIX")
	default:
	}
}

func TestOverlayOfPlainEndpoints(t *testing.T) {
	t.Parallel()
	plain := serve(t, false, func(_ *bufio.Reader, conn *net.TCPConn) { _, _ = io.WriteString(conn, "plain") })
	lines := serve(t, false, func(r *bufio.Reader, conn *net.TCPConn) {
		line, _ := r.ReadString('\n')
		_, _ = io.WriteString(conn, line)
	})
	headers := serve(t, true, func(*bufio.Reader, *net.TCPConn) {})
	socket := filepath.Join(t.TempDir(), "endpoint")
	unix, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close()
	go func() {
		if conn, err := unix.Accept(); err == nil {
			_, _ = io.WriteString(conn, "unix")
			conn.Close()
		}
	}()
	f := startOverlay(t, capture.Config{})
	serves := func(endpoint *translate.OverlayEndpoint) string {
		t.Helper()
		endpoint.Address = alias
		f.SetOverlay([]*translate.OverlayEndpoint{endpoint}, nil)
		text, err := io.ReadAll(f.toAlias())
		if err != nil {
			t.Error(err)
		}
		return string(text)
	}
	if got := serves(&translate.OverlayEndpoint{TCP: true, Target: plain.addr}); got != "plain" {
		t.Errorf("server that speaks first: %q", got)
	}
	if got := serves(&translate.OverlayEndpoint{Target: plain.addr}); got != "plain" {
		t.Errorf("endpoint without TLS: %q", got)
	}
	if got := serves(&translate.OverlayEndpoint{TCP: true, Name: "localhost:" + strconv.Itoa(int(plain.addr.Port()))}); got != "plain" {
		t.Errorf("name: %q", got)
	}
	if got := serves(&translate.OverlayEndpoint{TCP: true, Path: socket}); got != "unix" {
		t.Errorf("Unix domain socket: %q", got)
	}
	got := serves(&translate.OverlayEndpoint{TCP: true, Target: lines.addr, ProxyProtocol: 1, Source: netip.MustParseAddr("127.0.0.6")})
	if !strings.HasPrefix(got, "PROXY TCP4 127.0.0.6 127.0.0.1 ") || !strings.HasSuffix(got, " "+strconv.Itoa(int(lines.addr.Port()))+"\r\n") {
		t.Errorf("PROXY protocol, version 1: %q", got)
	}
	serves(&translate.OverlayEndpoint{TCP: true, Target: headers.addr, ProxyProtocol: 2})
	if header := <-headers.headers; header.destination != headers.addr || !header.source.Addr().IsLoopback() {
		t.Errorf("PROXY protocol, version 2: %+v", header)
	}
}

func TestOverlayConnectionsThatFailAreReset(t *testing.T) {
	t.Parallel()
	gone := serve(t, false, echo)
	gone.Close()
	f := startOverlay(t, capture.Config{}, &translate.OverlayEndpoint{Address: alias, TCP: true, Target: gone.addr, Cluster: "outbound|80||gone"})
	eventually(t, func() bool { return f.Addr("virtual"+string(translate.Outbound)) != nil })
	if !f.aliasResets() {
		t.Error("endpoint that is down: no reset")
	}
	f.awaitMetric(1, "overlay_failed_total", "reason", "connect")
	if f.log.count("cluster=outbound|80||gone") == 0 {
		t.Error("the log does not name the cluster")
	}
	f.SetOverlay(nil, []netip.Addr{alias})
	if !f.aliasResets() {
		t.Error("address that nothing has: no reset")
	}
	f.awaitMetric(1, "overlay_failed_total", "reason", "unknown_address")
	f.SetOverlay([]*translate.OverlayEndpoint{{Address: alias, Target: gone.addr, TLS: &translate.UpstreamTLS{Insecure: true, AutoServerName: true}}}, nil)
	conn := f.toAlias()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if !isReset(conn) {
		t.Error("request without host: no reset")
	}
	f.awaitMetric(1, "overlay_failed_total", "reason", "request")
	// A health check by APISIX connects and closes.
	f.toAlias().Close()
	eventually(t, func() bool { return f.Connections() == 0 })
	if got := f.metric("overlay_failed_total"); got != 3 {
		t.Errorf("%v failures are counted", got)
	}
}

func TestServerNameOfTheFirstRequest(t *testing.T) {
	t.Parallel()
	ca := identitytest.NewCA(t, "public")
	names := make(chan string, 1)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{*ca.Issue(t, identitytest.Leaf{DNSNames: []string{"*.example.com"}})},
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			names <- hello.ServerName
			return nil, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Host) })}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	f := startOverlay(t, capture.Config{}, &translate.OverlayEndpoint{
		Address: alias,
		Target:  listener.Addr().(*net.TCPAddr).AddrPort(),
		TLS: &translate.UpstreamTLS{
			AutoServerName: true, AutoSAN: true, ALPN: []string{"h2", "http/1.1"},
			Authorities: translate.Credential{Authorities: ca.RootPEM()},
		},
	})
	if got := get(t, f.toAlias(), "www.example.com:8443"); got != "www.example.com:8443" {
		t.Errorf("host is %q", got)
	}
	if got := <-names; got != "www.example.com" {
		t.Errorf("server name is %q", got)
	}
}

func TestHTTP2OfAPISIXStaysHTTP2OverTLS(t *testing.T) {
	t.Parallel()
	ca := identitytest.NewCA(t, "public")
	to := listen(t, &tls.Config{Certificates: []tls.Certificate{*ca.Issue(t, identitytest.Leaf{DNSNames: []string{"grpc.example.com"}})}},
		func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Seen", r.Proto+" "+r.TLS.NegotiatedProtocol+" "+r.TLS.ServerName)
		})
	f := startOverlay(t, capture.Config{}, &translate.OverlayEndpoint{Address: alias, Target: to, TLS: &translate.UpstreamTLS{
		AutoServerName: true, AutoSAN: true, ALPN: []string{"h2", "http/1.1"},
		Authorities: translate.Credential{Authorities: ca.RootPEM()},
	}})
	var unencrypted http.Protocols
	unencrypted.SetUnencryptedHTTP2(true)
	for protocols, want := range map[*http.Protocols]string{
		&unencrypted: "HTTP/2.0 h2 grpc.example.com",
		nil:          "HTTP/1.1 http/1.1 grpc.example.com",
	} {
		response, err := f.apisix(protocols).Do(request(t, http.MethodPost, "http://grpc.example.com:50051/", strings.NewReader("x")))
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if got := response.Header.Get("X-Seen"); got != want {
			t.Errorf("server has seen %q, want %q", got, want)
		}
	}
}
