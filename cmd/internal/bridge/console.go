package bridge

import (
	"context"

	"meshbridge/cmd/internal/console"
	"meshbridge/cmd/internal/logscope"
	"meshbridge/identity"
	"meshbridge/xds"
)

// statusSource is a source that tells how its connection does. Files have none.
type statusSource interface{ Status() xds.Status }

// newConsole makes the status page of the admin port. What it shows is read when somebody looks.
func (b *Bridge) newConsole() *console.Server {
	c := b.config
	b.pipeline.writer.journal = console.NewJournal()
	config := console.Config{
		Version: c.Version, Profile: c.Translate.Profile, APISIX: c.Translate.APISIXVersion.OrDefault(), Node: c.Node,
		World: b.shown, Store: b.store, Prefix: c.Prefix, Watchers: b.gateway.Watchers, Changes: b.pipeline.writer.journal,
		TokenFile: c.TokenFile, Levels: logscope.LevelsOf(c.Logger),
		Ports:  map[string]string{"listen": b.listener.Addr().String()},
		Logger: logscope.Logger(c.Logger, logscope.Admin),
	}
	if source, ok := b.source.(statusSource); ok {
		config.Source = source.Status
	}
	if b.pipeline.tokens != nil {
		config.Ask = b.pipeline.tokens.Ask
	}
	if c.APISIX != nil {
		config.Worker = func(ctx context.Context) error { return b.apisix.Ready(ctx) }
	}
	if c.Capture != nil && c.Capture.NewIdentity != nil {
		config.Identity = func() *identity.Identity { return b.identity.Current() }
	}
	return console.New(config)
}

// shown is what the status page shows of the world: what is served, and what is wrong with the newest.
func (b *Bridge) shown() console.World {
	w := console.World{Ready: b.serves()}
	if view := b.pipeline.view.Load(); view != nil {
		w.Revision, w.Committed, w.Received = view.Revision, view.Committed, view.Received
		w.Snapshot, w.Chains, w.Diagnostics, w.LastGood = view.Snapshot, view.Chains, view.Diagnostics, view.Stale
	}
	if u := b.received.Load(); u != nil {
		w.Rejected, w.Pending = u.Rejected, u.Pending
	}
	return w
}
