package accesslog

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/prometheus/client_golang/prometheus"

	access "meshbridge/translate/accesslog"
	"meshbridge/xds"
)

const (
	// lookAround is the time between two looks at the queues: what did not fit, and who is not used any more.
	lookAround = 10 * time.Second
	// forgetAfter is how long a queue stays that no log writes to.
	forgetAfter = 10 * time.Minute
	// defaultDrainTime is how long a Writer that ends tries to get rid of what is queued.
	defaultDrainTime = 5 * time.Second
)

// Config configures New.
type Config struct {
	// World is where the clusters of services are looked up, Dialer connects to their endpoints, and Node is who
	// services are told that we are. Without World there are no services.
	World  World
	Dialer Dialer
	Node   *corepb.Node
	// Stdout and Stderr are written to in place of the files /dev/stdout and /dev/stderr: those are the
	// process's own. nil discards.
	Stdout, Stderr io.Writer
	// DrainTime bounds how long Run goes on after its context has ended, to write what is queued; 0 is 5 s.
	DrainTime time.Duration
	// Registerer is for meshbridge_access_log_*; nil registers none.
	Registerer prometheus.Registerer
	Logger     *slog.Logger
}

// noWorld has no clusters.
type noWorld struct{}

func (noWorld) Snapshot() *xds.Snapshot { return nil }

// Writer writes entries of access logs. Its methods are safe for concurrent use.
type Writer struct {
	config  Config
	log     *slog.Logger
	metrics *metrics

	mu     sync.RWMutex
	queues map[destination]*queue
	// targets are those of the services that are written to.
	targets map[*queue]*target
	// start begins to write what a queue has; nil unless Run runs.
	start func(*queue)
	// ended tells that nothing is written any more.
	ended bool

	changed chan struct{} // has room for one
}

// New returns a Writer that keeps what is written until Run.
func New(c Config) (*Writer, error) {
	if c.DrainTime < 0 {
		return nil, errors.New("access logs: the time to drain is negative")
	}
	c.DrainTime = cmp.Or(c.DrainTime, defaultDrainTime)
	if c.Stdout == nil {
		c.Stdout = io.Discard
	}
	if c.Stderr == nil {
		c.Stderr = io.Discard
	}
	if c.World == nil {
		c.World = noWorld{}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	m, err := newMetrics(c.Registerer)
	if err != nil {
		return nil, err
	}
	return &Writer{
		config: c, log: c.Logger, metrics: m, changed: make(chan struct{}, 1),
		queues: map[destination]*queue{}, targets: map[*queue]*target{},
	}, nil
}

// Write hands an entry to those of the logs that want it. It never waits: what there is no room for is
// lost, and counted. The entry must not change any more.
func (w *Writer) Write(logs []*access.Log, e *access.Entry) {
	now, size := time.Now(), 0
	for _, l := range logs {
		if !l.Wants(e) {
			continue
		}
		if size == 0 {
			size = sizeOf(e)
		}
		w.put(now, destinationOf(l), item{l, e, size})
	}
}

func (w *Writer) put(now time.Time, to destination, i item) {
	w.mu.RLock()
	q := w.queues[to]
	if q != nil {
		q.put(now, i)
		w.mu.RUnlock()
		return
	}
	w.mu.RUnlock()

	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		w.metrics.of[to.kind].lost.Inc()
		return
	}
	if q = w.queues[to]; q == nil {
		q = newQueue(to, w.metrics.of[to.kind])
		w.queues[to] = q
		if w.start != nil {
			w.start(q)
		}
	}
	q.put(now, i)
}

// Run writes until ctx ends, and then what is left, for as long as DrainTime at most. It is called once.
func (w *Writer) Run(ctx context.Context) error {
	writing, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var sinks sync.WaitGroup
	start := func(q *queue) {
		run := w.sink(q)
		sinks.Go(func() { run(writing, q) })
	}
	w.mu.Lock()
	w.start = start
	for _, q := range w.queues {
		start(q)
	}
	w.mu.Unlock()

	w.look(ctx)

	w.mu.Lock()
	w.ended = true
	left := w.queues
	w.queues = nil
	w.mu.Unlock()
	for _, q := range left {
		close(q.closed)
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		sinks.Wait()
	}()
	timer := time.NewTimer(w.config.DrainTime)
	defer timer.Stop()
	select {
	case <-drained:
	case <-timer.C:
		stop()
		w.awaitStopped(ctx, drained)
	}
	lost := 0
	for _, q := range left {
		lost += q.abandon() + q.unsaid()
	}
	if lost > 0 {
		w.log.WarnContext(ctx, "entries of access logs are lost at the end", slog.Int("entries", lost))
	}
	return nil
}

// awaitStopped waits for sinks that have been told to give up. One that writes to a pipe nobody reads is stuck:
// it ends with the process.
func (w *Writer) awaitStopped(ctx context.Context, stopped <-chan struct{}) {
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	select {
	case <-stopped:
	case <-timer.C:
		w.log.WarnContext(ctx, "an access log cannot be written to: nobody reads it")
	}
}

// look tells what is lost and forgets queues that are not used, until ctx ends.
func (w *Writer) look(ctx context.Context) {
	tick := time.NewTicker(lookAround)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			w.sayUnfit(ctx)
			w.forget(now.Add(-forgetAfter))
			w.follow(now)
		case <-w.changed:
			w.follow(time.Now())
		}
	}
}

func (w *Writer) sayUnfit(ctx context.Context) {
	w.mu.RLock()
	queues := slices.Collect(maps.Values(w.queues))
	w.mu.RUnlock()
	for _, q := range queues {
		if n := q.unsaid(); n > 0 {
			w.log.WarnContext(ctx, "entries of an access log are lost: they come faster than they can be written",
				slog.String("destination", q.to.String()), slog.Int("entries", n))
		}
	}
}

// forget ends queues that nothing has come to since.
func (w *Writer) forget(since time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for to, q := range w.queues {
		if q.idle(since) {
			close(q.closed)
			delete(w.queues, to)
			delete(w.targets, q)
		}
	}
}

// WorldChanged tells that the World is another one. It does not wait.
func (w *Writer) WorldChanged() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// follow lets services know where their endpoints are by now.
func (w *Writer) follow(now time.Time) {
	w.mu.RLock()
	targets := slices.Collect(maps.Values(w.targets))
	w.mu.RUnlock()
	for _, t := range targets { // gRPC may have to be waited for
		t.follow(now)
	}
}

// sink returns what writes the entries of a queue until it is closed and empty, or ctx has ended. It is called
// with mu.
func (w *Writer) sink(q *queue) func(ctx context.Context, q *queue) {
	if q.to.kind == access.KindFile {
		return newFile(&w.config, q.to.path).run
	}
	t := newTarget(&q.to, w.config.World, w.config.Dialer)
	conn, err := t.connect(q.to.authority)
	if err != nil {
		// A matter of the options alone, which are the same for all.
		w.log.Error("a service of access logs cannot be used", slog.String("cluster", q.to.cluster), slog.Any("error", err))
		return func(ctx context.Context, q *queue) {
			for q.wait(ctx) {
				q.abandon()
			}
		}
	}
	s := &service{to: &q.to, target: t, conn: conn, log: w.log, failures: w.metrics.failures}
	if q.to.kind == access.KindGRPC {
		s.protocol = newEnvoy(s.to, t, conn, w.config.Node)
	} else {
		s.protocol = newOpenTelemetry(s.to, conn, w.config.Node)
	}
	w.targets[q] = t
	return s.run
}
