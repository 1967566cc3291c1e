package capture_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"meshbridge/capture"
	"meshbridge/identity/identitytest"
	"meshbridge/translate"
)

// listen serves HTTP, plain or over TLS, and returns where.
func listen(t *testing.T, config *tls.Config, handler http.HandlerFunc) netip.AddrPort {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().(*net.TCPAddr).AddrPort()
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: handler, Protocols: &protocols, TLSConfig: config}
	serve := server.Serve
	if config != nil {
		serve = func(l net.Listener) error { return server.ServeTLS(l, "", "") }
	}
	done := make(chan error, 1)
	go func() { done <- serve(listener) }()
	t.Cleanup(func() {
		server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return address
}

// forwards starts a server whose alias forwards requests to their original destination.
func forwards(t *testing.T, config capture.Config, how *translate.UpstreamTLS) *fixture {
	t.Helper()
	return startOverlay(t, config, &translate.OverlayEndpoint{
		Address: alias, Cluster: "PassthroughCluster", OriginalDestination: true, TLS: how,
	})
}

// apisix is an HTTP client whose connections all go to the alias.
func (f *fixture) apisix(protocols *http.Protocols) *http.Client {
	f.t.Helper()
	transport := &http.Transport{
		Protocols:          protocols,
		DisableCompression: true,
		DialContext:        func(context.Context, string, string) (net.Conn, error) { return f.toAlias(), nil },
	}
	f.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
}

func request(t *testing.T, method, url string, body io.Reader, header ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return r
}

func TestRequestsGoToTheirOriginalDestination(t *testing.T) {
	t.Parallel()
	f := forwards(t, capture.Config{}, nil)
	client := f.apisix(nil)
	for _, name := range []string{"one", "two"} {
		to := listen(t, nil, func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%s for %s", name, r.Host) })
		for range 3 {
			response, err := client.Do(request(t, http.MethodGet, "http://headless:80/", nil, translate.OriginalDestinationHeader, to.String()))
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(response.Body)
			response.Body.Close()
			if got, want := string(body), name+" for headless:80"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
	}
}

func TestRequestsAreForwardedAsTheyAre(t *testing.T) {
	t.Parallel()
	to := serve(t, false, func(r *bufio.Reader, conn *net.TCPConn) {
		var b strings.Builder
		reader := textproto.NewReader(r)
		line, _ := reader.ReadLine()
		header, _ := reader.ReadMIMEHeader()
		var names []string
		for name, values := range header {
			names = append(names, name+": "+strings.Join(values, "|"))
		}
		slices.Sort(names)
		fmt.Fprintf(&b, "%s\n%s", line, strings.Join(names, "\n"))
		fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nX-Answer: yes\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", b.Len(), b.String())
	})
	f := forwards(t, capture.Config{}, nil)
	for _, target := range []string{"/", "//a//b%2Fc?x=1;y=%zz&z", "/a|b/%41?", "/a/../b"} {
		conn := f.toAlias()
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: h:80\r\nX-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: https\r\nForwarded: for=x\r\n"+
			"Proxy-Authorization: x\r\nX-Two: a\r\nX-Two: b\r\nTE: trailers\r\nConnection: X-Hop\r\nX-Hop: gone\r\n%s: %s\r\n\r\n",
			target, translate.OriginalDestinationHeader, to.addr)
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		want := "GET " + target + " HTTP/1.1\n" + strings.Join([]string{
			"Forwarded: for=x", "Host: h:80", "Proxy-Authorization: x", "Te: trailers",
			"X-Forwarded-For: 10.0.0.1", "X-Forwarded-Proto: https", "X-Two: a|b",
		}, "\n")
		if diff := cmp.Diff(want, string(body)); diff != "" {
			t.Errorf("%s: %s", target, diff)
		}
		if diff := cmp.Diff(http.Header{"X-Answer": {"yes"}, "Content-Length": {strconv.Itoa(len(body))}}, response.Header); diff != "" {
			t.Errorf("response has another header: %s", diff)
		}
	}
}

func TestBodiesAndTrailersAreStreamed(t *testing.T) {
	t.Parallel()
	var unencrypted http.Protocols
	unencrypted.SetUnencryptedHTTP2(true)
	for name, test := range map[string]struct {
		protocols   *http.Protocols
		contentType string
		want        string
	}{
		"HTTP/1.1":        {nil, "text/plain", "HTTP/1.1"},
		"gRPC":            {&unencrypted, "application/grpc+proto", "HTTP/2.0"},
		"HTTP/2, no gRPC": {&unencrypted, "application/grpc-web", "HTTP/1.1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			to := listen(t, nil, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-Protocol", r.Proto)
				w.Header().Set("Trailer", "Grpc-Status")
				w.WriteHeader(http.StatusOK)
				_ = http.NewResponseController(w).EnableFullDuplex()
				_ = http.NewResponseController(w).Flush()
				buffer := make([]byte, 5)
				for {
					n, err := r.Body.Read(buffer)
					_, _ = w.Write(buffer[:n])
					_ = http.NewResponseController(w).Flush()
					if err != nil {
						break
					}
				}
				w.Header().Set("Grpc-Status", "7")
				w.Header().Set(http.TrailerPrefix+"X-Checksum", r.Trailer.Get("X-Checksum"))
			})
			f := forwards(t, capture.Config{}, nil)
			body, write := io.Pipe()
			r := request(t, http.MethodPost, "http://headless/echo", body, translate.OriginalDestinationHeader, to.String(), "Content-Type", test.contentType)
			r.Trailer = http.Header{"X-Checksum": {"42"}}
			response, err := f.apisix(test.protocols).Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			if got := response.Header.Get("X-Protocol"); got != test.want {
				t.Errorf("server is spoken to over %s, want %s", got, test.want)
			}
			for _, text := range []string{"hello", "world"} {
				// The answer comes before the request has ended.
				if _, err := io.WriteString(write, text); err != nil {
					t.Fatal(err)
				}
				got := make([]byte, len(text))
				if _, err := io.ReadFull(response.Body, got); err != nil || string(got) != text {
					t.Fatalf("got %q, %v", got, err)
				}
			}
			write.Close()
			if rest, err := io.ReadAll(response.Body); err != nil || len(rest) > 0 {
				t.Errorf("then %q, %v", rest, err)
			}
			if diff := cmp.Diff(http.Header{"Grpc-Status": {"7"}, "X-Checksum": {"42"}}, response.Trailer); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestUpgradesAreForwarded(t *testing.T) {
	t.Parallel()
	to := serve(t, false, func(r *bufio.Reader, conn *net.TCPConn) {
		request, err := http.ReadRequest(r)
		if err != nil || request.Header.Get("Upgrade") != "websocket" || request.Header.Get("Connection") != "Upgrade" {
			t.Errorf("request: %v, %v", request, err)
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
		echo(r, conn)
	})
	f := forwards(t, capture.Config{}, nil)
	conn := f.toAlias()
	fmt.Fprintf(conn, "GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n%s: %s\r\n\r\n", translate.OriginalDestinationHeader, to.addr)
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(response, err)
	}
	response.Body.Close()
	exchange(t, struct {
		io.Reader
		io.Writer
	}{reader, conn}, "frames")
}

func TestExpectationsAreTheServersToMeet(t *testing.T) {
	t.Parallel()
	to := listen(t, nil, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(http.StatusExpectationFailed)
			return
		}
		_, _ = io.Copy(w, r.Body)
	})
	f := forwards(t, capture.Config{}, nil)
	for _, test := range []struct {
		path  string
		first int
	}{{"/no", http.StatusExpectationFailed}, {"/yes", http.StatusContinue}} {
		conn := f.toAlias()
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n%s: %s\r\n\r\n",
			test.path, translate.OriginalDestinationHeader, to)
		reader := bufio.NewReader(conn)
		response, err := http.ReadResponse(reader, nil)
		if err != nil || response.StatusCode != test.first {
			t.Fatalf("%s: %v, %v", test.path, response, err)
		}
		response.Body.Close()
		if test.first != http.StatusContinue {
			continue
		}
		_, _ = io.WriteString(conn, "hi")
		if response, err = http.ReadResponse(reader, nil); err != nil || response.StatusCode != http.StatusOK {
			t.Fatal(response, err)
		}
		if body, _ := io.ReadAll(response.Body); string(body) != "hi" {
			t.Errorf("got %q", body)
		}
		response.Body.Close()
	}
}

func TestRequestsWithoutDestination(t *testing.T) {
	t.Parallel()
	gone := serve(t, false, echo)
	gone.Close()
	apisix := serve(t, false, echo)
	f := forwards(t, capture.Config{HTTP: apisix.addr, Reserved: []translate.PortRange{{First: 1, Last: 9}}}, nil)
	client := f.apisix(nil)
	for name, test := range map[string]struct {
		values []string
		status int
		text   string
	}{
		"no header":               {nil, 502, "0 headers"},
		"two headers":             {[]string{gone.addr.String(), gone.addr.String()}, 502, "2 headers"},
		"empty":                   {[]string{":"}, 502, "no address"},
		"name":                    {[]string{"localhost:80"}, 502, "no address"},
		"no port":                 {[]string{"10.0.0.1"}, 502, "no port"},
		"port 0":                  {[]string{"10.0.0.1:0"}, 502, "no port"},
		"nobody there":            {[]string{gone.addr.String()}, 503, "cannot connect"},
		"APISIX's own port":       {[]string{apisix.addr.String()}, 502, "of the bridge or of APISIX"},
		"APISIX's own port, IPv6": {[]string{"::ffff:127.0.0.1:" + strconv.Itoa(int(apisix.addr.Port()))}, 502, "of the bridge or of APISIX"},
	} {
		r := request(t, http.MethodGet, "http://h/", nil)
		for _, value := range test.values {
			r.Header.Add(translate.OriginalDestinationHeader, value)
		}
		response, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != test.status || !strings.Contains(string(body), test.text) {
			t.Errorf("%s: %d, %q", name, response.StatusCode, body)
		}
	}
	if got := f.metric("overlay_failed_total", "reason", "destination"); got != 8 {
		t.Errorf("%v requests without destination are counted", got)
	}
}

func TestRequestsToWhereTheirHostIs(t *testing.T) {
	t.Parallel()
	to := listen(t, nil, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Host) })
	f := startOverlay(t, capture.Config{}, &translate.OverlayEndpoint{Address: alias, Dynamic: true, DynamicPort: to.Port()})
	client := f.apisix(nil)
	for host, status := range map[string]int{
		"localhost": 200,
		"LOCALHOST:" + strconv.Itoa(int(to.Port())): 200,
		"127.0.0.1":            200,
		"localhost:1":          503,
		"no-such-name.invalid": 503,
		"bad_name*":            502,
		"[::1]:" + strconv.Itoa(int(to.Port())) + "x": 502,
	} {
		r := request(t, http.MethodGet, "http://h/", nil)
		r.Host = host
		response, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != status || status == 200 && string(body) != host {
			t.Errorf("%s: %d, %q", host, response.StatusCode, body)
		}
	}
}

func TestRequestsToOriginalDestinationsWithTLS(t *testing.T) {
	t.Parallel()
	ca := identitytest.NewCA(t, "mesh")
	to := listen(t, &tls.Config{
		Certificates: []tls.Certificate{*ca.Issue(t, identitytest.Leaf{URIs: []string{idB}})},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    ca.Pool(),
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if slices.Contains(hello.SupportedProtos, "istio-h2") || !slices.Contains(hello.SupportedProtos, "istio-http/1.1") {
				t.Errorf("offered are %q", hello.SupportedProtos)
			}
			return nil, nil
		},
	}, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.TLS.PeerCertificates[0].URIs[0].String())
	})
	f := forwards(t, capture.Config{Identity: identitytest.NewSource(ca.Identity(t, idA))}, meshUpstream())
	client := f.apisix(nil)
	response, err := client.Do(request(t, http.MethodGet, "http://b/", nil, translate.OriginalDestinationHeader, to.String()))
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(response.Body)
	response.Body.Close()
	if string(body) != idA {
		t.Errorf("the server knows us as %q", body)
	}
	f.SetOverlay(nil, []netip.Addr{alias})
	response, err = client.Do(request(t, http.MethodGet, "http://b/", nil, translate.OriginalDestinationHeader, to.String()))
	if err != nil {
		t.Fatalf("connection from before its endpoint was removed: %v", err)
	}
	response.Body.Close()
}
