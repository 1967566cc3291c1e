// Package logscope gives the parts of the program log levels of their own, which can be changed while
// it runs, as Envoy's loggers and Istio's scopes can.
//
//	log := slog.New(logscope.NewHandler(slog.NewTextHandler(os.Stderr, logscope.Everything()), slog.LevelInfo))
//	xds := logscope.Logger(log, logscope.XDS) // adds scope=xds
//	logscope.LevelsOf(log).Set(logscope.XDS, slog.LevelDebug)
package logscope

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
)

// The scopes. Bridge is that of loggers without one.
const (
	Admin    = "admin"
	APISIX   = "apisix" // the process, where the bridge starts it
	Bridge   = "bridge" // translation, commits and everything without a scope of its own
	Capture  = "capture"
	DNS      = "dns"  // the names of clusters, and the workload's DNS server
	Etcd     = "etcd" // the etcd port
	GRPC     = "grpc" // the library, about connections
	Identity = "identity"
	// Telemetry is metrics of requests, access logs and traces.
	Telemetry = "telemetry"
	XDS       = "xds"
)

// Names returns the scopes, sorted.
func Names() []string {
	return []string{Admin, APISIX, Bridge, Capture, DNS, Etcd, GRPC, Identity, Telemetry, XDS}
}

// Off is above every level.
const Off = slog.Level(math.MaxInt)

// Everything are the options of a handler that leaves it to the scopes what is logged.
func Everything() *slog.HandlerOptions { return &slog.HandlerOptions{Level: slog.Level(math.MinInt)} }

// Levels are the levels of all scopes. They are safe for concurrent use.
type Levels struct{ of map[string]*slog.LevelVar }

// Get returns the level of a scope.
func (l *Levels) Get(scope string) slog.Level { return l.of[scope].Level() }

// Set changes the level of a scope. It fails where there is no such scope.
func (l *Levels) Set(scope string, level slog.Level) error {
	v := l.of[scope]
	if v == nil {
		return fmt.Errorf("%q is none of the scopes %s", scope, strings.Join(Names(), ", "))
	}
	v.Set(level)
	return nil
}

// SetAll changes the level of all scopes.
func (l *Levels) SetAll(level slog.Level) {
	for _, v := range l.of {
		v.Set(level)
	}
}

// handler logs what the level of its scope lets through.
type handler struct {
	slog.Handler
	levels *Levels
	level  *slog.LevelVar
}

// NewHandler returns a handler of scope Bridge. All scopes start at the level.
func NewHandler(inner slog.Handler, level slog.Level) slog.Handler {
	levels := &Levels{of: map[string]*slog.LevelVar{}}
	for _, name := range Names() {
		levels.of[name] = new(slog.LevelVar)
	}
	levels.SetAll(level)
	return handler{inner, levels, levels.of[Bridge]}
}

// Enabled implements slog.Handler.
func (h handler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level.Level() }

// WithAttrs implements slog.Handler.
func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return handler{h.Handler.WithAttrs(attrs), h.levels, h.level}
}

// WithGroup implements slog.Handler.
func (h handler) WithGroup(name string) slog.Handler {
	return handler{h.Handler.WithGroup(name), h.levels, h.level}
}

// Logger returns the logger of a scope. A logger whose handler knows no scopes is returned as it is.
func Logger(log *slog.Logger, scope string) *slog.Logger {
	h, ok := log.Handler().(handler)
	if !ok || !slices.Contains(Names(), scope) {
		return log
	}
	return slog.New(handler{h.Handler.WithAttrs([]slog.Attr{slog.String("scope", scope)}), h.levels, h.levels.of[scope]})
}

// LevelsOf returns the levels of a logger's scopes; nil where its handler knows none.
func LevelsOf(log *slog.Logger) *Levels {
	h, ok := log.Handler().(handler)
	if !ok {
		return nil
	}
	return h.levels
}
