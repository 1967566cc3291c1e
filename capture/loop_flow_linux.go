package capture

import (
	"errors"

	"golang.org/x/sys/unix"
)

// happened notes what an event tells and relays what it can. Events are hints: one that was meant for the
// slot's former flow does no harm.
func (l *loop) happened(event unix.EpollEvent) {
	f := l.flows[event.Fd>>1]
	if f == nil {
		return
	}
	side := int(event.Fd & 1)
	s := &f.sides[side]
	if event.Events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		s.readable = true
	}
	if event.Events&unix.EPOLLOUT != 0 {
		s.writable = true
	}
	if event.Events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		s.hangup = true
	}
	if event.Events&unix.EPOLLERR != 0 && len(f.sides[1-side].pending) > 0 {
		// Nothing is read while the other side takes nothing, so the error would not be seen.
		if code, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || code != 0 {
			l.remove(f, true, outcomeReset)
			return
		}
	}
	l.turn(f)
}

// turn relays in both directions for as long as it may in a row.
func (l *loop) turn(f *flow) {
	for from := range f.sides {
		if err := l.relay(f, from); err != nil {
			// What a peer has sent before it hung up, such as an early answer, is passed on.
			_ = l.relay(f, 1-from)
			l.remove(f, true, outcomeReset)
			return
		}
	}
	if f.sides[clientSide].shut && f.sides[upstreamSide].shut {
		l.remove(f, false, outcomeClosed)
		return
	}
	if (l.mayRelay(f, clientSide) || l.mayRelay(f, upstreamSide)) && !f.queued {
		f.queued = true
		l.again = append(l.again, f)
	}
}

// mayRelay tells whether there is more to do in a direction without a further event.
func (l *loop) mayRelay(f *flow, from int) bool {
	s, to := &f.sides[from], &f.sides[1-from]
	return s.readable && !s.ended && len(to.pending) == 0
}

// continueTurns gives another turn to those that had more to do.
func (l *loop) continueTurns() {
	turns := len(l.again)
	for _, f := range l.again[:turns] {
		f.queued = false
		if !f.closed {
			l.turn(f)
		}
	}
	l.again = l.again[:copy(l.again, l.again[turns:])]
}

// relay passes on what one side sends, and its end. An error means that the flow is to be reset.
func (l *loop) relay(f *flow, from int) error {
	s, to := &f.sides[from], &f.sides[1-from]
	if len(to.pending) > 0 {
		if !to.writable {
			return nil
		}
		if err := l.flush(f, to); err != nil || len(to.pending) > 0 {
			return err
		}
	}
	for turns := 0; s.readable && !s.ended && turns < maxTurns; turns++ {
		n, err := unix.Read(s.fd, l.scratch)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			s.readable = false
			continue
		case err != nil:
			return err
		case n == 0:
			s.ended = true
			continue
		}
		f.last = l.now
		l.count(f, from, n)
		// Less than was asked for means that there is no more, and the next bytes are an event.
		s.readable = n == len(l.scratch) || s.hangup
		if err := l.write(to, l.scratch[:n]); err != nil {
			return err
		}
		if len(to.pending) > 0 {
			return nil
		}
	}
	if s.ended && !to.shut {
		to.shut = true
		// An error means that the peer has reset the connection, which is an event of its own.
		_ = unix.Shutdown(to.fd, unix.SHUT_WR)
	}
	return nil
}

// write writes to a side and keeps what it does not take.
func (l *loop) write(to *side, b []byte) error {
	n, err := send(to, b)
	if err != nil {
		return err
	}
	if n < len(b) {
		to.buffer = append(l.borrow(), b[n:]...)
		to.pending = to.buffer
	}
	return nil
}

// flush writes what a side has not taken so far.
func (l *loop) flush(f *flow, to *side) error {
	n, err := send(to, to.pending)
	if err != nil {
		return err
	}
	if n > 0 {
		f.last = l.now
	}
	to.pending = to.pending[n:]
	if len(to.pending) == 0 {
		l.release(to)
	}
	return nil
}

// send writes as much as the kernel takes.
func send(to *side, b []byte) (int, error) {
	sent := 0
	for to.writable && sent < len(b) {
		n, err := unix.Write(to.fd, b[sent:])
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			to.writable = false
		case err != nil:
			return sent, err
		default:
			sent += n
		}
	}
	return sent, nil
}

// borrow returns an empty buffer that holds what is read at once.
func (l *loop) borrow() []byte {
	if n := len(l.buffers); n > 0 {
		b := l.buffers[n-1]
		l.buffers = l.buffers[:n-1]
		return b[:0]
	}
	return make([]byte, 0, scratchSize)
}

// maxSpareBuffers is how many buffers a loop keeps for later.
const maxSpareBuffers = 64

// release takes back the buffer of a side that has taken all.
func (l *loop) release(to *side) {
	if to.buffer != nil && len(l.buffers) < maxSpareBuffers {
		l.buffers = append(l.buffers, to.buffer)
	}
	to.pending, to.buffer = nil, nil
}

func (l *loop) count(f *flow, from, n int) {
	if t := &l.traffic[f.client.direction]; from == clientSide {
		t.received += int64(n)
		f.observed.count(0, n)
	} else {
		t.sent += int64(n)
		f.observed.count(n, 0)
	}
}

// publish adds the bytes since last time to the metrics.
func (l *loop) publish() {
	for d := range l.traffic {
		if t := &l.traffic[d]; t.sent|t.received != 0 {
			l.metrics.bytes(direction(d), t.sent, t.received)
			t.sent, t.received = 0, 0
		}
	}
}

// expire closes flows that were idle for too long.
func (l *loop) expire() {
	for {
		at, ok := l.idle.first()
		if !ok || at > l.now {
			return
		}
		f := l.idle.pop()
		if until := f.last + f.idle; until > l.now {
			l.idle.push(f, until) // there were bytes since
			continue
		}
		l.remove(f, false, outcomeIdle)
	}
}

// remove closes both connections of a flow, with a reset where the peers are to see one.
func (l *loop) remove(f *flow, reset bool, outcome string) {
	f.closed = true
	l.flows[f.slot] = nil
	l.free = append(l.free, f.slot)
	l.idle.remove(f)
	for i := range f.sides {
		l.release(&f.sides[i])
	}
	f.closeBoth(reset)
	l.publish() // what the flow has relayed counts before it has ended
	f.client.endsAs(outcome)
	f.client.end()
}

// end resets what is open.
func (l *loop) end() {
	l.mu.Lock()
	l.stopped = true
	incoming := l.incoming
	l.incoming = nil
	l.mu.Unlock()
	for _, f := range incoming {
		f.closeBoth(true)
		f.client.endsAs(outcomeStopped)
		f.client.end()
	}
	for _, f := range l.flows {
		if f != nil {
			l.remove(f, true, outcomeStopped)
		}
	}
}

func (f *flow) closeBoth(reset bool) {
	for i := range f.sides {
		if reset {
			_ = unix.SetsockoptLinger(f.sides[i].fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		}
		_ = unix.Close(f.sides[i].fd)
	}
}
