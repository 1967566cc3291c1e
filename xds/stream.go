package xds

import (
	"context"
	"sync"
)

// sender sends requests in order, so that the goroutine that receives never waits for the server
// to read: a server that does not read while it writes would then wait for us for ever.
type sender struct {
	wake chan struct{} // holds one token while there may be something in the queue

	mu    sync.Mutex
	queue []request // at most one per response that was received, and per change it led to
}

func newSender() *sender { return &sender{wake: make(chan struct{}, 1)} }

// enqueue never blocks.
func (s *sender) enqueue(requests ...request) {
	s.mu.Lock()
	s.queue = append(s.queue, requests...)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run sends until ctx ends or sending fails; the reason then comes from the receiving side.
func (s *sender) run(ctx context.Context, to variant) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		}
		s.mu.Lock()
		requests := s.queue
		s.queue = nil
		s.mu.Unlock()
		for _, r := range requests {
			if to.send(r) != nil {
				return
			}
		}
	}
}
