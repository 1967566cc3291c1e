package dns

import (
	"cmp"
	"container/heap"
	"context"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meshbridge/translate"
)

// defaultInFlight is Config.MaxInFlight's.
const defaultInFlight = 32

// Config configures New.
type Config struct {
	// Servers are addresses with ports, tried in order; none means those of ResolvConf.
	Servers []string
	// ResolvConf and Hosts are files; the defaults are /etc/resolv.conf and /etc/hosts. They are
	// read again when they change.
	ResolvConf, Hosts string
	// MaxInFlight bounds the names that are looked up at once; the default is 32.
	MaxInFlight int
	// Registerer and Logger may be nil.
	Registerer prometheus.Registerer
	Logger     *slog.Logger
}

// Answers are what names resolve to, by HostName.Key. They are immutable.
type Answers struct {
	// Addresses are the last good answers, sorted; an empty list says that there are none.
	Addresses map[string][]netip.Addr
	// Errors tells of names why they could not be resolved when that was last tried.
	Errors map[string]string
}

// Answered tells whether a name has been tried: either it has an answer, or that failed.
func (a *Answers) Answered(name string) bool {
	_, good := a.Addresses[name]
	_, bad := a.Errors[name]
	return good || bad
}

// Resolver keeps the addresses of names up to date. Its methods may be called by any goroutine.
type Resolver struct {
	// set once
	lookup  func(ctx context.Context, name translate.HostName) (answer, error)
	most    int
	log     *slog.Logger
	metrics *metrics
	// wanted and changed have room for one signal each; a second one would say nothing new.
	wanted, changed chan struct{}
	answers         atomic.Pointer[Answers]

	mu    sync.Mutex
	names map[string]*wish // guarded by mu: the newest list by key, replaced as a whole

	// owned by Run
	entries  map[string]*entry
	queue    queue
	inFlight int
}

// wish is a name as all who want it resolved, by the same servers, want it.
type wish struct {
	name    string
	servers translate.NameServers
	v4, v6  bool
	refresh []translate.Refresh
}

func (w *wish) host() translate.HostName {
	return translate.HostName{Name: w.name, Servers: w.servers, IPv4: w.v4, IPv6: w.v6}
}

// wider tells whether w wants a family of addresses that other does not.
func (w *wish) wider(other *wish) bool { return w.v4 && !other.v4 || w.v6 && !other.v6 }

// entry is a name on its way from lookup to lookup.
type entry struct {
	name string // the key
	wish *wish
	// cancel ends the lookup under way; nil where there is none, and the entry is in the queue.
	cancel context.CancelFunc
	due    time.Time
	index  int // in the queue

	known    bool // addresses are an answer
	answer   answer
	answered time.Time
	failures int // in a row
	failure  string
}

// New returns a Resolver without names. Run does the work.
func New(c Config) *Resolver {
	dns := &client{
		servers:    c.Servers,
		resolvConf: watchedFile[settings]{path: cmp.Or(c.ResolvConf, "/etc/resolv.conf"), parse: parseSettings},
		hosts:      watchedFile[map[string][]netip.Addr]{path: cmp.Or(c.Hosts, "/etc/hosts"), parse: parseHosts},
	}
	return newResolver(c, dns.lookup)
}

func newResolver(c Config, lookup func(context.Context, translate.HostName) (answer, error)) *Resolver {
	r := &Resolver{
		lookup: lookup, most: cmp.Or(c.MaxInFlight, defaultInFlight), log: c.Logger, metrics: newMetrics(c.Registerer),
		wanted: make(chan struct{}, 1), changed: make(chan struct{}, 1), entries: map[string]*entry{},
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	r.answers.Store(&Answers{})
	return r
}

// Resolve replaces the names to keep resolved. A name may be listed more than once: it is looked up for
// all who want it at the same time, as often as the most eager one wants. Names that are not listed any
// more are not looked up again and lose their answers.
func (r *Resolver) Resolve(names []translate.HostName) {
	all := make(map[string]*wish, len(names))
	for _, n := range names {
		w := all[n.Key()]
		if w == nil {
			w = &wish{name: n.Name, servers: n.Servers}
			all[n.Key()] = w
		}
		w.v4, w.v6 = w.v4 || n.IPv4, w.v6 || n.IPv6
		if !slices.Contains(w.refresh, n.Refresh) {
			w.refresh = append(w.refresh, n.Refresh)
		}
	}
	r.mu.Lock()
	r.names = all
	r.mu.Unlock()
	signal(r.wanted)
}

// Answers returns the newest answers.
func (r *Resolver) Answers() *Answers { return r.answers.Load() }

// Changed gets a value after Answers has changed. It is for one receiver.
func (r *Resolver) Changed() <-chan struct{} { return r.changed }

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Lookup resolves names once, and returns when all have been tried or ctx ends.
func Lookup(ctx context.Context, c Config, names []translate.HostName) *Answers {
	r := New(c)
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() { _ = r.Run(ctx) }) // which fails never
	r.Resolve(names)
	for slices.ContainsFunc(names, func(n translate.HostName) bool { return !r.Answers().Answered(n.Key()) }) {
		select {
		case <-ctx.Done():
			return r.Answers()
		case <-r.Changed():
		}
	}
	return r.Answers()
}

// result is the end of a lookup.
type result struct {
	entry  *entry
	wish   *wish // when it began
	answer answer
	err    error
}

// Run looks names up until ctx ends, and returns after all lookups have ended.
func (r *Resolver) Run(ctx context.Context) error {
	results := make(chan result, r.most) // room for all, so that a lookup never waits to deliver
	var lookups sync.WaitGroup
	defer lookups.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		// What can happen: ctx ends; the names change; a lookup ends; a lookup is due.
		dirty := false
		select {
		case <-ctx.Done():
			return nil
		case <-r.wanted:
			dirty = r.update(time.Now())
		case first := <-results:
			dirty = r.finish(time.Now(), first)
			for range len(results) {
				dirty = r.finish(time.Now(), <-results) || dirty
			}
		case <-timer.C:
		}
		if dirty {
			r.publish()
		}
		r.metrics.observe(r.entries)
		now := time.Now()
		for r.inFlight < r.most && len(r.queue) > 0 && !r.queue[0].due.After(now) {
			e := heap.Pop(&r.queue).(*entry) // queue holds nothing else
			each, stop := context.WithCancel(ctx)
			e.cancel = stop
			r.inFlight++
			wish := e.wish
			lookups.Go(func() {
				found, err := r.lookup(each, wish.host())
				results <- result{e, wish, found, err}
			})
		}
		if r.inFlight < r.most && len(r.queue) > 0 {
			timer.Reset(r.queue[0].due.Sub(now))
		} else {
			timer.Stop()
		}
	}
}

// update takes over the newest list of names, and tells whether answers are gone.
func (r *Resolver) update(now time.Time) (dirty bool) {
	r.mu.Lock()
	names := r.names
	r.mu.Unlock()
	for name, e := range r.entries {
		if names[name] != nil {
			continue
		}
		delete(r.entries, name)
		if e.cancel != nil {
			e.cancel()
		} else {
			heap.Remove(&r.queue, e.index)
		}
		dirty = true
	}
	for name, w := range names {
		e := r.entries[name]
		switch {
		case e == nil:
			e = &entry{name: name, wish: w, due: now}
			r.entries[name] = e
			heap.Push(&r.queue, e)
			continue
		case e.wish.v4 == w.v4 && e.wish.v6 == w.v6 && slices.Equal(e.wish.refresh, w.refresh):
			continue
		}
		wider := w.wider(e.wish)
		e.wish = w
		if e.cancel == nil && wider { // what is known lacks a family
			e.due = now
			heap.Fix(&r.queue, e.index)
		}
	}
	return dirty
}

// finish takes the end of a lookup, and tells whether it changed the Answers.
func (r *Resolver) finish(now time.Time, res result) (dirty bool) {
	r.inFlight--
	e := res.entry
	e.cancel()
	e.cancel = nil
	if r.entries[e.name] != e {
		return false // not wanted any more
	}
	if res.err != nil {
		r.metrics.lookups.WithLabelValues("failure").Inc()
		e.failures++
		if e.failure == "" {
			r.log.Warn("name not resolved", slog.String("name", e.name), slog.Any("error", res.err), slog.Bool("last_answer_kept", e.known))
		}
		dirty = e.failure != res.err.Error()
		e.failure = res.err.Error()
	} else {
		r.metrics.lookups.WithLabelValues("success").Inc()
		if e.failure != "" {
			r.log.Info("name resolved again", slog.String("name", e.name))
		}
		dirty = !e.known || e.failure != "" || !slices.Equal(e.answer.addresses, res.answer.addresses)
		e.known, e.answer, e.answered, e.failures, e.failure = true, res.answer, now, 0, ""
	}
	e.due = now.Add(e.wish.delay(e.answer.ttl, e.failures))
	if e.wish.wider(res.wish) {
		e.due = now
	}
	heap.Push(&r.queue, e)
	return dirty
}

// publish replaces the Answers.
func (r *Resolver) publish() {
	next := &Answers{Addresses: make(map[string][]netip.Addr, len(r.entries)), Errors: map[string]string{}}
	for name, e := range r.entries {
		if e.known {
			next.Addresses[name] = e.answer.addresses
		}
		if e.failure != "" {
			next.Errors[name] = e.failure
		}
	}
	old := r.answers.Load()
	if maps.Equal(old.Errors, next.Errors) {
		next.Errors = old.Errors
	}
	r.answers.Store(next)
	signal(r.changed)
}

// delay returns the time until the next lookup: that of whoever wants it first.
func (w *wish) delay(ttl time.Duration, failures int) time.Duration {
	least := time.Duration(-1)
	for _, p := range w.refresh {
		if d := delay(p, ttl, failures); least < 0 || d < least {
			least = d
		}
	}
	return max(least, 0)
}

// delay follows Envoy: after failures, a random part of an interval that doubles each time; otherwise
// the time to live, or the interval, plus jitter.
func delay(p translate.Refresh, ttl time.Duration, failures int) time.Duration {
	switch {
	case failures > 0 && p.FailureInterval > 0:
		d := p.FailureInterval
		for range failures - 1 {
			if d *= 2; d >= p.FailureMax {
				break
			}
		}
		return randomUpTo(min(d, p.FailureMax)) + 1
	case failures > 0:
		return p.Interval
	case p.RespectTTL && ttl > 0:
		return max(ttl, p.LeastTTL) + randomUpTo(p.Jitter)
	}
	return p.Interval + randomUpTo(p.Jitter)
}

// randomUpTo returns a time in [0, limit).
func randomUpTo(limit time.Duration) time.Duration {
	if limit <= 0 {
		return 0
	}
	return rand.N(limit) //nolint:gosec // it spreads load and protects nothing
}

// queue is a heap of entries by the time they are due.
type queue []*entry

// Len, Less, Swap, Push and Pop are for package heap.
func (q *queue) Len() int           { return len(*q) }
func (q *queue) Less(i, j int) bool { return (*q)[i].due.Before((*q)[j].due) }

func (q *queue) Swap(i, j int) {
	l := *q
	l[i], l[j] = l[j], l[i]
	l[i].index, l[j].index = i, j
}

// Push is for package heap.
func (q *queue) Push(x any) {
	e := x.(*entry) // queue holds nothing else
	e.index = len(*q)
	*q = append(*q, e)
}

// Pop is for package heap.
func (q *queue) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return e
}
