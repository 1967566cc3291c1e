package telemetry

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"meshbridge/capture"
	"meshbridge/translate"
)

// relaying runs capture with connections that it relays to an echo.
func relaying(t *testing.T, observer capture.Observer, to string) (dial func() (net.Conn, error), stop func()) {
	t.Helper()
	backend, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := backend.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				_, _ = io.Copy(struct{ io.Writer }{conn}, struct{ io.Reader }{bufio.NewReader(conn)})
			})
		}
	})
	opened := make(chan string, 1)
	server, err := capture.New(capture.Config{
		Listen: func(ctx context.Context, config net.ListenConfig, network, address string) (net.Listener, error) {
			l, err := config.Listen(ctx, network, address)
			if err == nil {
				opened <- l.Addr().String()
			}
			return l, err
		},
		Outbound: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, Observer: observer,
		OriginalDestination: func(net.Conn) (netip.AddrPort, error) { return netip.ParseAddrPort(backend.Addr().String()) },
	})
	if err != nil {
		t.Fatal(err)
	}
	server.SetListeners([]*translate.Listener{{
		Name: to, Direction: translate.Outbound, Bind: true, OriginalDestination: true,
		Chains: []*translate.FilterChain{{Key: to, TCP: &translate.TCPProxy{Clusters: []translate.TCPCluster{{
			Name: "PassthroughCluster", OriginalDestination: new(translate.OriginalDestination),
		}}}}},
	}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = backend.Close()
		serving.Wait()
	})
	t.Cleanup(stop)
	address := <-opened
	return func() (net.Conn, error) { return net.Dial("tcp", address) }, stop
}

func echoed(conn net.Conn, text string) error {
	if _, err := io.WriteString(conn, text); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, make([]byte, len(text)))
	return err
}

func TestAThousandConnectionsUnderLoadAreCountedExactly(t *testing.T) {
	const count, rounds, size = 1000, 5, 700
	x := newWatched(t, newTCPWorld(t), nil)
	dial, stop := relaying(t, x, "tcp:any")
	conns := make([]net.Conn, count)
	for i := range conns {
		var err error
		if conns[i], err = dial(); err != nil {
			t.Fatal(err)
		}
		defer conns[i].Close()
	}
	each := func(do func(net.Conn) error) {
		var all sync.WaitGroup
		for part := range slices.Chunk(conns, 50) {
			all.Go(func() {
				for range rounds {
					for _, conn := range part {
						if err := do(conn); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		all.Wait()
	}
	text := strings.Repeat("x", size)
	each(func(conn net.Conn) error { return echoed(conn, text) })
	for metric, want := range map[string]float64{
		"connections_opened": count, "connections_closed": 0, "sent_bytes": count * rounds * size, "received_bytes": count * rounds * size,
	} {
		if got := x.value(t, "istio_tcp_"+metric+"_total"); got != want {
			t.Errorf("%s: %v, want %v", metric, got, want)
		}
	}
	each(func(conn net.Conn) error { return echoed(conn, "y") })
	for _, conn := range conns[:count/2] {
		_ = conn.Close()
	}
	stop() // resets the others
	for metric, want := range map[string]float64{
		"connections_opened": count, "connections_closed": count, "sent_bytes": count * rounds * (size + 1), "received_bytes": count * rounds * (size + 1),
	} {
		if got := x.value(t, "istio_tcp_"+metric+"_total"); got != want {
			t.Errorf("at the end, %s: %v, want %v", metric, got, want)
		}
	}
	if n := len(x.open); n != 0 {
		t.Errorf("%d connections are still followed", n)
	}
}

func TestManyShortConnectionsAreCountedExactly(t *testing.T) {
	const clients, each = 16, 250
	x := newWatched(t, newTCPWorld(t), nil)
	dial, stop := relaying(t, x, "tcp:any")
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for range each {
				conn, err := dial()
				if err == nil {
					err = echoed(conn, "hello")
					_ = conn.Close()
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Go(func() { // while it is scraped
		for range 50 {
			x.value(t, "istio_tcp_sent_bytes_total")
		}
	})
	all.Wait()
	stop()
	for metric, want := range map[string]float64{
		"connections_opened": clients * each, "connections_closed": clients * each, "sent_bytes": 5 * clients * each, "received_bytes": 5 * clients * each,
	} {
		if got := x.value(t, "istio_tcp_"+metric+"_total"); got != want {
			t.Errorf("%s: %v, want %v", metric, got, want)
		}
	}
	if n, known := len(x.open), len(x.known); n != 0 || known != 1 {
		t.Errorf("%d connections are still followed, of %d kinds", n, known)
	}
}
