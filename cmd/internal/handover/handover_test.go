package handover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"meshbridge/cmd/internal/allocate"
	"meshbridge/store"
)

// patience bounds what only a failing test waits for.
const patience = 20 * time.Second

// giving is a Donor that notes what it is asked.
type giving struct {
	state atomic.Pointer[State]
	calls chan string // with room for all
}

func (g *giving) Freeze(context.Context) (State, error) {
	g.calls <- "freeze"
	return *g.state.Load(), nil
}
func (g *giving) Thaw()  { g.calls <- "thaw" }
func (g *giving) Leave() { g.calls <- "leave" }

func (g *giving) next(t *testing.T) string {
	t.Helper()
	select {
	case c := <-g.calls:
		return c
	case <-time.After(patience): //nolint:forbidigo // bounds what only a failing test waits for
		t.Fatal("the donor is not asked")
		return ""
	}
}

type pair struct {
	config Config
	ports  *Ports
	donor  *giving
	stop   func()
}

// serving starts a process that serves, with some sockets.
func serving(t *testing.T) *pair {
	t.Helper()
	p := &pair{
		config: Config{
			Path: filepath.Join(t.TempDir(), "socket"), Prefix: "/apisix", Version: "one", Logger: slog.New(slog.DiscardHandler),
		},
		ports: &Ports{}, donor: &giving{calls: make(chan string, 10)},
	}
	p.donor.state.Store(&State{Store: store.State{Changes: func(func(store.Change, error) bool) {}}})
	s, err := Open(p.config, p.ports)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, p.donor) }()
	stopped := false
	p.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(p.stop)
	return p
}

func listenTCP(t *testing.T, p *Ports, name, address string) net.Listener {
	t.Helper()
	l, err := p.Listen(t.Context(), net.ListenConfig{}, name, "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// exchange has a connection accepted by l.
func exchange(t *testing.T, l net.Listener) {
	t.Helper()
	client, err := net.Dial(l.Addr().Network(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(server, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(client); err != nil || string(text) != "hello" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestSocketsAndStateAreHandedOver(t *testing.T) {
	p := serving(t)
	old := listenTCP(t, p.ports, "etcd", "127.0.0.1:0")
	var many []string
	for i := range 2*socketsPerMessage + 1 {
		l := listenTCP(t, p.ports, fmt.Sprint("capture ", i), "127.0.0.1:0")
		many = append(many, l.Addr().String())
	}
	if err := listenTCP(t, p.ports, "closed", "127.0.0.1:0").Close(); err != nil {
		t.Fatal(err)
	}
	udp, err := p.ports.ListenPacket(t.Context(), net.ListenConfig{}, "dns", "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	path := filepath.Join(t.TempDir(), "bound")
	unix, err := p.ports.Listen(t.Context(), net.ListenConfig{}, "bound", "unix", path)
	if err != nil {
		t.Fatal(err)
	}

	kept, err := store.New(store.Config{BaseRevision: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2*changesPerMessage + 1 {
		if _, err := kept.Put(store.PutOp{Key: fmt.Append(nil, i%7), Value: fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
	}
	given := State{Store: kept.Export(), Keys: []string{"routes/r.1"}, Numbers: []allocate.Number{{Kind: "port", Name: "db", Number: 16000}}}
	p.donor.state.Store(&given)

	ports := &Ports{}
	predecessor, err := Claim(t.Context(), p.config, ports)
	if err != nil || predecessor == nil {
		t.Fatal(predecessor, err)
	}
	defer predecessor.Close()
	// The same address as was asked for, or the one it has.
	if l := listenTCP(t, ports, "etcd", "127.0.0.1:0"); l.Addr().String() != old.Addr().String() {
		t.Errorf("%s is not %s", l.Addr(), old.Addr())
	} else {
		_ = old.Close()
		exchange(t, l)
	}
	for i, address := range many {
		if l := listenTCP(t, ports, fmt.Sprint("capture ", i), address); l.Addr().String() != address {
			t.Errorf("%s is not %s", l.Addr(), address)
		}
	}
	inherited, err := ports.ListenPacket(t.Context(), net.ListenConfig{}, "dns", "udp", "127.0.0.1:0")
	if err != nil || inherited.LocalAddr().String() != udp.LocalAddr().String() {
		t.Fatal(inherited, err)
	}
	defer inherited.Close()
	bound, err := ports.Listen(t.Context(), net.ListenConfig{}, "bound", "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer bound.Close()
	// What has another name is another socket.
	if l := listenTCP(t, ports, "other", "127.0.0.1:0"); slices.Contains(many, l.Addr().String()) {
		t.Errorf("another part got %s", l.Addr())
	}

	state, err := predecessor.Freeze()
	if err != nil || p.donor.next(t) != "freeze" {
		t.Fatal(err)
	}
	restored, err := store.Restore(store.Config{}, state.Store)
	if err != nil {
		t.Fatal(err)
	}
	got, want := []string{}, []string{}
	for _, s := range []struct {
		store *store.Store
		to    *[]string
	}{{restored, &got}, {kept, &want}} {
		for c, err := range s.store.Export().Changes {
			if err != nil {
				t.Fatal(err)
			}
			*s.to = append(*s.to, fmt.Sprintf("%d %s=%s %d", c.Revision, c.KV.Key, c.KV.Value, c.KV.Version))
		}
	}
	if d := cmp.Diff(want, got); d != "" || restored.Revision() != kept.Revision() {
		t.Error(d)
	}
	if d := cmp.Diff([]any{given.Keys, given.Numbers}, []any{state.Keys, state.Numbers}); d != "" {
		t.Error(d)
	}
	if err := predecessor.Serve(); err != nil {
		t.Fatal(err)
	}
	if got := p.donor.next(t); got != "leave" {
		t.Errorf("the donor is asked to %s", got)
	}
	// The name of a Unix socket outlives the process that made it.
	_ = unix.Close()
	exchange(t, bound)
}

func TestWithoutAProcessThatServesThereIsNoPredecessor(t *testing.T) {
	p := serving(t)
	p.stop()
	if predecessor, err := Claim(t.Context(), p.config, &Ports{}); predecessor != nil || err != nil {
		t.Error(predecessor, err)
	}
}

func TestASuccessorThatEndsThawsItsPredecessor(t *testing.T) {
	p := serving(t)
	predecessor, err := Claim(t.Context(), p.config, &Ports{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := predecessor.Freeze(); err != nil || p.donor.next(t) != "freeze" {
		t.Fatal(err)
	}
	if err := predecessor.Close(); err != nil {
		t.Fatal(err)
	}
	if got := p.donor.next(t); got != "thaw" {
		t.Errorf("the donor is asked to %s", got)
	}
}

func TestAPredecessorThatDiesIsToldFromOneThatRefuses(t *testing.T) {
	for name, ask := range map[string]func(*Predecessor) error{
		"before the state": func(p *Predecessor) error { _, err := p.Freeze(); return err },
		"after it":         func(p *Predecessor) error { return p.Serve() },
	} {
		t.Run(name, func(t *testing.T) {
			p := serving(t)
			l := listenTCP(t, p.ports, "etcd", "127.0.0.1:0")
			ports := &Ports{}
			predecessor, err := Claim(t.Context(), p.config, ports)
			if err != nil {
				t.Fatal(err)
			}
			defer predecessor.Close()
			p.stop()
			_ = l.Close()
			if err := ask(predecessor); err != nil && !errors.Is(err, ErrGone) {
				t.Errorf("%v, want that it is gone, or nothing", err)
			}
			// Its sockets are not.
			exchange(t, listenTCP(t, ports, "etcd", l.Addr().String()))
		})
	}
}

func TestWhoDoesNotFitIsRefusedAndToldWhy(t *testing.T) {
	p := serving(t)
	say := func(h hello) error {
		conn, err := net.Dial("unix", p.config.Path)
		if err != nil {
			t.Fatal(err)
		}
		peer := newPeer(conn.(*net.UnixConn))
		defer func() { _ = peer.close() }()
		if err := peer.send(message{Hello: &h}); err != nil {
			t.Fatal(err)
		}
		_, err = peer.receive(patience)
		return err
	}
	var refused *RefusedError
	if err := say(hello{Protocol: protocol + 1, PID: 1, Prefix: "/apisix"}); !errors.As(err, &refused) || !strings.Contains(refused.Reason, "version 2 of the protocol") {
		t.Errorf("another protocol: %v", err)
	}
	if err := say(hello{Protocol: protocol, PID: 1, Prefix: "/other"}); !errors.As(err, &refused) || !strings.Contains(refused.Reason, "--prefix") {
		t.Errorf("another prefix: %v", err)
	}
	first, err := Claim(t.Context(), p.config, &Ports{})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if _, err := Claim(t.Context(), p.config, &Ports{}); !errors.As(err, &refused) || !strings.Contains(refused.Reason, "is taking over already") {
		t.Errorf("a third process: %v", err)
	}
}
