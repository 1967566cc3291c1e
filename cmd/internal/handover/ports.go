package handover

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
)

// Ports opens sockets. It takes those of a predecessor where there are any, and knows what is open, for
// a successor. Its methods may be called by any goroutine; a nil Ports opens sockets and no more.
type Ports struct {
	mu        sync.Mutex
	open      []*port
	inherited []*inheritance
}

// port is an open socket.
type port struct {
	info socketInfo
	conn syscall.Conn
}

// inheritance is a socket of the predecessor's that nobody has asked for yet.
type inheritance struct {
	info     socketInfo
	listener net.Listener
	packets  net.PacketConn
}

func (i *inheritance) close() {
	if i.listener != nil {
		_ = i.listener.Close()
	} else {
		_ = i.packets.Close()
	}
}

// serves tells whether the socket is what is asked for. Port 0 is any port.
func (i *inheritance) serves(info socketInfo) bool {
	if i.info.Name != info.Name || i.info.Packet != info.Packet {
		return false
	}
	if i.info.Requested == info.Requested {
		return true
	}
	var actual string
	if i.listener != nil {
		actual = i.listener.Addr().String()
	} else {
		actual = i.packets.LocalAddr().String()
	}
	resolved, err := net.ResolveTCPAddr("tcp", info.Requested)
	return err == nil && resolved.String() == actual
}

// Listen is net.ListenConfig.Listen for the part of the bridge that has the name.
func (p *Ports) Listen(ctx context.Context, config net.ListenConfig, name, network, address string) (net.Listener, error) {
	info := socketInfo{Name: name, Requested: address}
	if i := p.take(info); i != nil {
		return i.listener, p.note(info, i.listener)
	}
	l, err := config.Listen(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return l, p.note(info, l)
}

// ListenPacket is net.ListenConfig.ListenPacket.
func (p *Ports) ListenPacket(ctx context.Context, config net.ListenConfig, name, network, address string) (net.PacketConn, error) {
	info := socketInfo{Name: name, Requested: address, Packet: true}
	if i := p.take(info); i != nil {
		return i.packets, p.note(info, i.packets)
	}
	c, err := config.ListenPacket(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return c, p.note(info, c)
}

func (p *Ports) take(info socketInfo) *inheritance {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for n, i := range p.inherited {
		if i.serves(info) {
			p.inherited = slices.Delete(p.inherited, n, n+1)
			return i
		}
	}
	return nil
}

func (p *Ports) note(info socketInfo, socket any) error {
	if p == nil {
		return nil
	}
	conn, ok := socket.(syscall.Conn)
	if !ok {
		return fmt.Errorf("%s: a %T cannot be handed over", info.Name, socket)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = slices.DeleteFunc(p.open, func(o *port) bool { return o.closed() })
	p.open = append(p.open, &port{info, conn})
	return nil
}

func (o *port) closed() bool {
	raw, err := o.conn.SyscallConn()
	return err != nil || errors.Is(raw.Control(func(uintptr) {}), net.ErrClosed)
}

// CloseRest closes what the predecessor had and nobody has asked for.
func (p *Ports) CloseRest() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, i := range p.inherited {
		i.close()
	}
	p.inherited = nil
}

// duplicate returns descriptors of what is open, to be closed by the caller.
func (p *Ports) duplicate() (infos []socketInfo, descriptors []int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, o := range p.open {
		raw, err := o.conn.SyscallConn()
		if err != nil {
			continue // it has been closed
		}
		var fd int
		var failed error
		if raw.Control(func(s uintptr) { fd, failed = duplicateDescriptor(s) }) != nil {
			continue
		}
		if failed != nil {
			closeAll(descriptors)
			return nil, nil, fmt.Errorf("%s: %w", o.info.Name, failed)
		}
		infos, descriptors = append(infos, o.info), append(descriptors, fd)
	}
	return infos, descriptors, nil
}

// leave makes the names of Unix sockets stay when the sockets are closed: they are the successor's.
func (p *Ports) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, o := range p.open {
		if l, ok := o.conn.(*net.UnixListener); ok {
			l.SetUnlinkOnClose(false)
		}
	}
}

func duplicateDescriptor(fd uintptr) (int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	next, err := syscall.Dup(int(fd))
	if err == nil {
		syscall.CloseOnExec(next)
	}
	return next, err
}

func closeAll(descriptors []int) {
	for _, fd := range descriptors {
		_ = syscall.Close(fd)
	}
}

// inherit takes sockets that came from the predecessor.
func (p *Ports) inherit(infos []socketInfo, files []*os.File) error {
	if len(infos) != len(files) {
		return fmt.Errorf("%d sockets came, and %d were announced", len(files), len(infos))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for n, info := range infos {
		i := &inheritance{info: info}
		var err error
		// These duplicate the descriptor once more.
		if info.Packet {
			i.packets, err = net.FilePacketConn(files[n])
		} else {
			i.listener, err = net.FileListener(files[n])
		}
		if err = errors.Join(err, files[n].Close()); err != nil {
			return fmt.Errorf("%s %s: %w", info.Name, info.Requested, err)
		}
		p.inherited = append(p.inherited, i)
	}
	return nil
}
