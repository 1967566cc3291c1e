//go:build linux

package apisixprocess

import (
	"net"
	"net/netip"
	"strings"
	"testing"
)

func TestConnectionsAreThoseOfTheTraffic(t *testing.T) {
	listen := func() (net.Listener, uint16) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		return l, netip.MustParseAddrPort(l.Addr().String()).Port()
	}
	traffic, port := listen()
	other, _ := listen()
	i := install(t, initialize, "echo serving")
	i.config.Ports = []uint16{port}
	p, err := New(i.config)
	if err != nil {
		t.Fatal(err)
	}
	expect := func(want int) {
		t.Helper()
		if n, err := p.Connections(t.Context()); err != nil || n != want {
			t.Errorf("%d connections, want %d: %v", n, want, err)
		}
	}
	expect(0)
	for want := 1; want <= 3; want++ {
		for _, l := range []net.Listener{traffic, other} {
			client, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = client.Close() })
			server, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = server.Close() })
		}
		expect(want)
	}
}

func TestTablesOfTheKernel(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:2378 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0100007F:2378 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0 20 4 30 10 -1
   2: 0000000000000000FFFF00000100007F:2378 0100007F:9C41 08 00000000:00000000 00:00000000 00000000     0        0 3 1 0 20 4 30 10 -1
   3: 0100007F:2378 0100007F:9C42 06 00000000:00000000 03:00000000 00000000     0        0 0 3 0
   4: 0100007F:9C40 0100007F:2378 01 00000000:00000000 00:00000000 00000000     0        0 4 1 0 20 4 30 10 -1
`
	if n, err := count(strings.NewReader(table), []uint16{9080}); err != nil || n != 2 {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := count(strings.NewReader("\n 0: 0100007F 0 01\n"), nil); err == nil {
		t.Error("an address without a port")
	}
}
