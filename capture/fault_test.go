//go:build linux

package capture_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"meshbridge/capture"
	"meshbridge/translate"
)

// nobody returns a port at which nobody listens.
func nobody(tb testing.TB) netip.AddrPort {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func TestConnectionsAreResetWhileAPISIXIsDown(t *testing.T) {
	f := start(t, capture.Config{HTTP: nobody(t)}, bound("http", toHTTP("80")))
	const clients = 20
	for range clients {
		if !f.refuses("http") {
			t.Fatal("the client sees no reset")
		}
	}
	f.awaitMetric(clients, "refused_total", "reason", "dial", "direction", "gateway")
	if n := f.log.count("reason=dial"); n != 1 {
		t.Errorf("%d log lines about %d connections", n, clients)
	}
}

func TestWhatTheChainRefusesIsReset(t *testing.T) {
	l := bound("refusing", &translate.FilterChain{Key: "x", Refused: "BlackHoleCluster"})
	f := start(t, capture.Config{}, l)
	if !f.refuses("refusing") {
		t.Error("a refused chain serves")
	}
	f.awaitMetric(1, "refused_total", "reason", "chain")
	f.SetListeners([]*translate.Listener{bound("refusing")})
	if !f.refuses("refusing") {
		t.Error("without a chain, connections are served")
	}
	f.awaitMetric(1, "refused_total", "reason", "no_chain")
	f.SetListeners([]*translate.Listener{bound("refusing", &translate.FilterChain{Key: "x", TCP: &translate.TCPProxy{
		Clusters: []translate.TCPCluster{{Name: "gone", Refused: "no stream port is left"}},
	}})})
	if !f.refuses("refusing") {
		t.Error("a refused cluster serves")
	}
	f.awaitMetric(2, "refused_total", "reason", "chain")
	if n := f.log.count("no stream port is left"); n != 1 {
		t.Errorf("%d log lines say why", n)
	}
}

func TestNoLocalPortIsLeft(t *testing.T) {
	// A source address that this host does not have fails like a host without free ports.
	chain := passthrough(0)
	chain.TCP.Clusters[0].OriginalDestination.Source = netip.MustParseAddr("192.0.2.1")
	f := start(t, capture.Config{}, virtual(translate.Inbound, chain))
	f.sends(nobody(t))
	if !f.refuses("virtualinbound") {
		t.Error("the client sees no reset")
	}
	f.awaitMetric(1, "refused_total", "reason", "ports")
}

func TestConnectionsToTheWorkloadComeFromTheSourceOfTheCluster(t *testing.T) {
	b := serve(t, false, func(_ *bufio.Reader, conn *net.TCPConn) { _, _ = io.WriteString(conn, conn.RemoteAddr().String()) })
	chain := passthrough(0)
	chain.TCP.Clusters[0].OriginalDestination.Source = netip.MustParseAddr("127.0.0.6")
	f := start(t, capture.Config{}, virtual(translate.Inbound, chain))
	f.sends(b.addr)
	got, err := io.ReadAll(f.dial("virtualinbound"))
	if err != nil || !strings.HasPrefix(string(got), "127.0.0.6:") {
		t.Errorf("the workload sees %q, %v", got, err)
	}
}

func TestAnUnknownOriginalDestinationIsRefused(t *testing.T) {
	f := start(t, capture.Config{OriginalDestination: func(net.Conn) (netip.AddrPort, error) {
		return netip.AddrPort{}, errors.New("no such entry")
	}}, virtual(translate.Outbound, passthrough(0)))
	if !f.refuses("virtualoutbound") {
		t.Error("the client sees no reset")
	}
	f.awaitMetric(1, "refused_total", "reason", "no_original")
}

func TestAConnectionThatWasNotRedirectedIsRefused(t *testing.T) {
	// The kernel is asked, and knows of no other destination than the listener's own port.
	registry := start(t, capture.Config{}, virtual(translate.Outbound, passthrough(0)))
	if !registry.refuses("virtualoutbound") {
		t.Error("the client sees no reset")
	}
	registry.awaitMetric(1, "refused_total", "reason", "loop")
}

func TestTooManyConnectionsAreReset(t *testing.T) {
	b := serve(t, false, echo)
	f := start(t, capture.Config{MaxConnections: 2}, virtual(translate.Outbound, passthrough(0)))
	f.sends(b.addr)
	first, second := f.dial("virtualoutbound"), f.dial("virtualoutbound")
	exchange(t, first, "hello")
	exchange(t, second, "hello")
	if !f.refuses("virtualoutbound") {
		t.Error("the third is served")
	}
	_ = first.Close()
	eventually(t, func() bool { return f.Connections() == 1 })
	exchange(t, f.dial("virtualoutbound"), "hello")
}

func TestGarbageHurtsNobody(t *testing.T) {
	b := serve(t, true, func(r *bufio.Reader, _ *net.TCPConn) { _, _ = io.Copy(io.Discard, r) })
	proxied := bound("proxied", toPort("x", b))
	proxied.ProxyProtocol, proxied.InspectionTimeout = true, time.Minute
	proxied.Addresses = []netip.Addr{netip.MustParseAddr("127.0.0.3")}
	f := start(t, capture.Config{HTTP: b.addr}, inspecting(time.Minute), proxied)
	for range 200 {
		for _, listener := range []string{"inspecting", "proxied"} {
			garbage := make([]byte, 3000)
			_, _ = rand.Read(garbage)
			conn := f.dial(listener)
			_, _ = conn.Write(garbage)
			_ = conn.CloseWrite()
			_, _ = io.Copy(io.Discard, conn)
			_ = conn.Close()
		}
	}
	eventually(t, func() bool { return f.Connections() == 0 })
}

func TestAcceptingGoesOnWhenDescriptorsAreFreeAgain(t *testing.T) {
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Skip(err)
	}
	b := serve(t, false, echo)
	f := start(t, capture.Config{}, virtual(translate.Outbound, passthrough(0)))
	f.sends(b.addr)
	exchange(t, f.dial("virtualoutbound"), "hello")
	// The client gets the last descriptor, and the server none.
	client, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(client)
	restore := sync.OnceFunc(func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before) })
	defer restore()
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 3, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	address := f.Addr("virtualoutbound").(*net.TCPAddr).AddrPort()
	if err := syscall.Connect(client, &syscall.SockaddrInet4{Port: int(address.Port()), Addr: address.Addr().As4()}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return f.metric("accept_failures_total") > 0 })
	restore()
	exchange(t, f.dial("virtualoutbound"), "hello")
	if f.log.count("connections cannot be accepted") == 0 {
		t.Error("no log line tells of it")
	}
}

func TestDrainLetsConnectionsEnd(t *testing.T) {
	b := serve(t, false, echo)
	f := start(t, capture.Config{}, virtual(translate.Outbound, passthrough(0)), virtual(translate.Inbound, passthrough(0)))
	f.sends(b.addr)
	in := f.dial("virtualinbound")
	exchange(t, in, "hello")
	address := f.Addr("virtualinbound").String()

	drained := make(chan error, 1)
	go func() { drained <- f.Drain(t.Context()) }()
	eventually(t, func() bool { return f.Addr("virtualinbound") == nil })
	if conn, err := net.Dial("tcp", address); err == nil {
		_ = conn.Close()
		t.Error("connections to the workload are still accepted")
	}
	exchange(t, in, "what is open goes on")
	out := f.dial("virtualoutbound")
	exchange(t, out, "and the workload may still connect to others")
	_ = in.Close()
	select {
	case err := <-drained:
		t.Fatalf("drained with a connection open: %v", err)
	default:
	}
	_ = out.Close()
	if err := <-drained; err != nil {
		t.Fatal(err)
	}
	f.awaitMetric(1, "drained_total", "outcome", "ended")
}

func TestDrainResetsWhatDoesNotEnd(t *testing.T) {
	b := serve(t, false, echo)
	f := start(t, capture.Config{}, virtual(translate.Inbound, passthrough(0)), inspecting(time.Hour))
	f.sends(b.addr)
	relayed, waiting := f.dial("virtualinbound"), f.dial("inspecting")
	exchange(t, relayed, "hello")
	ctx, cancel := context.WithCancel(t.Context())
	drained := make(chan error, 1)
	go func() { drained <- f.Drain(ctx) }()
	cancel()
	if err := <-drained; !errors.Is(err, context.Canceled) {
		t.Fatalf("Drain: %v", err)
	}
	if !isReset(relayed) || !isReset(waiting) {
		t.Error("a connection was not reset")
	}
	eventually(t, func() bool { return f.Connections() == 0 })
	f.awaitMetric(2, "drained_total", "outcome", "reset")
}

// descriptors returns how many this process has open.
func descriptors(tb testing.TB) int {
	tb.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		tb.Skip(err)
	}
	return len(entries)
}

func TestChurnLeaksNothing(t *testing.T) {
	connections := 100_000
	if testing.Short() || raceEnabled {
		connections = 5_000
	}
	apisix := serve(t, false, func(r *bufio.Reader, conn *net.TCPConn) {
		if header, err := readHeader(r); err == nil && header.tlvs[0xe0] == "http" {
			echo(r, conn)
		}
	})
	f := start(t, capture.Config{HTTP: apisix.addr}, func() *translate.Listener {
		l := inspecting(time.Minute)
		l.Name = "churn"
		return l
	}())
	f.dial("churn").Close()
	eventually(t, func() bool { return f.Connections() == 0 })
	before, goroutines := descriptors(t), runtime.NumGoroutine()
	var clients sync.WaitGroup
	address := f.Addr("churn").String()
	const workers = 16
	for w := range workers {
		clients.Go(func() {
			for i := range connections / workers {
				conn, err := net.Dial("tcp", address)
				if err != nil {
					t.Errorf("connection %d: %v", i, err)
					return
				}
				tcp := conn.(*net.TCPConn)
				_ = tcp.SetLinger(0) // no port is held by TIME_WAIT
				switch (w + i) % 3 {
				case 0: // an exchange
					_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\n\r\n")
					_, _ = io.ReadFull(conn, make([]byte, 18))
				case 1: // a client that goes in the middle
					_, _ = io.WriteString(conn, "GET / HT")
				default: // one that says nothing
				}
				_ = conn.Close()
			}
		})
	}
	clients.Wait()
	eventually(t, func() bool { return f.Connections() == 0 })
	eventually(t, func() bool { return descriptors(t) <= before })
	eventually(t, func() bool { return runtime.NumGoroutine() <= goroutines })
	if f.metric("connections_total") < float64(connections/workers*workers) {
		t.Errorf("%v connections are counted", f.metric("connections_total"))
	}
}
