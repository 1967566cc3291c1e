package iptables

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// retry is how often a connection is tried until the timeout.
const retry = 100 * time.Millisecond

// Validate tells whether connections are redirected, before anything else listens on the ports: a connection
// to an address where nothing is must arrive at one of them. It must be made by the proxy's user, whose
// connections through the loopback interface are inbound.
func Validate(ctx context.Context, c *Config, port uint16, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	arrived := make(chan struct{}, 2)
	lc := net.ListenConfig{Control: reuse}
	for _, p := range []uint16{c.OutboundPort, c.InboundPort} {
		l, err := lc.Listen(ctx, "tcp4", netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), p).String())
		if err != nil {
			return fmt.Errorf("validation: %w", err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			accept(l, port, arrived)
		}()
		defer func() {
			_ = l.Close()
			<-done
		}()
	}
	// Nobody has this address.
	target := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 6}), port).String()
	again := time.NewTicker(retry)
	defer again.Stop()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}}
	for {
		conn, err := dialer.DialContext(ctx, "tcp4", target)
		if err == nil {
			_ = conn.Close()
		}
		select {
		case <-arrived:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("a connection to %s did not arrive at port %d or %d within %s: %w", target, c.OutboundPort, c.InboundPort, timeout, errors.Join(err, ctx.Err()))
		case <-again.C:
		}
	}
}

// accept reports connections that were going to the port.
func accept(l net.Listener, port uint16, arrived chan<- struct{}) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		if original, err := originalPort(conn); err == nil && original == port {
			select {
			case arrived <- struct{}{}:
			default:
			}
		}
		_ = conn.Close()
	}
}

func originalPort(conn net.Conn) (port uint16, err error) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return 0, errors.New("not TCP")
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return 0, err
	}
	errControl := raw.Control(func(fd uintptr) {
		// The structure is a sockaddr_in, which is as long: family, then the port in network order.
		var in *unix.IPv6Mreq
		if in, err = unix.GetsockoptIPv6Mreq(int(fd), unix.IPPROTO_IP, unix.SO_ORIGINAL_DST); err == nil {
			port = uint16(in.Multiaddr[2])<<8 | uint16(in.Multiaddr[3])
		}
	})
	return port, errors.Join(errControl, err)
}

// reuse lets the bridge listen on the port although a connection of the validation lingers.
func reuse(_, _ string, conn syscall.RawConn) error {
	var err error
	errControl := conn.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	})
	return errors.Join(errControl, err)
}
