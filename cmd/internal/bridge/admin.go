package bridge

import (
	"net/netip"

	"meshbridge/cmd/internal/admin"
	"meshbridge/cmd/internal/logscope"
	"meshbridge/identity"
	"meshbridge/xds"
)

func (b *Bridge) newAdmin() *admin.Server {
	c := b.config
	config := admin.Config{
		Node: c.Node, Istiod: c.Istiod,
		Version: c.Version, APISIX: c.Translate.APISIXVersion.String(), DrainTime: c.Lifecycle.DrainTime,
		World: b.known, Ready: b.serves,
		Levels: logscope.LevelsOf(c.Logger), Gatherer: b.registry,
		Draining: func() bool { return b.lifecycle.err() != nil },
		Drain:    b.lifecycle.drained.happen, Quit: b.lifecycle.terminated.happen,
		Logger: logscope.Logger(c.Logger, logscope.Admin),
	}
	if b.resolver != nil {
		config.Addresses = func(name string) []netip.Addr { return b.resolver.Answers().Addresses[name] }
	}
	if c.Capture != nil && c.Capture.NewIdentity != nil {
		config.Identity = func() *identity.Identity { return b.identity.Current() }
	}
	return admin.New(config)
}

// receive takes what the source delivers. It never blocks.
func (b *Bridge) receive(u xds.Update) {
	b.received.Store(&xds.Update{Snapshot: u.Snapshot, Pending: u.Pending, Rejected: u.Rejected, Received: u.Received, Stale: u.Stale})
	b.pipeline.inbox.put(u)
}

// known is what the admin port shows: what is received is never older than what is active.
func (b *Bridge) known() admin.World {
	var w admin.World
	if view := b.pipeline.view.Load(); view != nil {
		w.Active = view.Snapshot
	}
	if u := b.received.Load(); u != nil {
		w.Received, w.Rejected, w.Pending = u.Snapshot, u.Rejected, u.Pending
	}
	return w
}

// serves tells whether the first complete world is committed and, with capture, served by it.
func (b *Bridge) serves() bool {
	return isClosed(b.pipeline.ready) && (b.pipeline.feed == nil || isClosed(b.pipeline.feed.serving))
}
