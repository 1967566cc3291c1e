package cli

import (
	"os"
	"syscall"
	"testing"
)

func TestSignalsEndTheProgramEverFaster(t *testing.T) {
	for name, handled := range map[string]bool{"hurries": true, "cannot hurry": false} {
		t.Run(name, func(t *testing.T) {
			var s signals
			received, exited := make(chan os.Signal), make(chan struct{}, 1)
			ctx, stop := s.watch(received, func() { exited <- struct{}{} })
			defer stop()
			if ctx.Err() != nil {
				t.Error("ended without a signal")
			}
			received <- syscall.SIGQUIT
			<-ctx.Done()
			if handled {
				hurry := s.hurry()
				select {
				case <-hurry:
					t.Error("the first signal hurries")
				default:
				}
				received <- syscall.SIGTERM
				<-hurry
				if len(exited) > 0 {
					t.Error("the second signal exits")
				}
			}
			received <- syscall.SIGINT
			<-exited
		})
	}
}
