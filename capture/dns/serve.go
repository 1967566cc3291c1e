package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	idleTimeout  = 10 * time.Second // of a TCP connection between queries (RFC 7766 6.2.3)
	writeTimeout = 5 * time.Second
	failurePause = 100 * time.Millisecond
	portAttempts = 20
)

// socket is an address, over both protocols.
type socket struct {
	address netip.AddrPort
	udp     *net.UDPConn
	tcp     *net.TCPListener
}

func (s *socket) close() error { return errors.Join(s.udp.Close(), s.tcp.Close()) }

// listen opens the addresses, or none of them.
func (c Config) listen() ([]*socket, error) {
	addresses := c.Addresses
	optional := netip.AddrPort{}
	if len(addresses) == 0 {
		optional = netip.AddrPortFrom(netip.IPv6Loopback(), DefaultPort)
		addresses = []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), DefaultPort), optional}
	}
	var sockets []*socket
	for _, address := range addresses {
		s, err := c.open(address)
		if err != nil && address == optional && (errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT)) {
			continue // a host without IPv6
		}
		if err != nil {
			for _, s := range sockets {
				_ = s.close()
			}
			return nil, err
		}
		sockets = append(sockets, s)
	}
	return sockets, nil
}

// open opens the same port for both protocols. Where any port will do, the one that is free for UDP
// may be taken for TCP.
func (c Config) open(address netip.AddrPort) (s *socket, err error) {
	for range portAttempts {
		var packets net.PacketConn
		if packets, err = c.ListenPacket("udp", address.String()); err != nil {
			return nil, err
		}
		udp, ok := packets.(*net.UDPConn)
		if !ok {
			return nil, errors.Join(fmt.Errorf("%s: a %T is no UDP socket", address, packets), packets.Close())
		}
		at := udp.LocalAddr().(*net.UDPAddr).AddrPort()
		var listener net.Listener
		if listener, err = c.Listen("tcp", at.String()); err == nil {
			tcp, ok := listener.(*net.TCPListener)
			if !ok {
				return nil, errors.Join(fmt.Errorf("%s: a %T is no TCP listener", at, listener), listener.Close(), udp.Close())
			}
			return &socket{netip.AddrPortFrom(at.Addr().Unmap(), at.Port()), udp, tcp}, nil
		}
		_ = udp.Close()
		if address.Port() != 0 || !errors.Is(err, syscall.EADDRINUSE) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("no port is free for UDP and TCP: %w", err)
}

// serveUDP answers what it can at once; what is forwarded waits in goroutines of its own.
func (s *Server) serveUDP(ctx context.Context, conn *net.UDPConn, running *sync.WaitGroup) {
	buffer := make([]byte, maxMessage)
	for {
		n, client, err := conn.ReadFromUDPAddrPort(buffer)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			s.logger.LogAttrs(ctx, slog.LevelWarn, "a query could not be read", slog.Any("error", err))
			pause(ctx)
			continue
		}
		q, response, ok := s.parse(buffer[:n], true)
		if ok {
			var known bool
			if response, known = s.answerHere(ctx, &q); response == nil {
				release, room := s.tryForward()
				if room {
					own, _ := parseQuery(slices.Clone(buffer[:n]), true)
					running.Go(func() {
						defer release()
						if response := s.forward(ctx, &own, "udp", known); ctx.Err() == nil {
							_, _ = conn.WriteToUDPAddrPort(response, client)
						} // else the client asks again, and may be answered by another process
					})
					continue
				}
				response = q.fail(dnsmessage.RCodeServerFailure)
			}
		}
		if response != nil {
			_, _ = conn.WriteToUDPAddrPort(response, client)
		}
	}
}

func (s *Server) serveTCP(ctx context.Context, listener *net.TCPListener, running *sync.WaitGroup) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			s.logger.LogAttrs(ctx, slog.LevelWarn, "a connection could not be accepted", slog.Any("error", err))
			pause(ctx) // descriptors may be short: others have to end first
			continue
		}
		select {
		case s.connections <- struct{}{}:
		default:
			_ = conn.Close()
			continue
		}
		running.Go(func() {
			defer func() { <-s.connections }()
			s.serveConnection(ctx, conn)
		})
	}
}

func pause(ctx context.Context) {
	timer := time.NewTimer(failurePause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// serveConnection answers queries in the order in which they come.
func (s *Server) serveConnection(ctx context.Context, conn net.Conn) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer func() {
		if stop() {
			_ = conn.Close()
		}
	}()
	for {
		_ = conn.SetReadDeadline(time.Now().Add(idleTimeout))
		message, err := readFramed(conn)
		if err != nil {
			return
		}
		q, response, ok := s.parse(message, false)
		if ok {
			response = s.answerTCP(ctx, &q)
		}
		if response == nil {
			return // whoever sends responses here is no client
		}
		_ = conn.SetWriteDeadline(time.Now().Add(writeTimeout))
		if writeFramed(conn, response) != nil {
			return
		}
	}
}

func (s *Server) answerTCP(ctx context.Context, q *query) []byte {
	response, known := s.answerHere(ctx, q)
	if response != nil {
		return response
	}
	release, room := s.tryForward()
	if !room {
		return q.fail(dnsmessage.RCodeServerFailure)
	}
	defer release()
	return s.forward(ctx, q, "tcp", known)
}
