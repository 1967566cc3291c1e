// Package tracing tells an OpenTelemetry collector what became of each change: when it was received, how long it
// was held back, translated and committed, and when every watcher had been sent it.
//
//	push                       from the bytes to the last watcher
//	├── xds.receive            until translation began: decoding, debouncing, waiting for what the change refers to
//	├── translate
//	├── store.commit           one for each phase, with its revision
//	└── watch.deliver          until every watcher had been sent the last of them
//
// It is set up by the environment variables of OpenTelemetry, and off without an endpoint.
package tracing

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

const (
	// deliveryTimeout bounds how long a watcher that does not read is waited for, and maxDeliveries
	// how many pushes are.
	deliveryTimeout = 5 * time.Second
	maxDeliveries   = 64
	// shutdownTimeout bounds how long the last spans may take when the bridge stops.
	shutdownTimeout = 2 * time.Second
	// warnEvery is the least time between two warnings about the collector.
	warnEvery = time.Minute
)

// Config configures Open.
type Config struct {
	// Getenv reads the environment: os.Getenv. OpenTelemetry's own code reads the process's.
	Getenv func(string) string
	// Version is that of the program, and NodeID who istiod is told that we are.
	Version, NodeID string
	Logger          *slog.Logger
}

// Watchers are those who are told of commits.
type Watchers interface {
	WaitDelivered(ctx context.Context, revision int64) error
}

// Tracer makes spans. A nil Tracer makes none, and costs nothing. Begin is called by one goroutine.
type Tracer struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
	done     chan delivery
	abandon  context.CancelFunc // ends what is being sent
}

// delivery is a push whose objects are all committed.
type delivery struct {
	push     *Push
	revision int64
	at       time.Time
}

// Open returns a Tracer, nil where the environment names no endpoint for traces.
func Open(ctx context.Context, c Config) (*Tracer, error) {
	endpoint := cmp.Or(c.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"), c.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT"))
	if endpoint == "" || c.Getenv("OTEL_SDK_DISABLED") == "true" || c.Getenv("OTEL_TRACES_EXPORTER") == "none" {
		return nil, nil //nolint:nilnil // a nil Tracer is one that is off
	}
	exporter, err := otlptracegrpc.New(ctx) // connects later
	if err != nil {
		return nil, fmt.Errorf("traces to %s: %w", endpoint, err)
	}
	attributes := []attribute.KeyValue{attribute.String("service.version", c.Version)}
	if c.Getenv("OTEL_SERVICE_NAME") == "" {
		attributes = append(attributes, attribute.String("service.name", "meshbridge"))
	}
	if c.NodeID != "" {
		attributes = append(attributes, attribute.String("istio.node_id", c.NodeID))
	}
	// What the environment says wins over what is known here.
	about, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithAttributes(attributes...), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	sending, abandon := context.WithCancel(context.WithoutCancel(ctx))
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithResource(about),
		// Drops spans when it cannot keep up.
		sdktrace.WithBatcher(&quiet{SpanExporter: exporter, log: c.Logger, endpoint: endpoint, sending: sending}),
	)
	return &Tracer{provider: provider, tracer: provider.Tracer("meshbridge"), done: make(chan delivery, maxDeliveries), abandon: abandon}, nil
}

// Run waits for deliveries until ctx ends, and sends what is left.
func (t *Tracer) Run(ctx context.Context, watchers Watchers) error {
	if t == nil {
		return nil
	}
	var waiting sync.WaitGroup
	room := make(chan struct{}, maxDeliveries)
	for ended := false; !ended; {
		select {
		case <-ctx.Done():
			ended = true
		case d := <-t.done:
			select {
			case room <- struct{}{}:
				waiting.Go(func() {
					d.await(ctx, watchers)
					<-room
				})
			default:
				d.push.root.End(trace.WithTimestamp(d.at))
			}
		}
	}
	waiting.Wait()
	t.close(ctx)
	return nil
}

// close sends what is left, unless the collector takes too long.
func (t *Tracer) close(ctx context.Context) {
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	_ = t.provider.ForceFlush(last) // the exporter has said what went wrong
	t.abandon()
	_ = t.provider.Shutdown(context.WithoutCancel(ctx))
}

func (d delivery) await(ctx context.Context, watchers Watchers) {
	limited, cancel := context.WithTimeout(ctx, deliveryTimeout)
	defer cancel()
	_, span := d.push.start("watch.deliver", d.at, attribute.Int64("meshbridge.revision", d.revision))
	if err := watchers.WaitDelivered(limited, d.revision); err != nil {
		span.SetAttributes(attribute.String("error.type", "not_delivered"))
	}
	span.End()
	d.push.root.End()
}

// quiet reports failures of the collector at a bounded rate, instead of to a global handler.
type quiet struct {
	sdktrace.SpanExporter
	log      *slog.Logger
	endpoint string
	sending  context.Context //nolint:containedctx // the processor's own goroutine cannot be told to stop

	mu     sync.Mutex
	warned time.Time
	lost   int
}

// ExportSpans sends spans to the collector. It never fails: spans that cannot be sent are lost.
func (q *quiet) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(q.sending, cancel)() //nolint:contextcheck // it ends with either of the two
	err := q.SpanExporter.ExportSpans(ctx, spans)
	if err == nil {
		return nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.lost += len(spans)
	if now := time.Now(); now.Sub(q.warned) >= warnEvery {
		q.log.WarnContext(ctx, "traces are not sent", slog.String("endpoint", q.endpoint), slog.Int("spans_lost", q.lost), slog.Any("error", err))
		q.warned, q.lost = now, 0
	}
	return nil
}
