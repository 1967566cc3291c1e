package bridge

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// LifecycleConfig says how the bridge ends.
type LifecycleConfig struct {
	// DrainTime is how long the bridge goes on as before when it is told to end, except that it is not ready
	// any more: others learn only by and by that nothing is to be sent here.
	DrainTime time.Duration
	// ExitOnZero ends the bridge when no connection is open any more, but not before MinimumDrain, instead
	// of after DrainTime.
	ExitOnZero   bool
	MinimumDrain time.Duration
	// StopTime is how long requests in flight have after that.
	StopTime time.Duration
	// Hurry, once closed, ends the bridge without any of that; nil is never.
	Hurry <-chan struct{}
}

// lifecycle is how the bridge ends. It passes through these stages, and may skip some:
//
//	serving    everything is as it should be
//	draining   not ready any more; new connections are served, because peers learn of it late
//	refusing   no new connections to the workload; the workload's own are served
//	finishing  no new connections at all; requests in flight may end
//
// Which, and how long each takes, depends on what ends it:
//
//	what                                draining      refusing                   finishing
//	a part fails, APISIX ends itself    -             -                          -
//	POST /quitquitquit, second signal   -             -                          -
//	SIGTERM                             DrainTime     -                          StopTime
//	SIGTERM, ExitOnZero                 MinimumDrain  while connections are open  StopTime
//	POST /drain                         DrainTime     until SIGTERM              -
//	another process has taken over      -             -                          DrainTime and StopTime
//
// The first three rows are true at any time, so that each can cut the others short. POST /drain is for native
// sidecars, as Istio's agent has it: the kubelet's preStop hook asks to drain when the pod is to end, and
// SIGTERM comes when the application has ended, from when on there is nothing to wait for. Where the
// bridge has neither capture nor an APISIX of its own, SIGTERM ends it at once.
type lifecycle struct {
	config LifecycleConfig
	log    *slog.Logger

	terminated event // as by SIGTERM
	drained    event // POST /drain
	quit       event // POST /quitquitquit
	left       event // another process serves
	unready    event // serving is over
}

// event happens once.
type event struct {
	once sync.Once
	done chan struct{}
}

func newEvent() event { return event{done: make(chan struct{})} }

func (e *event) happen() { e.once.Do(func() { close(e.done) }) }

func newLifecycle(c LifecycleConfig, log *slog.Logger) *lifecycle {
	return &lifecycle{
		config: c, log: log,
		terminated: newEvent(), drained: newEvent(), quit: newEvent(), left: newEvent(), unready: newEvent(),
	}
}

// traffic is what serves connections.
type traffic interface {
	// refuse takes no new connections to the workload.
	refuse()
	// idle returns when no connection is open, or ctx has ended.
	idle(ctx context.Context)
	// finish lets requests in flight end, for no longer than limit, and returns when nothing is served.
	finish(ctx context.Context, limit time.Duration)
}

// errDraining is why a bridge that ends is not ready.
var errDraining = errors.New("draining")

// err tells whether the bridge is about to end.
func (l *lifecycle) err() error {
	if isClosed(l.unready.done) {
		return errDraining
	}
	return nil
}

// run goes through the stages and returns when everything is to stop. ctx ends with SIGTERM, and parts when
// one has failed. t is nil where there is none.
func (l *lifecycle) run(ctx, parts context.Context, t traffic) {
	ctx, terminate := context.WithCancel(ctx)
	defer terminate()
	now, hurry := context.WithCancel(parts) // ends where there is nothing to wait for
	defer hurry()
	var signals sync.WaitGroup
	defer signals.Wait()
	defer hurry()
	signals.Go(func() {
		select {
		case <-l.terminated.done:
			terminate()
		case <-now.Done():
		}
	})
	signals.Go(func() {
		select {
		case <-l.quit.done:
		case <-l.config.Hurry:
		case <-now.Done():
			return
		}
		l.log.InfoContext(now, "ending without draining")
		hurry()
	})

	select {
	case <-now.Done():
	case <-ctx.Done():
		l.unready.happen()
		if t != nil {
			l.terminate(now, t)
		}
	case <-l.left.done:
		limit := l.config.DrainTime + l.config.StopTime
		l.log.InfoContext(ctx, "another process serves, finishing what is in flight", slog.Duration("at_most", limit))
		if t != nil {
			t.finish(now, limit)
		}
	case <-l.drained.done:
		l.unready.happen()
		until, end := context.WithCancel(now)
		defer end()
		defer context.AfterFunc(ctx, end)()
		l.drain(until, t)
	}
	l.unready.happen()
}

// terminate is what SIGTERM leads to.
func (l *lifecycle) terminate(ctx context.Context, t traffic) {
	c := l.config
	if c.ExitOnZero {
		l.log.InfoContext(ctx, "draining until no connection is open", slog.Duration("at_least", c.MinimumDrain))
		pause(ctx, c.MinimumDrain)
		t.refuse()
		t.idle(ctx)
	} else {
		l.log.InfoContext(ctx, "draining", slog.Duration("drain_time", c.DrainTime))
		pause(ctx, c.DrainTime)
	}
	if ctx.Err() == nil {
		l.log.InfoContext(ctx, "finishing what is in flight", slog.Duration("at_most", c.StopTime))
		t.finish(ctx, c.StopTime)
	}
}

// drain is what POST /drain leads to, until ctx ends.
func (l *lifecycle) drain(ctx context.Context, t traffic) {
	l.log.InfoContext(ctx, "draining until the process is told to end", slog.Duration("drain_time", l.config.DrainTime))
	pause(ctx, l.config.DrainTime)
	if t != nil && ctx.Err() == nil {
		t.refuse()
	}
	<-ctx.Done()
}

// pause returns after d, or when ctx has ended.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
