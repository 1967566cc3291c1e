package lastgood

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"meshbridge/xds"
)

// Follow runs the source and delivers what it delivers, until ctx ends. Where the source has not sent a
// complete world in time, and there is a file, the world of the file is delivered, and the source's
// first complete world after that replaces it as a whole.
func (s *State) Follow(ctx context.Context, source xds.Source, deliver func(xds.Update)) error {
	g := &gate{deliver: deliver, whole: make(chan struct{})}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return source.Run(ctx, g.receive) })
	group.Go(func() error {
		timer := time.NewTimer(s.config.After)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return nil
		case <-g.whole:
			return nil
		case <-timer.C:
		}
		if u, ok := s.load(ctx); ok && g.bridge(u) {
			s.log.LogAttrs(ctx, slog.LevelWarn, "serving the last good state, because istiod has not sent a complete configuration",
				slog.String("path", s.config.Path), slog.Time("received", u.Received), slog.Int("left_out", s.LeftOut()))
		}
		return nil
	})
	return group.Wait()
}

// gate stands between the source and the pipeline.
type gate struct {
	deliver func(xds.Update)
	whole   chan struct{} // closed when the source has sent a complete world

	mu       sync.Mutex // held while delivering, so that updates are in order
	complete bool       // whole is closed
	held     xds.Update // what the source has sent, while stale is what is served
	stale    *xds.Snapshot
	// carried are resources of stale that the source has not sent an acceptable version of yet.
	carried map[xds.Key]*xds.Resource
}

// bridge delivers the world of the file, unless the source was faster.
func (g *gate) bridge(u xds.Update) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.complete {
		return false
	}
	g.stale = u.Snapshot
	g.deliver(u)
	return true
}

func (g *gate) receive(u xds.Update) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.complete {
		g.deliver(g.carry(u))
		return
	}
	if g.complete = isWhole(u); g.complete {
		close(g.whole)
	}
	switch {
	case g.stale == nil:
		// The pipeline waits for a complete world itself.
		g.deliver(u)
	case g.complete:
		u = g.held.Merge(u)
		g.held = xds.Update{}
		g.deliver(g.replace(u))
	default:
		g.held = g.held.Merge(u)
	}
}

// isWhole tells whether an update can replace a world: nothing that routes depend on is missing.
func isWhole(u xds.Update) bool {
	for _, k := range u.Pending {
		if k.Type == xds.RouteType {
			return false
		}
	}
	return u.Complete()
}

// replace returns the update that leads from the world of the file to that of the source.
func (g *gate) replace(u xds.Update) xds.Update {
	g.carried = map[xds.Key]*xds.Resource{}
	keep := func(k xds.Key) {
		if r := g.stale.Get(k); r != nil && u.Snapshot.Get(k) == nil {
			g.carried[k] = r
		}
	}
	// As in a process that had them all the time.
	for _, k := range u.Pending {
		keep(k)
	}
	for _, r := range u.Rejected {
		keep(r.Key)
	}
	stale := g.stale
	g.stale = nil
	u = g.carry(u)
	u.Changed = nil
	return xds.Update{Changed: difference(stale, u.Snapshot)}.Merge(u) // which sorts
}

// carry adds what is carried to an update.
func (g *gate) carry(u xds.Update) xds.Update {
	if len(g.carried) == 0 {
		return u
	}
	open := map[xds.Key]bool{}
	for _, k := range u.Pending {
		open[k] = true
	}
	for _, r := range u.Rejected {
		open[r.Key] = true
	}
	put := make([]*xds.Resource, 0, len(g.carried))
	var gone []xds.Key
	for k, r := range g.carried {
		switch {
		case u.Snapshot.Get(k) != nil:
			delete(g.carried, k) // and it is among what changed
		case open[k]:
			put = append(put, r)
		default:
			delete(g.carried, k)
			gone = append(gone, k)
		}
	}
	if len(put) > 0 {
		u.Snapshot = u.Snapshot.With(put, nil)
	}
	if len(gone) > 0 {
		u = xds.Update{Changed: gone}.Merge(u)
	}
	return u
}

// difference lists what is not byte for byte the same in both.
func difference(from, to *xds.Snapshot) (keys []xds.Key) {
	for _, t := range sortedTypes(from) {
		for r := range from.All(t) {
			if other := to.Get(r.Key); other == nil || !bytes.Equal(other.Body.GetValue(), r.Body.GetValue()) {
				keys = append(keys, r.Key)
			}
		}
	}
	for _, t := range sortedTypes(to) {
		for r := range to.All(t) {
			if from.Get(r.Key) == nil {
				keys = append(keys, r.Key)
			}
		}
	}
	return keys
}
