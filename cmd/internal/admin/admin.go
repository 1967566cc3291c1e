package admin

import (
	"log/slog"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/prometheus/client_golang/prometheus"

	"meshbridge/cmd/internal/logscope"
	"meshbridge/identity"
	"meshbridge/xds"
)

// Config configures New.
type Config struct {
	// Node is who istiod is told that we are, and Istiod where it is. With resources from files there is
	// neither.
	Node   *corepb.Node
	Istiod string
	// Version is the program's, and APISIX that of the APISIX that is translated for.
	Version, APISIX string
	// DrainTime is how long connections may take to end when the process does.
	DrainTime time.Duration

	// World returns the resources. It is called once for each request, by any goroutine.
	World func() World
	// Ready tells whether the first complete configuration is served.
	Ready func() bool
	// Draining tells whether the process is about to end; nil is never.
	Draining func() bool
	// Addresses returns what a name resolves to; nil where names are left to APISIX.
	Addresses func(name string) []netip.Addr
	// Identity returns the workload's certificate, nil before there is one. It is nil itself where the
	// workload has none.
	Identity func() *identity.Identity
	// Levels are those of the log; nil where they cannot be changed.
	Levels *logscope.Levels
	// Gatherer has the metrics.
	Gatherer prometheus.Gatherer
	// Drain lets the connections that are captured end, and Quit ends the process. Both return at once.
	Drain, Quit func()
	// Logger is told of requests that change something; default: discard.
	Logger *slog.Logger
}

// World is what is known of the resources. Its snapshots may be nil.
type World struct {
	// Active has been translated and committed; Received is the newest.
	Active, Received *xds.Snapshot
	Rejected         []xds.Rejection
	Pending          []xds.Key
}

// Server answers the requests.
type Server struct {
	config  Config
	started time.Time
	// failed is set by /healthcheck/fail.
	failed atomic.Bool
}

// New returns a Server. World, Ready, Gatherer, Drain and Quit are required.
func New(c Config) *Server {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return &Server{config: c, started: time.Now()}
}

// Failed tells whether /healthcheck/fail was called, and /healthcheck/ok was not since: the process is
// then to be reported as not ready.
func (s *Server) Failed() bool { return s.failed.Load() }

// endpoint is a path of the API.
type endpoint struct {
	path, help string
	// mutates is set where only POST will do.
	mutates bool
	handle  http.HandlerFunc
}

func (s *Server) endpoints() []endpoint {
	return []endpoint{
		{"/certs", "certificates of the workload and of gateways", false, s.serveCerts},
		{"/clusters", "clusters and their hosts; ?format=json", false, s.serveClusters},
		{"/config_dump", "resources as received; ?resource=, ?mask=, ?name_regex=, ?include_eds", false, s.serveConfigDump},
		{"/contention", "not measured", false, serveContention},
		{"/drain_listeners", "close the captured ports and let connections end", true, s.serveDrain},
		{"/healthcheck/fail", "report this process as not ready", true, s.serveHealth(true)},
		{"/healthcheck/ok", "take that back", true, s.serveHealth(false)},
		{"/help", "this list", false, s.serveHelp},
		{"/init_dump", "what has been asked for and not been answered yet; ?mask=listener", false, s.serveInitDump},
		{"/listeners", "listeners and their addresses; ?format=json", false, s.serveListeners},
		{"/logging", "levels of the log; POST ?level=, ?paths=SCOPE:LEVEL,... or ?SCOPE=LEVEL changes them", false, s.serveLogging},
		{"/memory", "memory in use", false, serveMemory},
		{"/quitquitquit", "end the process, after draining", true, s.serveQuit},
		{"/ready", "200 once the first complete configuration is served", false, s.serveReady},
		{"/reset_counters", "accepted; counters of Prometheus are not reset", true, serveOK},
		{"/runtime", "always empty", false, serveRuntime},
		{"/server_info", "version, state and node", false, s.serveInfo},
		{"/stats", "metrics; ?format=json|prometheus, ?filter=REGEX, ?usedonly, ?type=", false, s.serveStats},
		{"/stats/prometheus", "metrics for Prometheus", false, s.servePrometheus},
	}
}

// Handler returns the handler of all paths of the API, and of "/". It is to be behind Guard.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, e := range s.endpoints() {
		mux.HandleFunc(e.path, s.method(e))
	}
	mux.HandleFunc("/{$}", s.serveHelp)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		writeText(w, http.StatusNotFound, "invalid path. "+s.help())
	})
	return mux
}

// method wants POST where something changes, as Envoy does, and notes it.
func (s *Server) method(e endpoint) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPost && e.mutates:
			s.config.Logger.InfoContext(r.Context(), "admin request", slog.String("path", e.path), slog.String("query", r.URL.RawQuery))
		case e.mutates:
			w.Header().Set("Allow", http.MethodPost)
			writeText(w, http.StatusMethodNotAllowed, "Method Not Allowed: "+e.path+" wants POST\n")
			return
		case r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != http.MethodPost:
			w.Header().Set("Allow", "GET, HEAD, POST")
			writeText(w, http.StatusMethodNotAllowed, "Method Not Allowed\n")
			return
		}
		e.handle(w, r)
	}
}
