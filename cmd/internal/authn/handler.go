package authn

import (
	"io"
	"log/slog"
	"maps"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meshbridge/translate"
)

// keptFor is how long a configuration is known after the last one that has it: by then, no APISIX
// has routes with it.
const keptFor = 10 * time.Minute

const unknownConfiguration = "this configuration is not known"

// Handler answers APISIX. Set may be called while it serves.
type Handler struct {
	log *slog.Logger
	now func() time.Time
	// requests counts by result.
	requests *prometheus.CounterVec
	// filters are those that APISIX may ask for, by key.
	filters atomic.Pointer[map[string]entry]
}

// entry is a filter; unused is since when no route has it, zero where some do.
type entry struct {
	filter *filter
	unused time.Time
}

// New returns a handler that knows no configuration: it refuses every request.
func New(log *slog.Logger, registerer prometheus.Registerer) *Handler {
	h := &Handler{log: log, now: time.Now, requests: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "meshbridge_token_requests_total",
		Help: "Requests whose tokens APISIX asked about, by result: allowed, refused, or unknown for a configuration that is not known.",
	}, []string{"result"})}
	registerer.MustRegister(h.requests)
	h.filters.Store(&map[string]entry{})
	return h
}

// Set replaces the configurations. Those before are known for some time longer, because routes with
// them may still be in use. It must not be called concurrently with itself.
func (h *Handler) Set(list []*translate.Authentication) {
	now := h.now()
	next := map[string]entry{}
	old := *h.filters.Load()
	for key, e := range old {
		if e.unused.IsZero() {
			e.unused = now
		}
		if now.Sub(e.unused) < keptFor {
			next[key] = e
		}
	}
	for _, a := range list {
		if e, known := old[a.Key]; known {
			next[a.Key] = entry{filter: e.filter}
			continue
		}
		f, err := newFilter(a)
		if err != nil { // which translation should have known
			h.log.Error("tokens cannot be verified: requests are refused", slog.String("key", a.Key), slog.Any("error", err))
			continue
		}
		next[a.Key] = entry{filter: f}
	}
	if !maps.Equal(old, next) {
		h.filters.Store(&next)
	}
}

// ServeHTTP answers about one request; the key of the configuration is the last element of the path.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e, known := (*h.filters.Load())[r.PathValue("key")]
	if !known {
		h.requests.WithLabelValues("unknown").Inc()
		http.Error(w, unknownConfiguration, http.StatusForbidden)
		return
	}
	v := e.filter.judge(newRequest(r.Header), h.now())
	result := "allowed"
	if v.code != http.StatusOK {
		result = "refused"
	}
	h.requests.WithLabelValues(result).Inc()
	maps.Copy(w.Header(), v.header)
	w.WriteHeader(v.code)
	if v.body != "" {
		_, _ = io.WriteString(w, v.body) // the client may be gone
	}
}
