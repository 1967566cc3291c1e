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

	"meshbridge/cmd/internal/admin"
	"meshbridge/cmd/internal/status"
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

// newStatus makes what is served to the pod.
func (b *Bridge) newStatus() (err error) {
	c := b.config.Pod
	c.Ready, c.Remark, c.Drain, c.Quit = b.readyForTraffic, b.remark, b.lifecycle.drained.happen, b.lifecycle.quit.happen
	c.Gatherer, c.Registerer, c.Logger = b.registry, b.registry, b.config.Logger
	b.status, err = status.New(c)
	return err
}

// statusServer answers the kubelet.
func (b *Bridge) statusServer() server { return server{handler: b.status.ReadyHandler()} }

// metricsServer answers Prometheus, the kubelet for the application, and programs in the pod.
func (b *Bridge) metricsServer() server { return server{handler: b.status.Handler()} }

// adminServer answers people, `meshbridge explain`, and whoever speaks Envoy's admin API.
func (b *Bridge) adminServer() server {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /explain", b.serveExplain)
	mux.HandleFunc("GET /diagnostics", b.serveDiagnostics)
	mux.HandleFunc("GET /objects", b.serveObjects)
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"version": b.config.Version})
	})
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	other := b.admin.Handler()
	b.newConsole().Register(mux, other)
	mux.Handle("/", other)
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
