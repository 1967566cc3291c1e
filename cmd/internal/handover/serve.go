package handover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Donor is the process that serves.
type Donor interface {
	// Freeze stops all commits and returns what there is, until Thaw or Leave.
	Freeze(ctx context.Context) (State, error)
	// Thaw goes on as if there had been no Freeze.
	Thaw()
	// Leave begins to end the process: another one serves. It does not wait.
	Leave()
}

// Config configures Open.
type Config struct {
	// Path of the Unix socket.
	Path string
	// Prefix is that of the etcd keys.
	Prefix  string
	Version string
	Logger  *slog.Logger
}

// Server waits for a successor.
type Server struct {
	config   Config
	ports    *Ports
	listener *net.UnixListener
	busy     atomic.Int64 // the process id of a successor; 0 is none
	left     atomic.Bool
}

// Open listens for a successor, in place of whoever did so before.
func Open(c Config, ports *Ports) (*Server, error) {
	next := fmt.Sprintf("%s.%d", c.Path, os.Getpid())
	if err := os.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("hand-over: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: next, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("hand-over: %w", err)
	}
	l.SetUnlinkOnClose(false)
	if err = os.Chmod(next, 0o600); err == nil {
		err = os.Rename(next, c.Path)
	}
	if err != nil {
		return nil, fmt.Errorf("hand-over: %w", errors.Join(err, os.Remove(next), l.Close()))
	}
	return &Server{config: c, ports: ports, listener: l}, nil
}

// Run serves successors until ctx ends, or one has taken over.
func (s *Server) Run(ctx context.Context, donor Donor) error {
	// It is removed unless it is a successor's by now.
	own, _ := os.Stat(s.config.Path)
	stop := context.AfterFunc(ctx, func() { _ = s.listener.Close() })
	defer stop()
	var peers sync.WaitGroup
	defer peers.Wait()
	defer func() {
		_ = s.listener.Close()
		if there, err := os.Stat(s.config.Path); err == nil && own != nil && os.SameFile(own, there) {
			_ = os.Remove(s.config.Path)
		}
	}()
	for {
		conn, err := s.listener.AcceptUnix()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			return fmt.Errorf("hand-over: %w", err)
		}
		peers.Go(func() {
			p := newPeer(conn)
			stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
			defer stop()
			defer func() { _ = p.close() }()
			if err := s.serve(ctx, p, donor); err != nil && ctx.Err() == nil {
				s.config.Logger.WarnContext(ctx, "hand-over did not take place, this process goes on", slog.Any("error", err))
			}
		})
	}
}

// serve leads one successor through the steps.
func (s *Server) serve(ctx context.Context, p *peer, donor Donor) error {
	refuse := func(reason string) error {
		return errors.Join(errors.New(reason), p.send(message{Refusal: reason}))
	}
	if err := checkUser(p.conn); err != nil {
		return refuse(err.Error())
	}
	m, err := p.receive(stepTimeout)
	switch {
	case err != nil:
		return err
	case m.Hello == nil:
		return errUnexpected
	case m.Hello.Protocol != protocol:
		return refuse(fmt.Sprintf("it speaks version %d of the protocol, and this process version %d: restart it instead", m.Hello.Protocol, protocol))
	case m.Hello.Prefix != s.config.Prefix:
		return refuse(fmt.Sprintf("its --prefix is %s, and that of this process %s: restart it instead", m.Hello.Prefix, s.config.Prefix))
	case s.left.Load():
		return refuse("this process has handed over already, and is about to end")
	case !s.busy.CompareAndSwap(0, int64(m.Hello.PID)):
		return refuse(fmt.Sprintf("process %d is taking over already", s.busy.Load()))
	}
	defer s.busy.Store(0)
	log := s.config.Logger.With(slog.Int("successor", m.Hello.PID), slog.String("version", m.Hello.Version))
	log.InfoContext(ctx, "handing over")
	if err := s.sendSockets(p); err != nil {
		return err
	}
	// It waits for istiod now, for as long as that takes.
	if m, err = p.receive(0); err != nil {
		return fmt.Errorf("the successor has ended: %w", err)
	}
	if !m.Freeze {
		return errUnexpected
	}
	return s.pass(ctx, p, donor, log, refuse)
}

// pass is the part in which this process is frozen.
func (s *Server) pass(ctx context.Context, p *peer, donor Donor, log *slog.Logger, refuse func(string) error) error {
	began := time.Now()
	state, err := donor.Freeze(ctx)
	if err != nil {
		return err
	}
	thaw := true
	defer func() {
		if thaw {
			donor.Thaw()
		}
	}()
	if err := p.sendState(state); err != nil {
		return err
	}
	m, err := p.receive(stepTimeout)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return refuse("the successor took too long")
	case err != nil:
		return fmt.Errorf("the successor has ended: %w", err)
	case !m.Serving:
		return errUnexpected
	}
	// No way back from here: the successor may have been told so.
	thaw = false
	s.left.Store(true)
	err = p.send(message{Farewell: true})
	s.ports.leave()
	log.InfoContext(ctx, "handed over", slog.Int64("revision", state.Store.Revision), slog.Duration("frozen", time.Since(began)))
	donor.Leave()
	return err
}

func (s *Server) sendSockets(p *peer) error {
	infos, descriptors, err := s.ports.duplicate()
	if err != nil {
		return err
	}
	defer closeAll(descriptors)
	for n := 0; n < len(infos); n += socketsPerMessage {
		end := min(n+socketsPerMessage, len(infos))
		p.pending = descriptors[n:end]
		if err := p.send(message{Sockets: infos[n:end]}); err != nil {
			return err
		}
	}
	return p.send(message{Welcome: &welcome{Version: s.config.Version, PID: os.Getpid()}})
}
