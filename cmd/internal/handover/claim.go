package handover

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"syscall"
)

// ErrGone is that the predecessor has ended on its own. Its sockets are still there.
var ErrGone = errors.New("the process that served has ended")

// Predecessor is the process that serves. Its methods are called in the order Freeze, Serve, Close; Close
// at any time.
type Predecessor struct {
	peer *peer
	log  *slog.Logger
}

// Claim asks the process that serves for its sockets, which ports then have; nil where there is no such
// process.
func Claim(ctx context.Context, c Config, ports *Ports) (*Predecessor, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, nil //nolint:nilnil // as documented
	case err != nil:
		return nil, fmt.Errorf("hand-over: %w", err)
	}
	p := &Predecessor{peer: newPeer(conn.(*net.UnixConn)), log: c.Logger}
	if err := p.claim(ctx, c, ports); err != nil {
		ports.CloseRest()
		return nil, fmt.Errorf("hand-over: %w", errors.Join(err, p.Close()))
	}
	return p, nil
}

func (p *Predecessor) claim(ctx context.Context, c Config, ports *Ports) error {
	if err := checkUser(p.peer.conn); err != nil {
		return err
	}
	if err := p.peer.send(message{Hello: &hello{Protocol: protocol, Version: c.Version, PID: os.Getpid(), Prefix: c.Prefix}}); err != nil {
		return err
	}
	total := 0
	for {
		m, err := p.peer.receive(stepTimeout)
		if err != nil {
			return err
		}
		if m.Welcome != nil {
			p.log.InfoContext(ctx, "taking over", slog.Int("predecessor", m.Welcome.PID),
				slog.String("version", m.Welcome.Version), slog.Int("sockets", total))
			return nil
		}
		if len(m.Sockets) > len(p.peer.files) {
			return fmt.Errorf("%d sockets were announced, and %d came", len(m.Sockets), len(p.peer.files))
		}
		files := p.peer.files[:len(m.Sockets)]
		p.peer.files = p.peer.files[len(m.Sockets):]
		if err := ports.inherit(m.Sockets, files); err != nil {
			return err
		}
		total += len(m.Sockets)
	}
}

// Freeze has the predecessor commit nothing more, and returns its state. With ErrGone there is none to
// be had.
func (p *Predecessor) Freeze() (State, error) {
	if err := p.peer.send(message{Freeze: true}); err != nil {
		return State{}, p.failure(err)
	}
	s, err := p.peer.receiveState()
	return s, p.failure(err)
}

// Serve tells the predecessor to leave. After that, and only where there is no error, this process serves.
func (p *Predecessor) Serve() error {
	err := p.peer.send(message{Serving: true})
	if err == nil {
		var m message
		if m, err = p.peer.receive(stepTimeout); err == nil && !m.Farewell {
			err = errUnexpected
		}
	}
	if err = p.failure(err); errors.Is(err, ErrGone) {
		return nil
	}
	return err
}

// failure tells a predecessor that refuses, which serves on, from one that is gone.
func (p *Predecessor) failure(err error) error {
	var refused *RefusedError
	switch {
	case err == nil, errors.As(err, &refused), errors.Is(err, errUnexpected), errors.Is(err, os.ErrDeadlineExceeded):
		return err
	}
	return fmt.Errorf("%w: %w", ErrGone, err)
}

// Close ends the connection. Before Serve it leaves everything to the predecessor.
func (p *Predecessor) Close() error { return p.peer.close() }
