package handover

import (
	"encoding/gob"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"meshbridge/cmd/internal/allocate"
	"meshbridge/store"
)

// protocol is the version of what is said here. Fields may be added to messages without another one.
const protocol = 1

// message is all that either side says; one field is set.
type message struct {
	Hello    *hello
	Refusal  string // instead of any answer
	Sockets  []socketInfo
	Welcome  *welcome // after all sockets
	Freeze   bool
	State    *stateHeader
	Changes  []store.Change // after State
	Complete bool           // after all changes
	Serving  bool
	Farewell bool
}

// hello is the first message.
type hello struct {
	Protocol int
	Version  string
	PID      int
	// Prefix is that of the etcd keys: the state of another one would be none of the successor's.
	Prefix string
}

type welcome struct {
	Version string
	PID     int
}

// socketInfo tells of a file descriptor that comes with the message.
type socketInfo struct {
	Name      string
	Requested string
	Packet    bool
}

// stateHeader is a State without its changes.
type stateHeader struct {
	Revision, CompactRevision int64
	Leases                    []store.Lease
	Keys                      []string
	Numbers                   []allocate.Number
}

// State is what the clients of a predecessor know of it.
type State struct {
	Store store.State
	// Keys are those that the predecessor has committed itself, below the prefix; others are of clients.
	Keys []string
	// Numbers are the ports and addresses that were given out.
	Numbers []allocate.Number
}

const (
	socketsPerMessage = 64 // the kernel passes at most 253
	changesPerMessage = 1000
	// stepTimeout bounds each step that does not wait for istiod.
	stepTimeout = 15 * time.Second
)

// peer is the connection to the other process.
type peer struct {
	conn    *net.UnixConn
	encoder *gob.Encoder
	decoder *gob.Decoder
	pending []int // file descriptors that go with the next bytes
	files   []*os.File
}

func newPeer(conn *net.UnixConn) *peer {
	p := &peer{conn: conn}
	p.encoder, p.decoder = gob.NewEncoder(rightsWriter{p}), gob.NewDecoder(rightsReader{p})
	return p
}

func (p *peer) close() error {
	for _, f := range p.files {
		_ = f.Close()
	}
	p.files = nil
	return p.conn.Close()
}

func (p *peer) send(m message) error {
	if err := p.conn.SetWriteDeadline(time.Now().Add(stepTimeout)); err != nil {
		return err
	}
	return p.encoder.Encode(m)
}

// receive waits for a message; zero is for as long as it takes.
func (p *peer) receive(within time.Duration) (m message, err error) {
	deadline := time.Time{}
	if within > 0 {
		deadline = time.Now().Add(within)
	}
	if err := p.conn.SetReadDeadline(deadline); err != nil {
		return m, err
	}
	if err := p.decoder.Decode(&m); err != nil {
		return m, err
	}
	if m.Refusal != "" {
		return m, &RefusedError{m.Refusal}
	}
	return m, nil
}

// RefusedError is what the other process says when it does not take part.
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string { return "the process that serves refuses: " + e.Reason }

// errUnexpected is a message out of order.
var errUnexpected = errors.New("an unexpected message")

func (p *peer) sendState(s State) error {
	err := p.send(message{State: &stateHeader{
		Revision: s.Store.Revision, CompactRevision: s.Store.CompactRevision, Leases: s.Store.Leases,
		Keys: s.Keys, Numbers: s.Numbers,
	}})
	if err != nil {
		return err
	}
	batch := make([]store.Change, 0, changesPerMessage)
	for change, err := range s.Store.Changes {
		if err != nil {
			return err
		}
		if batch = append(batch, change); len(batch) == changesPerMessage {
			if err := p.send(message{Changes: batch}); err != nil {
				return err
			}
			batch = batch[:0]
		}
	}
	return errors.Join(p.send(message{Changes: batch}), p.send(message{Complete: true}))
}

func (p *peer) receiveState() (s State, err error) {
	m, err := p.receive(stepTimeout)
	if err != nil {
		return s, err
	}
	if m.State == nil {
		return s, errUnexpected
	}
	var changes []store.Change
	for {
		more, err := p.receive(stepTimeout)
		if err != nil {
			return s, fmt.Errorf("after %d changes: %w", len(changes), err)
		}
		if more.Complete {
			break
		}
		changes = append(changes, more.Changes...)
	}
	s.Keys, s.Numbers = m.State.Keys, m.State.Numbers
	s.Store = store.State{
		Revision: m.State.Revision, CompactRevision: m.State.CompactRevision, Leases: m.State.Leases,
		Changes: func(yield func(store.Change, error) bool) {
			for _, c := range changes {
				if !yield(c, nil) {
					return
				}
			}
		},
	}
	return s, nil
}
