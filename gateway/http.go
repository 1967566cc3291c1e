package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/etcdserverpb/gw"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The versions that the server says it has. Clients choose features by them: 3.6 has progress
// requests that can be relied on, and APISIX wants three numbers and a cluster of 3.4.0 at least.
const (
	serverVersion  = "3.6.16"
	clusterVersion = "3.6.0"
	storageVersion = "3.6.0"
)

const (
	jsonContentType = "application/json"
	textContentType = "text/plain; charset=utf-8"
)

// httpHandler serves everything that is not gRPC.
type httpHandler struct {
	*endpoint
	gateway    http.Handler // generated from the etcd API
	exposition http.Handler // of metrics; nil is none
}

func (e *endpoint) httpHandler(ctx context.Context, conn *grpc.ClientConn) (http.Handler, error) {
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, newMarshaler()),
		runtime.WithErrorHandler(writeGatewayError),
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
	)
	err := errors.Join(
		gw.RegisterKVHandlerClient(ctx, mux, pb.NewKVClient(conn)),
		gw.RegisterLeaseHandlerClient(ctx, mux, pb.NewLeaseClient(conn)),
		gw.RegisterMaintenanceHandlerClient(ctx, mux, pb.NewMaintenanceClient(conn)),
		gw.RegisterClusterHandlerClient(ctx, mux, pb.NewClusterClient(conn)),
		gw.RegisterAuthHandlerClient(ctx, mux, pb.NewAuthClient(conn)),
	)
	if err != nil {
		return nil, err
	}
	h := &httpHandler{endpoint: e, gateway: mux}
	if e.cfg.Gatherer != nil {
		h.exposition = promhttp.HandlerFor(e.cfg.Gatherer, promhttp.HandlerOpts{})
	}
	return h, nil
}

// ServeHTTP implements http.Handler.
func (h *httpHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Access-Control-Allow-Methods", "POST, GET, OPTIONS, PUT, DELETE")
	header.Set("Access-Control-Allow-Origin", "*")
	header.Set("Access-Control-Allow-Headers", "accept, content-type, authorization")
	if r.Method == http.MethodOptions {
		return
	}
	if rest, ok := strings.CutPrefix(r.URL.Path, "/v3beta/"); ok {
		r.URL.Path, r.URL.RawPath = "/v3/"+rest, ""
	}
	switch path := r.URL.Path; {
	case path == "/v3/kv/range":
		h.post(w, r, h.serveRange)
	case path == "/v3/watch":
		h.post(w, r, h.serveWatch)
	case strings.HasPrefix(path, "/v3/lock/"), strings.HasPrefix(path, "/v3/election/"):
		writeError(w, status.Error(codes.Unimplemented, "locks and elections are not served"))
	case strings.HasPrefix(path, "/v3/"):
		h.serveGateway(w, r)
	case path == "/version":
		h.get(w, r, jsonContentType,
			fmt.Sprintf(`{"etcdserver":%q,"etcdcluster":%q,"storage":%q}`, serverVersion, clusterVersion, storageVersion))
	case path == "/health":
		h.get(w, r, textContentType, `{"health":"true","reason":""}`)
	case path == "/livez", path == "/readyz":
		h.get(w, r, textContentType, "ok\n")
	case path == "/metrics" && h.exposition != nil:
		h.exposition.ServeHTTP(w, r)
	default:
		writeError(w, status.Error(codes.NotFound, http.StatusText(http.StatusNotFound)))
	}
}

// get answers a GET with a fixed body.
func (h *httpHandler) get(w http.ResponseWriter, r *http.Request, contentType, body string) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Content-Type", contentType)
	_, err := io.WriteString(w, body)
	h.written(err)
}

// post reads the body of a call and passes it on.
func (h *httpHandler) post(w http.ResponseWriter, r *http.Request, serve func(http.ResponseWriter, *http.Request, []byte)) {
	if r.Method != http.MethodPost {
		writeError(w, errMethod())
		return
	}
	body, err := readBody(w, r)
	if err != nil {
		writeError(w, err)
		return
	}
	serve(w, r, body)
}

// errMethod is what the JSON gateway of etcd says to a method other than POST.
func errMethod() error {
	return status.Error(codes.Unimplemented, http.StatusText(http.StatusMethodNotAllowed))
}

// serveGateway passes a call to the generated handlers, with a body that is complete and bounded.
func (h *httpHandler) serveGateway(w http.ResponseWriter, r *http.Request) {
	h.post(w, r, func(w http.ResponseWriter, r *http.Request, body []byte) {
		// The body is JSON whatever the client says, or does not say as APISIX. Clients that offer
		// to take trailers, as luasocket does, have no use for gRPC's.
		r.Header.Set("Content-Type", jsonContentType)
		r.Header.Del("Accept")
		r.Header.Del("Te")
		r.Body = io.NopCloser(bytes.NewReader(body))
		h.gateway.ServeHTTP(w, r)
	})
}

// readBody reads a body of at most maxJSONBytes that arrives within bodyTimeout. Its error is a gRPC
// status.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.ContentLength > maxJSONBytes {
		w.Header().Set("Connection", "close") // the rest of the body is not worth reading
		return nil, errBodySize(r.ContentLength)
	}
	conn := http.NewResponseController(w)
	if err := conn.SetReadDeadline(time.Now().Add(bodyTimeout)); err != nil {
		return nil, status.Errorf(codes.Internal, "reading the request: %v", err)
	}
	var body bytes.Buffer
	body.Grow(int(max(r.ContentLength, 0)) + bytes.MinRead)
	if _, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, maxJSONBytes)); err != nil {
		if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return nil, errBodySize(tooLarge.Limit + 1)
		}
		return nil, status.Errorf(codes.InvalidArgument, "reading the request: %v", err)
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return nil, status.Errorf(codes.Internal, "reading the request: %v", err)
	}
	return body.Bytes(), nil
}

func errBodySize(size int64) error {
	return status.Errorf(codes.ResourceExhausted, "grpc: received message larger than max (%d vs. %d)", size, maxJSONBytes)
}

// written takes the result of writing a response. That the client is gone is no event.
func (h *httpHandler) written(err error) {
	if err != nil {
		h.log.Debug("response not written", slog.Any("error", err))
	}
}
