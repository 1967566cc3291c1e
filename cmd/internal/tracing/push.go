package tracing

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"meshbridge/xds"
)

// Push is what becomes of one change. A nil Push is not traced.
type Push struct {
	tracer *Tracer
	ctx    context.Context //nolint:containedctx // it carries the span that others belong to, and nothing else
	root   trace.Span
}

// maxNames bounds the names of resources that a span has.
const maxNames = 10

// Begin begins the trace of a change that was received then and is translated from now on.
// version is that of the response that it came with; empty where there is none.
func (t *Tracer) Begin(received, now time.Time, version string, changed []xds.Key) *Push {
	if t == nil {
		return nil
	}
	if received.IsZero() || received.After(now) {
		received = now
	}
	names := make([]string, 0, maxNames)
	for _, k := range changed[:min(len(changed), maxNames)] {
		names = append(names, k.String())
	}
	p := &Push{tracer: t}
	//nolint:spancheck // Done ends it
	p.ctx, p.root = t.tracer.Start(context.Background(), "push", trace.WithNewRoot(), trace.WithTimestamp(received), trace.WithAttributes(
		attribute.Int("xds.resources_changed", len(changed)), attribute.StringSlice("xds.resources", names),
		attribute.String("xds.version", version),
	))
	_, receive := p.start("xds.receive", received)
	receive.End(trace.WithTimestamp(now))
	return p
}

func (p *Push) start(name string, at time.Time, attributes ...attribute.KeyValue) (context.Context, trace.Span) {
	//nolint:spancheck // the caller ends it
	return p.tracer.tracer.Start(p.ctx, name, trace.WithTimestamp(at), trace.WithAttributes(attributes...))
}

// Translated tells of a translation, and how many objects it put and deleted.
func (p *Push) Translated(began time.Time, put, deleted int) {
	if p == nil {
		return
	}
	_, span := p.start("translate", began, attribute.Int("apisix.objects_put", put), attribute.Int("apisix.objects_deleted", deleted))
	span.End()
}

// Committed tells of a transaction.
func (p *Push) Committed(began time.Time, revision int64, objects int) {
	if p == nil {
		return
	}
	_, span := p.start("store.commit", began, attribute.Int64("meshbridge.revision", revision), attribute.Int("apisix.objects", objects))
	span.End()
}

// Done tells that nothing more of the push will be committed; revision is that of its last commit, 0 where
// nothing differed. It never blocks.
func (p *Push) Done(now time.Time, revision int64) {
	if p == nil {
		return
	}
	p.root.SetAttributes(attribute.Int64("meshbridge.revision", revision))
	if revision == 0 {
		p.root.End(trace.WithTimestamp(now))
		return
	}
	select {
	case p.tracer.done <- delivery{p, revision, now}:
	default:
		p.root.End(trace.WithTimestamp(now))
	}
}
