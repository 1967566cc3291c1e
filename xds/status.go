package xds

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"
)

// Status is the state of a Client's connection.
type Status struct {
	// Connected tells whether the server has answered on the present stream.
	Connected bool
	// Since is when Connected last changed; zero before the first connection.
	Since time.Time
	// Target is what the client connects to, and ControlPlane what the server last said of itself
	// (control_plane.identifier), of which istiod makes JSON with its pod's name and version.
	Target, ControlPlane string
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

	// Wildcard tells that the type is subscribed to as a whole; else Subscribed is the number of names.
	Wildcard   bool
	Subscribed int
	Responses  int       // since the client was made
	LastChange time.Time // when a response last changed a resource of the type; zero if none has
	// NACK is why the last response was refused, wholly or in part; nil where it was acknowledged.
	NACK error
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
func (b *statusBoard) answered(r response, o outcome, version string, c *cache) bool {
	at := o.update.Received
	b.mu.Lock()
	defer b.mu.Unlock()
	for url, known := range c.types {
		t := b.status.Types[url]
		if url == r.typeURL {
			t.LastResponse, t.Nonce, t.Version, t.NACK = at, r.nonce, version, errors.Join(o.errors...)
			t.Responses++
		}
		if slices.ContainsFunc(o.update.Changed, func(k Key) bool { return k.Type == url }) {
			t.LastChange = at
		}
		t.Resources, t.Rejected = c.snapshot.Len(url), c.rejections(url)
		t.Wildcard, t.Subscribed = known.wildcard, len(known.wanted)
		b.status.Types[url] = t
	}
	b.status.ControlPlane = cmp.Or(r.controlPlane, b.status.ControlPlane)
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
