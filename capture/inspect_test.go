package capture_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"meshbridge/capture"
	"meshbridge/translate"
)

// clientHelloBytes returns what a TLS client sends first.
func clientHelloBytes(tb testing.TB, name string, protocols ...string) []byte {
	tb.Helper()
	client, server := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = tls.Client(client, &tls.Config{ServerName: name, NextProtos: protocols}).HandshakeContext(context.Background())
	}()
	b := make([]byte, 1<<16)
	n, err := server.Read(b)
	if err != nil {
		tb.Fatal(err)
	}
	_, _ = server.Close(), client.Close()
	<-done
	return b[:n]
}

// inspecting is a listener with Istio's inspectors, and a chain for each protocol.
func inspecting(timeout time.Duration) *translate.Listener {
	l := bound("inspecting",
		&translate.FilterChain{Key: "sni", Match: translate.ChainMatch{TransportProtocol: "tls", ServerNames: []string{"*.example"}}, HTTP: new(translate.HTTPProxy)},
		&translate.FilterChain{Key: "istio", Match: translate.ChainMatch{TransportProtocol: "tls", ApplicationProtocols: []string{"istio"}}, HTTP: new(translate.HTTPProxy)},
		&translate.FilterChain{Key: "tls", Match: translate.ChainMatch{TransportProtocol: "tls"}, HTTP: new(translate.HTTPProxy)},
		&translate.FilterChain{Key: "http", Match: translate.ChainMatch{TransportProtocol: "raw_buffer", ApplicationProtocols: []string{"http/1.1", "h2c"}}, HTTP: new(translate.HTTPProxy)},
		&translate.FilterChain{Key: "raw", Match: translate.ChainMatch{TransportProtocol: "raw_buffer"}, HTTP: new(translate.HTTPProxy)},
	)
	l.TLSInspector, l.HTTPInspector = new(translate.Inspector), new(translate.Inspector)
	l.InspectionTimeout = timeout
	return l
}

func TestTheFirstBytesChooseTheChain(t *testing.T) {
	apisix := serve(t, true, echo)
	f := start(t, capture.Config{HTTP: apisix.addr}, inspecting(time.Minute))
	for _, test := range []struct{ name, first, want string }{
		{"HTTP/1.1", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "http"},
		{"HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", "raw"},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "http"},
		{"another protocol", "*1\r\n$4\r\nPING\r\n", "raw"},
		{"a byte that is neither", "\x00", "raw"},
		{"TLS", string(clientHelloBytes(t, "a.b", "h2")), "tls"},
		{"TLS by name", string(clientHelloBytes(t, "a.example", "h2")), "sni"},
		{"TLS by protocol", string(clientHelloBytes(t, "a.b", "http/1.1", "istio")), "istio"},
		{"a damaged ClientHello", "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", "raw"},
		{"a long request line", "GET /" + strings.Repeat("x", 60000) + " HTTP/1.1\r\n\r\n", "http"},
		{"a request line without end", "GET /" + strings.Repeat("x", 100000), "raw"},
	} {
		for _, pieces := range []int{1, 7} {
			conn := f.dial("inspecting")
			go func() { // in pieces, so that the first does not decide
				size := max(len(test.first)/pieces, 1)
				for b := []byte(test.first); len(b) > 0; {
					n := min(size, len(b))
					if _, err := conn.Write(b[:n]); err != nil {
						return
					}
					b = b[n:]
				}
			}()
			got := make([]byte, len(test.first))
			if _, err := io.ReadFull(conn, got); err != nil || string(got) != test.first {
				t.Fatalf("%s: the bytes are not what was sent: %v", test.name, err)
			}
			if chain := (<-apisix.headers).tlvs[0xe0]; chain != test.want {
				t.Errorf("%s in %d pieces: chain %s, want %s", test.name, pieces, chain, test.want)
			}
			_ = conn.Close()
		}
	}
}

func TestServersThatSpeakFirstAreNotWaitedFor(t *testing.T) {
	greeting := serve(t, true, func(r *bufio.Reader, conn *net.TCPConn) {
		_, _ = io.WriteString(conn, "220 ready")
		echo(r, conn)
	})
	t.Run("where no inspector looks", func(t *testing.T) {
		f := start(t, capture.Config{}, bound("plain", toPort("plain", greeting)))
		readGreeting(t, f.dial("plain"))
	})
	t.Run("where the inspectors leave the port out", func(t *testing.T) {
		l := virtual(translate.Outbound, toPort("mysql", greeting))
		l.TLSInspector = &translate.Inspector{Disabled: []translate.PortRange{{First: 1, Last: 2}, {First: 3306, Last: 3306}}}
		l.HTTPInspector = l.TLSInspector
		f := start(t, capture.Config{}, l)
		f.sends(netip.MustParseAddrPort("10.0.0.1:3306"))
		readGreeting(t, f.dial("virtualoutbound"))
		f.sends(netip.MustParseAddrPort("10.0.0.1:3307"))
		conn := f.dial("virtualoutbound")
		_, _ = io.WriteString(conn, "x") // decides
		readGreeting(t, conn)
	})
	t.Run("after the timeout, if it may go on then", func(t *testing.T) {
		l := bound("patient", toPort("patient", greeting))
		l.TLSInspector, l.InspectionTimeout, l.ContinueOnTimeout = new(translate.Inspector), 20*time.Millisecond, true
		f := start(t, capture.Config{}, l)
		conn := f.dial("patient")
		readGreeting(t, conn)
		exchange(t, conn, "after") // the deadline is gone
	})
}

func readGreeting(t *testing.T, conn net.Conn) {
	t.Helper()
	got := make([]byte, len("220 ready"))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "220 ready" {
		t.Fatalf("%q, %v", got, err)
	}
}

func TestClientsThatSayNothingAreRefusedAfterTheTimeout(t *testing.T) {
	f := start(t, capture.Config{}, inspecting(20*time.Millisecond))
	if !f.refuses("inspecting") {
		t.Error("the client sees no reset")
	}
	f.awaitMetric(1, "refused_total", "reason", "timeout")
	// One that only looks whether somebody is there is no fault.
	g := start(t, capture.Config{}, inspecting(time.Minute))
	_ = g.dial("inspecting").Close()
	g.awaitMetric(1, "connections_ended_total", "outcome", "closed")
	if n := g.metric("refused_total"); n != 0 {
		t.Errorf("%v are refused", n)
	}
}

func TestAClientThatEndsBeforeItIsUnderstoodIsServed(t *testing.T) {
	apisix := serve(t, true, echo)
	f := start(t, capture.Config{HTTP: apisix.addr}, inspecting(time.Minute))
	conn := f.dial("inspecting")
	_, _ = io.WriteString(conn, "PUT")
	_ = conn.CloseWrite()
	if got, err := io.ReadAll(conn); err != nil || string(got) != "PUT" {
		t.Errorf("%q, %v", got, err)
	}
	if chain := (<-apisix.headers).tlvs[0xe0]; chain != "raw" {
		t.Errorf("chain %s", chain)
	}
}

func TestPROXYProtocolHeadersAreReadWhereTheListenerSaysSo(t *testing.T) {
	apisix := serve(t, true, echo)
	l := bound("behind", toHTTP("any"))
	l.Chains = []*translate.FilterChain{
		{Key: "443", Match: translate.ChainMatch{DestinationPort: 443}, HTTP: new(translate.HTTPProxy)},
		{Key: "lan", Match: translate.ChainMatch{Sources: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, DirectSources: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}, HTTP: new(translate.HTTPProxy)},
	}
	l.DefaultChain = toHTTP("default")
	l.ProxyProtocol, l.InspectionTimeout = true, time.Minute
	optional := *l
	optional.Name, optional.ProxyProtocolOptional, optional.Addresses = "optional", true, []netip.Addr{netip.MustParseAddr("127.0.0.2")}
	plain := bound("not behind", toHTTP("forged"))
	plain.Addresses = []netip.Addr{netip.MustParseAddr("127.0.0.3")}
	f := start(t, capture.Config{HTTP: apisix.addr}, l, &optional, plain)

	for _, test := range []struct{ listener, header, chain, source string }{
		{"behind", "PROXY TCP4 192.0.2.7 198.51.100.1 1000 80\r\n", "lan", "192.0.2.7:1000"},
		{"behind", "PROXY TCP4 192.0.2.7 198.51.100.1 1000 443\r\n", "443", "192.0.2.7:1000"},
		{"behind", "PROXY TCP6 2001:db8::7 2001:db8::1 1000 80\r\n", "default", "[2001:db8::7]:1000"},
		{"behind", "PROXY UNKNOWN\r\n", "default", ""},
		{"behind", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0f\xc0\x00\x02\x09\x0a\x00\x00\x01\x00\x09\x00\x50\x04\x00\x00", "lan", "192.0.2.9:9"},
		{"optional", "PROXY TCP4 192.0.2.7 198.51.100.1 1000 80\r\n", "lan", "192.0.2.7:1000"},
		{"optional", "", "default", ""},
	} {
		conn := f.dial(test.listener)
		_, _ = io.WriteString(conn, test.header)
		exchange(t, conn, "hello")
		header := <-apisix.headers
		if test.source == "" {
			test.source = conn.LocalAddr().String()
		}
		if header.tlvs[0xe0] != test.chain || header.source.String() != test.source {
			t.Errorf("%s with %q: chain %s from %s, want %s from %s", test.listener, test.header, header.tlvs[0xe0], header.source, test.chain, test.source)
		}
	}
	for _, first := range []string{"GET / HTTP/1.1\r\n", "PROXY TCP4 x\r\n", "\r\n\r\n\x00\r\nQUIT\n\x31\x11\x00\x00"} {
		conn := f.dial("behind")
		_, _ = io.WriteString(conn, first)
		if !isReset(conn) {
			t.Errorf("%q is not refused", first)
		}
	}
	f.awaitMetric(3, "refused_total", "reason", "proxy_header")

	// Elsewhere, a header is what the client says, and no more than bytes.
	conn := f.dial("not behind")
	exchange(t, conn, "PROXY TCP4 192.0.2.7 198.51.100.1 1000 80\r\n")
	if header := <-apisix.headers; header.source.String() != conn.LocalAddr().String() {
		t.Errorf("a forged header made the source %s", header.source)
	}
}
