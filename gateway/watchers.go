package gateway

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Watcher is a stream with at least one watch.
type Watcher struct {
	// Peer is the address of the client, and Protocol what it speaks: "grpc" or "http".
	Peer, Protocol string
	// Since is when the stream began.
	Since time.Time
	// Keys are what its watches are about: a key, or a range of them as "[KEY, END)".
	Keys []string
	// Revision is the one up to which the client has been sent everything that it watches.
	Revision int64
}

// Watchers returns the live streams, those that began first in front.
func (s *Server) Watchers() []Watcher {
	var all []Watcher
	for _, m := range s.delivery.all() {
		if w := m.watcher(); len(w.Keys) > 0 {
			all = append(all, w)
		}
	}
	slices.SortFunc(all, func(a, b Watcher) int {
		return cmp.Or(a.Since.Compare(b.Since), strings.Compare(a.Peer, b.Peer))
	})
	return all
}

func (d *delivery) all() []*deliveryMark {
	d.mu.Lock()
	defer d.mu.Unlock()
	marks := make([]*deliveryMark, 0, len(d.streams))
	for m := range d.streams {
		marks = append(marks, m)
	}
	return marks
}

func (m *deliveryMark) watcher() Watcher {
	w := Watcher{Peer: m.peer, Protocol: transportHTTP, Since: m.since}
	if m.form == formProto {
		w.Protocol = transportGRPC
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	w.Revision = m.revision
	for _, keys := range m.watches {
		text := keys.key
		if keys.end != "" {
			text = "[" + keys.key + ", " + keys.end + ")"
		}
		w.Keys = append(w.Keys, text)
	}
	return w
}
