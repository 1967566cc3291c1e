package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// The start of every HTTP/2 connection (RFC 9113, 3.4). No HTTP/1 method begins like this.
const http2Preface = "PRI * HTTP/2.0"

// The protocols of ALPN. HTTP/1.1 comes first: a client that offers both, as curl does, is no gRPC
// client, because those offer h2 only, and fares best with it.
const (
	alpnHTTP  = "http/1.1"
	alpnHTTP2 = "h2"
)

// split accepts connections of l and hands each to the server it asks for. It returns when l is
// closed, after the connections that had not said what they want, for which they have until ctx ends.
// accepting ends before l is closed, and not after ctx.
func (e *endpoint) split(ctx, accepting context.Context, l net.Listener, grpcConns, httpConns *handoff) error {
	var undecided sync.WaitGroup
	defer undecided.Wait()
	open := connCount{limit: int64(e.cfg.Limits.Connections)}
	var config *tls.Config
	if e.cfg.TLS != nil {
		config = withProtocols(e.cfg.TLS)
	}
	for {
		conn, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.Close()
			}
			return nil
		case accepting.Err() != nil && errors.Is(err, net.ErrClosed):
			return nil
		case isTemporary(err):
			// Out of file descriptors, or the client was gone before it was accepted.
			e.log.LogAttrs(ctx, slog.LevelWarn, "accepting failed", slog.Any("error", err))
			if err := pause(ctx, 20*time.Millisecond); err != nil {
				return nil
			}
			continue
		case err != nil:
			return fmt.Errorf("accepting: %w", err)
		}
		counted, first := open.add(conn)
		if counted == nil {
			// Waiting for others to leave would make the client wait as well, which has
			// other servers to try.
			if first {
				e.log.LogAttrs(ctx, slog.LevelWarn, "too many connections", slog.Int64("limit", open.limit))
			}
			_ = conn.Close()
			continue
		}
		conn = counted
		undecided.Go(func() {
			chosen, isGRPC, err := classify(ctx, conn, config, e.cfg.Limits)
			if err != nil {
				e.log.LogAttrs(ctx, slog.LevelDebug, "connection refused",
					slog.String("remote", conn.RemoteAddr().String()), slog.Any("error", err))
				_ = conn.Close()
				return
			}
			if isGRPC {
				grpcConns.give(chosen)
			} else {
				httpConns.give(chosen)
			}
		})
	}
}

// connCount counts the connections of a listener.
type connCount struct {
	limit   int64
	open    atomic.Int64
	refused bool // the last one was; owned by the accepting goroutine
}

// add counts a connection until it is closed. It returns nil if there are too many, and whether it is
// the first in a row to hear that.
func (c *connCount) add(conn net.Conn) (counted net.Conn, first bool) {
	if c.open.Add(1) > c.limit {
		c.open.Add(-1)
		first, c.refused = !c.refused, true
		return nil, first
	}
	c.refused = false
	return &countedConn{Conn: conn, open: &c.open}, false
}

// countedConn is a connection that counts as open until it is closed.
type countedConn struct {
	net.Conn
	open   *atomic.Int64
	closed atomic.Bool
}

// Close implements net.Conn.
func (c *countedConn) Close() error {
	if !c.closed.Swap(true) {
		c.open.Add(-1)
	}
	return c.Conn.Close()
}

// withProtocols makes config, and what it may choose for a client, offer both protocols.
func withProtocols(config *tls.Config) *tls.Config {
	config = config.Clone()
	config.NextProtos = []string{alpnHTTP, alpnHTTP2}
	if choose := config.GetConfigForClient; choose != nil {
		config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			chosen, err := choose(hello)
			if chosen == nil || err != nil {
				return nil, err
			}
			return withProtocols(chosen), nil
		}
	}
	return config
}

// isTemporary tells errors of Accept that pass from those that mean the end of the listener.
func isTemporary(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) ||
		errors.Is(err, syscall.ECONNABORTED) || errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM)
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// classify finds out whether a connection speaks HTTP/2, which is gRPC here, or HTTP/1.1: by ALPN
// with TLS, else by its first bytes. It returns the connection to go on with.
func classify(ctx context.Context, conn net.Conn, config *tls.Config, limits Limits) (chosen net.Conn, isGRPC bool, err error) {
	if err := conn.SetDeadline(time.Now().Add(limits.HeaderTimeout)); err != nil {
		return nil, false, fmt.Errorf("setting a deadline: %w", err)
	}
	// A client that has not sent anything yet may not hold up the end of the server.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if config != nil {
		secure := tls.Server(conn, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, false, fmt.Errorf("TLS handshake: %w", err)
		}
		if protocol := secure.ConnectionState().NegotiatedProtocol; protocol != "" {
			if protocol == alpnHTTP2 {
				chosen, isGRPC, err = isGRPCConn(secure, limits.HeaderBytes)
			} else {
				chosen = secure
			}
			return chosen, isGRPC, errors.Join(err, settle(ctx, secure))
		}
		conn = secure
	}
	head := make([]byte, 0, len(http2Preface))
	for len(head) < cap(head) && string(head) == http2Preface[:len(head)] {
		n, err := conn.Read(head[len(head):cap(head)])
		if err != nil {
			return nil, false, fmt.Errorf("reading the first bytes: %w", err)
		}
		head = head[:len(head)+n]
	}
	return &peekedConn{Conn: conn, head: head}, string(head) == http2Preface, settle(ctx, conn)
}

// settle takes the deadline off, unless serving has ended meanwhile.
func settle(ctx context.Context, conn net.Conn) error {
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return fmt.Errorf("removing the deadline: %w", err)
	}
	return ctx.Err()
}

// peekedConn gives back the bytes that were read to classify a connection.
type peekedConn struct {
	net.Conn
	head []byte // owned by the reader
}

func (c *peekedConn) Read(p []byte) (int, error) {
	if len(c.head) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.head)
	if c.head = c.head[n:]; len(c.head) == 0 {
		c.head = nil
	}
	return n, nil
}

// handoff is a listener whose connections are accepted elsewhere.
type handoff struct {
	addr   net.Addr
	conns  chan net.Conn // unbuffered: a giver waits until the server takes the connection
	closed chan struct{}
	close  sync.Once
}

func newHandoff(addr net.Addr) *handoff {
	return &handoff{addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
}

// give passes conn on, or closes it if the server has stopped.
func (h *handoff) give(conn net.Conn) {
	select {
	case h.conns <- conn:
	case <-h.closed:
		_ = conn.Close()
	}
}

// pipe connects to the server in memory.
func (h *handoff) pipe() (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case h.conns <- server:
		return client, nil
	case <-h.closed:
		return nil, errors.Join(net.ErrClosed, client.Close(), server.Close())
	}
}

// Accept implements net.Listener.
func (h *handoff) Accept() (net.Conn, error) {
	select {
	case conn := <-h.conns:
		return conn, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (h *handoff) Close() error {
	h.close.Do(func() { close(h.closed) })
	return nil
}

// Addr implements net.Listener.
func (h *handoff) Addr() net.Addr { return h.addr }

// pipeNetwork is the network of net.Pipe's addresses, which tells the JSON gateway's own connection
// from those of clients.
const pipeNetwork = "pipe"
