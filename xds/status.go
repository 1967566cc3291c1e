package xds

import (
	"maps"
	"sync"
	"time"
)

// Status is the state of a Client's connection.
type Status struct {
	// Connected tells whether the server has answered on the present stream.
	Connected bool
	// Since is when Connected last changed; zero before the first connection.
	Since time.Time
	// Target is what the client connects to.
	Target string
	// LastError is why the last stream or attempt ended; nil if none has.
	LastError error
	// Types is by type URL.
	Types map[string]TypeStatus
}

// TypeStatus is the state of one type's subscription.
type TypeStatus struct {
	LastResponse time.Time // zero before the first one
	Nonce        string    // of the last response on this stream
	Version      string    // of the last accepted response
	Resources    int       // known now
	Rejected     int       // refused now
}

// statusBoard is a Status that one goroutine writes and others read.
type statusBoard struct {
	mu     sync.Mutex
	status Status
}

func (b *statusBoard) read() Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.status
	s.Types = maps.Clone(s.Types)
	return s
}

// answered notes a response and returns whether it was the first one of its stream. It changes the
// counts of other types too, of which resources went with those that referred to them.
func (b *statusBoard) answered(r response, at time.Time, version string, c *cache) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for url := range c.types {
		t := b.status.Types[url]
		if url == r.typeURL {
			t.LastResponse, t.Nonce, t.Version = at, r.nonce, version
		}
		t.Resources, t.Rejected = c.snapshot.Len(url), c.rejections(url)
		b.status.Types[url] = t
	}
	first := !b.status.Connected
	if first {
		b.status.Connected, b.status.Since = true, at
	}
	return first
}

func (b *statusBoard) disconnected(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.status.LastError = err
	if b.status.Connected {
		b.status.Connected, b.status.Since = false, time.Now()
	}
	for url, t := range b.status.Types {
		t.Nonce = ""
		b.status.Types[url] = t
	}
}
