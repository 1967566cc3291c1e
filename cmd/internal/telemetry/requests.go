package telemetry

import (
	"cmp"
	"context"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/prometheus/client_golang/prometheus"
)

// Path is where reports are posted, on the internal port.
const Path = "/log"

const (
	maxWorkers  = 256
	maxResolved = 20_000
	// expireEvery is the time between two looks for series that have expired.
	expireEvery = 10 * time.Second
)

// Config configures New.
type Config struct {
	// World is what requests are looked up in, and Node whose proxy this is; nil where that is not known.
	World World
	Node  *corepb.Node
	// Always counts what comes on chains without Istio's filter, too.
	Always bool
	// Uncounted tells that no requests are counted, whatever their chains want; they may be logged.
	Uncounted bool
	// Entries takes entries of requests on chains with access logs; nil where nothing is logged.
	Entries Entries
	// Registerer is for the metrics: Istio's, and what there is to know of their making.
	Registerer prometheus.Registerer
	Logger     *slog.Logger
}

// Requests counts requests that processes of APISIX report. Its methods are safe for
// concurrent use.
type Requests struct {
	logger   *slog.Logger
	node     *corepb.Node
	resolver resolver
	entries  Entries

	reports, duplicates, refused, unknown prometheus.Counter
	entriesLost, entriesUnattributed      prometheus.Counter

	mu     sync.Mutex
	series series
	known  map[request]*resolved
	// workers have the number of their last report.
	workers map[string]*worker
}

type worker struct {
	sequence uint64
	seen     time.Time
}

// New returns Requests that has counted nothing.
func New(c Config) *Requests {
	counter := func(name, help string) prometheus.Counter {
		x := prometheus.NewCounter(prometheus.CounterOpts{Name: "meshbridge_request_" + name, Help: help})
		c.Registerer.MustRegister(x)
		return x
	}
	r := &Requests{
		logger: c.Logger, node: c.Node, entries: c.Entries,
		resolver:   newResolver(&c),
		reports:    counter("reports_total", "Reports of APISIX's processes about requests."),
		duplicates: counter("reports_repeated_total", "Reports that came again, and were not counted again."),
		refused:    counter("reports_refused_total", "Reports that were not understood."),
		unknown:    counter("unattributed_total", "Requests that are in none of Istio's metrics: their route is not known any more."),
		entriesLost: counter("entries_lost_total",
			"Entries of access logs that were lost on the way from APISIX: there was no room for them, or they were not understood."),
		entriesUnattributed: counter("entries_unattributed_total",
			"Entries that are in no access log: they had no route, or one that is not known any more."),
		known: map[request]*resolved{}, workers: map[string]*worker{},
	}
	r.series = series{
		all:    map[seriesKey]*counts{},
		folded: counter("folded_total", "Requests that were counted without what their clients say of themselves, because that was too much."),
		lost:   counter("lost_total", "Requests that were not counted, because there was no room for their labels."),
	}
	c.Registerer.MustRegister(collector{r})
	return r
}

// Build is Istio's metric about the version of the proxy.
func Build(node *corepb.Node) prometheus.Collector {
	version := node.GetMetadata().GetFields()["ISTIO_VERSION"].GetStringValue()
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "istio_build", Help: "The release of Istio that the proxy says it is of.",
		ConstLabels: prometheus.Labels{"component": "proxy", "tag": cmp.Or(version, unknown)},
	}, func() float64 { return 1 })
}

// Run forgets series that have expired, until ctx ends.
func (r *Requests) Run(ctx context.Context) error {
	tick := time.NewTicker(expireEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			r.mu.Lock()
			r.series.expire(now)
			r.mu.Unlock()
		}
	}
}

// ServeHTTP takes a report. What it answers with an error of the client's is not sent again.
func (r *Requests) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	if q.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "reports are posted", http.StatusMethodNotAllowed)
		return
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, q.Body, maxReportSize))
	if err != nil {
		r.refuse(q.Context(), w, err)
		return
	}
	report, entries, err := parseReport(data)
	if err != nil {
		r.refuse(q.Context(), w, err)
		return
	}
	now := time.Now()
	if of, first := r.count(now, &report); first && r.entries != nil {
		r.log(q.Context(), now, &report, of, entries)
	}
	w.WriteHeader(http.StatusNoContent)
}

func (r *Requests) refuse(ctx context.Context, w http.ResponseWriter, err error) {
	r.refused.Inc()
	r.logger.WarnContext(ctx, "a report about requests is refused", slog.Any("error", err))
	http.Error(w, err.Error(), http.StatusBadRequest)
}

// count adds a report, unless it has been added, and returns what is behind its series.
func (r *Requests) count(now time.Time, p *report) (of []logged, first bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	from := r.worker(now, p.Worker)
	if p.Sequence <= from.sequence {
		r.duplicates.Inc()
		return nil, false
	}
	from.sequence = p.Sequence
	r.reports.Inc()
	r.series.folded.Add(float64(p.Folded))
	of = make([]logged, len(p.Series))
	for i := range p.Series {
		s := &p.Series[i]
		found := r.resolve(s)
		if found == nil {
			r.unknown.Add(float64(s.Count))
			continue
		}
		of[i] = logged{found, r.resolver.logsOf(found)}
		if found.rules == nil {
			continue
		}
		if c := r.series.of(now, found.labels, found.rules, s.Count); c != nil {
			c.requests += s.Count
			c.duration.add(&s.Duration)
			c.received.add(&s.Received)
			c.sent.add(&s.Sent)
		}
	}
	return of, true
}

// resolve finds what stands behind a series, as long as nothing has changed only once.
func (r *Requests) resolve(s *reportedSeries) *resolved {
	found := r.known[s.request]
	if found != nil && found.current(r.resolver.world) {
		return found
	}
	if next := r.resolver.find(&s.request, s.Metadata); next != nil {
		found = next
		if len(r.known) >= maxResolved {
			clear(r.known)
		}
		r.known[s.request] = found
	}
	return found // what is gone by now is counted as what it was
}

func (r *Requests) worker(now time.Time, name string) *worker {
	w := r.workers[name]
	if w == nil {
		if len(r.workers) >= maxWorkers {
			oldest := ""
			for n, o := range r.workers {
				if oldest == "" || o.seen.Before(r.workers[oldest].seen) {
					oldest = n
				}
			}
			delete(r.workers, oldest)
		}
		w = &worker{}
		r.workers[name] = w
	}
	w.seen = now
	return w
}

// textOf has the texts of a node's metadata.
func textOf(node *corepb.Node) labelSource {
	return func(path []string) string {
		s := node.GetMetadata()
		for i, name := range path {
			v := s.GetFields()[name]
			if i == len(path)-1 {
				return v.GetStringValue()
			}
			s = v.GetStructValue()
		}
		return ""
	}
}

// collector shows Istio's metrics. Their labels are a matter of configuration, so that none are described.
type collector struct{ r *Requests }

// Describe describes nothing.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect sends what is counted.
func (c collector) Collect(out chan<- prometheus.Metric) {
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	c.r.series.collect(textOf(c.r.node), out)
}
