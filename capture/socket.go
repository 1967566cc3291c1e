package capture

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// socketKey is what makes two sockets the same: one that a new table has, too, stays open.
type socketKey struct {
	network     string // "tcp4", "tcp6" or "unix"
	address     string
	transparent bool
}

// socket is an open listening socket.
type socket struct {
	net.Listener
	key socketKey
	// listener is whose connections it accepts, which a new table may change; nil for the overlay.
	listener atomic.Pointer[listener]
}

// tcpKey returns the key of a socket at an address. IPv6 sockets take no IPv4 connections.
func tcpKey(a netip.AddrPort, transparent bool) socketKey {
	a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	network := "tcp4"
	if a.Addr().Is6() {
		network = "tcp6"
	}
	return socketKey{network, a.String(), transparent}
}

// socketKeys returns what a listener of the table wants opened.
func (c *Config) socketKeys(l *listener) []socketKey {
	if !l.Bind {
		return nil
	}
	if l.Path != "" {
		return []socketKey{{network: "unix", address: l.Path}}
	}
	var addresses []netip.AddrPort
	switch {
	case l.OriginalDestination && l.direction == inbound:
		addresses = c.Inbound
	case l.OriginalDestination:
		addresses = c.Outbound
	default:
		for _, a := range l.Addresses {
			addresses = append(addresses, netip.AddrPortFrom(a, l.Port))
		}
	}
	keys := make([]socketKey, 0, len(addresses))
	for _, a := range addresses {
		keys = append(keys, tcpKey(a, l.Transparent))
	}
	return keys
}

// open opens a socket.
func (k socketKey) open(
	ctx context.Context, listen func(context.Context, net.ListenConfig, string, string) (net.Listener, error),
) (*socket, error) {
	if k.network == "unix" && !strings.HasPrefix(k.address, "@") {
		if err := removeSocketFile(k.address); err != nil {
			return nil, err
		}
	}
	// Go sets keepalive on each accepted connection otherwise; these inherit it.
	config := net.ListenConfig{Control: listenControl(k.transparent), KeepAlive: -1}
	config.SetMultipathTCP(false) // it has no original destination
	opened, err := listen(ctx, config, k.network, k.address)
	if err != nil {
		return nil, err
	}
	return &socket{Listener: opened, key: k}, nil
}

// removeSocketFile removes what a process that has ended left behind. It takes nothing from another that
// listens there only in that new clients do not find it any more, as Envoy does.
func removeSocketFile(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is there, and is no socket", path)
	}
	return os.Remove(path)
}

// The delays after a failure to accept, which grow from the first to the last.
const (
	firstAcceptDelay = 5 * time.Millisecond
	lastAcceptDelay  = time.Second
)

// accept accepts a socket's connections until it is closed.
func (s *Server) accept(ctx context.Context, from *socket) {
	delay := firstAcceptDelay
	for {
		conn, err := from.Accept()
		if err == nil {
			delay = firstAcceptDelay
			s.serving.Go(func() { s.serve(ctx, from, conn) })
			continue
		}
		if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
			return
		}
		s.metrics.acceptFailures.Inc()
		reason := "accept"
		if outOfDescriptors(err) {
			// The connections wait in the socket's queue.
			reason = reasonDescriptors
		}
		s.say.warn(ctx, reason, "connections cannot be accepted", slog.String("address", from.key.address), slog.Any("error", err))
		if !pause(ctx, delay) {
			return
		}
		delay = min(2*delay, lastAcceptDelay)
	}
}

// pause waits; it is false when ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
