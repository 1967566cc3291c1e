package capture

import (
	"errors"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// dialHere opens a connection on this host without Go's poller, which a connection that an event loop is to
// have would only have to leave again. It is nil where the kernel does not answer at once: the
// listener's queue may be full.
func dialHere(to netip.AddrPort, source netip.Addr) (net.Conn, error) {
	family := unix.AF_INET
	if to.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return nil, dialError(to, "socket", err)
	}
	if call, err := connectHere(fd, to, source); err != nil {
		_ = unix.Close(fd)
		if errors.Is(err, unix.EINPROGRESS) {
			return nil, nil //nolint:nilnil // neither connected nor refused
		}
		return nil, dialError(to, call, err)
	}
	return &socketConn{fd: fd}, nil
}

// connectHere connects a socket, or names the system call that failed.
func connectHere(fd int, to netip.AddrPort, source netip.Addr) (call string, err error) {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return "setsockopt", err
	}
	if source.IsValid() {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
			return "setsockopt", err
		}
		if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(source, 0))); err != nil {
			return "bind", err
		}
	}
	err = unix.Connect(fd, sockaddr(to))
	if !errors.Is(err, unix.EINPROGRESS) {
		return "connect", err
	}
	// What the other end has to say is there when connect returns.
	ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	if n, err := unix.Poll(ready, 0); n == 0 || err != nil {
		return "connect", unix.EINPROGRESS
	}
	code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && code != 0 {
		err = unix.Errno(code)
	}
	return "connect", err
}

func dialError(to netip.AddrPort, call string, err error) error {
	return &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(to), Err: os.NewSyscallError(call, err)}
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}
