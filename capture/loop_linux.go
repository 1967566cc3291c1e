package capture

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// scratchSize is how much a loop reads at once. Bytes that the other side does not take are
	// copied to a buffer of the flow, and nothing more is read until it has taken them.
	scratchSize = 64 << 10
	// maxTurns is how often in a row a direction of a flow is read from before others have their turn.
	maxTurns = 8
	// maxEvents is how many events are taken from the kernel at once.
	maxEvents = 256
)

// loops relay plain connections: one event loop for each core, each of which owns its flows.
type loops struct {
	all  []*loop
	next atomic.Uint32
}

// loop relays the flows that it was given. All but the fields below mu belong to run.
type loop struct {
	epoll, wake int // descriptors; wake is an eventfd
	log         *slog.Logger
	metrics     *metrics

	flows   []*flow // by slot; nil where free
	free    []int32 // slots
	again   []*flow // those that have had their turn and have more to do
	idle    deadlines
	now     time.Duration // since start
	start   time.Time
	scratch []byte
	buffers [][]byte                                   // that no flow needs now
	traffic [directions]struct{ sent, received int64 } // since the last publication

	mu       sync.Mutex
	incoming []*flow
	stopped  bool
}

// flow is a pair of plain connections.
type flow struct {
	relayed
	sides   [2]side // client, upstream
	last    time.Duration
	slot    int32
	queued  bool // in loop.again
	heapPos int
	closed  bool
}

// The sides of a flow.
const (
	clientSide   = 0
	upstreamSide = 1
)

// side is one connection of a flow.
type side struct {
	fd int
	// readable and writable tell that the kernel has not said otherwise since its last event.
	readable, writable bool
	// hangup tells that an end or an error is to be read: a short read is not the last.
	hangup bool
	// ended tells that the peer sends nothing more, shut that we told it the same.
	ended, shut bool
	// pending is what is still to be written here; buffer is what it is a part of.
	pending, buffer []byte
}

// newLoops starts a loop for each core that Go uses.
func newLoops(log *slog.Logger, m *metrics) (*loops, error) {
	ls := new(loops)
	for range runtime.GOMAXPROCS(0) {
		l, err := newLoop(log, m)
		if err != nil {
			ls.close()
			return nil, err
		}
		ls.all = append(ls.all, l)
	}
	return ls, nil
}

func newLoop(log *slog.Logger, m *metrics) (*loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(epoll)
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: wakeSlot}
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, wake, &event); err != nil {
		_, _ = unix.Close(epoll), unix.Close(wake)
		return nil, fmt.Errorf("epoll_ctl: %w", err)
	}
	return &loop{epoll: epoll, wake: wake, log: log, metrics: m, start: time.Now(), scratch: make([]byte, scratchSize)}, nil
}

// wakeSlot marks the events of the eventfd.
const wakeSlot = -1

// close releases the descriptors of loops that do not run.
func (ls *loops) close() {
	for _, l := range ls.all {
		_, _ = unix.Close(l.epoll), unix.Close(l.wake)
	}
}

// run relays until stop, resets what is still open and releases everything.
func (ls *loops) run() {
	var running sync.WaitGroup
	for _, l := range ls.all {
		running.Go(l.run)
	}
	running.Wait()
	ls.close()
}

// stop ends run.
func (ls *loops) stop() {
	for _, l := range ls.all {
		l.mu.Lock()
		if !l.stopped {
			l.stopped = true
			l.ring()
		}
		l.mu.Unlock()
	}
}

// take takes over two plain connections, of which nothing was read that is not in r. It is false, and
// nothing has changed, where that is not possible; after a true the caller must not use them.
func (ls *loops) take(r relayed, client, upstream plainConn) bool {
	from, err := detach(client)
	if err != nil {
		return false
	}
	to, err := detach(upstream)
	if err != nil {
		_ = unix.Close(from)
		return false
	}
	// Closing is what removes duplicates from Go's poller.
	_, _ = client.Close(), upstream.Close()
	f := &flow{relayed: r, sides: [2]side{
		{fd: from, writable: true, pending: r.toClient},
		{fd: to, writable: true, pending: r.toUpstream},
	}}
	l := ls.all[int(ls.next.Add(1))%len(ls.all)]
	l.metrics.bytes(r.client.direction, 0, int64(r.read))
	r.observed.count(0, r.read)
	l.mu.Lock()
	stopped := l.stopped
	if !stopped {
		l.incoming = append(l.incoming, f)
		l.ring()
	}
	l.mu.Unlock()
	if stopped {
		f.closeBoth(true)
		r.client.endsAs(outcomeStopped)
		r.client.end()
	}
	return true
}

// detach returns a connection's descriptor, or a duplicate where Go's poller has it.
func detach(conn plainConn) (int, error) {
	if c, ok := conn.(*socketConn); ok {
		if fd, ok := c.detach(); ok {
			return fd, nil
		}
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	duplicate, failed := -1, error(nil)
	err = raw.Control(func(fd uintptr) {
		duplicate, failed = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	})
	return duplicate, errors.Join(err, failed)
}

// ring makes run look at what is below mu, which the caller holds: the descriptor may be closed otherwise.
func (l *loop) ring() {
	one := [8]byte{1} // a number in the byte order of little-endian hosts; any other is as good
	_, _ = unix.Write(l.wake, one[:])
}

func (l *loop) run() {
	events := make([]unix.EpollEvent, maxEvents)
	for {
		n, err := l.wait(events)
		if err != nil && !errors.Is(err, unix.EINTR) {
			l.log.Error("relay cannot wait for events", slog.Any("error", err))
			l.end()
			return
		}
		l.now = time.Since(l.start)
		for _, event := range events[:max(n, 0)] {
			if event.Fd != wakeSlot {
				l.happened(event)
			} else if l.woken() {
				l.end()
				return
			}
		}
		l.continueTurns()
		l.expire()
		l.publish()
	}
}

// wait returns what has happened, at the latest when a flow may be idle for too long.
func (l *loop) wait(events []unix.EpollEvent) (int, error) {
	// What is there already is cheaper to get without telling Go's scheduler that we may block.
	if n, err := unix.EpollWait(l.epoll, events, 0); n != 0 || err != nil || len(l.again) > 0 {
		return n, err
	}
	timeout := -1
	if at, ok := l.idle.first(); ok {
		timeout = int(min(max((at-time.Since(l.start)+time.Millisecond-1)/time.Millisecond, 0), math.MaxInt32))
	}
	return unix.EpollWait(l.epoll, events, timeout)
}

// woken takes what is below mu, and tells whether to stop.
func (l *loop) woken() (stop bool) {
	var count [8]byte
	_, _ = unix.Read(l.wake, count[:])
	l.mu.Lock()
	incoming, stopped := l.incoming, l.stopped
	l.incoming = nil
	l.mu.Unlock()
	for _, f := range incoming {
		l.add(f)
	}
	return stopped
}

// add begins to relay a flow.
func (l *loop) add(f *flow) {
	if len(l.free) == 0 {
		l.free = append(l.free, int32(len(l.flows)))
		l.flows = append(l.flows, nil)
	}
	f.slot = l.free[len(l.free)-1]
	l.free = l.free[:len(l.free)-1]
	l.flows[f.slot] = f
	f.last, f.heapPos = l.now, notInHeap
	if f.idle > 0 {
		l.idle.push(f, l.now+f.idle)
	}
	for i := range f.sides {
		event := unix.EpollEvent{
			Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET,
			Fd:     f.slot<<1 | int32(i),
		}
		if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, f.sides[i].fd, &event); err != nil {
			l.log.Error("relay cannot watch a connection", slog.Any("error", err))
			l.remove(f, true, outcomeReset)
			return
		}
	}
	l.turn(f)
}
