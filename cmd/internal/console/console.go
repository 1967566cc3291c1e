package console

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"meshbridge/cmd/internal/logscope"
	"meshbridge/gateway"
	"meshbridge/identity"
	"meshbridge/store"
	"meshbridge/translate"
	"meshbridge/translate/apisix"
	"meshbridge/xds"
)

// Config configures New. Its functions are called by any goroutine, at most once for each request.
type Config struct {
	// Version is the program's. Profile and APISIX are what is translated for.
	Version string
	Profile translate.Profile
	APISIX  apisix.Version
	// Node is who istiod is told that we are; nil where it is told nothing.
	Node *corepb.Node
	// World returns what is known of the resources.
	World func() World
	// Source tells of the connection to istiod; nil where resources come from files.
	Source func() xds.Status
	// Store has the objects, below Prefix, such as "/apisix". Watchers are those of the etcd port.
	Store    *store.Store
	Prefix   string
	Watchers func() []gateway.Watcher
	// Ask answers what APISIX asks about tokens; nil where nobody does.
	Ask func(apisix.AuthRequest) apisix.AuthAnswer
	// Changes are the commits; nil shows none.
	Changes *Journal
	// Worker tells whether the APISIX that the bridge started has its configuration, or why not; nil where
	// the bridge does not start it.
	Worker func(context.Context) error
	// Identity returns the workload's certificate, nil before there is one; nil itself where there is none.
	Identity func() *identity.Identity
	// TokenFile has the token that istiod is shown; empty where it is shown none.
	TokenFile string
	// Levels are those of the log; nil where they cannot be changed.
	Levels *logscope.Levels
	// Ports are the addresses of the other ports, for commands to copy, by the name of their flag.
	Ports map[string]string
	// Logger is told of requests that change something; default: discard.
	Logger *slog.Logger
}

// World is what is known of the resources. It is immutable.
type World struct {
	// Ready tells that the first complete configuration is served.
	Ready bool
	// Revision is that of the last commit, and Committed its time.
	Revision  int64
	Committed time.Time
	// Received is when the newest bytes that are served came.
	Received time.Time
	// Snapshot is what has been translated; nil before the first complete configuration.
	Snapshot    *xds.Snapshot
	Chains      []*translate.Chain
	Diagnostics []translate.Diagnostic
	// Rejected and Pending are the newest.
	Rejected []xds.Rejection
	Pending  []xds.Key
	// LastGood tells that the snapshot is the last good one of an earlier process.
	LastGood bool
}

// Server answers the requests.
type Server struct {
	config  Config
	started time.Time
	pages   func() (*pages, error)
	objects objectCache
}

// New returns a Server. World, Store, Prefix, Profile and Watchers are required.
func New(c Config) *Server {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return &Server{config: c, started: time.Now(), pages: sync.OnceValues(parsePages)}
}

// view is one kind of page and its JSON twin.
type view struct {
	// path is that of the page, name the template and the last part of the twin's path.
	path, name, title string
	// build makes what both show. Its error may be a problem.
	build func(*Server, *http.Request) (any, error)
	// inMenu tells whether the view is reached from all pages.
	inMenu bool
}

func views() []view {
	return []view{
		{"/", "now", "Now", (*Server).now, true},
		{"/sync", "sync", "Sync", (*Server).sync, true},
		{"/resources", "resources", "Side by side", (*Server).resources, true},
		{"/resource", "resource", "Side by side", (*Server).resource, false},
		{"/warnings", "warnings", "Warnings", (*Server).warnings, true},
		{"/graph", "graph", "Graph", (*Server).graph, true},
		{"/check", "check", "Route check", (*Server).check, true},
		{"/changes", "changes", "Changes", (*Server).changes, true},
		{"/tools", "tools", "Tools", (*Server).tools, true},
		{"/support", "support", "Diagnostic codes", (*Server).support, false},
	}
}

// Register adds the pages and their twins to the admin port. At "/", those who do not ask for HTML get
// what text answers.
func (s *Server) Register(mux *http.ServeMux, text http.Handler) {
	for _, v := range views() {
		page := s.page(v)
		if v.path == "/" {
			mux.HandleFunc("/{$}", byAccept(page, text))
		} else {
			mux.HandleFunc("GET "+v.path, page)
		}
		mux.HandleFunc("GET /api/v1/"+v.name, s.twin(v))
	}
	mux.HandleFunc("POST /tools", s.changeLevels)
	mux.HandleFunc("GET /assets/{file}", serveAsset)
}

// byAccept answers browsers with a page, and others with text.
func byAccept(page http.HandlerFunc, text http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", "Accept")
		if acceptsHTML(r) {
			page(w, r)
		} else {
			text.ServeHTTP(w, r)
		}
	}
}

// acceptsHTML tells browsers from curl, istioctl and others, which accept anything.
func acceptsHTML(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) && strings.Contains(r.Header.Get("Accept"), "text/html")
}

// problem is an error that the request is to blame for.
type problem struct {
	status int
	text   string
}

func (p problem) Error() string { return p.text }

// errStarting is answered by views of what is not there before the first complete configuration.
var errStarting = problem{http.StatusServiceUnavailable, "The first complete configuration has not been committed yet."}
