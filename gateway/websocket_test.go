package gateway_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"meshbridge/gateway"
)

func dialSocket(t *testing.T, s *server, path string, header http.Header) *websocket.Conn {
	t.Helper()
	conn, response, err := websocket.Dial(within(t), "ws://"+s.addr+path, &websocket.DialOptions{HTTPHeader: header})
	if err != nil {
		t.Fatal(err)
	}
	if response.Body != nil {
		_ = response.Body.Close()
	}
	t.Cleanup(func() { _ = conn.CloseNow() })
	conn.SetReadLimit(-1)
	return conn
}

func say(t *testing.T, conn *websocket.Conn, message string) {
	t.Helper()
	if err := conn.Write(within(t), websocket.MessageText, []byte(message)); err != nil {
		t.Fatal(err)
	}
}

func hear(t *testing.T, conn *websocket.Conn) string {
	t.Helper()
	_, message, err := conn.Read(within(t))
	if err != nil {
		t.Fatal(err)
	}
	return string(message)
}

// A watch over a WebSocket takes requests while it sends events, and answers pings.
func TestWatchOverWebSocket(t *testing.T) {
	s := start(t, fixed(gateway.Config{}))
	conn := dialSocket(t, s, "/v3/watch", nil)
	say(t, conn, `{"create_request":{"key":"L2E="}}`)
	if got, want := hear(t, conn), `{"result":{`+header(1)+`,"created":true}}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	put(t, s.store, "/a", "1")
	if got := hear(t, conn); !strings.HasPrefix(got, `{"result":{`+header(2)+`,"events":[{"kv":{"key":"L2E="`) {
		t.Error(got)
	}
	say(t, conn, `{"cancel_request":{"watch_id":0}}`)
	if got, want := hear(t, conn), `{"result":{`+header(2)+`,"canceled":true}}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	ctx := conn.CloseRead(within(t))
	if err := conn.Ping(ctx); err != nil {
		t.Error(err)
	}
}

// A large answer is one message, whatever the client reads it with.
func TestLargeAnswerOverWebSocket(t *testing.T) {
	s := start(t, gateway.Config{})
	value := bytes.Repeat([]byte("x"), 200<<10)
	for i := range 5 {
		put(t, s.store, fmt.Sprint("/a", i), string(value))
	}
	conn := dialSocket(t, s, "/v3/kv/range", nil)
	say(t, conn, `{"key":"AA==","range_end":"AA=="}`)
	if got := hear(t, conn); len(got) < 1000<<10 || !strings.HasSuffix(got, `"count":"5"}`) {
		t.Errorf("%d bytes", len(got))
	}
	if _, _, err := conn.Read(within(t)); websocket.CloseStatus(err) != websocket.StatusNormalClosure {
		t.Errorf("after the answer: %v", err)
	}
}

// A message over the limit ends the connection with the status for it, in one piece or many.
func TestWebSocketMessageTooLarge(t *testing.T) {
	s := start(t, gateway.Config{Limits: gateway.Limits{RequestBytes: 1000}})
	large := strings.Repeat(" ", 800<<10)
	conn := dialSocket(t, s, "/v3/kv/put", nil)
	_ = conn.Write(within(t), websocket.MessageText, []byte(large))
	if _, _, err := conn.Read(within(t)); websocket.CloseStatus(err) != websocket.StatusMessageTooBig {
		t.Errorf("a large message: %v", err)
	}
	conn = dialSocket(t, s, "/v3/watch", nil)
	say(t, conn, `{"create_request":`)
	for range 2000 {
		if conn.Write(within(t), websocket.MessageText, []byte(strings.Repeat(" ", 1000))) != nil {
			break // the server has closed it already
		}
	}
	if got := hear(t, conn); !strings.Contains(got, "larger than max") {
		t.Errorf("a request in many messages: %s", got)
	}
}

// With a list of origins, pages from elsewhere get no WebSocket.
func TestWebSocketOrigins(t *testing.T) {
	s := start(t, gateway.Config{CORSOrigins: []string{"http://good.example"}})
	for origin, status := range map[string]int{
		"": http.StatusSwitchingProtocols, "http://good.example": http.StatusSwitchingProtocols, "http://evil.example": http.StatusForbidden,
	} {
		header := http.Header{}
		if origin != "" {
			header.Set("Origin", origin)
		}
		conn, response, err := websocket.Dial(within(t), "ws://"+s.addr+"/v3/watch", &websocket.DialOptions{HTTPHeader: header})
		if response == nil || response.StatusCode != status {
			t.Fatalf("origin %q: %v, %v", origin, response, err)
		}
		if response.Body != nil {
			_ = response.Body.Close()
		}
		if conn != nil {
			_ = conn.CloseNow()
		}
	}
}

// The end of the server ends WebSockets: one that waits for its first request, one that waits for events
// and one that waits for a lock.
func TestWebSocketsEndWithTheServer(t *testing.T) {
	s := start(t, gateway.Config{})
	silent := dialSocket(t, s, "/v3/kv/range", nil)
	watch := dialSocket(t, s, "/v3/watch", nil)
	say(t, watch, `{"create_request":{"key":"bA==","range_end":"AA=="}}`)
	hear(t, watch)
	post(t, s, "/v3/lock/lock", `{"name":"bA=="}`)
	hear(t, watch)
	lock := dialSocket(t, s, "/v3/lock/lock", nil)
	say(t, lock, `{"name":"bA=="}`)
	hear(t, watch) // the key that waits for its turn

	stopped := make(chan error)
	go func() { stopped <- s.stop() }()
	if got := hear(t, lock); !strings.Contains(got, "server stopped") {
		t.Errorf("lock: %s", got)
	}
	for _, conn := range []*websocket.Conn{silent, watch, lock} {
		// The watch may still see that the key of the waiter goes.
		err := error(nil)
		for err == nil {
			_, _, err = conn.Read(within(t))
		}
		if errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("still open: %v", err)
		}
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// What is not a WebSocket after all is refused.
func TestBadWebSocketHandshake(t *testing.T) {
	s := start(t, gateway.Config{})
	request, err := http.NewRequestWithContext(within(t), http.MethodGet, s.url+"/v3/watch", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Upgrade", "websocket")
	request.Header.Set("Connection", "Upgrade")
	r, err := httpClient(t).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, _ := io.ReadAll(r.Body)
	if r.StatusCode < 400 || r.StatusCode >= 500 || len(body) == 0 {
		t.Errorf("%s: %s", r.Status, body)
	}
}
