package capture

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socketConn is a connected TCP socket of which Go's poller learns when it is used as a connection, and not
// before: an event loop has it without. It is a plainConn.
type socketConn struct {
	mu   sync.Mutex
	fd   int          // -1 once it is closed, given away or conn's
	conn *net.TCPConn // nil before it is used
}

// used returns the socket as a connection that can wait.
func (c *socketConn) used() (*net.TCPConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		return c.conn, nil
	}
	if c.fd < 0 {
		return nil, net.ErrClosed
	}
	file := os.NewFile(uintptr(c.fd), "socket")
	c.fd = -1
	conn, err := net.FileConn(file) // of a duplicate
	_ = file.Close()
	if err != nil {
		return nil, err
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		_ = conn.Close()
		return nil, errors.New("the socket is not one of TCP")
	}
	c.conn = tcp
	return tcp, nil
}

// detach gives the descriptor away; false where the socket was used as a connection, or is closed.
func (c *socketConn) detach() (fd int, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fd, c.fd = c.fd, -1
	return fd, fd >= 0
}

func (c *socketConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		return c.conn.Close()
	}
	if c.fd < 0 {
		return net.ErrClosed
	}
	fd := c.fd
	c.fd = -1
	return unix.Close(fd)
}

func (c *socketConn) Read(b []byte) (int, error) {
	conn, err := c.used()
	if err != nil {
		return 0, err
	}
	return conn.Read(b)
}

func (c *socketConn) Write(b []byte) (int, error) {
	conn, err := c.used()
	if err != nil {
		return 0, err
	}
	return conn.Write(b)
}

// localAddr returns the socket's own address, without a use of it as a connection.
func (c *socketConn) localAddr() netip.AddrPort {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		return addrPort(c.conn.LocalAddr())
	}
	address, err := unix.Getsockname(c.fd)
	if err != nil {
		return netip.AddrPort{}
	}
	switch a := address.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	default:
		return netip.AddrPort{}
	}
}

func (c *socketConn) LocalAddr() net.Addr {
	if conn, err := c.used(); err == nil {
		return conn.LocalAddr()
	}
	return nil
}

func (c *socketConn) RemoteAddr() net.Addr {
	if conn, err := c.used(); err == nil {
		return conn.RemoteAddr()
	}
	return nil
}

func (c *socketConn) SyscallConn() (syscall.RawConn, error) {
	conn, err := c.used()
	if err != nil {
		return nil, err
	}
	return conn.SyscallConn()
}

// with calls a method of the connection.
func (c *socketConn) with(do func(*net.TCPConn) error) error {
	conn, err := c.used()
	if err != nil {
		return err
	}
	return do(conn)
}

func (c *socketConn) CloseWrite() error { return c.with((*net.TCPConn).CloseWrite) }

func (c *socketConn) SetLinger(sec int) error {
	return c.with(func(conn *net.TCPConn) error { return conn.SetLinger(sec) })
}

func (c *socketConn) SetDeadline(t time.Time) error {
	return c.with(func(conn *net.TCPConn) error { return conn.SetDeadline(t) })
}

func (c *socketConn) SetReadDeadline(t time.Time) error {
	return c.with(func(conn *net.TCPConn) error { return conn.SetReadDeadline(t) })
}

func (c *socketConn) SetWriteDeadline(t time.Time) error {
	return c.with(func(conn *net.TCPConn) error { return conn.SetWriteDeadline(t) })
}
