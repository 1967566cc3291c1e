//go:build !linux

package capture

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
)

func originalDestination(conn net.Conn) (netip.AddrPort, error) {
	return addrPort(conn.LocalAddr()), errors.New("original destinations are known on Linux only")
}

func listenControl(transparent bool) func(network, address string, raw syscall.RawConn) error {
	return func(string, string, syscall.RawConn) error {
		if transparent {
			return errors.New("transparent sockets are for Linux only")
		}
		return nil
	}
}

func dialControl(string, string, syscall.RawConn) error { return nil }

func receive(plainConn, []byte) int { return 0 }

func outOfDescriptors(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

func outOfPorts(err error) bool { return errors.Is(err, syscall.EADDRNOTAVAIL) }
