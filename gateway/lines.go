package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"meshbridge/store"
)

// This file serves streams of JSON in both directions at a time, which HTTP/2 and WebSockets have and
// HTTP/1.1 has not.

// valueReader reads the requests of a stream: JSON values after each other.
type valueReader struct {
	from    io.Reader
	decoder *json.Decoder
	limit   int64 // of one value, in bytes
	left    int64 // what may still be read for the next one
}

func newValueReader(from io.Reader, limit int64) *valueReader {
	r := &valueReader{from: from, limit: limit}
	r.decoder = json.NewDecoder(r)
	return r
}

// Read implements io.Reader for the decoder, which would take a value of any size.
func (r *valueReader) Read(p []byte) (int, error) {
	if r.left <= 0 {
		return 0, errBodySize(r.limit+1, r.limit)
	}
	n, err := r.from.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	return n, err
}

// next decodes the next value. The error is io.EOF after the last one, else a gRPC status.
func (r *valueReader) next(m proto.Message) error {
	r.left = r.limit
	var value json.RawMessage
	err := r.decoder.Decode(&value)
	switch {
	case err == nil:
		return decodeValue(value, m)
	case errors.Is(err, io.EOF):
		return io.EOF
	case status.Code(err) != codes.Unknown:
		return err
	default:
		return errJSON(err)
	}
}

// lineWriter sends the responses of a stream.
type lineWriter interface {
	// writeLine sends or buffers one response. The line has no end.
	writeLine(line []byte) error
	// flush sends what is buffered.
	flush() error
}

// serveLines serves the watch or the keep-alive stream of path until the client ends it or ctx does. The
// error is for the client, if ctx has not ended.
func (h *httpHandler) serveLines(ctx context.Context, path string, requests io.Reader, out lineWriter) error {
	values := newValueReader(requests, h.cfg.Limits.bodyBytes())
	var err error
	method := methodWatch
	if path == pathWatch {
		err = h.watchLines(ctx, values, out)
	} else {
		method = pb.Lease_LeaseKeepAlive_FullMethodName
		err = (&leaseService{endpoint: h.endpoint}).LeaseKeepAlive( //nolint:contextcheck // the stream has it
			&grpc.GenericServerStream[pb.LeaseKeepAliveRequest, pb.LeaseKeepAliveResponse]{
				ServerStream: &lineStream{ctx: ctx, values: values, out: out},
			})
	}
	h.metrics.countHTTP(method, err)
	return err
}

func (h *httpHandler) watchLines(ctx context.Context, values *valueReader, out lineWriter) error {
	requests, ended := make(chan *pb.WatchRequest), make(chan error, 1)
	// It ends with the connection, which is after the return of this method.
	h.streams.Go(func() {
		ended <- h.receiveWatch(ctx, func() (*pb.WatchRequest, error) {
			r := new(pb.WatchRequest)
			return r, values.next(r)
		}, requests)
	})
	return h.newWatchStream(ctx, &lineSink{Server: h.Server, lineWriter: out}, formJSON, &h.metrics.http).run(nil, requests, ended)
}

// lineSink sends watch responses as lines.
type lineSink struct {
	*Server
	lineWriter
}

// control implements watchSink.
func (s *lineSink) control(r *pb.WatchResponse) error {
	return s.writeLine(s.appendJSONControl(nil, r))
}

// events implements watchSink: a line per revision.
func (s *lineSink) events(w *watcher, blocks []*store.Block) (total int, err error) {
	tail := jsonWatchTail(w.id)
	for _, b := range blocks {
		encoded := s.encodeBlock(w.class, b)
		if encoded.events() == 0 {
			continue
		}
		body := encoded.body()
		line := append(append(make([]byte, 0, len(body)+len(tail)), body...), tail...)
		if err := s.writeLine(line); err != nil {
			return total, err
		}
		total += encoded.events()
	}
	return total, nil
}

// jsonWatchTail is what follows the events of a watch response.
func jsonWatchTail(id int64) string {
	if id == 0 {
		return "}}"
	}
	return `,"watch_id":"` + strconv.FormatInt(id, 10) + `"}}`
}

// lineStream is the stream that a gRPC service sees.
type lineStream struct {
	ctx    context.Context //nolint:containedctx // it is what grpc.ServerStream is for
	values *valueReader
	out    lineWriter
}

// Context implements grpc.ServerStream.
func (s *lineStream) Context() context.Context { return s.ctx }

// RecvMsg implements grpc.ServerStream.
func (s *lineStream) RecvMsg(m any) error { return s.values.next(m.(proto.Message)) }

// SendMsg implements grpc.ServerStream.
func (s *lineStream) SendMsg(m any) error {
	text, err := newMarshaler().Marshal(m)
	if err != nil {
		return err
	}
	if err := s.out.writeLine(bytes.Join([][]byte{[]byte(`{"result":`), text, []byte("}")}, nil)); err != nil {
		return err
	}
	return s.out.flush()
}

// SetHeader implements grpc.ServerStream. There is no place for metadata.
func (s *lineStream) SetHeader(metadata.MD) error { return nil }

// SendHeader implements grpc.ServerStream.
func (s *lineStream) SendHeader(metadata.MD) error { return nil }

// SetTrailer implements grpc.ServerStream.
func (s *lineStream) SetTrailer(metadata.MD) {}

// serveHTTP2 serves a stream in both directions.
func (h *httpHandler) serveHTTP2(w http.ResponseWriter, r *http.Request) {
	out := &bodyLines{w: w, conn: http.NewResponseController(w), stall: h.cfg.Limits.StallTimeout}
	ctx := h.withToken(r)
	err := h.serveLines(ctx, r.URL.Path, r.Body, out) //nolint:contextcheck // it is r.Context() with a token
	switch {
	case err == nil, ctx.Err() != nil:
	case !out.started:
		writeStreamError(w, err)
	case !errors.Is(err, rpctypes.ErrGRPCStopped): // see httpSink.end
		body, jsonErr := streamErrorJSON(status.Convert(err))
		if jsonErr == nil {
			jsonErr = out.writeLine(body)
		}
		h.written(jsonErr)
	}
}

// bodyLines writes lines to the body of a response. A client that leaves one unread for stall is given
// up.
type bodyLines struct {
	w       http.ResponseWriter
	conn    *http.ResponseController
	stall   time.Duration
	started bool
}

// writeLine implements lineWriter.
func (b *bodyLines) writeLine(line []byte) error {
	if !b.started {
		b.started = true
		b.w.Header().Set("Content-Type", jsonContentType)
		b.w.Header().Set("Grpc-Metadata-Content-Type", "application/grpc")
	}
	if err := b.conn.SetWriteDeadline(time.Now().Add(b.stall)); err != nil {
		return err
	}
	if _, err := b.w.Write(line); err != nil {
		return err
	}
	_, err := io.WriteString(b.w, "\n")
	return err
}

// flush implements lineWriter.
func (b *bodyLines) flush() error {
	if !b.started {
		return nil
	}
	return b.conn.Flush()
}
