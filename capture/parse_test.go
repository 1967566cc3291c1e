package capture

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// clientHello returns what crypto/tls sends first.
func clientHello(tb testing.TB, config *tls.Config) []byte {
	tb.Helper()
	client, server := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = tls.Client(client, config).HandshakeContext(context.Background())
	}()
	header := make([]byte, recordHeaderLength)
	if _, err := io.ReadFull(server, header); err != nil {
		tb.Fatal(err)
	}
	body := make([]byte, binary.BigEndian.Uint16(header[3:]))
	if _, err := io.ReadFull(server, body); err != nil {
		tb.Fatal(err)
	}
	_, _ = server.Close(), client.Close()
	<-done
	return append(header, body...)
}

// inRecords cuts a record into several of at most size bytes.
func inRecords(record []byte, size int) []byte {
	var b []byte
	for body := range slices.Chunk(record[recordHeaderLength:], size) {
		b = append(b, record[:3]...)
		b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
		b = append(b, body...)
	}
	return b
}

func TestClientHelloTellsServerNameAndProtocols(t *testing.T) {
	hello := clientHello(t, &tls.Config{ServerName: "Reviews.Default.svc", NextProtos: []string{"istio-http/1.1", "istio", "http/1.1"}})
	want := inspected{transport: "tls", serverName: "reviews.default.svc", protocols: []string{"istio-http/1.1", "istio", "http/1.1"}}
	for _, size := range []int{2, 5, 100, 1 << 14} {
		b := inRecords(hello, size)
		for n := range b {
			var got inspected
			if v := readClientHello(b[:n], &got); v != undecided {
				t.Fatalf("records of %d: %d of %d bytes are decided: %d", size, n, len(b), v)
			}
		}
		var got inspected
		if v := readClientHello(append(b, "more"...), &got); v != yes {
			t.Fatalf("records of %d: not recognised", size)
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(inspected{})); diff != "" {
			t.Errorf("records of %d (-want +got):\n%s", size, diff)
		}
	}
	var got inspected
	bare := clientHello(t, &tls.Config{InsecureSkipVerify: true})
	if v := readClientHello(bare, &got); v != yes || got.serverName != "" || got.protocols != nil {
		t.Errorf("without extensions: %d, %+v", v, got)
	}
}

// greasedHello returns a ClientHello with GREASE (RFC 8701): values of lists that nobody knows.
func greasedHello(name string) []byte {
	extension := func(kind uint16, data []byte) []byte {
		b := binary.BigEndian.AppendUint16(nil, kind)
		return append(binary.BigEndian.AppendUint16(b, uint16(len(data))), data...)
	}
	serverName := append([]byte{0, byte(len(name) + 3), 0, 0, byte(len(name))}, name...)
	extensions := slices.Concat(extension(0x0a0a, nil), extension(0, serverName), extension(0xfafa, []byte{0}),
		extension(16, []byte("\x00\x06\x02\x3a\x3a\x02h2")))
	body := slices.Concat([]byte{3, 3}, make([]byte, 32), []byte{0, 0, 4, 0x3a, 0x3a, 0x13, 1, 1, 0},
		binary.BigEndian.AppendUint16(nil, uint16(len(extensions))), extensions)
	message := append([]byte{1, 0, 0, byte(len(body))}, body...)
	return append([]byte{22, 3, 1, 0, byte(len(message))}, message...)
}

func TestClientHelloWithUnknownExtensionsAndSuites(t *testing.T) {
	var got inspected
	if v := readClientHello(greasedHello("a.example"), &got); v != yes || got.serverName != "a.example" || got.protocols[1] != "h2" {
		t.Errorf("%d, %+v", v, got)
	}
}

func TestWhatIsNoClientHelloIsDecidedAtOnce(t *testing.T) {
	for _, text := range []string{
		"G", "\x16G", "\x16\x03\x01\x00\x00", "\x16\x03\x01\xff\xff", "\x16\x03\x01\x00\x05\x02",
		"\x16\x03\x01\x00\x04\x01\xff\xff\xff",     // longer than any
		"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", // damaged
		"\x17\x03\x03\x00\x01\x01",                 // application data
	} {
		var got inspected
		if v := readClientHello([]byte(text), &got); v != no {
			t.Errorf("%q: %d", text, v)
		}
	}
	// Many records are work for nothing.
	endless := append([]byte("\x16\x03\x01\x00\x01\x01\x16\x03\x01\x00\x01\x00\x16\x03\x01\x00\x01\xf0"), bytes.Repeat([]byte("\x16\x03\x01\x00\x01\x00"), 2000)...)
	if v := readClientHello(endless, new(inspected)); v != no {
		t.Errorf("thousands of records: %d", v)
	}
}

func TestRequestLines(t *testing.T) {
	for _, test := range []struct {
		text string
		want verdict
		is   string
	}{
		{"", undecided, ""},
		{"G", undecided, ""},
		{"GET", undecided, ""},
		{"GET /", undecided, ""},
		{"GET / HTTP/1.1", undecided, ""},
		{"GET / HTTP/1.1\r\n", yes, "http/1.1"},
		{"GET / HTTP/1.0\n", yes, "http/1.0"},
		{"\r\n\r\nPOST /a?b HTTP/1.1\r\nHost: x\r\n", yes, "http/1.1"},
		{"M-SEARCH * HTTP/1.1\r\n", yes, "http/1.1"},
		{"CONNECT a:1 HTTP/1.1\r\n", yes, "http/1.1"},
		{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", yes, "h2c"},
		{"PRI * HTTP/2.0\r\n", undecided, ""},
		{"PR", undecided, ""},
		{"PRI * HTTP/2.0\r\n\r\nXX", no, ""},
		{"GET / HTTP/2.0\r\n", no, ""},
		{"GET /\r\n", no, ""},
		{"GET  HTTP/1.1\r\n", no, ""},
		{"GET\r\n", no, ""},
		{"get / HTTP/1.1\r\n", no, ""},
		{"HELO x\r\n", no, ""},
		{"\x00", no, ""},
		{"GET /\x00", no, ""},
		{"*1\r\n$4\r\nPING\r\n", no, ""}, // Redis
		{"\x16\x03\x01", no, ""},
	} {
		var got inspected
		v := readRequestLine([]byte(test.text), &got)
		if v != test.want || strings.Join(got.protocols, "") != test.is {
			t.Errorf("%q: %d %v, want %d %s", test.text, v, got.protocols, test.want, test.is)
		}
	}
}

func TestMethodsAreSorted(t *testing.T) {
	if !slices.IsSorted(methods[:]) {
		t.Error("methods are searched by bisection")
	}
}

func TestProxyHeadersOfVersion1(t *testing.T) {
	for _, test := range []struct {
		text, source, destination string
		want                      verdict
		fails                     bool
	}{
		{text: "PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\nGET", source: "1.2.3.4:9", destination: "5.6.7.8:10", want: yes},
		{text: "PROXY TCP6 ::1 2001:db8::1 9 10\r\n", source: "[::1]:9", destination: "[2001:db8::1]:10", want: yes},
		{text: "PROXY UNKNOWN\r\n", want: yes},
		{text: "PROXY UNKNOWN ffff:: ffff:: 1 2\r\n", want: yes},
		{text: "PROXY TCP4 1.2.3.4", want: undecided},
		{text: "PRO", want: undecided},
		{text: "", want: undecided},
		{text: "GET / HTTP/1.1", want: no},
		{text: "PROXY TCP4 1.2.3.4 5.6.7.8 9\r\n", fails: true},
		{text: "PROXY TCP4 ::1 ::2 9 10\r\n", fails: true},
		{text: "PROXY TCP4 1.2.3.4 5.6.7.8 9 70000\r\n", fails: true},
		{text: "PROXY UDP4 1.2.3.4 5.6.7.8 9 10\r\n", fails: true},
		{text: "PROXY \r\n", fails: true},
		{text: "PROXY " + strings.Repeat("x", 200), fails: true},
	} {
		got, v, err := readProxyHeader([]byte(test.text))
		if (err != nil) != test.fails || err == nil && v != test.want {
			t.Errorf("%q: %d, %v", test.text, v, err)
			continue
		}
		if test.source != "" && (got.source.String() != test.source || got.destination.String() != test.destination) {
			t.Errorf("%q: from %s to %s", test.text, got.source, got.destination)
		}
		if v == yes && got.length != strings.Index(test.text, "\r\n")+2 {
			t.Errorf("%q: header of %d bytes", test.text, got.length)
		}
	}
}

func TestProxyHeadersOfVersion2(t *testing.T) {
	for name, test := range map[string]struct {
		body  string
		fails bool
		want  verdict
	}{
		"local":             {body: "\x20\x00\x00\x00", want: yes},
		"unspecified":       {body: "\x21\x00\x00\x03\x04\x00\x00", want: yes},
		"short":             {body: "\x21\x11\x00\x0c\x01", want: undecided},
		"unknown version":   {body: "\x31\x11\x00\x00", fails: true},
		"unknown command":   {body: "\x22\x11\x00\x00", fails: true},
		"datagrams":         {body: "\x21\x12\x00\x0c" + strings.Repeat("x", 12), fails: true},
		"too few addresses": {body: "\x21\x21\x00\x0c" + strings.Repeat("x", 12), fails: true},
	} {
		_, v, err := readProxyHeader([]byte(proxySignature + test.body))
		if (err != nil) != test.fails || err == nil && v != test.want {
			t.Errorf("%s: %d, %v", name, v, err)
		}
	}
}

// addresses are those that a header has to carry.
func addresses() *rapid.Generator[netip.AddrPort] {
	return rapid.Custom(func(t *rapid.T) netip.AddrPort {
		a := rapid.SampledFrom([]string{"1.2.3.4", "127.0.0.1", "::1", "2001:db8::1", "fe80::1%eth0", "::ffff:9.8.7.6"}).Draw(t, "address")
		return netip.AddrPortFrom(netip.MustParseAddr(a), rapid.Uint16().Draw(t, "port"))
	})
}

func TestAProxyHeaderIsReadAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching("[a-z0-9:/.=;\"]{0,900}")
		h := proxyHeader{
			source: addresses().Draw(t, "source"), destination: addresses().Draw(t, "destination"),
			chain: text.Draw(t, "chain"), principal: text.Draw(t, "principal"), forwarded: text.Draw(t, "forwarded"),
			sni: text.Draw(t, "sni"), transportTLV: "tls",
		}
		b, err := h.append([]byte("before"))
		if err != nil {
			t.Fatal(err)
		}
		b = b[len("before"):]
		if len(b) > maxProxyHeader {
			t.Fatalf("%d bytes are more than nginx reads", len(b))
		}
		for n := range b {
			if _, v, err := readProxyHeader(b[:n]); v != undecided || err != nil {
				t.Fatalf("%d of %d bytes: %d, %v", n, len(b), v, err)
			}
		}
		got, v, err := readProxyHeader(append(b, "after"...))
		if err != nil || v != yes || got.length != len(b) {
			t.Fatalf("%+v, %d, %v", got, v, err)
		}
		plain := func(a netip.AddrPort) netip.AddrPort {
			return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
		}
		if got.source != plain(h.source) || got.destination != plain(h.destination) {
			t.Fatalf("from %s to %s", got.source, got.destination)
		}
	})
}

func TestAProxyHeaderIsNeverLongerThanAPISIXReads(t *testing.T) {
	h := proxyHeader{forwarded: strings.Repeat("x", 4090)}
	if _, err := h.append(nil); err == nil {
		t.Error("a header of more than 4096 bytes is written")
	}
	h.forwarded = strings.Repeat("x", 1<<17)
	if _, err := h.append(nil); err == nil {
		t.Error("a value that is longer than its length field is written")
	}
}

// checkMonotonic checks that more bytes never change a decision.
func checkMonotonic(t *testing.T, b []byte, read func([]byte) (verdict, string)) {
	t.Helper()
	decided, said := read(b)
	for n := len(b) - 1; n >= 0 && n > len(b)-64; n-- {
		v, text := read(b[:n])
		if v != undecided && (v != decided || text != said) {
			t.Fatalf("%d of %d bytes say %d %s, all say %d %s", n, len(b), v, text, decided, said)
		}
		if decided == undecided && v != undecided {
			t.Fatalf("more bytes take a decision back")
		}
	}
}

func FuzzClientHello(f *testing.F) {
	hello := greasedHello("a.example")
	f.Add(hello)
	f.Add(inRecords(hello, 20))
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		checkMonotonic(t, b, func(b []byte) (verdict, string) {
			var i inspected
			v := readClientHello(b, &i)
			return v, i.serverName + strings.Join(i.protocols, ",")
		})
	})
}

func FuzzRequestLine(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Add([]byte(http2Preface))
	f.Add([]byte("\r\nPOST /x HTTP/1.0\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		checkMonotonic(t, b, func(b []byte) (verdict, string) {
			var i inspected
			v := readRequestLine(b, &i)
			return v, strings.Join(i.protocols, ",")
		})
	})
}

func FuzzProxyHeader(f *testing.F) {
	f.Add([]byte("PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\n"))
	h := proxyHeader{source: netip.MustParseAddrPort("1.2.3.4:5"), destination: netip.MustParseAddrPort("[::1]:5"), chain: "80"}
	b, _ := h.append(nil)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		checkMonotonic(t, b, func(b []byte) (verdict, string) {
			header, v, err := readProxyHeader(b)
			if header.length > len(b) {
				t.Fatalf("header of %d bytes in %d", header.length, len(b))
			}
			if err != nil {
				return no, ""
			}
			return v, header.source.String() + header.destination.String()
		})
	})
}
