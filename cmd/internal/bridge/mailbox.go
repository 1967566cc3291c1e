package bridge

import (
	"sync"

	"meshbridge/xds"
)

// mailbox hands updates from the source to the pipeline. Put never blocks: updates that have not
// been taken are merged, so a slow commit costs the source nothing and never a queue.
type mailbox struct {
	// filled has room for one signal; a second one would say nothing new.
	filled chan struct{}

	mu     sync.Mutex
	update *xds.Update // guarded by mu; nil is empty
}

func newMailbox() *mailbox {
	return &mailbox{filled: make(chan struct{}, 1)}
}

func (m *mailbox) put(u xds.Update) {
	m.mu.Lock()
	if m.update != nil {
		u = m.update.Merge(u)
	}
	m.update = &u
	m.mu.Unlock()
	select {
	case m.filled <- struct{}{}:
	default:
	}
}

// take empties the mailbox; nil where it was empty.
func (m *mailbox) take() *xds.Update {
	m.mu.Lock()
	defer m.mu.Unlock()
	u := m.update
	m.update = nil
	return u
}
