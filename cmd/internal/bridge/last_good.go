package bridge

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"meshbridge/cmd/internal/lastgood"
	"meshbridge/cmd/internal/logscope"
	"meshbridge/translate"
	"meshbridge/xds"
)

// lastGood is what the pipeline does about the last good state: it hands worlds over to be kept, and marks
// the world of an earlier process as stale until it is replaced. It is owned by the pipeline; nil keeps
// nothing.
type lastGood struct {
	state *lastgood.State

	world         *xds.Snapshot // that was handed over last
	onlyEndpoints bool          // differ from it
	stale         bool          // what is served is of an earlier process
	notice        translate.Diagnostic
}

// openLastGood makes the part that keeps the last good state.
func (b *Bridge) openLastGood() {
	c := b.config.LastGood
	if c == nil {
		return
	}
	config := *c
	config.Registerer, config.Logger = b.registry, logscope.Logger(b.config.Logger, logscope.Bridge)
	// An APISIX that starts with the bridge has nothing yet.
	config.ServeIncomplete = b.config.APISIX != nil
	if client, ok := b.source.(*xds.Client); ok {
		config.Connected = func() bool { return client.Status().Connected }
	}
	b.pipeline.lastGood = &lastGood{state: lastgood.New(config)}
}

// follow runs the source. A successor needs no last good state: its predecessor serves.
func (b *Bridge) follow(ctx context.Context) error {
	if l := b.pipeline.lastGood; l != nil && b.succession.predecessor == nil {
		return l.state.Follow(ctx, b.source, b.receive)
	}
	return b.source.Run(ctx, b.receive)
}

// pause stops writing the file, or goes on.
func (l *lastGood) pause(on bool) {
	if l != nil {
		l.state.Pause(on)
	}
}

// started is called when the first world is committed.
func (l *lastGood) started(p *pipeline) {
	if l == nil || !p.latest.Stale {
		return
	}
	l.stale, l.notice = true, translate.LastGoodState(p.latest.Received, l.state.LeftOut())
	p.metrics.stale.Set(1)
}

// changed is called when the world changes.
func (l *lastGood) changed(onlyEndpoints bool) {
	if l != nil {
		l.onlyEndpoints = l.onlyEndpoints && onlyEndpoints
	}
}

// settle is called when everything that was received is translated.
func (l *lastGood) settle(p *pipeline, now time.Time) {
	if l == nil || p.latest.Stale {
		return
	}
	if l.stale {
		l.stale = false
		p.metrics.stale.Set(0)
		p.publish(now, 0, true)
		p.log.Info("the configuration of istiod has replaced the last good state", slog.Int64("revision", p.writer.revision))
	}
	if l.world == p.world {
		return
	}
	l.state.Keep(now, lastgood.World{
		Snapshot: p.world, Received: p.latest.Received, Names: p.names.answers.Addresses,
	}, l.onlyEndpoints && l.world != nil)
	l.world, l.onlyEndpoints = p.world, true
}

// diagnostics adds the notice to those of translation.
func (l *lastGood) diagnostics(of []translate.Diagnostic) []translate.Diagnostic {
	if !l.isStale() {
		return of
	}
	all := append(slices.Clone(of), l.notice)
	slices.SortStableFunc(all, translate.CompareDiagnostics)
	return all
}

func (l *lastGood) isStale() bool { return l != nil && l.stale }
