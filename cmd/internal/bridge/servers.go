package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"meshbridge/cmd/internal/admin"
	"meshbridge/translate"
)

// shutdownGrace bounds how long a request in flight may take once the bridge stops.
const shutdownGrace = 3 * time.Second

// server is one of the HTTP ports besides the etcd port.
type server struct {
	listener net.Listener
	handler  http.Handler
}

func (s server) run(ctx context.Context) error {
	hs := &http.Server{Handler: s.handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
	failed := make(chan error, 1)
	go func() { failed <- hs.Serve(s.listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("%s: %w", s.listener.Addr(), err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
	defer cancel()
	if err := hs.Shutdown(grace); err != nil {
		_ = hs.Close()
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// statusServer answers the kubelet: ready means that the first complete world is committed and, with
// capture, that connections are served by it. Losing istiod later does not make the bridge unready: the last good world is better than none.
func (b *Bridge) statusServer() server {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz/ready", b.serveReady)
	mux.HandleFunc("/healthz/live", func(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ok\n") })
	return server{handler: mux}
}

func (b *Bridge) serveReady(w http.ResponseWriter, r *http.Request) {
	switch {
	case b.admin.Failed():
		writeText(w, http.StatusServiceUnavailable, "not ready: /healthcheck/fail was called on the admin port\n")
	case !isClosed(b.pipeline.ready):
		writeText(w, http.StatusServiceUnavailable, "not ready: the first complete configuration has not been committed\n")
	case !b.serves():
		writeText(w, http.StatusServiceUnavailable, "not ready: APISIX does not have the first configuration yet\n")
	case b.apisix != nil:
		if err := b.apisix.Ready(r.Context()); err != nil {
			writeText(w, http.StatusServiceUnavailable, "not ready: "+err.Error()+"\n")
			return
		}
		writeText(w, http.StatusOK, b.readyText())
	default:
		writeText(w, http.StatusOK, b.readyText())
	}
}

// readyText is for people: the kubelet reads the status alone.
func (b *Bridge) readyText() string {
	if v := b.pipeline.view.Load(); v != nil && v.Stale {
		return "ready, with the last good state of " + v.Received.UTC().Format(time.RFC3339) + ": istiod has not sent a complete configuration since the start\n"
	}
	return "ready\n"
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (b *Bridge) metricsServer() server {
	mux := http.NewServeMux()
	handler := promhttp.HandlerFor(b.registry, promhttp.HandlerOpts{})
	mux.Handle("/metrics", handler)
	mux.Handle("/stats/prometheus", handler)
	mux.HandleFunc("/healthz/ready", b.serveReady)
	return server{handler: mux}
}

// adminServer answers people, `meshbridge explain`, and whoever speaks Envoy's admin API.
func (b *Bridge) adminServer() server {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /explain", b.serveExplain)
	mux.HandleFunc("GET /diagnostics", b.serveDiagnostics)
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"version": b.config.Version})
	})
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	mux.Handle("/", b.admin.Handler())
	return server{handler: admin.Guard(mux)}
}

func (b *Bridge) serveDiagnostics(w http.ResponseWriter, _ *http.Request) {
	v := b.pipeline.view.Load()
	if v == nil {
		writeText(w, http.StatusServiceUnavailable, "nothing has been translated yet\n")
		return
	}
	writeJSON(w, http.StatusOK, append([]translate.Diagnostic{}, v.Diagnostics...)) // [] and not null
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text))
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		writeText(w, http.StatusInternalServerError, err.Error()+"\n")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(data, '\n'))
}

// releaseMemory gives what the first sync needed, and steady state does not, back to the system.
func (b *Bridge) releaseMemory(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-b.pipeline.ready:
	}
	settle := time.NewTimer(2 * time.Second)
	defer settle.Stop()
	select {
	case <-ctx.Done():
	case <-settle.C:
		debug.FreeOSMemory()
	}
	return nil
}
