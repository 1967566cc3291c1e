package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// originalDestination asks the kernel where a redirected connection was going. Where it was not redirected
// that is where it arrived.
func originalDestination(conn net.Conn) (netip.AddrPort, error) {
	local := addrPort(conn.LocalAddr())
	plain := unwrap(conn).plain
	if plain == nil {
		return local, errors.New("connection is not a socket's")
	}
	raw, err := plain.SyscallConn()
	if err != nil {
		return local, err
	}
	to, failed := local, error(nil)
	if err := raw.Control(func(fd uintptr) { to, failed = socketDestination(int(fd), local.Addr().Is6()) }); err != nil {
		return local, err
	}
	if errors.Is(failed, unix.ENOENT) || errors.Is(failed, unix.ENOPROTOOPT) {
		return local, nil // not redirected, or no connection tracking at all
	}
	return to, failed
}

// socketDestination reads SO_ORIGINAL_DST or IP6T_SO_ORIGINAL_DST, which have the same number.
func socketDestination(fd int, ipv6 bool) (netip.AddrPort, error) {
	if ipv6 {
		// The answer is a struct sockaddr_in6, with which this one begins.
		info, err := unix.GetsockoptIPv6MTUInfo(fd, unix.IPPROTO_IPV6, unix.SO_ORIGINAL_DST)
		if err != nil {
			return netip.AddrPort{}, fmt.Errorf("IP6T_SO_ORIGINAL_DST: %w", err)
		}
		return netip.AddrPortFrom(netip.AddrFrom16(info.Addr.Addr).Unmap(), networkOrder(info.Addr.Port)), nil
	}
	// The answer is a struct sockaddr_in: 2 bytes of family, the port, the address.
	in, err := unix.GetsockoptIPv6Mreq(fd, unix.IPPROTO_IP, unix.SO_ORIGINAL_DST)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("SO_ORIGINAL_DST: %w", err)
	}
	b := in.Multiaddr
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:4])), nil
}

// networkOrder reads a number whose bytes are in network order in memory.
func networkOrder(n uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], n)
	return binary.BigEndian.Uint16(b[:])
}

// Keepalive finds peers that have gone without a word: after 60 s of silence, 4 probes, 15 s apart.
const (
	keepaliveIdle     = 60
	keepaliveInterval = 15
	keepaliveProbes   = 4
)

// listenControl sets the options of a listening socket. Accepted connections inherit them, which saves
// setting them on each.
func listenControl(transparent bool) func(network, address string, raw syscall.RawConn) error {
	return func(network, _ string, raw syscall.RawConn) error {
		if network == "unix" {
			return nil
		}
		var failed error
		err := raw.Control(func(fd uintptr) {
			failed = errors.Join(
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1),
				unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, keepaliveIdle),
				unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, keepaliveInterval),
				unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepaliveProbes),
			)
			if transparent {
				failed = errors.Join(failed, setTransparent(int(fd), network))
			}
		})
		return errors.Join(err, failed)
	}
}

// setTransparent lets a socket accept connections to any address, which TPROXY sends it.
func setTransparent(fd int, network string) error {
	level, option := unix.IPPROTO_IP, unix.IP_TRANSPARENT
	if network == "tcp6" {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT
	}
	if err := unix.SetsockoptInt(fd, level, option, 1); err != nil {
		return fmt.Errorf("IP_TRANSPARENT (needs CAP_NET_ADMIN): %w", err)
	}
	return nil
}

// dialControl lets the kernel choose the local port when it knows the destination: a port may then serve
// connections to several. Without it, binding to a source address takes a port for itself alone.
func dialControl(_, _ string, raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	})
	return errors.Join(err, failed)
}

// receive reads what a connection has, without waiting; nothing is not an error.
func receive(conn plainConn, b []byte) int {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0
	}
	received := 0
	_ = raw.Control(func(fd uintptr) {
		received, _, _ = unix.Recvfrom(int(fd), b, unix.MSG_DONTWAIT)
	})
	return max(received, 0)
}

// outOfDescriptors tells that accepting failed for want of something that comes back.
func outOfDescriptors(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ENOMEM)
}

// outOfPorts tells that a dial failed since no local port is left for the destination.
func outOfPorts(err error) bool { return errors.Is(err, unix.EADDRNOTAVAIL) }
