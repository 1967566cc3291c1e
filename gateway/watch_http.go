package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"meshbridge/store"
)

// writeBytes is what a slow client has to take within Limits.StallTimeout. A revision can be much larger.
const writeBytes = 256 << 10

// serveWatch answers /v3/watch: all requests of the stream are in the body, and the response is a chunk
// with one JSON line per watch response until the client closes the connection.
//
// The connection is taken over from net/http, for two reasons: frames that are ready together go out in
// one write and still are a chunk each, which no ResponseWriter can do and APISIX needs, and an idle
// watch keeps none of the server's buffers.
func (h *httpHandler) serveWatch(w http.ResponseWriter, r *http.Request, body []byte) {
	ctx := h.withToken(r)
	requests, err := h.watchRequests(ctx, body)
	if err != nil {
		h.metrics.countHTTP(methodWatch, err)
		writeStreamError(w, err)
		return
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		writeStreamError(w, status.Errorf(codes.Internal, "taking over the connection: %v", err))
		return
	}
	if !h.adopt(conn) {
		_ = conn.Close()
		return
	}
	sink := &httpSink{endpoint: h.endpoint, conn: conn, chunked: r.ProtoAtLeast(1, 1)}
	sink.begin(w.Header())
	go func() {
		defer h.disown(conn)
		err := h.runWatch(ctx, sink, requests)
		h.metrics.countHTTP(methodWatch, err)
	}()
}

// watchRequests decodes the requests of a watch and waits for what is held, before anything is written:
// a client that sees the start of a stream takes the world behind it as given.
func (h *httpHandler) watchRequests(ctx context.Context, body []byte) ([]*pb.WatchRequest, error) {
	requests, err := decodeWatchRequests(body)
	if err != nil {
		return nil, err
	}
	if len(requests) == 0 {
		return nil, status.Error(codes.InvalidArgument, "watch without a create_request")
	}
	for _, request := range requests {
		if create := request.GetCreateRequest(); create != nil {
			if err := h.hold(ctx, create.GetKey(), create.GetRangeEnd()); err != nil {
				return nil, err
			}
		}
	}
	return requests, nil
}

// adopt makes the endpoint wait for the stream on conn, unless it stops.
func (e *endpoint) adopt(conn net.Conn) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.isStopping() {
		return false
	}
	e.conns[conn] = struct{}{}
	e.streams.Add(1)
	return true
}

// disown closes conn after its stream has ended, well or not.
func (e *endpoint) disown(conn net.Conn) {
	defer e.streams.Done()
	e.mu.Lock()
	delete(e.conns, conn)
	e.mu.Unlock()
	_ = conn.Close()
}

// runWatch serves the stream until the client closes the connection or the endpoint stops.
func (h *httpHandler) runWatch(ctx context.Context, sink *httpSink, requests []*pb.WatchRequest) error {
	ended := make(chan error)
	h.streams.Go(func() { // ends with the connection, which the caller closes
		defer close(ended)
		awaitClose(sink.conn)
	})
	err := h.newWatchStream(ctx, sink, formJSON, &h.metrics.http).run(requests, nil, ended)
	return sink.end(err)
}

// awaitClose returns when the client has closed the connection. It has nothing more to say in an HTTP
// request that is complete.
func awaitClose(conn net.Conn) {
	ignored := make([]byte, 64)
	for {
		if _, err := conn.Read(ignored); err != nil {
			return
		}
	}
}

// httpSink sends watch responses as JSON lines in chunks of their own.
type httpSink struct {
	*endpoint
	conn    net.Conn
	chunked bool // HTTP/1.0 has no chunks: there the lines are the body

	scratch *[]byte // what buf was made of; nil while nothing is buffered
	buf     []byte
}

// begin buffers the head of the response; it goes out with the first frames.
func (s *httpSink) begin(header http.Header) {
	header.Set("Content-Type", jsonContentType)
	header.Set("Grpc-Metadata-Content-Type", "application/grpc")
	header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	header.Set("Connection", "close") // as nothing can follow
	if s.chunked {
		header.Set("Transfer-Encoding", "chunked")
	}
	var head bytes.Buffer
	head.WriteString("HTTP/1.1 200 OK\r\n")
	_ = header.Write(&head) // into memory
	head.WriteString("\r\n")
	s.grab()
	s.buf = append(s.buf, head.Bytes()...)
}

// grab takes a buffer if there is none: an idle stream has none.
func (s *httpSink) grab() {
	if s.scratch == nil {
		s.scratch = s.getBuffer()
		s.buf = *s.scratch
	}
}

// flush implements watchSink.
func (s *httpSink) flush() error {
	if s.scratch == nil {
		return nil
	}
	err := s.write(s.buf)
	s.putBuffer(s.scratch, s.buf)
	s.scratch, s.buf = nil, nil
	return err
}

// write writes p. A client that does not take writeBytes within Limits.StallTimeout is given up.
func (s *httpSink) write(p []byte) error {
	for len(p) > 0 {
		n := min(len(p), writeBytes)
		err := s.conn.SetWriteDeadline(time.Now().Add(s.cfg.Limits.StallTimeout))
		if err == nil && s.isStopping() { // which may have set its own deadline before the one above
			err = s.conn.SetWriteDeadline(time.Now().Add(stopTimeout))
		}
		if err == nil {
			_, err = s.conn.Write(p[:n])
		}
		if err != nil {
			return fmt.Errorf("watch: %w", err)
		}
		p = p[n:]
	}
	return nil
}

// chunk buffers one chunk of shared and tail. What is large is written from where it is, so that a
// client that does not read holds no copy.
func (s *httpSink) chunk(shared []byte, tail string) error {
	const frame = 24 // size line and line end
	size := len(shared) + len(tail)
	s.grab()
	if len(s.buf)+size+frame > scratchBytes && len(s.buf) > 0 {
		if err := s.write(s.buf); err != nil {
			return err
		}
		s.buf = s.buf[:0]
	}
	if s.chunked {
		s.buf = strconv.AppendInt(s.buf, int64(size), 16)
		s.buf = append(s.buf, "\r\n"...)
	}
	if size+frame > scratchBytes {
		if err := errors.Join(s.write(s.buf), s.write(shared)); err != nil {
			return err
		}
		s.buf = s.buf[:0]
	} else {
		s.buf = append(s.buf, shared...)
	}
	s.buf = append(s.buf, tail...)
	if s.chunked {
		s.buf = append(s.buf, "\r\n"...)
	}
	return nil
}

// events implements watchSink: a frame per revision.
func (s *httpSink) events(w *watcher, blocks []*store.Block) (total int, err error) {
	tail := jsonWatchTail(w.id) + "\n"
	for _, b := range blocks {
		encoded := s.encodeBlock(w.class, b)
		if encoded.events() == 0 {
			continue
		}
		if err := s.chunk(encoded.body(), tail); err != nil {
			return total, err
		}
		total += encoded.events()
	}
	return total, nil
}

// control implements watchSink.
func (s *httpSink) control(r *pb.WatchResponse) error {
	return s.chunk(s.appendJSONControl(nil, r), "\n")
}

// appendJSONControl appends a response without events.
func (s *Server) appendJSONControl(buf []byte, r *pb.WatchResponse) []byte {
	buf = append(buf, `{"result":{"header":`...)
	buf = s.appendJSONHeader(buf, r.GetHeader().GetRevision())
	buf = appendJSONInt(buf, "watch_id", r.GetWatchId())
	if r.GetCreated() {
		buf = append(buf, `,"created":true`...)
	}
	if r.GetCanceled() {
		buf = append(buf, `,"canceled":true`...)
	}
	buf = appendJSONInt(buf, "compact_revision", r.GetCompactRevision())
	if reason := r.GetCancelReason(); reason != "" {
		buf = append(buf, `,"cancel_reason":`...)
		buf = strconv.AppendQuote(buf, reason) // our own texts are ASCII
	}
	return append(buf, "}}"...)
}

// end finishes the response. A stream that ends because the server stops just ends: APISIX comes back
// at once and counts no failure. Any other error of ours is the last message. It returns the error that
// the stream ended with, if that is of interest.
func (s *httpSink) end(err error) error {
	var network net.Error
	switch {
	case err == nil, errors.As(err, &network), errors.Is(err, net.ErrClosed):
		return nil // nobody is there to be told
	case !errors.Is(err, rpctypes.ErrGRPCStopped):
		body, jsonErr := streamErrorJSON(status.Convert(err))
		if jsonErr != nil {
			return jsonErr
		}
		if err := s.chunk(body, "\n"); err != nil {
			return err
		}
	}
	s.grab()
	if s.chunked {
		s.buf = append(s.buf, "0\r\n\r\n"...)
	}
	return errors.Join(err, s.flush())
}
