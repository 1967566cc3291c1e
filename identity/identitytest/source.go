package identitytest

import (
	"context"
	"sync"

	"meshbridge/identity"
)

// Source is an identity.Source whose identity a test sets.
type Source struct {
	mu      sync.Mutex
	current *identity.Identity
	changed chan struct{}
}

// NewSource returns a source with that identity, which may be nil.
func NewSource(current *identity.Identity) *Source {
	return &Source{current: current, changed: make(chan struct{})}
}

// Set rotates the identity.
func (s *Source) Set(current *identity.Identity) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = current
	close(s.changed)
	s.changed = make(chan struct{})
}

// Run waits for the end of ctx.
func (s *Source) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Current returns what was set last.
func (s *Source) Current() *identity.Identity {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

// Changed returns a channel that the next Set closes.
func (s *Source) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}
