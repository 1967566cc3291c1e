package soak

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"
)

// Timing of a storm.
const (
	minGap, maxGap = 100 * time.Millisecond, 700 * time.Millisecond
	longest        = 5 * time.Second // that something stays broken
)

// breakage is something that can go wrong.
type breakage struct {
	name string
	// target is what it happens to: nothing else does at the same time.
	target string
	// inflict breaks it, and mends it when hold returns. It returns when everything is in order again; its
	// error is a promise that was not kept.
	inflict func(ctx context.Context, hold func()) error
}

// storm is what goes wrong at a time.
type storm struct {
	ends context.Context // when everything is to be mended
	all  sync.WaitGroup
	mu   sync.Mutex
	busy map[string]bool // by target; guarded by mu
}

// rage changes the configuration, and breaks things, for a while, and returns when everything is mended.
func (s *soak) rage(ctx context.Context, length time.Duration) {
	ends, calm := context.WithTimeout(ctx, length)
	defer calm()
	s.line.onFault(calm)
	w := &storm{ends: ends, busy: map[string]bool{}}
	for wait(ends, minGap+time.Duration(s.random.Int64N(int64(maxGap-minGap)))) {
		if s.random.IntN(2) == 0 {
			what, err := s.mesh.edit()
			if err != nil {
				s.line.fail("soak", "%s: %v", what, err)
				return
			}
			s.line.note("edit: %s", what)
			continue
		}
		// Both are drawn in any case, so that a seed stands for the same choices however long things take.
		b := s.breakages[s.random.IntN(len(s.breakages))]
		length := time.Duration(s.random.Int64N(int64(longest)))
		if s.random.IntN(2) == 0 {
			length /= 10
		}
		s.inflict(ctx, w, b, length)
	}
	s.line.note("the storm ends")
	w.all.Wait()
}

func (s *soak) inflict(ctx context.Context, w *storm, b breakage, length time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.busy[b.target] {
		return
	}
	w.busy[b.target] = true
	w.all.Go(func() {
		s.line.note("%s for %v", b.name, length.Round(time.Millisecond))
		err := b.inflict(ctx, func() {
			wait(w.ends, length)
			s.line.note("%s: mended", b.name)
		})
		switch {
		case ctx.Err() != nil:
		case err != nil:
			s.line.fail("recovery", "%s: %v", b.name, err)
		default:
			s.line.note("%s: in order again", b.name)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.busy, b.target)
	})
}

// recover waits until a check passes. While there is a storm, other things may be broken as well.
func (s *soak) recover(ctx context.Context, check func(context.Context) error) error {
	return eventually(ctx, stormLength+patience, check)
}

// listBreakages returns all that can go wrong.
func (s *soak) listBreakages() []breakage {
	list := []breakage{
		s.istiodEnds("istiod is killed", func() error { s.istiod.kill(); return nil }),
		s.istiodEnds("istiod is stopped", s.istiod.terminate),
		{"istiod is paused", "istiod", func(_ context.Context, hold func()) error {
			defer s.late("istiod is paused", s.gateways...)()
			return paused(s.istiod, hold)
		}},
		{"the disk of the state is full", "disk", s.diskFull},
		{"the token is rotated", "token", func(ctx context.Context, hold func()) error { return s.rotateToken(hold) }},
		{"the token has expired", "token", s.tokenExpired},
	}
	for _, g := range s.gateways {
		list = append(list, s.linkBreakages(g)...)
		if g.apisix == nil {
			continue // the witness
		}
		list = append(list, s.bridgeBreakages(g)...)
		list = append(list, s.apisixBreakages(g)...)
	}
	list = append(list, s.clockBreakages()...)
	if s.edge.clock != nil {
		list = append(list, s.anotherTime(s.edge))
	}
	return list
}

// late says of gateways that their configuration may be, until the returned function is called.
func (s *soak) late(reason string, gateways ...*gateway) (inTime func()) {
	for _, g := range gateways {
		g.current.impair(reason)
	}
	return func() {
		for _, g := range gateways {
			g.current.heal(reason)
		}
	}
}

// away says of a gateway that requests may fail, until the returned function is called.
func away(reason string, g *gateway) (back func()) {
	g.path.impair(reason)
	return func() { g.path.heal(reason) }
}

func paused(p *process, hold func()) error {
	p.signal(syscall.SIGSTOP)
	defer p.signal(syscall.SIGCONT)
	hold()
	return nil
}

func (s *soak) istiodEnds(name string, end func() error) breakage {
	return breakage{name, "istiod", func(ctx context.Context, hold func()) error {
		defer s.late(name, s.gateways...)()
		err := end()
		hold()
		if err := s.istiod.start(); err != nil {
			return err
		}
		return errors.Join(err, s.recover(ctx, func(ctx context.Context) error {
			if !s.istiod.running() {
				return permanent{fmt.Errorf("istiod ended: %s", s.istiod.tail())}
			}
			for _, g := range s.gateways {
				if err := g.connected(ctx); err != nil {
					return fmt.Errorf("%s: %w", g.name, err)
				}
			}
			return nil
		}))
	}}
}

func (s *soak) linkBreakages(g *gateway) []breakage {
	breakLink := func(name string, set func(bool)) breakage {
		name = "the link of " + g.name + " " + name
		return breakage{name, "link of " + g.name, func(ctx context.Context, hold func()) error {
			defer s.late(name, g)()
			set(true)
			hold()
			set(false)
			return s.recover(ctx, g.connected)
		}}
	}
	return []breakage{
		breakLink("is cut", g.link.setCut),
		breakLink("is stalled", g.link.setStalled),
		breakLink("is slow", func(slow bool) {
			if slow {
				g.link.setLag(300 * time.Millisecond)
			} else {
				g.link.setLag(0)
			}
		}),
		breakLink("is interrupted", func(begins bool) {
			if begins {
				g.link.disconnect()
			}
		}),
	}
}

func (s *soak) bridgeBreakages(g *gateway) []breakage {
	ends := func(name string, end func() error) breakage {
		name = "the bridge of " + g.name + " is " + name
		return breakage{name, "bridge of " + g.name, func(ctx context.Context, hold func()) error {
			defer s.late(name, g)()
			g.old.impair(name)
			defer g.old.heal(name)
			if g.secure { // it is in the way of connections
				g.path.impair(name)
				defer g.path.heal(name)
			}
			err := end()
			hold()
			if err := g.bridge.start(); err != nil {
				return err
			}
			ready := s.recover(ctx, func(ctx context.Context) error {
				if !g.bridge.running() {
					return permanent{fmt.Errorf("the bridge ended: %s", g.bridge.tail())}
				}
				return g.ready(ctx)
			})
			// Without istiod there is no identity, either.
			if !g.secure || !g.stale(ctx) {
				g.path.heal(name)
			}
			return errors.Join(err, ready, s.recover(ctx, g.connected))
		}}
	}
	name := "the bridge of " + g.name + " is paused"
	return []breakage{
		ends("killed", func() error { g.bridge.kill(); return nil }),
		ends("stopped", g.bridge.terminate),
		{name, "bridge of " + g.name, func(_ context.Context, hold func()) error {
			defer s.late(name, g)()
			return paused(g.bridge, hold)
		}},
	}
}

func (s *soak) apisixBreakages(g *gateway) []breakage {
	ends := func(name string, end func() error) breakage {
		name = "APISIX of " + g.name + " is " + name
		return breakage{name, "apisix of " + g.name, func(ctx context.Context, hold func()) error {
			defer s.late(name, g)()
			defer away(name, g)()
			err := end()
			hold()
			if err := g.apisix.start(); err != nil {
				return err
			}
			return errors.Join(err, s.recover(ctx, func(ctx context.Context) error {
				if !g.apisix.running() {
					return permanent{fmt.Errorf("what stands for APISIX ended: %s", g.apisix.tail())}
				}
				return g.serves(ctx)
			}))
		}}
	}
	name := "APISIX of " + g.name + " is paused"
	return []breakage{
		ends("killed", func() error { g.apisix.kill(); return nil }),
		ends("stopped", g.apisix.terminate),
		{name, "apisix of " + g.name, func(_ context.Context, hold func()) error {
			defer s.late(name, g)()
			return paused(g.apisix, hold)
		}},
	}
}

// clockBreakages set the clocks of all but the secure gateways without anything being out of order for it.
// A secure one has certificates that are good at the right time alone.
func (s *soak) clockBreakages() []breakage {
	var list []breakage
	for _, jump := range []time.Duration{-3 * time.Hour, -5 * time.Minute, 5 * time.Minute, 3 * time.Hour} {
		name := fmt.Sprintf("the clock is set by %v", jump)
		for _, c := range s.clocks {
			of := s.gatewaysOf(c)
			label := name + " for " + of[0].name
			list = append(list, breakage{label, "clock of " + of[0].name, func(ctx context.Context, hold func()) error {
				if of[0].secure {
					defer s.late(label, of...)()
					defer away(label, of[0])()
				}
				c.set(jump)
				hold()
				c.set(0)
				if !of[0].secure {
					return nil
				}
				return s.recover(ctx, of[0].connected)
			}})
		}
	}
	return list
}

// anotherTime starts a bridge with its clock ahead, and again with the right one: its revisions must go on.
func (s *soak) anotherTime(g *gateway) breakage {
	name := "the bridge of " + g.name + " runs at another time"
	return breakage{name, "bridge of " + g.name, func(ctx context.Context, hold func()) error {
		defer s.late(name, g)()
		for _, ahead := range []time.Duration{3 * time.Hour, 0} {
			g.bridge.kill()
			g.clock.set(ahead)
			if err := g.bridge.start(); err != nil {
				return err
			}
			if err := s.recover(ctx, g.ready); err != nil {
				return err
			}
			hold()
		}
		return s.recover(ctx, g.connected)
	}}
}

func (s *soak) gatewaysOf(c *clock) (of []*gateway) {
	for _, g := range s.gateways {
		if g.clock == c {
			of = append(of, g)
		}
	}
	return of
}
