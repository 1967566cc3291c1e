package capture_test

import (
	"bufio"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"meshbridge/capture"
	"meshbridge/translate"
)

// at is a listener that has no socket: connections come to it by their original destination.
func at(name, address string, port uint16, chains ...*translate.FilterChain) *translate.Listener {
	return &translate.Listener{
		Name: name, Direction: translate.Outbound, Addresses: []netip.Addr{netip.MustParseAddr(address)}, Port: port, Chains: chains,
	}
}

func TestConnectionsBelongToTheListenerOfTheirOriginalDestination(t *testing.T) {
	apisix := serve(t, true, echo)
	f := start(t, capture.Config{HTTP: apisix.addr},
		at("10.0.0.1_80", "10.0.0.1", 80, toHTTP("exact")),
		at("0.0.0.0_80", "0.0.0.0", 80, toHTTP("port")),
		at("[::]_80", "::", 80, toHTTP("port of IPv6")),
		at("[2001:db8::1]_80", "2001:db8::1", 80, toHTTP("exact of IPv6")),
		&translate.Listener{Name: "podinfo", Direction: translate.Inbound, Addresses: []netip.Addr{netip.MustParseAddr("0.0.0.0")}, Port: 81, Chains: []*translate.FilterChain{toHTTP("inbound")}},
		virtual(translate.Outbound, toHTTP("otherwise")),
		virtual(translate.Inbound, toHTTP("to the workload")),
	)
	for _, test := range []struct{ listener, to, want string }{
		{"virtualoutbound", "10.0.0.1:80", "exact"},
		{"virtualoutbound", "10.0.0.2:80", "port"},
		{"virtualoutbound", "[::ffff:10.0.0.1]:80", "exact"},
		{"virtualoutbound", "[2001:db8::1]:80", "exact of IPv6"},
		{"virtualoutbound", "[2001:db8::2]:80", "port of IPv6"},
		{"virtualoutbound", "10.0.0.1:81", "otherwise"},
		{"virtualinbound", "10.0.0.1:80", "to the workload"},
		{"virtualinbound", "10.0.0.1:81", "inbound"},
	} {
		to := netip.MustParseAddrPort(test.to)
		f.sends(to)
		conn := f.dial(test.listener)
		exchange(t, conn, "hello")
		header := <-apisix.headers
		if got := header.tlvs[0xe0]; got != test.want {
			t.Errorf("%s to %s: chain %q, want %q", test.listener, to, got, test.want)
		}
		if got := header.destination; got.Addr().Unmap() != to.Addr().Unmap() || got.Port() != to.Port() {
			t.Errorf("%s: APISIX is told %s", to, got)
		}
		source := conn.LocalAddr().(*net.TCPAddr).AddrPort()
		if header.source.Addr().Unmap() != source.Addr() || header.source.Port() != source.Port() {
			t.Errorf("from %s: APISIX is told %s", source, header.source)
		}
		if header.tlvs[0xe4] != "raw" {
			t.Errorf("transport %q", header.tlvs[0xe4])
		}
	}
}

func TestConnectionsThatWouldLeadBackAreRefused(t *testing.T) {
	f := start(t, capture.Config{
		HTTP:     netip.MustParseAddrPort("127.0.0.1:15480"),
		Reserved: []translate.PortRange{{First: 16000, Last: 16511}},
	}, virtual(translate.Outbound, passthrough(0)), virtual(translate.Inbound, passthrough(0)))
	refused := 0.0
	for _, test := range []struct{ listener, to string }{
		{"virtualoutbound", "127.0.0.1:15480"},
		{"virtualoutbound", "127.0.0.1:16100"},
		{"virtualinbound", "10.1.2.3:15480"}, // the address of the workload: past its policies to APISIX
		{"virtualinbound", "[2001:db8::1]:16511"},
	} {
		f.sends(netip.MustParseAddrPort(test.to))
		if !f.refuses(test.listener) {
			t.Errorf("%s to %s is not refused", test.listener, test.to)
		}
		refused++
		f.awaitMetric(refused, "refused_total", "reason", "loop")
	}
	// A connection that was not redirected, and a chain that would connect to where it came from.
	g := start(t, capture.Config{}, bound("bound", passthrough(0)))
	if !g.refuses("bound") {
		t.Error("a bound listener connects to itself")
	}
	g.awaitMetric(1, "refused_total", "reason", "loop")
}

func TestListenersOpenAndCloseLive(t *testing.T) {
	b := serve(t, true, echo)
	f := start(t, capture.Config{Stream: b.addr.Addr()}, bound("a", toPort("a", b)))
	before := f.dial("a")
	exchange(t, before, "hello")
	<-b.headers

	// The same address with other chains keeps its socket; another is added.
	address := f.Addr("a").String()
	f.SetListeners([]*translate.Listener{bound("a", toPort("changed", b))})
	if now := f.Addr("a").String(); now != address {
		t.Errorf("the socket moved from %s to %s", address, now)
	}
	exchange(t, f.dial("a"), "hello")
	if got := (<-b.headers).tlvs[0xe0]; got != "changed" {
		t.Errorf("chain %q after the change", got)
	}

	// What goes away is closed, and its connections go on.
	f.SetListeners(nil)
	if conn, err := net.Dial("tcp", address); err == nil {
		_ = conn.Close()
		t.Error("the listener still accepts")
	}
	exchange(t, before, "still here")
}

func TestNoConnectIsRefusedWhileTheTableChanges(t *testing.T) {
	b := serve(t, false, echo)
	f := start(t, capture.Config{}, virtual(translate.Outbound, passthrough(0)))
	f.sends(b.addr)
	f.dial("virtualoutbound")
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				f.SetListeners([]*translate.Listener{virtual(translate.Outbound, passthrough(time.Hour)), at("x", "10.0.0.1", uint16(i))})
			}
		}
	}()
	for range 200 {
		conn := f.dial("virtualoutbound")
		exchange(t, conn, "hello")
		_ = conn.Close()
	}
	close(stop)
	<-stopped
}

func TestAListenerThatCannotBeBoundIsTriedAgain(t *testing.T) {
	b := serve(t, true, echo)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := bound("late", toPort("late", b))
	l.Port = uint16(taken.Addr().(*net.TCPAddr).Port)
	f := start(t, capture.Config{}, l, bound("other", toPort("other", b)))
	exchange(t, f.dial("other"), "hello") // its neighbour is not hurt
	f.awaitMetric(1, "listeners", "state", "failed")
	if n := f.log.count("listener cannot be bound"); n != 1 {
		t.Errorf("%d log lines about it", n)
	}
	_ = taken.Close()
	exchange(t, f.dial("late"), "hello")
	f.awaitMetric(0, "listeners", "state", "failed")
}

func TestUnixSockets(t *testing.T) {
	b := serve(t, true, echo)
	path := filepath.Join(t.TempDir(), "s")
	// What a process left behind that was killed.
	stale, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = stale.Close()
	f := start(t, capture.Config{}, &translate.Listener{
		Name: "unix", Direction: translate.Edge, Bind: true, Path: path, Chains: []*translate.FilterChain{toPort("unix", b)},
	})
	eventually(t, func() bool { return f.Addr("unix") != nil })
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	exchange(t, conn, "hello")
	if header := <-b.headers; header.tlvs[0xe0] != "unix" || !header.source.Addr().IsLoopback() {
		t.Errorf("header %+v", header)
	}
	f.SetListeners(nil)
	if _, err := os.Lstat(path); err == nil {
		t.Error("the socket's file is left behind")
	}
}

func TestIPv6AndIPv4ListenOnOnePort(t *testing.T) {
	if l, err := net.Listen("tcp6", "[::1]:0"); err != nil {
		t.Skip("no IPv6 here:", err)
	} else {
		_ = l.Close()
	}
	b := serve(t, true, echo)
	probe, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(probe.Addr().(*net.TCPAddr).Port)
	_ = probe.Close()
	l := bound("dual", toPort("dual", b))
	l.Port, l.Addresses = port, []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	f := start(t, capture.Config{}, l)
	f.awaitMetric(2, "listeners", "state", "open")
	for _, address := range []string{"127.0.0.1", "::1"} {
		conn, err := net.Dial("tcp", net.JoinHostPort(address, strconv.Itoa(int(port))))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		exchange(t, conn, "hello")
		if got := (<-b.headers).source.Addr().Unmap().String(); got != conn.LocalAddr().(*net.TCPAddr).AddrPort().Addr().String() {
			t.Errorf("source %s", got)
		}
	}
}

func TestHTTPOfTLSThatAPISIXTerminatesGoesToItsPortAsItIs(t *testing.T) {
	https := serve(t, true, echo)
	chain := toHTTP("https.443.x")
	chain.HTTP.TLS = true
	l := bound("gateway", chain)
	l.TLSInspector = new(translate.Inspector)
	f := start(t, capture.Config{HTTPS: https.addr}, l)
	conn := f.dial("gateway")
	hello := clientHelloBytes(t, "a.example", "h2")
	exchange(t, conn, string(hello))
	header := <-https.headers
	if header.tlvs[0xe3] != "a.example" || header.tlvs[0xe4] != "tls" || header.tlvs[0xe0] != "https.443.x" {
		t.Errorf("header %v", header.tlvs)
	}
}

func TestConnectionsAreSharedByWeight(t *testing.T) {
	heavy := serve(t, true, func(_ *bufio.Reader, conn *net.TCPConn) { _, _ = io.WriteString(conn, "h") })
	light := serve(t, true, func(_ *bufio.Reader, conn *net.TCPConn) { _, _ = io.WriteString(conn, "l") })
	f := start(t, capture.Config{}, bound("weighted", &translate.FilterChain{Key: "w", TCP: &translate.TCPProxy{Clusters: []translate.TCPCluster{
		{Name: "heavy", Weight: 80, Port: heavy.addr.Port()},
		{Name: "none", Weight: 0, Refused: "never"},
		{Name: "light", Weight: 20, Port: light.addr.Port()},
	}}}))
	count := map[string]int{}
	for range 500 {
		conn := f.dial("weighted")
		got, err := io.ReadAll(conn)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
		count[string(got)]++
	}
	// Six standard deviations around 400.
	if count["h"] < 346 || count["h"] > 454 || count["h"]+count["l"] != 500 {
		t.Errorf("shares %v", count)
	}
}
