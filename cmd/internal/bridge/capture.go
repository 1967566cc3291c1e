package bridge

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"meshbridge/identity"
	"meshbridge/translate"
)

// Spacing of what capture and APISIX are told, beyond the phases of the writer.
const (
	// firstContact is how long capture waits for APISIX to connect before it serves for the first
	// time. An APISIX that was here before the bridge started still has what the last process said.
	firstContact = 10 * time.Second
	// firstIdentity is how long it then waits for the workload's certificate, without which it would refuse
	// all mutual TLS. Envoy's listeners and clusters warm until they have theirs.
	firstIdentity = 10 * time.Second
	// deliveryTimeout is how long a change of listeners waits for an APISIX that has stopped reading.
	deliveryTimeout = 5 * time.Second
	// applyTime is how long APISIX gets to apply what it was sent.
	applyTime = 100 * time.Millisecond
)

// front is what the bridge tells capture.
type front interface {
	SetListeners(listeners []*translate.Listener)
	SetOverlay(put []*translate.OverlayEndpoint, gone []netip.Addr)
}

// numbers are the allocator of what only capture and APISIX know.
type numbers interface {
	translate.Allocations
	Release(ports []uint16, addresses []netip.Addr)
	Save() error
}

// watchers are those who are told of commits.
type watchers interface {
	Watched() <-chan struct{}
	WaitDelivered(ctx context.Context, revision int64) error
}

// credential is what capture's TLS needs.
type credential interface {
	Current() *identity.Identity
	Changed() <-chan struct{}
}

// captureFeed tells capture of translations so that nothing leads to something that is not there:
// endpoints of the overlay before the upstreams with their addresses, listeners after the objects of
// their chains, and the end of endpoints long after the upstreams. The pipeline calls it; Run is a
// goroutine of its own, because waiting for APISIX must not hold up commits.
type captureFeed struct {
	front    front
	numbers  numbers
	watchers watchers
	saves    *stateFile
	identity credential // nil without one
	log      *slog.Logger
	serving  chan struct{} // closed when the listeners are served for the first time

	// owned by the pipeline
	uncommitted []*translate.Listener // whose objects are not all committed; nil for none
	leaving     map[netip.Addr]time.Time
	stale       bool // the world is that of an earlier process: who issues certificates may be away as well

	wake chan struct{} // has room for one
	mu   sync.Mutex
	next *servable // what Run has not taken yet; guarded by mu
}

// servable is a table of listeners, and the revision with their objects.
type servable struct {
	listeners []*translate.Listener
	revision  int64
	stale     bool
}

func newCaptureFeed(f front, n numbers, w watchers, saves *stateFile, log *slog.Logger) *captureFeed {
	return &captureFeed{
		front: f, numbers: n, watchers: w, saves: saves, log: log,
		serving: make(chan struct{}), wake: make(chan struct{}, 1), leaving: map[netip.Addr]time.Time{},
	}
}

// begin is called before anything is committed.
func (f *captureFeed) begin(stale bool) {
	if f != nil {
		f.stale = stale
	}
}

// prepare is called with a result before any of its objects are committed.
func (f *captureFeed) prepare(now time.Time, change translate.CaptureChange) {
	if f == nil {
		return
	}
	f.saves.wrote(f.numbers.Save())
	for _, e := range change.Overlay {
		delete(f.leaving, e.Address)
	}
	if len(change.Overlay) > 0 {
		f.front.SetOverlay(change.Overlay, nil)
	}
	for _, address := range change.Gone {
		f.leaving[address] = now.Add(garbageAfter)
	}
	// Numbers rest longer than anything here takes.
	f.numbers.Release(change.GonePorts, change.Gone)
	if change.Listeners != nil {
		f.uncommitted = change.Listeners
	}
}

// committed is called when everything up to the revision is committed, except for what goes last.
func (f *captureFeed) committed(now time.Time, revision int64) {
	if f == nil {
		return
	}
	var gone []netip.Addr
	for address, at := range f.leaving {
		if !now.Before(at) {
			gone = append(gone, address)
			delete(f.leaving, address)
		}
	}
	if len(gone) > 0 {
		f.front.SetOverlay(nil, gone)
	}
	if f.uncommitted == nil {
		return
	}
	f.mu.Lock()
	f.next = &servable{f.uncommitted, revision, f.stale}
	f.mu.Unlock()
	f.uncommitted = nil
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// due returns when an endpoint leaves; zero is never.
func (f *captureFeed) due() time.Time {
	var first time.Time
	if f == nil {
		return first
	}
	for _, at := range f.leaving {
		if first.IsZero() || at.Before(first) {
			first = at
		}
	}
	return first
}

// Run serves tables once APISIX has their objects, until ctx ends.
func (f *captureFeed) Run(ctx context.Context) error {
	for first := true; ; first = false {
		select {
		case <-ctx.Done():
			return nil
		case <-f.wake:
		}
		if first && !f.awaitAPISIX(ctx) {
			return nil
		}
		s := f.newest()
		if first && !s.stale {
			if !f.awaitIdentity(ctx) {
				return nil
			}
			s = f.newest()
		}
		if !f.awaitDelivery(ctx, s.revision) {
			return nil
		}
		f.front.SetListeners(s.listeners)
		if first {
			f.log.InfoContext(ctx, "capture serves", slog.Int("listeners", len(s.listeners)), slog.Int64("revision", s.revision))
			close(f.serving)
		}
	}
}

// awaitAPISIX waits for the first watcher. It returns false where ctx ends.
func (f *captureFeed) awaitAPISIX(ctx context.Context) bool {
	timer := time.NewTimer(firstContact)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-f.watchers.Watched():
	case <-timer.C:
		f.log.WarnContext(ctx, "capture serves although APISIX has not connected to the etcd port yet")
	}
	return true
}

func (f *captureFeed) newest() *servable {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.next
}

// awaitIdentity waits for the first certificate. It returns false where ctx ends.
func (f *captureFeed) awaitIdentity(ctx context.Context) bool {
	if f.identity == nil {
		return true
	}
	timer := time.NewTimer(firstIdentity)
	defer timer.Stop()
	for {
		changed := f.identity.Changed()
		if f.identity.Current() != nil {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-changed:
		case <-timer.C:
			f.log.WarnContext(ctx, "capture serves although the workload has no certificate yet: mutual TLS is refused")
			return true
		}
	}
}

// awaitDelivery waits until APISIX has what it was told of. It returns false where ctx ends.
func (f *captureFeed) awaitDelivery(ctx context.Context, revision int64) bool {
	limited, cancel := context.WithTimeout(ctx, deliveryTimeout)
	defer cancel()
	if err := f.watchers.WaitDelivered(limited, revision); err != nil && ctx.Err() == nil {
		f.log.WarnContext(ctx, "capture serves new listeners although a watcher does not read what is new", slog.Int64("revision", revision))
	}
	timer := time.NewTimer(applyTime)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
