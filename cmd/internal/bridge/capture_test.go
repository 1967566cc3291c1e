package bridge

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"meshbridge/identity"
	"meshbridge/translate"
)

// recorder notes, in order, what capture is told and what is asked of the others.
type recorder struct {
	mu        sync.Mutex
	log       []string // guarded by mu
	watched   chan struct{}
	delivered chan struct{} // a value lets one wait end
}

func (r *recorder) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = append(r.log, fmt.Sprintf(format, args...))
}

func (r *recorder) SetListeners(all []*translate.Listener) {
	for _, l := range all {
		r.note("listen %s", l.Name)
	}
}

func (r *recorder) SetOverlay(put []*translate.OverlayEndpoint, gone []netip.Addr) {
	for _, e := range put {
		r.note("overlay %s", e.Address)
	}
	for _, a := range gone {
		r.note("gone %s", a)
	}
}

func (r *recorder) StreamPort(string) (uint16, bool)         { return 0, false }
func (r *recorder) OverlayAddress(string) (netip.Addr, bool) { return netip.Addr{}, false }
func (r *recorder) Save() error                              { return nil }

func (r *recorder) Release(ports []uint16, all []netip.Addr) {
	if len(ports)+len(all) > 0 {
		r.note("release %v %v", ports, all)
	}
}

func (r *recorder) Watched() <-chan struct{} { return r.watched }
func (r *recorder) WaitDelivered(ctx context.Context, _ int64) error {
	select {
	case <-r.delivered:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// take returns the notes since the last call.
func (r *recorder) take() []string {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.log
	r.log = nil
	return out
}

// fedTest is a feed in a bubble.
type fedTest struct {
	*testing.T
	feed *captureFeed
	*recorder
}

// fed runs a feed in a bubble.
func fed(t *testing.T, test func(t *fedTest)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{watched: make(chan struct{}), delivered: make(chan struct{}, 10)}
		f := newCaptureFeed(r, r, r, discardedStateFile(), slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- f.Run(ctx) }()
		test(&fedTest{t, f, r})
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// told fails unless capture was told just this since the last call.
func (t *fedTest) told(want ...string) {
	t.Helper()
	if got := t.take(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("capture was told %q, want %q", got, want)
	}
}

func (t *fedTest) prepare(change translate.CaptureChange) {
	t.Helper()
	t.feed.prepare(time.Now(), change)
}

func listeners(names ...string) (all []*translate.Listener) {
	for _, n := range names {
		all = append(all, &translate.Listener{Name: n})
	}
	return all
}

func wait(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // the bubble's clock
	synctest.Wait()
}

var alias = netip.MustParseAddr("127.96.0.7")

func TestListenersAreServedOnceAPISIXHasTheirObjects(t *testing.T) {
	fed(t, func(t *fedTest) {
		change := translate.CaptureChange{Listeners: listeners("a"), Overlay: []*translate.OverlayEndpoint{{Address: alias}}}
		t.prepare(change)
		t.told("overlay 127.96.0.7") // before anything is committed
		t.feed.committed(time.Now(), 7)
		wait(time.Second)
		t.told() // APISIX has not connected
		close(t.watched)
		wait(time.Second)
		t.told() // nor been told
		t.delivered <- struct{}{}
		wait(applyTime)
		t.told("listen a")
		select {
		case <-t.feed.serving:
		default:
			t.Error("not serving")
		}
		// The next table; while it is waited for, a later one takes its place.
		for i, name := range []string{"b", "c", "d"} {
			t.prepare(translate.CaptureChange{Listeners: listeners(name)})
			t.feed.committed(time.Now(), int64(8+i))
			synctest.Wait()
		}
		t.delivered <- struct{}{}
		t.delivered <- struct{}{}
		wait(time.Second)
		t.told("listen b", "listen d")
	})
}

func TestListenersAreServedWithoutAPISIXInTheEnd(t *testing.T) {
	fed(t, func(t *fedTest) {
		t.prepare(translate.CaptureChange{Listeners: listeners("a")})
		t.feed.committed(time.Now(), 7)
		wait(firstContact)
		t.told()
		wait(deliveryTimeout + applyTime) // a watcher that reads nothing
		t.told("listen a")
	})
}

func TestAnOverlayEndpointOutlivesItsUpstream(t *testing.T) {
	fed(t, func(t *fedTest) {
		gone := translate.CaptureChange{Gone: []netip.Addr{alias}, GonePorts: []uint16{16001}}
		t.prepare(gone)
		t.feed.committed(time.Now(), 7)
		t.told("release [16001] [127.96.0.7]")
		wait(garbageAfter - time.Second)
		t.feed.committed(time.Now(), 7)
		t.told()
		wait(time.Second)
		if due := t.feed.due(); due.After(time.Now()) {
			t.Errorf("due at %s", due)
		}
		t.feed.committed(time.Now(), 7)
		t.told("gone 127.96.0.7")

		// One that comes back stays.
		t.prepare(gone)
		t.prepare(translate.CaptureChange{Overlay: []*translate.OverlayEndpoint{{Address: alias}}})
		wait(time.Hour)
		t.feed.committed(time.Now(), 8)
		t.told("release [16001] [127.96.0.7]", "overlay 127.96.0.7")
	})
}

// lateIdentity has a certificate once it is closed.
type lateIdentity chan struct{}

func (l lateIdentity) Changed() <-chan struct{} { return l }
func (l lateIdentity) Current() *identity.Identity {
	if !isClosed(l) {
		return nil
	}
	return &identity.Identity{}
}

// The soak test found a bridge that was ready, and refused mutual TLS because its certificate came a moment
// later than its configuration.
func TestCaptureWaitsForTheFirstCertificate(t *testing.T) {
	for name, test := range map[string]struct {
		stale bool
		wait  func(lateIdentity)
	}{
		"that comes":                         {wait: func(l lateIdentity) { close(l) }},
		"that does not come":                 {wait: func(lateIdentity) { wait(firstIdentity) }},
		"not where istiod was away at first": {stale: true, wait: func(lateIdentity) {}},
	} {
		t.Run(name, func(t *testing.T) {
			fed(t, func(t *fedTest) {
				late := make(lateIdentity)
				t.feed.identity = late
				t.feed.begin(test.stale)
				t.prepare(translate.CaptureChange{Listeners: listeners("a")})
				t.feed.committed(time.Now(), 1)
				close(t.watched)
				t.delivered <- struct{}{}
				if !test.stale {
					wait(firstIdentity / 2)
					t.told()
				}
				test.wait(late)
				wait(2 * applyTime)
				t.told("listen a")
			})
		})
	}
}
