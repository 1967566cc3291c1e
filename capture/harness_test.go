package capture_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meshbridge/capture"
	"meshbridge/translate"
)

// patience is how long a test waits for what has to happen.
const patience = 30 * time.Second

// fixture is a running server.
type fixture struct {
	*capture.Server
	t        testing.TB
	registry *prometheus.Registry
	log      *lines
	original atomic.Pointer[netip.AddrPort] // where redirected connections were going
	stop     func()
}

// loopback is any port of this host.
var loopback = netip.MustParseAddrPort("127.0.0.1:0")

// start runs a server with listeners. Redirected connections arrive at the listeners with
// OriginalDestination, whose addresses are any of loopback.
func start(tb testing.TB, config capture.Config, listeners ...*translate.Listener) *fixture {
	tb.Helper()
	f := &fixture{t: tb, registry: prometheus.NewRegistry(), log: new(lines)}
	config.Registerer = f.registry
	config.Log = slog.New(slog.NewTextHandler(f.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	// Addresses of their own: sockets at the same address and port, 0, would be the same.
	config.Outbound = append(config.Outbound, netip.MustParseAddrPort("127.0.0.4:0"))
	config.Inbound = append(config.Inbound, netip.MustParseAddrPort("127.0.0.5:0"))
	transparent := func(l *translate.Listener) bool { return l.Transparent }
	if config.OriginalDestination == nil && !slices.ContainsFunc(listeners, transparent) {
		config.OriginalDestination = func(conn net.Conn) (netip.AddrPort, error) {
			if to := f.original.Load(); to != nil {
				return *to, nil
			}
			return conn.LocalAddr().(*net.TCPAddr).AddrPort(), nil
		}
	}
	var err error
	if f.Server, err = capture.New(config); err != nil {
		tb.Fatal(err)
	}
	f.SetListeners(listeners)
	ctx, cancel := context.WithCancel(tb.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	f.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Errorf("Run: %v", err)
		}
		if n := f.Connections(); n != 0 {
			tb.Errorf("%d connections are open after the end", n)
		}
	})
	tb.Cleanup(f.stop)
	return f
}

// sends makes redirected connections ones that were going to an address.
func (f *fixture) sends(to netip.AddrPort) { f.original.Store(&to) }

// dial connects to a listener, once it is open.
func (f *fixture) dial(listener string) *net.TCPConn {
	f.t.Helper()
	var addr net.Addr
	eventually(f.t, func() bool { addr = f.Addr(listener); return addr != nil })
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return conn.(*net.TCPConn)
}

// refuses tells whether a listener resets a connection, which the client may see while it connects.
func (f *fixture) refuses(listener string) bool {
	f.t.Helper()
	eventually(f.t, func() bool { return f.Addr(listener) != nil })
	conn, err := net.Dial("tcp", f.Addr(listener).String())
	if err != nil {
		return errors.Is(err, syscall.ECONNRESET)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	return isReset(conn)
}

// metric returns the value of a metric, such as `meshbridge_capture_refused_total{reason="loop"}`.
func (f *fixture) metric(name string, labels ...string) float64 {
	f.t.Helper()
	families, err := f.registry.Gather()
	if err != nil {
		f.t.Fatal(err)
	}
	total := 0.0
	for _, family := range families {
		if family.GetName() != "meshbridge_capture_"+name {
			continue
		}
	metrics:
		for _, m := range family.GetMetric() {
			for i := 0; i < len(labels); i += 2 {
				found := false
				for _, l := range m.GetLabel() {
					found = found || l.GetName() == labels[i] && l.GetValue() == labels[i+1]
				}
				if !found {
					continue metrics
				}
			}
			total += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return total
}

// awaitMetric waits until a metric has a value.
func (f *fixture) awaitMetric(want float64, name string, labels ...string) {
	f.t.Helper()
	eventually(f.t, func() bool { return f.metric(name, labels...) == want })
}

// eventually waits until a condition holds.
func eventually(tb testing.TB, condition func() bool) {
	tb.Helper()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for !condition() {
		select {
		case <-ticker.C:
		case <-timeout.C:
			tb.Fatal("it did not come to that")
		}
	}
}

// lines collects log lines.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Count(l.text.Bytes(), []byte(text))
}

// arrivedHeader is a PROXY protocol header as a server reads it.
type arrivedHeader struct {
	source, destination netip.AddrPort
	tlvs                map[byte]string
}

// readHeader reads a PROXY protocol header of version 2.
func readHeader(r io.Reader) (arrivedHeader, error) {
	h := arrivedHeader{tlvs: make(map[byte]string)}
	fixed := make([]byte, 16)
	if _, err := io.ReadFull(r, fixed); err != nil {
		return h, err
	}
	if !bytes.Equal(fixed[:12], []byte("\r\n\r\n\x00\r\nQUIT\n")) || fixed[12] != 0x21 {
		return h, fmt.Errorf("no PROXY protocol header: %q", fixed)
	}
	body := make([]byte, binary.BigEndian.Uint16(fixed[14:]))
	if _, err := io.ReadFull(r, body); err != nil {
		return h, err
	}
	size := 4
	if fixed[13] == 0x21 {
		size = 16
	}
	from, _ := netip.AddrFromSlice(body[:size])
	to, _ := netip.AddrFromSlice(body[size : 2*size])
	h.source = netip.AddrPortFrom(from, binary.BigEndian.Uint16(body[2*size:]))
	h.destination = netip.AddrPortFrom(to, binary.BigEndian.Uint16(body[2*size+2:]))
	for rest := body[2*size+4:]; len(rest) > 0; {
		length := int(binary.BigEndian.Uint16(rest[1:]))
		h.tlvs[rest[0]] = string(rest[3 : 3+length])
		rest = rest[3+length:]
	}
	return h, nil
}

// backend is a server at a port of loopback.
type backend struct {
	net.Listener
	addr    netip.AddrPort
	headers chan arrivedHeader // of connections to a backend that reads them
}

// serve starts a backend. The handler's connection is closed when it returns.
func serve(tb testing.TB, withHeader bool, handle func(r *bufio.Reader, conn *net.TCPConn)) *backend {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	return serveOn(tb, l, withHeader, handle)
}

// serveOn is serve with a socket that is open already.
func serveOn(tb testing.TB, l net.Listener, withHeader bool, handle func(r *bufio.Reader, conn *net.TCPConn)) *backend {
	tb.Helper()
	b := &backend{Listener: l, addr: l.Addr().(*net.TCPAddr).AddrPort(), headers: make(chan arrivedHeader, 1000)}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				r := bufio.NewReader(conn)
				if withHeader {
					header, err := readHeader(r)
					if err != nil {
						tb.Errorf("backend: %v", err)
						return
					}
					b.headers <- header
				}
				handle(r, conn.(*net.TCPConn))
			})
		}
	})
	tb.Cleanup(func() {
		_ = l.Close()
		running.Wait()
	})
	return b
}

// echo sends back what it reads, and ends when the client has ended. It does not splice, which would take
// a pipe for each connection.
func echo(r *bufio.Reader, conn *net.TCPConn) {
	_, _ = io.Copy(struct{ io.Writer }{conn}, struct{ io.Reader }{r})
}

// isReset tells whether reading from a connection ends with a reset.
func isReset(conn net.Conn) bool {
	_, err := io.Copy(io.Discard, conn)
	return errors.Is(err, syscall.ECONNRESET)
}

// exchange writes and expects the same back.
func exchange(tb testing.TB, conn io.ReadWriter, text string) {
	tb.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		tb.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(conn, got); err != nil {
		tb.Fatalf("after %q: %v", got, err)
	}
	if string(got) != text {
		tb.Fatalf("got %q, want %q", got, text)
	}
}

// virtual is a listener to which connections are redirected.
func virtual(direction translate.Direction, chains ...*translate.FilterChain) *translate.Listener {
	return &translate.Listener{
		Name: "virtual" + string(direction), Direction: direction, Bind: true, OriginalDestination: true,
		Addresses: []netip.Addr{netip.IPv4Unspecified()}, Port: 15001, Chains: chains,
	}
}

// bound is a listener with a port of its own, which is any.
func bound(name string, chains ...*translate.FilterChain) *translate.Listener {
	return &translate.Listener{
		Name: name, Direction: translate.Edge, Bind: true, Addresses: []netip.Addr{loopback.Addr()}, Chains: chains,
	}
}

// passthrough is a chain to the original destination.
func passthrough(idle time.Duration) *translate.FilterChain {
	return &translate.FilterChain{Key: "passthrough", TCP: &translate.TCPProxy{IdleTimeout: idle, Clusters: []translate.TCPCluster{
		{Name: "PassthroughCluster", OriginalDestination: new(translate.OriginalDestination)},
	}}}
}

// toPort is a chain to a stream port.
func toPort(key string, b *backend) *translate.FilterChain {
	return &translate.FilterChain{Key: key, TCP: &translate.TCPProxy{Clusters: []translate.TCPCluster{{Name: key, Port: b.addr.Port()}}}}
}

// toHTTP is a chain of a connection manager.
func toHTTP(key string) *translate.FilterChain {
	return &translate.FilterChain{Key: key, HTTP: new(translate.HTTPProxy)}
}
