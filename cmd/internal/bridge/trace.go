package bridge

import (
	"context"
	"time"

	"meshbridge/cmd/internal/tracing"
	"meshbridge/translate"
	"meshbridge/xds"
)

// pushTraces traces the changes that are on their way to the store. The pipeline owns it; without a tracer it
// does nothing.
type pushTraces struct {
	tracer *tracing.Tracer
	open   []openPush
}

// openPush is one of which a phase is still to be committed; revision is that of its last commit.
type openPush struct {
	*tracing.Push
	revision int64
}

// begin begins the trace of resources that are about to be translated.
func (t *pushTraces) begin(now time.Time, latest *xds.Update, keys []xds.Key) {
	if t.tracer == nil {
		return
	}
	received, version := time.Time{}, ""
	for _, k := range keys {
		r := latest.Snapshot.Get(k)
		if r == nil {
			continue
		}
		if received.IsZero() || r.Received.Before(received) {
			received = r.Received
		}
		version = max(version, r.Response)
	}
	if received.IsZero() { // all of them are gone
		received = latest.Received
	}
	t.open = append(t.open, openPush{Push: t.tracer.Begin(received, now, version, keys)})
}

// beginAll is begin for the first world.
func (t *pushTraces) beginAll(now time.Time, latest *xds.Update) {
	if t.tracer == nil {
		return
	}
	var keys []xds.Key
	for _, kind := range latest.Snapshot.Types() {
		for r := range latest.Snapshot.All(kind) {
			keys = append(keys, r.Key)
		}
	}
	t.begin(now, latest, keys)
}

// translated tells of the translation of the push that was begun last.
func (t *pushTraces) translated(began time.Time, result *translate.Result) {
	if n := len(t.open); n > 0 {
		t.open[n-1].Translated(began, len(result.Put), len(result.Delete))
	}
}

// committed tells of a transaction, which may be of several pushes.
func (t *pushTraces) committed(began time.Time, revision int64, objects int) {
	for i := range t.open {
		t.open[i].Committed(began, revision, objects)
		t.open[i].revision = revision
	}
}

// done tells that everything that was begun is committed.
func (t *pushTraces) done() {
	if len(t.open) == 0 {
		return
	}
	now := time.Now()
	for _, p := range t.open {
		p.Done(now, p.revision)
	}
	t.open = nil
}

// openTraces makes the tracer, where the environment asks for one.
func (b *Bridge) openTraces(ctx context.Context) (err error) {
	c := b.config.Tracing
	if c == nil {
		return nil
	}
	b.tracer, err = tracing.Open(ctx, *c)
	if err != nil {
		return err
	}
	b.pipeline.traces.tracer = b.tracer
	b.pipeline.writer.traces = &b.pipeline.traces
	return nil
}
