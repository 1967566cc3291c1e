package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/status"
)

// webSocketProtocol is the subprotocol of clients that bring a token, which browsers can put into no
// other header.
const webSocketProtocol = "Bearer"

// tokenCookie is the other place for a token.
const tokenCookie = "token"

// isWebSocket tells whether a request asks for a WebSocket.
func isWebSocket(r *http.Request) bool {
	return strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
}

// serveWebSocket serves one call over a WebSocket: each message of the client is a JSON request, and
// each line of the response a message. A call that takes one request takes the first message.
func (h *httpHandler) serveWebSocket(w http.ResponseWriter, r *http.Request) {
	// Who may not read the responses to its other calls may not make one here.
	if r.Header.Get("Origin") != "" && h.allowedOrigin(r) == "" {
		http.Error(w, "origin not allowed", http.StatusForbidden)
		return
	}
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols: []string{webSocketProtocol}, InsecureSkipVerify: true, CompressionMode: websocket.CompressionDisabled,
	})
	if err != nil {
		h.log.LogAttrs(r.Context(), slog.LevelDebug, "no WebSocket", slog.Any("error", err))
		return // it is answered
	}
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(h.cfg.Limits.bodyBytes())
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	s := &socket{ctx: ctx, cancel: cancel, conn: conn, stall: h.cfg.Limits.StallTimeout, header: http.Header{}}
	if !h.beginSocket(s) {
		_ = conn.Close(websocket.StatusGoingAway, "")
		return
	}
	defer h.sockets.Done()
	err = h.serveSocket(ctx, s, r)
	_ = s.end()
	switch {
	case errors.Is(err, rpctypes.ErrGRPCStopped):
		_ = conn.Close(websocket.StatusGoingAway, "")
	case ctx.Err() == nil:
		_ = conn.Close(websocket.StatusNormalClosure, "")
	}
}

// beginSocket makes the endpoint wait for s, unless it stops. When it stops later, s is cut off: at once
// if there is nothing to answer, else after stopTimeout.
func (e *endpoint) beginSocket(s *socket) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.isStopping() {
		return false
	}
	e.sockets.Add(1)
	e.sockets.Go(func() {
		select {
		case <-e.stopping:
		case <-s.ctx.Done():
			return
		}
		if s.asked.Load() {
			_ = pause(s.ctx, stopTimeout)
		}
		s.cancel()
	})
	return true
}

// serveSocket serves the call that r asks for until ctx ends. What the client can be told, it has been;
// the error is for closing the connection.
func (h *httpHandler) serveSocket(ctx context.Context, s *socket, r *http.Request) error {
	call := r.Clone(ctx)
	call.Method = http.MethodPost
	switch token, err := r.Cookie(tokenCookie); {
	case err == nil:
		call.Header.Set("Authorization", "Bearer "+token.Value)
	case r.Header.Get("Sec-WebSocket-Protocol") != "":
		_, token, _ := strings.Cut(r.Header.Get("Sec-WebSocket-Protocol"), webSocketProtocol+",")
		call.Header.Set("Authorization", "Bearer "+strings.TrimSpace(token))
	}
	if path := r.URL.Path; path == pathWatch || path == pathKeepAlive {
		err := h.serveLines(h.withToken(call), path, s, s) //nolint:contextcheck // it is ctx with a token
		if err != nil && ctx.Err() == nil && !errors.Is(err, rpctypes.ErrGRPCStopped) {
			body, jsonErr := streamErrorJSON(status.Convert(err))
			if jsonErr == nil {
				jsonErr = s.writeLine(body)
			}
			h.written(jsonErr)
		}
		return err
	}
	first := s.next()
	if first == nil {
		return nil // the client is gone
	}
	// Going on to read answers pings, and notices that the client leaves.
	h.sockets.Go(func() { _, _ = io.Copy(io.Discard, s) })
	call.Body = io.NopCloser(bytes.NewReader(first))
	h.serveGateway(s, call)
	return nil
}

// socket is a WebSocket as a call sees it: a reader of requests, a writer of lines, and the writer of a
// response.
type socket struct {
	ctx    context.Context //nolint:containedctx // it is that of one call, which readers and writers are not given
	cancel context.CancelFunc
	conn   *websocket.Conn
	stall  time.Duration
	asked  atomic.Bool // there was a request
	header http.Header // of the response, which nobody will see

	request  io.Reader      // the message that is being read
	response io.WriteCloser // the message that is being written
}

// next reads one message. When there can be none it ends the call and returns nil.
func (s *socket) next() []byte {
	_, message, err := s.conn.Read(s.ctx)
	if err != nil {
		s.cancel()
		return nil
	}
	s.asked.Store(true)
	return message
}

// Read implements io.Reader over all messages, each with an end of line. When there can be no more it
// ends the call.
func (s *socket) Read(p []byte) (int, error) {
	if s.request == nil {
		_, message, err := s.conn.Reader(s.ctx)
		if err != nil {
			s.cancel()
			return 0, io.EOF
		}
		s.asked.Store(true)
		s.request = message
	}
	n, err := s.request.Read(p)
	switch {
	case err == nil || n > 0:
		return n, nil
	case errors.Is(err, io.EOF):
		s.request = nil
		p[0] = '\n'
		return 1, nil
	default:
		s.cancel()
		return 0, io.EOF
	}
}

// Write implements http.ResponseWriter: each line is a message. A client that leaves it unread for stall
// is given up.
func (s *socket) Write(p []byte) (int, error) {
	timer := time.AfterFunc(s.stall, s.cancel)
	defer timer.Stop()
	for rest := p; len(rest) > 0; {
		line, after, complete := bytes.Cut(rest, []byte("\n"))
		if err := s.writePart(line); err != nil {
			return 0, err
		}
		if complete {
			if err := s.end(); err != nil {
				return 0, err
			}
		}
		rest = after
	}
	return len(p), nil
}

// writePart writes a part of a message.
func (s *socket) writePart(part []byte) (err error) {
	if len(part) == 0 {
		return nil
	}
	if s.response == nil {
		if s.response, err = s.conn.Writer(s.ctx, websocket.MessageText); err != nil {
			return err
		}
	}
	_, err = s.response.Write(part)
	return err
}

// end ends the message that is being written, if one is.
func (s *socket) end() error {
	if s.response == nil {
		return nil
	}
	err := s.response.Close()
	s.response = nil
	return err
}

// Header implements http.ResponseWriter.
func (s *socket) Header() http.Header { return s.header }

// WriteHeader implements http.ResponseWriter. The status is in the message.
func (s *socket) WriteHeader(int) {}

// Flush implements http.Flusher. Messages are sent when they are complete.
func (s *socket) Flush() {}

// writeLine implements lineWriter.
func (s *socket) writeLine(line []byte) error {
	timer := time.AfterFunc(s.stall, s.cancel)
	defer timer.Stop()
	return s.conn.Write(s.ctx, websocket.MessageText, line)
}

// flush implements lineWriter.
func (s *socket) flush() error { return nil }
