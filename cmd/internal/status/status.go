package status

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"meshbridge/cmd/internal/admin"
)

// Config configures New.
type Config struct {
	// Ready tells whether traffic may be sent to this pod, or why not.
	Ready func(ctx context.Context) error
	// Remark is what people are told when it is ready; nil or empty is nothing.
	Remark func() string
	// Drain begins to drain, and Quit ends the process without draining. Both return at once.
	Drain, Quit func()

	// Probes are the application's, by path.
	Probes Probes
	// PodIP is where the application's probes are sent to, as the kubelet would; localhost where it is not
	// known.
	PodIP netip.Addr
	// ProbeLocalhost sends them to localhost all the same, as old releases of Istio did.
	ProbeLocalhost bool

	// Gatherer has the bridge's own metrics, and Registerer takes those of this package.
	Gatherer   prometheus.Gatherer
	Registerer prometheus.Registerer
	// APISIX is the URL of APISIX's metrics; empty has none.
	APISIX string
	// Scrape names the application's metrics; nil has none.
	Scrape *Scrape
	// MetricsLocalhost answers requests for metrics from this host alone.
	MetricsLocalhost bool

	// Logger is told of probes that begin to fail; default: discard.
	Logger *slog.Logger
}

// Server answers the requests.
type Server struct {
	config Config
	merge  *merger
	prober *prober
	ready  readiness
}

// New returns a Server. Ready, Drain, Quit, Gatherer and Registerer are required.
func New(c Config) (*Server, error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	merge, err := newMerger(c)
	if err != nil {
		return nil, err
	}
	return &Server{config: c, merge: merge, prober: newProber(c), ready: readiness{log: c.Logger}}, nil
}

// Close closes connections that are kept for later requests.
func (s *Server) Close() {
	s.merge.client.CloseIdleConnections()
	s.prober.close()
}

// Handler returns the handler of port 15020.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz/ready", s.ServeReady)
	metrics := promhttp.HandlerFor(s.config.Gatherer, promhttp.HandlerOpts{})
	mux.Handle("/metrics", s.metrics(metrics))
	mux.Handle("/stats/prometheus", s.metrics(s.merge))
	mux.Handle("/quitquitquit", command(s.config.Quit))
	mux.Handle("/drain", command(s.config.Drain))
	mux.Handle("/app-health/", s.prober)
	mux.Handle("/app-lifecycle/", s.prober)
	return mux
}

// ReadyHandler returns the handler of port 15021, which is apart from the rest so that a scrape never delays
// the kubelet.
func (s *Server) ReadyHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz/ready", s.ServeReady)
	// Liveness is that the process answers: restarting it would not bring istiod back.
	mux.HandleFunc("/healthz/live", func(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ok\n") })
	return mux
}

// ServeReady answers 200 where traffic may be sent to this pod, else 503 with the reason.
func (s *Server) ServeReady(w http.ResponseWriter, r *http.Request) {
	err := s.config.Ready(r.Context())
	// Nobody asks any more, so that it may have failed for that.
	if r.Context().Err() != nil {
		return
	}
	s.ready.note(r.Context(), err)
	if err != nil {
		writeText(w, http.StatusServiceUnavailable, "not ready: "+err.Error()+"\n")
		return
	}
	text := "ready"
	if s.config.Remark != nil {
		if remark := s.config.Remark(); remark != "" {
			text += ", " + remark
		}
	}
	writeText(w, http.StatusOK, text+"\n")
}

// readiness logs what the kubelet is told, when it changes.
type readiness struct {
	log  *slog.Logger
	mu   sync.Mutex
	was  string // what was logged last; guarded by mu
	once bool   // something was; guarded by mu
}

func (r *readiness) note(ctx context.Context, err error) {
	is := ""
	if err != nil {
		is = err.Error()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.once && r.was == is {
		return
	}
	r.was, r.once = is, true
	if err != nil {
		r.log.InfoContext(ctx, "told who asked: not ready", slog.Any("error", err))
	} else {
		r.log.InfoContext(ctx, "told who asked: ready")
	}
}

// metrics restricts who may read metrics.
func (s *Server) metrics(next http.Handler) http.Handler {
	if !s.config.MetricsLocalhost {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !fromThisHost(r) {
			writeText(w, http.StatusForbidden, "only requests from this host are answered\n")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// command answers requests to do something: POST, from this host, where a page in a browser does not count.
func command(do func()) http.Handler {
	return admin.Guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			writeText(w, http.StatusMethodNotAllowed, "Method Not Allowed\n")
			return
		}
		writeText(w, http.StatusOK, "OK")
		// The answer is on its way before the process ends.
		_ = http.NewResponseController(w).Flush()
		do()
	}))
}

func fromThisHost(r *http.Request) bool {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && peer.Addr().Unmap().IsLoopback()
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text)) //nolint:gosec // it is plain text, which browsers are told not to take for anything else
}

// errOversize is that of an answer that is larger than what is passed on.
var errOversize = errors.New("the answer is too large")
