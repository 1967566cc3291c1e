package soak

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// link is the network between a bridge and istiod.
type link struct {
	to       string
	listener net.Listener

	mu    sync.Mutex
	conns map[net.Conn]struct{} // guarded by mu
	cut   bool                  // new connections are reset; guarded by mu
	lag   time.Duration         // of each read; guarded by mu
	moves chan struct{}         // closed while bytes move; guarded by mu
}

func newLink(at, to string) (*link, error) {
	l, err := net.Listen("tcp", at)
	if err != nil {
		return nil, err
	}
	k := &link{to: to, listener: l, conns: map[net.Conn]struct{}{}, moves: make(chan struct{})}
	close(k.moves)
	return k, nil
}

// run passes connections on until ctx ends.
func (k *link) run(ctx context.Context) error {
	var open sync.WaitGroup
	defer open.Wait()
	defer context.AfterFunc(ctx, func() {
		_ = k.listener.Close()
		k.disconnect()
	})()
	for {
		conn, err := k.listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		open.Go(func() { k.pass(ctx, conn) })
	}
}

func (k *link) pass(ctx context.Context, conn net.Conn) {
	defer k.forget(conn)
	if !k.keep(conn) {
		return
	}
	up, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", k.to)
	if err != nil {
		return
	}
	defer k.forget(up)
	if !k.keep(up) {
		return
	}
	var both sync.WaitGroup
	for _, pair := range [][2]net.Conn{{conn, up}, {up, conn}} {
		both.Go(func() {
			k.copy(ctx, pair[1], pair[0])
			_, _ = pair[0].Close(), pair[1].Close()
		})
	}
	both.Wait()
}

func (k *link) copy(ctx context.Context, to, from net.Conn) {
	buffer := make([]byte, 16<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		k.mu.Lock()
		moves, lag := k.moves, k.lag
		k.mu.Unlock()
		timer := time.NewTimer(lag)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		select {
		case <-moves:
		case <-ctx.Done():
			return
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

func (k *link) keep(conn net.Conn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.conns[conn] = struct{}{}
	return !k.cut
}

func (k *link) forget(conn net.Conn) {
	_ = conn.Close()
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.conns, conn)
}

// disconnect ends every connection.
func (k *link) disconnect() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for conn := range k.conns {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = conn.Close()
	}
}

// setCut ends every connection, and refuses new ones, or no longer does.
func (k *link) setCut(cut bool) {
	k.mu.Lock()
	k.cut = cut
	k.mu.Unlock()
	if cut {
		k.disconnect()
	}
}

// setStalled lets connections be open without anything getting through, or all that has waited.
func (k *link) setStalled(stalled bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if stalled {
		k.moves = make(chan struct{})
	} else {
		close(k.moves)
	}
}

// setLag delays what passes.
func (k *link) setLag(lag time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lag = lag
}
