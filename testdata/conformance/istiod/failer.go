package istiod

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"sync"

	"istio.io/istio/pkg/test"
)

// failer lets Istio's exported test servers run outside of a test. As in a
// test, Fatal ends the calling goroutine; run turns that into an error.
type failer struct {
	log *slog.Logger

	mu       sync.Mutex
	failure  error
	cleanups []func()
}

var _ test.Failer = (*failer)(nil)

func (f *failer) Fail()                          { f.Fatal("failed") }
func (f *failer) FailNow()                       { f.Fatal("failed") }
func (f *failer) Fatalf(format string, a ...any) { f.Fatal(fmt.Sprintf(format, a...)) }
func (f *failer) Log(a ...any)                   { f.log.Debug("istiod", slog.String("message", fmt.Sprint(a...))) }
func (f *failer) Logf(format string, a ...any)   { f.Log(fmt.Sprintf(format, a...)) }
func (f *failer) Skip(a ...any)                  { f.Fatal(a...) }
func (f *failer) Helper()                        {}

func (f *failer) Fatal(a ...any) {
	f.mu.Lock()
	f.failure = errors.Join(f.failure, errors.New(fmt.Sprint(a...)))
	f.mu.Unlock()
	f.log.Error("istiod failed", slog.String("error", fmt.Sprint(a...)))
	runtime.Goexit()
}

func (f *failer) TempDir() string {
	dir, err := os.MkdirTemp("", "istiod")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (f *failer) Cleanup(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cleanups = append(f.cleanups, fn)
}

// run calls fn and returns what it failed with, if it did.
func (f *failer) run(fn func()) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn()
	}()
	<-done
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failure
}

// cleanup runs the registered functions, the latest first.
func (f *failer) cleanup() {
	f.mu.Lock()
	fns := f.cleanups
	f.cleanups = nil
	f.mu.Unlock()
	for _, fn := range slices.Backward(fns) {
		fn()
	}
}
