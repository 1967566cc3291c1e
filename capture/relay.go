package capture

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// relayed is what an event loop is told about two connections.
type relayed struct {
	client   *acceptedConn
	observed *Connected    // nil where nobody is told
	idle     time.Duration // 0: without limit
	// toUpstream and toClient are bytes that come before all others; so many of the former are the client's.
	toUpstream, toClient []byte
	read                 int
}

// relay copies bytes between two connections in both directions until both have ended, and closes
// them. The end of one direction is passed on as such; a reset of one side resets the other. idle
// closes both when no byte has passed in either direction for so long; 0 is without limit. Where
// both are plain, an event loop takes them over and relay returns at once: the connections must not
// be used any more. A *peekedConn is plain if what it wraps is. client is or wraps what the server has
// accepted.
func (s *Server) relay(ctx context.Context, client, upstream net.Conn, idle time.Duration) {
	s.relayAfter(ctx, lead{}, client, upstream, idle)
}

// lead is what the upstream gets before the client's bytes, in one write with the first of them where these
// are there.
type lead struct {
	header []byte
	// clientFirst tells that the client speaks first: nobody misses the header before it has.
	clientFirst bool
}

// relayAfter is relay with bytes that come before the client's.
func (s *Server) relayAfter(ctx context.Context, lead lead, client, upstream net.Conn, idle time.Duration) {
	from, to := unwrap(client), unwrap(upstream)
	if from.accepted != nil && from.plain != nil && to.plain != nil {
		r := relayed{
			client: from.accepted, observed: from.accepted.observed.Load(), idle: idle,
			toUpstream: append(lead.header, from.head...), toClient: to.head, read: len(from.head),
		}
		s.connections.handOver(from.accepted)
		if s.loops.take(r, from.plain, to.plain) {
			return
		}
	}
	c := &copying{client: client, upstream: upstream, lead: lead, idle: idle, buffers: &s.copyBuffers}
	accepted := acceptedBelow(client)
	if accepted != nil {
		c.observed = accepted.observed.Load()
	}
	c.run(ctx)
	if accepted != nil {
		accepted.endsAs(c.outcome())
		s.metrics.bytes(accepted.direction, c.sent.Load(), c.received.Load())
	}
	if c.failed.Load() || c.stopped.Load() {
		reset(client)
		reset(upstream)
		return
	}
	_, _ = client.Close(), upstream.Close()
}

// acceptedBelow returns the accepted connection under layers such as TLS, or nil.
func acceptedBelow(conn net.Conn) *acceptedConn {
	if wrapper, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = wrapper.NetConn()
	}
	return unwrap(conn).accepted
}

// copyBuffer holds what is read at once of a connection that is not plain: a record of TLS.
type copyBuffer [16 << 10]byte

const (
	// waitingSize is what a direction has instead of a copyBuffer when it was silent for
	// bufferedFor, or half of it.
	waitingSize = 1 << 10
	bufferedFor = time.Second
	// leadFor is how long the first bytes are waited for of a client that may wait for the server.
	leadFor = time.Millisecond
)

// copying relays two connections of which one is not plain, in two goroutines.
type copying struct {
	client, upstream net.Conn
	lead             lead
	idle             time.Duration
	buffers          *sync.Pool // of *copyBuffer
	observed         *Connected // nil where nobody is told

	sent, received atomic.Int64 // bytes to the client, and to the upstream
	begun          time.Time
	last           atomic.Int64 // when the last byte passed, since begun
	failed         atomic.Bool  // one of them failed, or was reset
	idled, stopped atomic.Bool

	mu   sync.Mutex
	over bool // both directions are to end; deadlines stay as they are
}

// run returns when both directions have ended.
func (c *copying) run(ctx context.Context) {
	c.begun = time.Now()
	stop := context.AfterFunc(ctx, func() {
		c.stopped.Store(true)
		c.interrupt()
	})
	defer stop()
	if c.idle > 0 {
		defer c.watchIdle()()
	}
	var up sync.WaitGroup
	up.Go(func() { c.copy(c.upstream, c.client, c.lead, &c.received) })
	c.copy(c.client, c.upstream, lead{}, &c.sent)
	up.Wait()
}

// outcome tells how it ended.
func (c *copying) outcome() string {
	switch {
	case c.idled.Load():
		return outcomeIdle
	case c.stopped.Load():
		return outcomeStopped
	case c.failed.Load():
		return outcomeReset
	default:
		return outcomeClosed
	}
}

// copy passes on what one side sends, and its end. Between bytes that are far apart it has no copyBuffer.
func (c *copying) copy(to, from net.Conn, lead lead, count *atomic.Int64) {
	waiting := make([]byte, waitingSize)
	large := c.borrow()
	defer func() { c.giveBack(large) }()
	var until time.Time // when the large buffer is given back
	for {
		space := waiting
		if large != nil {
			space = large[:]
			if now := time.Now(); until.Sub(now) < bufferedFor/2 {
				until = now.Add(lead.patience())
				c.readBy(from, until)
			}
		}
		n, err := from.Read(space)
		if n > 0 {
			c.last.Store(int64(time.Since(c.begun)))
			count.Add(int64(n))
			if count == &c.sent {
				c.observed.count(n, 0)
			} else {
				c.observed.count(0, n)
			}
		}
		silent := errors.Is(err, os.ErrDeadlineExceeded) && c.goesOn()
		if b := lead.before(space[:n], silent); len(b) > 0 {
			if _, err := to.Write(b); err != nil {
				c.fail()
				return
			}
		}
		switch {
		case silent:
			c.giveBack(large)
			large, until = nil, time.Time{}
			c.readBy(from, until)
		case errors.Is(err, io.EOF):
			if closeWrite(to) != nil {
				c.fail()
			}
			return
		case err != nil:
			c.fail()
			return
		case large == nil && n == len(waiting):
			large = c.borrow()
		}
	}
}

// patience is how long the next bytes are waited for with a buffer for them.
func (l *lead) patience() time.Duration {
	if len(l.header) > 0 && !l.clientFirst {
		return leadFor
	}
	return bufferedFor
}

// before returns what is to be written when b has been read: the header comes first, once. Where the client
// is silent it waits, if it may.
func (l *lead) before(b []byte, silent bool) []byte {
	if len(l.header) == 0 || silent && l.clientFirst && len(b) == 0 {
		return b
	}
	b = append(l.header, b...)
	l.header = nil
	return b
}

func (c *copying) borrow() *copyBuffer {
	if b, ok := c.buffers.Get().(*copyBuffer); ok {
		return b
	}
	return new(copyBuffer)
}

func (c *copying) giveBack(b *copyBuffer) {
	if b != nil {
		c.buffers.Put(b)
	}
}

// readBy sets when reads of a connection end; zero is never.
func (c *copying) readBy(conn net.Conn, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		_ = conn.SetReadDeadline(at)
	}
}

// goesOn tells that nothing has ended both directions.
func (c *copying) goesOn() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.over
}

// fail ends both directions.
func (c *copying) fail() {
	if !c.idled.Load() && !c.stopped.Load() {
		c.failed.Store(true)
	}
	c.interrupt()
}

// interrupt makes reads and writes return.
func (c *copying) interrupt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	past := time.Unix(1, 0)
	_, _ = c.client.SetDeadline(past), c.upstream.SetDeadline(past)
}

// watchIdle interrupts when no byte has passed for too long, until the function that it returns is called.
func (c *copying) watchIdle() (stop func()) {
	var over atomic.Bool
	var timer *time.Timer
	timer = time.AfterFunc(math.MaxInt64, func() {
		left := c.idle - (time.Since(c.begun) - time.Duration(c.last.Load()))
		switch {
		case over.Load():
		case left > 0:
			timer.Reset(left)
		default:
			c.idled.Store(true)
			c.interrupt()
		}
	})
	timer.Reset(c.idle) // not before the function knows its timer
	return func() {
		over.Store(true)
		timer.Stop()
	}
}
