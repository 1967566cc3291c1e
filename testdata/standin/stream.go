package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
)

// serveStreams listens on every stream port, as nginx does, whether a stream_route has it or not.
func (s *standin) serveStreams(ctx context.Context, group *errgroup.Group) error {
	for port := s.firstStreamPort; port <= s.lastStreamPort; port++ {
		l, err := net.Listen("tcp", net.JoinHostPort(s.streamAddress, strconv.Itoa(port)))
		if err != nil {
			return err
		}
		context.AfterFunc(ctx, func() { _ = l.Close() })
		group.Go(func() error {
			var open sync.WaitGroup
			defer open.Wait()
			for {
				conn, err := l.Accept()
				if err != nil {
					return nil //nolint:nilerr // the listener was closed
				}
				open.Go(func() { s.stream(ctx, port, conn) })
			}
		})
	}
	return nil
}

func (s *standin) stream(ctx context.Context, port int, conn net.Conn) {
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	p, err := accept(conn)
	if err != nil {
		s.log.Warn("stream", slog.Any("error", err))
		return
	}
	for _, n := range nodesOf(s.world.Load().streams[port]) {
		up, err := dialer(p.chain()).DialContext(ctx, "tcp", net.JoinHostPort(strings.Trim(n.Host, "[]"), strconv.Itoa(n.Port)))
		if err != nil {
			s.log.Warn("stream", slog.Any("error", err))
			continue
		}
		s.log.Debug("stream", slog.Int("port", port), slog.String("chain", p.chain()), slog.String("node", up.RemoteAddr().String()))
		relay(p, up)
		return
	}
	s.log.Warn("stream without a node", slog.Int("port", port), slog.String("chain", p.chain()))
}

// relay copies both ways until both have ended.
func relay(a, b net.Conn) {
	defer func() { _ = b.Close() }()
	var both sync.WaitGroup
	for _, pair := range [][2]net.Conn{{a, b}, {b, a}} {
		both.Go(func() {
			_, err := io.Copy(pair[1], pair[0])
			if half, ok := underlying(pair[1]).(*net.TCPConn); ok && err == nil {
				_ = half.CloseWrite()
				return
			}
			_ = pair[1].Close()
		})
	}
	both.Wait()
}

func underlying(c net.Conn) net.Conn {
	if p, ok := c.(*proxied); ok {
		return p.Conn
	}
	return c
}
