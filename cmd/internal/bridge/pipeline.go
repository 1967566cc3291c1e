package bridge

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"meshbridge/cmd/internal/authn"
	"meshbridge/translate"
	"meshbridge/xds"
)

// Timing of the pipeline. Endpoint changes are never delayed.
const (
	// debounceQuiet is how long listeners, routes and clusters must be quiet before they are
	// translated, and debounceMax how long a mesh that never is may delay that.
	debounceQuiet = 100 * time.Millisecond
	debounceMax   = time.Second
	// warmUp is how long a change waits for resources that it refers to and that istiod has not
	// sent yet, and for names that have not been resolved yet, as Envoy's cluster warming does.
	warmUp = 5 * time.Second
)

// View is what other goroutines may know of the pipeline: immutable, replaced as a whole.
type View struct {
	// Revision of the last commit, and Committed its time.
	Revision  int64
	Committed time.Time
	// Received is when the newest bytes that the view includes came from the source.
	Received    time.Time
	Chains      []*translate.Chain
	Diagnostics []translate.Diagnostic
	Rejected    []xds.Rejection
	Pending     []xds.Key
	Snapshot    *xds.Snapshot
	// Stale tells that the world is the last good one of an earlier process.
	Stale bool
}

// pipeline turns updates into commits. Run owns everything but the mailbox and the view.
type pipeline struct {
	// set once
	state   *translate.State
	writer  *writer
	log     *slog.Logger
	metrics *metrics
	ready   chan struct{} // closed by Run when the first world is committed
	inbox   *mailbox
	names   *names
	files   *files
	ramps   *ramps
	feed    *captureFeed // nil without capture
	// requests lets APISIX report requests; nil where they are not counted.
	requests *requestFeed
	// overlays are what capture stands for.
	overlays *overlays
	tokens   *authn.Handler // nil without the internal port
	traces   pushTraces
	// nameServer serves the workload's DNS; nil without one.
	nameServer nameServer
	lastGood   *lastGood // nil where nothing is kept
	// extensions are what users add; nil is nothing.
	extensions *extensions
	// freeze makes Run do nothing until what it is given is closed.
	freeze chan chan struct{}
	// takeOver and tookOver come before and after the first world; nil without a predecessor.
	takeOver, tookOver func() error
	view               atomic.Pointer[View]
	// published is called when the view is another one; nil is not.
	published func()

	// owned by Run
	latest      xds.Update            // everything received
	world       *xds.Snapshot         // what has been translated
	dirty       map[xds.Key]struct{}  // what differs between world and latest
	dirtySince  time.Time             // when the oldest listener, route or cluster in dirty arrived
	dirtyUntil  time.Time             // when the debounce ends; zero where nothing waits
	waitedSince map[xds.Key]time.Time // when each pending resource was first waited for
	started     bool                  // the first world is committed
	expiries    map[string]time.Time  // of certificates, by id
	since       time.Time             // when the oldest change came that is not all committed; zero for none
}

func newPipeline(state *translate.State, w *writer, log *slog.Logger, m *metrics) *pipeline {
	return &pipeline{
		state: state, writer: w, log: log, metrics: m,
		ready: make(chan struct{}), inbox: newMailbox(), names: newNames(nil), ramps: newRamps(),
		files: newFiles(state, log), freeze: make(chan chan struct{}),
		dirty: map[xds.Key]struct{}{}, waitedSince: map[xds.Key]time.Time{},
		expiries: map[string]time.Time{}, overlays: newOverlays(),
	}
}

// Run takes updates until ctx ends. It fails only where a commit fails, which is a defect.
func (p *pipeline) Run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		// What can happen: ctx ends; the source delivered; names resolve differently; a debounce,
		// warm-up or commit phase is due; a successor takes over.
		select {
		case <-ctx.Done():
			return nil
		case thaw := <-p.freeze:
			select {
			case <-ctx.Done():
				return nil
			case <-thaw:
			}
		case <-p.inbox.filled:
			p.receive(time.Now())
		case <-p.names.changed():
			if err := p.resolved(time.Now()); err != nil {
				return err
			}
		case <-timer.C:
		}
		now := time.Now()
		if err := p.step(now); err != nil {
			return err
		}
		timer.Reset(p.untilNext(now))
	}
}

func (p *pipeline) receive(now time.Time) {
	u := p.inbox.take()
	if u == nil {
		return
	}
	p.serveNames(u)
	if u.Stale {
		p.names.keep(p.lastGood.state.Names())
	}
	for _, k := range u.Changed {
		if k.Type == xds.NameTableType {
			continue // which nothing that is translated depends on
		}
		p.dirty[k] = struct{}{}
		if p.since.IsZero() && !u.Stale {
			p.since = u.Received
		}
		if p.immediate(k, u.Snapshot) {
			continue
		}
		if p.dirtyUntil.IsZero() {
			p.dirtySince = now
		}
		p.dirtyUntil = now.Add(debounceQuiet)
		if limit := p.dirtySince.Add(debounceMax); p.dirtyUntil.After(limit) {
			p.dirtyUntil = limit
		}
	}
	pending := make(map[xds.Key]time.Time, len(u.Pending))
	for _, k := range u.Pending {
		if since, ok := p.waitedSince[k]; ok {
			pending[k] = since
		} else {
			pending[k] = now
		}
	}
	p.waitedSince = pending
	if p.started {
		p.names.receive(now, u.Snapshot, u.Changed)
	} else {
		p.names.receiveAll(now, u.Snapshot)
	}
	p.files.receive(now, u.Snapshot, u.Changed, p.started)
	p.metrics.received(u)
	// Merging keeps the decoded forms that earlier updates brought, until they are translated.
	merged := p.latest.Merge(*u)
	merged.Received = u.Received
	p.latest = merged
}

// immediate tells whether a change is applied at once. The removal of endpoints is not: istiod
// removes them together with the cluster and the routes, and taking the endpoints first would
// answer 503 for the time between.
func (p *pipeline) immediate(k xds.Key, s *xds.Snapshot) bool {
	return k.Type == xds.EndpointType && s.Get(k) != nil
}

// step does everything that is due.
func (p *pipeline) step(now time.Time) error {
	if !p.started {
		switch {
		case !p.latest.Complete() || p.warming(now) > 0:
			return nil
		case p.lacksRoutes():
			p.log.Warn("not ready: waiting for routes that the source has not sent",
				slog.Any("pending", p.latest.Pending[:min(len(p.latest.Pending), maxLoggedKeys)]))
			return nil
		}
		return p.firstWorld(now)
	}
	var endpoints []xds.Key
	for k := range p.dirty {
		if p.immediate(k, p.latest.Snapshot) {
			endpoints = append(endpoints, k)
		}
	}
	if err := p.apply(now, endpoints); err != nil {
		return err
	}
	if !p.dirtyUntil.IsZero() && !now.Before(p.dirtyUntil) && p.warming(now) == 0 {
		rest := make([]xds.Key, 0, len(p.dirty))
		for k := range p.dirty {
			rest = append(rest, k)
		}
		p.dirtyUntil = time.Time{}
		if err := p.apply(now, rest); err != nil {
			return err
		}
	}
	ramped, reread, extended := p.ramps.step(now), p.files.step(now), p.extensions.step(now)
	if ramped || reread || extended {
		if err := p.reapply(now); err != nil {
			return err
		}
	}
	revision, err := p.writer.flush(now)
	if err != nil {
		return err
	}
	if p.writer.routesDue.IsZero() {
		p.traces.done()
		p.feed.committed(now, p.writer.revision)
	}
	p.publish(now, revision, false)
	if len(p.dirty) == 0 {
		if p.writer.routesDue.IsZero() {
			p.notePush()
		}
		p.names.settle(now, p.latest.Snapshot)
		p.files.settle()
		p.settle()
		p.lastGood.settle(p, now)
	}
	return nil
}

// notePush measures how long what was received took to be committed.
func (p *pipeline) notePush() {
	if !p.since.IsZero() {
		p.metrics.push.Observe(time.Since(p.since).Seconds())
		p.since = time.Time{}
	}
}

// resolved commits the upstreams of names that resolve differently, at once like endpoints.
func (p *pipeline) resolved(now time.Time) error {
	p.names.load()
	if !p.started {
		return nil
	}
	return p.reapply(now)
}

// reapply translates the same resources with other inputs, and commits what differs.
func (p *pipeline) reapply(now time.Time) error {
	result := p.translate(now, translate.Input{Snapshot: p.world})
	revision, err := p.writer.add(now, result)
	if err != nil {
		return err
	}
	p.noteCertificates(now, result)
	p.publish(now, revision, result.DiagnosticsChanged)
	return nil
}

// translate adds what translation depends on besides resources. What it returns is to be committed.
func (p *pipeline) translate(now time.Time, in translate.Input) translate.Result {
	in.Inputs = translate.Inputs{
		DNS: p.names.answers.Addresses, DNSErrors: p.names.answers.Errors, Ramps: p.ramps.inputs,
		Files: p.files.secrets, FileErrors: p.files.errors,
	}
	if p.extensions != nil {
		in.Inputs.Extensions = p.extensions.set
	}
	if p.feed != nil {
		in.Inputs.Allocations = p.feed.numbers
	}
	result := p.state.Apply(in)
	p.overlays.follow(now, &result.Capture)
	p.requests.prepare(&result, p.state.Chains())
	if p.tokens != nil && result.AuthenticationsChanged {
		p.tokens.Set(p.state.Authentications()) // before APISIX asks
	}
	p.ramps.observe(now, result.SlowStarts)
	p.metrics.translated(time.Since(now))
	p.traces.translated(now, &result)
	p.feed.prepare(now, result.Capture)
	return result
}

// settle drops the decoded resources that came with the latest update: they are several times the
// size of their bytes, and everything in them has been translated.
func (p *pipeline) settle() {
	p.latest = xds.Update{
		Snapshot: p.latest.Snapshot, Pending: p.latest.Pending,
		Rejected: p.latest.Rejected, Received: p.latest.Received, Stale: p.latest.Stale,
	}
}

// firstWorld commits everything that is known as one transaction.
func (p *pipeline) firstWorld(now time.Time) error {
	if p.takeOver != nil {
		if err := p.takeOver(); err != nil {
			return err
		}
	}
	p.traces.beginAll(now, &p.latest)
	result := p.translate(now, translate.Input{Snapshot: p.latest.Snapshot, All: true})
	p.world = p.latest.Snapshot
	p.dirty = map[xds.Key]struct{}{} // walked at every step: do not keep the size of the world
	p.dirtyUntil = time.Time{}
	p.writer.serve(result.Capture.Listeners)
	p.feed.begin(p.latest.Stale)
	revision, err := p.writer.first(now, result.Put)
	if err != nil {
		return err
	}
	if p.tookOver != nil {
		if err := p.tookOver(); err != nil {
			return err
		}
	}
	p.started = true
	p.traces.done()
	p.lastGood.started(p)
	p.feed.committed(now, revision)
	p.noteCertificates(now, result)
	p.publish(now, revision, true)
	p.log.Info("ready",
		slog.Int64("revision", revision),
		slog.Int("objects", len(result.Put)),
		slog.Int("diagnostics", len(p.view.Load().Diagnostics)),
		slog.Duration("since_received", time.Since(p.latest.Received)))
	close(p.ready)
	p.notePush()
	p.settle()
	p.lastGood.settle(p, now)
	return nil
}

// apply translates the named changes and hands the result to the writer. The other differences
// between world and latest stay for later.
func (p *pipeline) apply(now time.Time, keys []xds.Key) error {
	if len(keys) == 0 {
		return nil
	}
	p.traces.begin(now, &p.latest, keys)
	var put []*xds.Resource
	var remove []xds.Key
	for _, k := range keys {
		delete(p.dirty, k)
		if r := p.latest.Snapshot.Get(k); r != nil {
			put = append(put, r)
		} else {
			remove = append(remove, k)
		}
	}
	p.world = p.world.With(put, remove)
	result := p.translate(now, translate.Input{Snapshot: p.world, Changed: keys})
	revision, err := p.writer.add(now, result)
	if err != nil {
		return err
	}
	p.noteCertificates(now, result)
	p.lastGood.changed(onlyEndpoints(keys))
	p.publish(now, revision, result.DiagnosticsChanged || !onlyEndpoints(keys))
	return nil
}

// lacksRoutes tells whether a route configuration has not been answered yet. The first world waits for
// it however long it takes: without it, APISIX would delete the routes that it has. Endpoints that
// are missing hurt only their own service, so they are waited for no longer than warmUp.
func (p *pipeline) lacksRoutes() bool {
	for k := range p.waitedSince {
		if k.Type == xds.RouteType {
			return true
		}
	}
	return false
}

// warming returns how long to go on waiting for what is pending; 0 is no longer.
func (p *pipeline) warming(now time.Time) time.Duration {
	left := p.names.warming(now)
	for _, since := range p.waitedSince {
		left = max(left, since.Add(warmUp).Sub(now))
	}
	return left
}

// untilNext returns how long to sleep if nothing arrives.
func (p *pipeline) untilNext(now time.Time) time.Duration {
	next := time.Hour
	if !p.started {
		if left := p.warming(now); p.latest.Complete() && left > 0 {
			next = left
		}
		return next
	}
	if !p.dirtyUntil.IsZero() {
		next = min(next, max(p.dirtyUntil.Sub(now), p.warming(now)))
	}
	for _, due := range []time.Time{p.writer.due(), p.ramps.due(), p.files.due, p.feed.due(), p.extensions.nextDue()} {
		if !due.IsZero() {
			next = min(next, due.Sub(now))
		}
	}
	return max(next, 0)
}

func onlyEndpoints(keys []xds.Key) bool {
	for _, k := range keys {
		if k.Type != xds.EndpointType {
			return false
		}
	}
	return true
}

// publish replaces the view. revision 0 means that nothing was committed; structure says that
// chains or diagnostics may have changed.
func (p *pipeline) publish(now time.Time, revision int64, structure bool) {
	var v View
	if old := p.view.Load(); old != nil {
		v = *old
	}
	if revision == 0 && !structure && v.Snapshot == p.world && v.Received.Equal(p.latest.Received) {
		return
	}
	if revision != 0 {
		v.Revision, v.Committed = revision, now
	}
	if structure {
		v.Chains, v.Diagnostics = p.state.Chains(), p.lastGood.diagnostics(p.state.Diagnostics())
		v.Stale = p.lastGood.isStale()
		p.metrics.diagnosed(v.Diagnostics)
	}
	v.Received, v.Snapshot = p.latest.Received, p.world
	v.Rejected, v.Pending = p.latest.Rejected, p.latest.Pending
	p.view.Store(&v)
	if p.published != nil {
		p.published()
	}
}
