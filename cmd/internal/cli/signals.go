package cli

import (
	"context"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
)

// signals are those that end the program: SIGTERM and SIGINT, and SIGQUIT, which APISIX's image says that
// containers are to be stopped with, and which would end a Go program with the stacks of its goroutines
// (/debug/pprof/goroutine has them).
type signals struct {
	// second is closed by the second one.
	second chan struct{}
	// handled tells that the command ends faster then. Others end at once.
	handled atomic.Bool
}

// watch returns a context that ends with the first signal. The second one hurries the command, and the third
// calls exit, as does the second where the command has no way to hurry. stop ends watching.
func (s *signals) watch(received <-chan os.Signal, exit func()) (ctx context.Context, stop func()) {
	s.second = make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	stopped, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for count := 1; ; count++ {
			select {
			case <-stopped:
				return
			case <-received:
			}
			switch {
			case count == 1:
				cancel()
			case count == 2 && s.handled.Load():
				close(s.second)
			default:
				exit()
			}
		}
	}()
	return ctx, func() {
		cancel()
		close(stopped)
		<-ended
	}
}

// hurry is closed when the command is to end without grace.
func (s *signals) hurry() <-chan struct{} {
	s.handled.Store(true)
	return s.second
}

// notify has the signals delivered.
func notify() (received chan os.Signal, stop func()) {
	received = make(chan os.Signal, 3) // one for each that means something
	signal.Notify(received, os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT)
	return received, func() { signal.Stop(received) }
}
