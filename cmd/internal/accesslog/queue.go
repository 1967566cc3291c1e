package accesslog

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	access "meshbridge/translate/accesslog"
)

// Bounds of what waits for one destination. A process of APISIX that was busy may report 10,000 requests at
// once, and there may be several.
const (
	maxQueued      = 50_000
	maxQueuedBytes = 32 << 20
)

// keptRoom is how many entries a queue has room for that it does not give back when it is empty.
const keptRoom = 1024

// destination is where entries are written to. Logs with equal ones share a queue.
type destination struct {
	kind access.Kind
	path string
	// of services
	tcp                                bool // connections, and no requests
	name, cluster, authority, metadata string
	timeout, flushInterval             time.Duration
	bufferSize                         int
}

func destinationOf(l *access.Log) destination {
	if l.Kind == access.KindFile {
		return destination{kind: l.Kind, path: l.Path}
	}
	s := &l.Service
	return destination{
		kind: l.Kind, tcp: l.TCP, name: l.Name,
		cluster: s.Cluster, authority: s.Authority, metadata: strings.Join(s.Metadata, "\x00"), timeout: s.Timeout,
		flushInterval: l.FlushInterval, bufferSize: l.BufferSize,
	}
}

// String names a destination for messages.
func (d *destination) String() string {
	if d.kind == access.KindFile {
		return d.path
	}
	return d.cluster
}

// item is an entry that waits.
type item struct {
	log   *access.Log
	entry *access.Entry
	size  int
}

// queue has what waits for a destination. Its methods are safe for concurrent use; one goroutine takes.
type queue struct {
	to     destination
	counts counts
	wake   chan struct{} // has room for one
	closed chan struct{} // closed when nothing more is put in

	mu    sync.Mutex
	items []item
	head  int // of items
	bytes int
	used  time.Time // when the last entry came
	unfit int       // entries that did not fit, and that nobody was told of
}

func newQueue(to destination, c counts) *queue {
	return &queue{to: to, counts: c, wake: make(chan struct{}, 1), closed: make(chan struct{})}
}

// put adds an item, unless there is no room.
func (q *queue) put(now time.Time, i item) {
	q.mu.Lock()
	q.used = now
	if len(q.items)-q.head >= maxQueued || q.bytes+i.size > maxQueuedBytes {
		q.unfit++
		q.mu.Unlock()
		q.counts.lost.Inc()
		return
	}
	q.items = append(q.items, i)
	q.bytes += i.size
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take moves up to limit items to the end of a slice.
func (q *queue) take(to []item, limit int) []item {
	q.mu.Lock()
	defer q.mu.Unlock()
	next := q.items[q.head:min(q.head+limit, len(q.items))]
	to = append(to, next...)
	for _, i := range next {
		q.bytes -= i.size
	}
	clear(next)
	q.head += len(next)
	switch {
	case q.head < len(q.items):
		if q.head > len(q.items)/2 {
			q.items, q.head = slices.Delete(q.items, 0, q.head), 0
		}
	case cap(q.items) > keptRoom:
		q.items, q.head = nil, 0
	default:
		q.items, q.head = q.items[:0], 0
	}
	return to
}

func (q *queue) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.head == len(q.items)
}

// wait returns true once there is something to take, and false when there will be nothing any more, or ctx has
// ended.
func (q *queue) wait(ctx context.Context) bool {
	for q.empty() {
		select {
		case <-ctx.Done():
			return false
		case <-q.wake:
		case <-q.closed:
			return !q.empty()
		}
	}
	return ctx.Err() == nil
}

// closing tells whether nothing more is put in.
func (q *queue) closing() bool {
	select {
	case <-q.closed:
		return true
	default:
		return false
	}
}

// pause returns after d, or when the queue becomes closed or ctx has ended.
func (q *queue) pause(ctx context.Context, d time.Duration) {
	closed := q.closed
	if q.closing() {
		closed = nil // it is no news
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-closed:
	case <-timer.C:
	}
}

// idle tells whether nothing waits, and nothing came since.
func (q *queue) idle(since time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.head == len(q.items) && q.used.Before(since)
}

// unsaid returns how many entries did not fit since it was called last.
func (q *queue) unsaid() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := q.unfit
	q.unfit = 0
	return n
}

// abandon gives up what waits.
func (q *queue) abandon() int {
	n := len(q.take(nil, maxQueued))
	q.counts.lost.Add(float64(n))
	return n
}

// sizeOf estimates the memory that an entry takes.
func sizeOf(e *access.Entry) int {
	const plain, request, header = 512, 256, 48
	n := plain + len(e.Chain) + len(e.Listener) + len(e.Route) + len(e.Cluster) + len(e.ServerName) + len(e.Principal) +
		len(e.OwnPrincipal) + len(e.Flags) + len(e.Detail)
	h := e.HTTP
	if h == nil {
		return n
	}
	n += request + len(h.Protocol) + len(h.Scheme) + len(h.Method) + len(h.Authority) + len(h.Path) + len(h.GRPCStatus)
	for name, value := range h.RequestHeaders {
		n += header + len(name) + len(value)
	}
	for name, value := range h.ResponseHeaders {
		n += header + len(name) + len(value)
	}
	return n
}
