package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/etcdserverpb/gw"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	electiongw "go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb/gw"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	lockgw "go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb/gw"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	jsonContentType = "application/json"
	textContentType = "text/plain; charset=utf-8"
)

// httpHandler serves everything that is not gRPC.
type httpHandler struct {
	*endpoint
	paths      *http.ServeMux
	gateway    *runtime.ServeMux // generated from the etcd API
	exposition http.Handler      // of metrics; nil is none
}

func (e *endpoint) httpHandler(ctx context.Context, conn *grpc.ClientConn) (http.Handler, error) {
	gateway := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, newMarshaler()),
		runtime.WithErrorHandler(writeGatewayError),
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
	)
	err := errors.Join(
		gw.RegisterKVHandlerClient(ctx, gateway, pb.NewKVClient(conn)),
		gw.RegisterWatchHandlerClient(ctx, gateway, pb.NewWatchClient(conn)),
		gw.RegisterLeaseHandlerClient(ctx, gateway, pb.NewLeaseClient(conn)),
		gw.RegisterMaintenanceHandlerClient(ctx, gateway, pb.NewMaintenanceClient(conn)),
		gw.RegisterClusterHandlerClient(ctx, gateway, pb.NewClusterClient(conn)),
		gw.RegisterAuthHandlerClient(ctx, gateway, pb.NewAuthClient(conn)),
		lockgw.RegisterLockHandlerClient(ctx, gateway, v3lockpb.NewLockClient(conn)),
		electiongw.RegisterElectionHandlerClient(ctx, gateway, v3electionpb.NewElectionClient(conn)),
	)
	if err != nil {
		return nil, err
	}
	h := &httpHandler{endpoint: e, paths: http.NewServeMux(), gateway: gateway}
	if e.cfg.Gatherer != nil {
		h.exposition = promhttp.HandlerFor(e.cfg.Gatherer, promhttp.HandlerOpts{})
	}
	// As in etcd this mux redirects paths that are not clean.
	h.paths.HandleFunc("/v3/", h.serveV3)
	h.paths.HandleFunc("/", h.serveOther)
	return h, nil
}

// ServeHTTP implements http.Handler.
func (h *httpHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if rest, ok := strings.CutPrefix(r.URL.Path, "/v3beta/"); ok {
		r.URL.Path, r.URL.RawPath = "/v3/"+rest, ""
	}
	if h.cfg.TLS == nil && !h.servesHost(r.Host) {
		http.Error(w, fmt.Sprintf("Host %q is not on the list of hosts that this server answers for.", r.Host), http.StatusMisdirectedRequest)
		return
	}
	if h.refuseCommonName(w, r) {
		return
	}
	if origin := h.allowedOrigin(r); origin != "" {
		header := w.Header()
		header.Set("Access-Control-Allow-Methods", "POST, GET, OPTIONS, PUT, DELETE")
		header.Set("Access-Control-Allow-Origin", origin)
		header.Set("Access-Control-Allow-Headers", "accept, content-type, authorization")
	}
	if r.Method == http.MethodOptions {
		return
	}
	h.paths.ServeHTTP(w, r)
}

// servesHost tells whether requests without TLS may be for a host.
func (h *httpHandler) servesHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	list := h.cfg.HostWhitelist
	return len(list) == 0 || slices.Contains(list, anyName) || slices.Contains(list, host)
}

// allowedOrigin is the origin that a response is allowed to be read by, or "".
func (h *httpHandler) allowedOrigin(r *http.Request) string {
	list := h.cfg.CORSOrigins
	if len(list) == 0 || slices.Contains(list, anyName) {
		return anyName
	}
	if origin := r.Header.Get("Origin"); slices.Contains(list, origin) {
		return origin
	}
	return ""
}

// anyName in a list of origins or hosts is all of them.
const anyName = "*"

// serveV3 serves the calls of the etcd API.
func (h *httpHandler) serveV3(w http.ResponseWriter, r *http.Request) {
	// What is not a call, the generated handlers refuse. They also serve the calls with what the
	// handlers of our own have no use for: a time limit, and streams in HTTP/2.
	plain := r.Method == http.MethodPost && r.Header.Get("Grpc-Timeout") == ""
	switch path := r.URL.Path; {
	case isWebSocket(r):
		h.serveWebSocket(w, r)
	case plain && path == pathRange:
		h.withBody(w, r, writeError, h.serveRange)
	case plain && path == pathWatch && r.ProtoMajor == 1:
		h.withBody(w, r, writeStreamError, h.serveWatch)
	case r.ProtoMajor > 1 && (path == pathWatch || path == pathKeepAlive):
		h.serveHTTP2(w, r)
	default:
		h.withBody(w, r, writeError, func(w http.ResponseWriter, r *http.Request, body []byte) {
			r.Body = io.NopCloser(bytes.NewReader(body))
			h.serveGateway(w, r)
		})
	}
}

// Paths that are not left to the generated handlers, at least not always.
const (
	pathRange     = "/v3/kv/range"
	pathWatch     = "/v3/watch"
	pathKeepAlive = "/v3/lease/keepalive"
)

// serveOther serves what is not a call.
func (h *httpHandler) serveOther(w http.ResponseWriter, r *http.Request) {
	switch {
	case h.serveHealth(w, r):
	case r.URL.Path == "/metrics" && h.exposition != nil:
		h.exposition.ServeHTTP(w, r)
	default:
		http.NotFound(w, r)
	}
}

// withBody reads the body of a call and passes it on, or fails.
func (h *httpHandler) withBody(
	w http.ResponseWriter, r *http.Request, fail func(http.ResponseWriter, error),
	serve func(http.ResponseWriter, *http.Request, []byte),
) {
	body, err := h.readBody(w, r)
	if err != nil {
		fail(w, err)
		return
	}
	serve(w, r, body)
}

// serveGateway passes a call to the generated handlers.
func (h *httpHandler) serveGateway(w http.ResponseWriter, r *http.Request) {
	// The body is JSON whatever the client says, or does not say as APISIX. Clients that offer to
	// take trailers, as luasocket does, have no use for gRPC's.
	r.Header.Set("Content-Type", jsonContentType)
	r.Header.Del("Accept")
	r.Header.Del("Te")
	h.gateway.ServeHTTP(w, r)
}

// readBody reads a body that arrives within Limits.BodyTimeout. Its error is a gRPC status.
func (h *httpHandler) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	limit := h.cfg.Limits.bodyBytes()
	if r.ContentLength > limit {
		w.Header().Set("Connection", "close") // the rest of the body is not worth reading
		return nil, errBodySize(r.ContentLength, limit)
	}
	conn := http.NewResponseController(w)
	if err := conn.SetReadDeadline(time.Now().Add(h.cfg.Limits.BodyTimeout)); err != nil {
		return nil, status.Errorf(codes.Internal, "reading the request: %v", err)
	}
	var body bytes.Buffer
	// What a client announces is not yet worth more memory than this.
	body.Grow(int(min(max(r.ContentLength, 0), scratchBytes)) + bytes.MinRead)
	if _, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, limit)); err != nil {
		if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return nil, errBodySize(tooLarge.Limit+1, limit)
		}
		return nil, status.Errorf(codes.InvalidArgument, "reading the request: %v", err)
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return nil, status.Errorf(codes.Internal, "reading the request: %v", err)
	}
	return body.Bytes(), nil
}

func errBodySize(size, limit int64) error {
	return status.Errorf(codes.ResourceExhausted, "grpc: received message larger than max (%d vs. %d)", size, limit)
}

// written takes the result of writing a response. That the client is gone is no event.
func (h *httpHandler) written(err error) {
	if err != nil {
		h.log.Debug("response not written", slog.Any("error", err))
	}
}
