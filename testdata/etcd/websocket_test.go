package etcd

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"
)

// turn is what a client of a WebSocket says, and how many messages it then
// waits for.
type turn struct {
	say    []string
	listen int
}

func TestWebSocketsAnswerAsThoseOfEtcd(t *testing.T) {
	t.Parallel()
	etcd, meshbridge := startBoth(t)
	for _, s := range []server{etcd, meshbridge} {
		httpCall{path: "/v3/kv/put", body: `{"key":"YQ==","value":"MQ=="}`}.do(t, s)
		httpCall{path: "/v3/lease/grant", body: `{"TTL":1000,"ID":7}`}.do(t, s)
	}
	for _, test := range []struct {
		name, path string
		header     http.Header
		turns      []turn
	}{
		{"watch", "/v3/watch", nil, []turn{
			{[]string{`{"create_request":{"key":"YQ==","start_revision":2}}`}, 2},
			{[]string{`{"progress_request":{}}`}, 1},
			{[]string{`{"createRequest":{"key":"Yg==","watchId":5}}`}, 1},
			{[]string{`{"create_request":{"key":"Yg==","watch_id":5}}`}, 1},
			{[]string{`{"cancel_request":{"watch_id":"5"}}`}, 1},
		}},
		{"a request in two messages", "/v3/watch", nil, []turn{{[]string{`{"create_request":`, `{"key":"YQ=="}}`}, 1}}},
		{"two requests in a message", "/v3/watch", nil, []turn{{[]string{`{"create_request":{}} {"cancel_request":{}}{"create_request":{}}`}, 3}}},
		{"a refused watch", "/v3/watch", nil, []turn{{[]string{`{"create_request":{"start_revision":-1}}`}, 1}, {[]string{`{"create_request":{}}`}, 1}}},
		{"keep alive", "/v3/lease/keepalive", nil, []turn{{[]string{`{"ID":7}`}, 1}, {[]string{`{"ID":"8"}`, `{"ID":"7"}`}, 2}}},
		{"the old path", "/v3beta/watch", nil, []turn{{[]string{`{"create_request":{}}`}, 1}}},
		{"no base64", "/v3/kv/range", nil, []turn{{[]string{`{"key":"*"}`}, 1}}},
		{"observe", "/v3/election/observe", nil, []turn{{[]string{`{"name":"*"}`}, 1}}},
		{"a token where no user is", "/v3/watch", http.Header{"Sec-Websocket-Protocol": {"Bearer, x"}}, []turn{{[]string{`{"create_request":{}}`}, 1}}},
		{"another protocol", "/v3/watch", http.Header{"Sec-Websocket-Protocol": {"chat"}}, []turn{{[]string{`{"create_request":{}}`}, 1}}},
		{"an origin", "/v3/watch", http.Header{"Origin": {"http://evil.example"}}, []turn{{[]string{`{"create_request":{}}`}, 1}}},
		{"a method", "/v3/watch?method=DELETE", nil, []turn{{[]string{`{"create_request":{}}`}, 1}}},
	} {
		want := converse(t, etcd, test.path, test.header, test.turns)
		got := converse(t, meshbridge, test.path, test.header, test.turns)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-etcd +meshbridge):\n%s", test.name, diff)
		}
	}
}

// Where etcd leaves the client without a word, there is an answer.
func TestWebSocketAnswersWhatEtcdDoesNot(t *testing.T) {
	t.Parallel()
	meshbridge := startMeshbridge(t)
	for _, test := range []struct{ name, path, say, want string }{
		{"a call that is no stream", "/v3/kv/range", `{"key":"YQ=="}`, `{"header":{"revision":"1"}}`},
		{"an unknown path", "/v3/kv/nothing", `{}`, `{"code":5,"message":"Not Found"}`},
		{"no JSON", "/v3/watch", `x`, `{"error":{"code":3,"message":"invalid character 'x' looking for beginning of value"}}`},
	} {
		got := converse(t, meshbridge, test.path, nil, []turn{{[]string{test.say}, 1}})
		if got[len(got)-1] != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

// converse returns the subprotocol and the messages of the server.
func converse(t *testing.T, s server, path string, header http.Header, turns []turn) []string {
	t.Helper()
	conn, response, err := websocket.DefaultDialer.DialContext(t.Context(), "ws://"+s.address+path, header)
	if err != nil {
		t.Fatalf("%s: %v", s.name, err)
	}
	defer func() { _ = conn.Close() }()
	_ = response.Body.Close()
	deadline := time.Now().Add(patience)
	_ = conn.SetReadDeadline(deadline)
	heard := []string{"protocol " + response.Header.Get("Sec-Websocket-Protocol")}
	for _, turn := range turns {
		for _, message := range turn.say {
			if err := conn.WriteMessage(websocket.TextMessage, []byte(message)); err != nil {
				t.Fatalf("%s: %v", s.name, err)
			}
		}
		for range turn.listen {
			kind, message, err := conn.ReadMessage()
			if err != nil || kind != websocket.TextMessage {
				t.Fatalf("%s after %q and %q: message of kind %d, %v", s.name, turn.say, heard, kind, err)
			}
			heard = append(heard, comparable(t, strings.TrimSuffix(string(message), "\n"), false))
		}
	}
	return heard
}
