//go:build linux

package capture_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"meshbridge/capture"
	"meshbridge/capture/netnstest"
	"meshbridge/translate"
)

// deaf returns a port where connections are neither accepted nor refused: the queue is full.
func deaf(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(name.(*unix.SockaddrInet4).Port))
	for range 10 {
		conn, err := net.DialTimeout("tcp", to.String(), 200*time.Millisecond)
		if err != nil {
			return to
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	t.Skip("the queue of a listener is never full")
	return to
}

func TestABackendThatDoesNotAnswerTimesOut(t *testing.T) {
	chain := passthrough(0)
	chain.TCP.Clusters[0].OriginalDestination.ConnectTimeout = 100 * time.Millisecond
	f := start(t, capture.Config{}, virtual(translate.Outbound, chain))
	f.sends(deaf(t))
	if !f.refuses("virtualoutbound") {
		t.Error("the client sees no reset")
	}
	f.awaitMetric(1, "refused_total", "reason", "dial", "direction", "outbound")
	if n := f.log.count("i/o timeout"); n != 1 {
		t.Errorf("%d log lines tell of the timeout", n)
	}
}

// socketBetween returns this process's socket with these ends.
func socketBetween(t *testing.T, local, remote net.Addr) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	is := func(sa unix.Sockaddr, err error, want net.Addr) bool {
		in, ok := sa.(*unix.SockaddrInet4)
		return err == nil && ok && netip.AddrPortFrom(netip.AddrFrom4(in.Addr), uint16(in.Port)).String() == want.String()
	}
	for _, entry := range entries {
		fd, _ := strconv.Atoi(entry.Name())
		own, ownErr := unix.Getsockname(fd)
		peer, peerErr := unix.Getpeername(fd)
		if is(own, ownErr, local) && is(peer, peerErr, remote) {
			return fd
		}
	}
	t.Fatalf("no socket from %s to %s", local, remote)
	return -1
}

func TestPeersThatVanishAreFound(t *testing.T) {
	// The kernel resets a connection whose peer has been silent for so long and answers no probe.
	if !netnstest.Run(t) {
		return
	}
	netnstest.Configure(t, "ip address add 10.9.8.7/32 dev lo")
	l, err := net.Listen("tcp", "10.9.8.7:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f := start(t, capture.Config{}, virtual(translate.Outbound, passthrough(0)))
	f.sends(l.Addr().(*net.TCPAddr).AddrPort())
	client := f.dial("virtualoutbound")
	backend, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	go func() { _, _ = backend.Write([]byte("hello")) }()
	if _, err := client.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	for end, fd := range map[string]int{
		"client":   socketBetween(t, client.RemoteAddr(), client.LocalAddr()),
		"upstream": socketBetween(t, backend.RemoteAddr(), backend.LocalAddr()),
	} {
		for _, option := range []struct{ level, option, want int }{
			{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 60},
			{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 15},
			{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 4},
		} {
			if got, err := unix.GetsockoptInt(fd, option.level, option.option); err != nil || got != option.want {
				t.Errorf("%s: option %d is %d, want %d: %v", end, option.option, got, option.want, err)
			}
		}
	}
}

func TestPortsThatAreFreeAgainAreUsed(t *testing.T) {
	if !netnstest.Run(t) {
		return
	}
	const ports = 10
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", fmt.Appendf(nil, "40000 %d", 40000+ports-1), 0o600); err != nil {
		t.Skip(err)
	}
	// Ports of loopback listeners are out of the range, which is to be the server's alone.
	listener, err := net.Listen("tcp", "127.0.0.1:20000")
	if err != nil {
		t.Fatal(err)
	}
	b := serveOn(t, listener, false, echo)
	address := netip.MustParseAddrPort("127.0.0.4:15001")
	f := start(t, capture.Config{Outbound: []netip.AddrPort{address}}, virtual(translate.Outbound, passthrough(0)))
	f.awaitMetric(2, "listeners", "state", "open")
	f.sends(b.addr)
	from := 21000
	connect := func() *net.TCPConn {
		from++
		conn, err := net.DialTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9), Port: from}, net.TCPAddrFromAddrPort(address))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(patience))
		return conn
	}
	// Sockets that listen may have ports of the range, too.
	var served []*net.TCPConn
	for {
		conn := connect()
		if _, err := io.WriteString(conn, "hello"); err != nil {
			break
		}
		if _, err := io.ReadFull(conn, make([]byte, 5)); err != nil {
			break
		}
		if served = append(served, conn); len(served) > ports {
			t.Fatal("ports do not run out")
		}
	}
	if len(served) == 0 {
		t.Fatal("no connection is served")
	}
	f.awaitMetric(1, "refused_total", "reason", "ports", "direction", "outbound")
	if n := f.log.count(syscall.EADDRNOTAVAIL.Error()); n != 1 {
		t.Errorf("%d log lines say why", n)
	}
	_ = served[0].SetLinger(0) // an end by reset holds no port
	_ = served[0].Close()
	f.awaitMetric(1, "connections_ended_total", "outcome", "reset")
	exchange(t, connect(), "again")
}
