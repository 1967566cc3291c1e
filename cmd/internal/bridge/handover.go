package bridge

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"meshbridge/cmd/internal/allocate"
	"meshbridge/cmd/internal/handover"
	"meshbridge/store"
)

// identityPatience is how long a successor waits for the workload's certificate before it takes over.
const identityPatience = 10 * time.Second

// succession is the bridge's part in hand-overs: it may be the successor of one process, and the
// predecessor of another.
type succession struct {
	config  handover.Config
	ceiling *stateFile      // of revisions
	ports   *handover.Ports // nil without hand-over, which is as good for opening sockets
	// predecessor serves until this process takes over; nil where there was none.
	predecessor *handover.Predecessor
	server      *handover.Server
	suspension  *store.Suspension // while frozen
	thaw        chan struct{}     // closed to let the pipeline go on
	left        atomic.Bool       // a successor serves
}

// claim takes the sockets of a process that serves, if there is one.
func (b *Bridge) claim(ctx context.Context) (err error) {
	c := b.config
	if c.Handover == "" {
		return nil
	}
	if c.APISIX != nil {
		return errors.New("hand-over: APISIX belongs to the process that started it: in mode sidecar, replace the pod")
	}
	s := &b.succession
	s.ports = &handover.Ports{}
	s.config = handover.Config{Path: c.Handover, Prefix: c.Prefix, Version: c.Version, Logger: c.Logger}
	s.predecessor, err = handover.Claim(ctx, s.config, s.ports)
	return err
}

// openSuccession makes the pipeline take over from a predecessor.
func (b *Bridge) openSuccession() {
	if b.succession.predecessor != nil {
		b.pipeline.takeOver, b.pipeline.tookOver = b.takeOver, b.tookOver
	}
}

// awaitSuccessor listens for a successor.
func (b *Bridge) awaitSuccessor() (err error) {
	s := &b.succession
	if s.ports == nil || s.predecessor != nil {
		return nil // or not yet
	}
	s.server, err = handover.Open(s.config, s.ports)
	return err
}

// closeSuccession releases what New has opened, and leaves everything to the predecessor.
func (b *Bridge) closeSuccession() {
	if b.succession.predecessor != nil {
		_ = b.succession.predecessor.Close()
	}
	b.succession.ports.CloseRest()
}

// openRevisions returns the first revision. Those of a predecessor are not known before it has stopped, and
// nobody sees this process's until then.
func (b *Bridge) openRevisions() (base int64, r *revisions, err error) {
	s, now := &b.succession, time.Now()
	s.ceiling = newStateFile(ceilingFile, b.registry, b.config.Logger)
	if s.predecessor != nil {
		return now.UnixMilli(), &revisions{file: s.ceiling}, nil
	}
	return openRevisions(b.config.StateDir, now, s.ceiling)
}

// takeOver is called before the first world is translated: from here on the predecessor commits nothing
// more, and this process goes on with what it has.
func (b *Bridge) takeOver() error {
	s := &b.succession
	if b.identity != nil {
		b.awaitIdentity()
	}
	state, err := s.predecessor.Freeze()
	switch {
	case errors.Is(err, handover.ErrGone):
		b.config.Logger.Warn("the predecessor has ended on its own, its clients read everything again", slog.Any("error", err))
		return b.startAfresh()
	case err != nil:
		return err
	}
	if err := b.store.Adopt(state.Store); err != nil {
		return err
	}
	revisions, err := resumeRevisions(b.config.StateDir, s.ceiling)
	if err != nil {
		return err
	}
	if err := b.pipeline.writer.adopt(b.store, state.Keys, revisions.reserve); err != nil {
		return err
	}
	return b.openNumbers(state.Numbers)
}

// startAfresh goes on without a predecessor.
func (b *Bridge) startAfresh() error {
	base, revisions, err := openRevisions(b.config.StateDir, time.Now(), b.succession.ceiling)
	if err != nil {
		return err
	}
	if err := b.store.Adopt(store.State{Revision: base, CompactRevision: base, Changes: noChanges}); err != nil {
		return err
	}
	if err := b.pipeline.writer.adopt(b.store, nil, revisions.reserve); err != nil {
		return err
	}
	return b.openNumbers(nil)
}

func noChanges(func(store.Change, error) bool) {}

// openNumbers opens the allocator, with what a predecessor has given out.
func (b *Bridge) openNumbers(known []allocate.Number) (err error) {
	c := b.config.Capture
	if c == nil {
		return nil
	}
	b.numbers, err = allocate.Open(allocate.Config{
		FirstPort: c.FirstStreamPort, LastPort: c.LastStreamPort, Overlay: c.Overlay,
		StateDir: b.config.StateDir, Known: known,
	})
	if err == nil {
		b.pipeline.feed.numbers = b.numbers
	}
	return err
}

func (b *Bridge) awaitIdentity() {
	timer := time.NewTimer(identityPatience)
	defer timer.Stop()
	for changed := b.identity.Changed(); b.identity.Current() == nil; changed = b.identity.Changed() {
		select {
		case <-changed:
		case <-timer.C:
			b.config.Logger.Warn("taking over without a certificate")
			return
		}
	}
}

// tookOver is called when the first world is committed: the predecessor leaves.
func (b *Bridge) tookOver() error {
	s := &b.succession
	if err := s.predecessor.Serve(); err != nil {
		return err
	}
	b.config.Logger.Info("has taken over", slog.Int64("revision", b.store.Revision()))
	return s.predecessor.Close()
}

// runSuccession awaits a successor, once there is something to hand over, and calls leave when one has
// taken over.
func (b *Bridge) runSuccession(ctx context.Context, group *errgroup.Group, leave func()) {
	s := &b.succession
	if s.ports == nil {
		return
	}
	group.Go(func() error {
		select {
		case <-b.pipeline.ready:
		case <-ctx.Done():
			b.closeSuccession() // the predecessor goes on
		}
		if s.server == nil && isClosed(b.pipeline.ready) {
			var err error
			if s.server, err = handover.Open(s.config, s.ports); err != nil {
				return err
			}
		}
		if s.server == nil {
			return nil
		}
		return s.server.Run(ctx, &donor{Bridge: b, leave: leave})
	})
	group.Go(func() error {
		// Sockets that are not needed any more refuse from then on.
		wanted := b.pipeline.ready
		if b.pipeline.feed != nil {
			wanted = b.pipeline.feed.serving
		}
		select {
		case <-ctx.Done():
		case <-wanted:
		}
		s.ports.CloseRest()
		return nil
	})
}

// whenServing runs a part that accepts connections: at once, or from when the predecessor does not any more.
func (b *Bridge) whenServing(ctx context.Context, l net.Listener, run func() error) error {
	if b.succession.predecessor != nil {
		select {
		case <-b.pipeline.ready:
		case <-ctx.Done():
			if l != nil {
				return l.Close()
			}
		}
	}
	return run()
}

// donor is the bridge as a predecessor.
type donor struct {
	*Bridge
	leave func()
}

// Freeze implements handover.Donor.
func (d *donor) Freeze(ctx context.Context) (handover.State, error) {
	thaw := make(chan struct{})
	select {
	case d.pipeline.freeze <- thaw:
	case <-ctx.Done():
		return handover.State{}, ctx.Err()
	}
	s := &d.succession
	s.thaw, s.suspension = thaw, d.store.Suspend()
	d.pipeline.lastGood.pause(true)
	// These are the pipeline's, which waits.
	state := handover.State{Store: s.suspension.State, Keys: slices.Collect(maps.Keys(d.pipeline.writer.committed))}
	if d.numbers != nil {
		state.Numbers = d.numbers.Numbers()
	}
	return state, nil
}

// Thaw implements handover.Donor.
func (d *donor) Thaw() {
	s := &d.succession
	if d.numbers != nil {
		// The successor may have replaced the file.
		if err := d.numbers.Rewrite(); err != nil {
			d.config.Logger.Warn("numbers are not kept", slog.Any("error", err))
		}
	}
	d.pipeline.lastGood.pause(false)
	s.suspension.Resume()
	s.suspension = nil
	close(s.thaw)
}

// Leave implements handover.Donor. The pipeline stays frozen.
func (d *donor) Leave() {
	d.succession.suspension.Seal()
	d.succession.left.Store(true)
	if d.capture != nil {
		d.capture.Leave()
	}
	d.leave()
	d.lifecycle.left.happen()
}

// closeNumbers saves what was given out, unless that is a successor's by now.
func (b *Bridge) closeNumbers() {
	switch {
	case b.numbers == nil:
	case b.succession.left.Load():
		_ = b.numbers.Abandon() // there is nothing in it that is not written
	default:
		b.pipeline.feed.saves.wrote(b.numbers.Close())
	}
}
