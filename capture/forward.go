package capture

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// What the HTTP server of the overlay waits for. APISIX closes connections that it has no use for
// after a minute, and ends requests by its own timeouts.
const (
	forwardHeaderTimeout = time.Minute
	forwardIdleTimeout   = 10 * time.Minute
)

// forwarder serves HTTP requests whose destination is that of each request: behind the addresses of
// clusters of Envoy's kinds ORIGINAL_DST and dynamic forward proxy.
type forwarder struct {
	log      *slog.Logger
	incoming chan net.Conn // unbuffered: to the server, once it runs
	server   *http.Server
	requests sync.WaitGroup
}

// poolsKey is the key of a request's *forwardPools in its context.
type poolsKey struct{}

func newForwarder(log *slog.Logger) *forwarder {
	f := &forwarder{log: log, incoming: make(chan net.Conn)}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true) // APISIX speaks it for gRPC
	f.server = &http.Server{
		Handler:           http.HandlerFunc(f.forward),
		Protocols:         &protocols,
		ReadHeaderTimeout: forwardHeaderTimeout,
		IdleTimeout:       forwardIdleTimeout,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			if c, ok := conn.(*forwardConn); ok {
				return context.WithValue(ctx, poolsKey{}, c.pools)
			}
			return ctx
		},
	}
	return f
}

// run serves until ctx ends, and returns when all requests have.
func (f *forwarder) run(ctx context.Context) error {
	f.server.BaseContext = func(net.Listener) context.Context { return ctx }
	listener := &handedOver{conns: f.incoming, closed: make(chan struct{})}
	stop := context.AfterFunc(ctx, func() { _ = f.server.Close() })
	defer stop()
	err := f.server.Serve(listener)
	f.requests.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// serve serves a connection from APISIX until it has ended, and closes it.
func (f *forwarder) serve(ctx context.Context, conn net.Conn, pools *forwardPools) {
	c := &forwardConn{Conn: conn, pools: pools, closed: make(chan struct{})}
	defer c.Close()
	defer func() {
		if pools.retired.Load() {
			pools.retire()
		}
	}()
	select {
	case f.incoming <- c:
	case <-ctx.Done():
		return
	}
	select {
	case <-c.closed:
	case <-ctx.Done():
	}
}

func (f *forwarder) forward(w http.ResponseWriter, r *http.Request) {
	f.requests.Add(1)
	defer f.requests.Done()
	pools, ok := r.Context().Value(poolsKey{}).(*forwardPools)
	if !ok {
		http.Error(w, "the connection belongs to no endpoint", http.StatusInternalServerError)
		return
	}
	pools.forward(unadorned{w}, r)
}

// forwardConn is a connection from APISIX that the HTTP server closes.
type forwardConn struct {
	net.Conn
	pools  *forwardPools
	once   sync.Once
	closed chan struct{}
}

// Close tells serve that the connection has ended.
func (c *forwardConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { close(c.closed) })
	return err
}

// CloseWrite ends our side of the connection.
func (c *forwardConn) CloseWrite() error { return closeWrite(c.Conn) }

// handedOver is a net.Listener of connections that others have accepted.
type handedOver struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

// Accept waits for a connection.
func (l *handedOver) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (l *handedOver) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr returns none: connections come from the overlay's.
func (l *handedOver) Addr() net.Addr { return &net.TCPAddr{} }

// unadorned is a response without what net/http adds on its own: the type that it guesses, the time.
type unadorned struct{ http.ResponseWriter }

// WriteHeader writes the header as it is.
func (w unadorned) WriteHeader(status int) {
	header := w.Header()
	for _, name := range []string{"Content-Type", "Date"} {
		if _, ok := header[name]; !ok {
			header[name] = nil
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController, which flushes and hijacks.
func (w unadorned) Unwrap() http.ResponseWriter { return w.ResponseWriter }
