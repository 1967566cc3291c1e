package gateway

import (
	"net/http"
	"strconv"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"meshbridge/store"
)

const (
	// scratchBytes is the size from which a response under construction is written out.
	scratchBytes = 64 << 10
	// maxPooledBytes keeps the buffer of one enormous value from staying around.
	maxPooledBytes = 4 * scratchBytes
)

// serveRange answers /v3/kv/range. The response is encoded while it is written, so that its size is
// bounded by nothing and a slow reader costs one buffer.
func (h *httpHandler) serveRange(w http.ResponseWriter, r *http.Request, body []byte) {
	result, err := h.rangeJSON(r, body)
	h.metrics.countHTTP(methodRange, err)
	if err != nil {
		writeError(w, err)
		return
	}
	h.writeRange(w, &result)
}

func (h *httpHandler) rangeJSON(r *http.Request, body []byte) (store.RangeResult, error) {
	request := new(pb.RangeRequest)
	if err := decodeRequest(body, request); err != nil {
		return store.RangeResult{}, err
	}
	return h.readRange(h.withToken(r), request)
}

func (h *httpHandler) writeRange(w http.ResponseWriter, result *store.RangeResult) {
	w.Header().Set("Content-Type", jsonContentType)
	w.Header().Set("Grpc-Metadata-Content-Type", "application/grpc")
	conn := http.NewResponseController(w)
	scratch := h.getBuffer()
	buf := *scratch
	defer func() { h.putBuffer(scratch, buf) }()

	buf = append(buf, `{"header":`...)
	buf = h.appendJSONHeader(buf, result.Revision)
	streamed := false
	for i, kv := range result.KVs {
		if len(buf)+len(kv.Key)+len(kv.Value) > scratchBytes {
			streamed = true
			err := conn.SetWriteDeadline(time.Now().Add(h.cfg.Limits.StallTimeout))
			if err == nil {
				_, err = w.Write(buf)
			}
			if err != nil {
				h.written(err)
				return
			}
			buf = buf[:0]
		}
		if i == 0 {
			buf = append(buf, `,"kvs":[`...)
		} else {
			buf = append(buf, ',')
		}
		buf = h.appendJSONKeyValue(buf, kv)
	}
	if len(result.KVs) > 0 {
		buf = append(buf, ']')
	}
	if result.More {
		buf = append(buf, `,"more":true`...)
	}
	buf = appendJSONInt(buf, "count", result.Count)
	buf = append(buf, '}')
	if !streamed {
		w.Header().Set("Content-Length", strconv.Itoa(len(buf)))
	}
	_, err := w.Write(buf)
	if err == nil && streamed { // the connection is used again
		err = conn.SetWriteDeadline(time.Time{})
	}
	h.written(err)
}

// getBuffer returns an empty buffer of scratchBytes at least.
func (s *Server) getBuffer() *[]byte {
	if b, ok := s.buffers.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, 0, scratchBytes)
	return &b
}

// putBuffer gives back what getBuffer returned, with the slice that it has grown to.
func (s *Server) putBuffer(b *[]byte, buf []byte) {
	if cap(buf) > maxPooledBytes {
		return
	}
	*b = buf[:0]
	s.buffers.Put(b)
}
