package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"meshbridge/gateway"
	"meshbridge/store"
)

func TestMain(m *testing.M) {
	// Tests provoke errors; etcd's client need not log them.
	_ = os.Setenv("ETCD_CLIENT_DEBUG", "fatal")
	goleak.VerifyTestMain(m)
}

// patience is how long a test waits for what has to happen.
const patience = 30 * time.Second

// server is a gateway on a loopback port with a store behind it.
type server struct {
	*gateway.Server
	store *store.Store
	addr  string
	url   string
	stop  func() error // stops serving; may be called once, and need not be
}

// start serves cfg, with a fresh store if it has none, until the test ends.
func start(tb testing.TB, cfg gateway.Config) *server {
	tb.Helper()
	return startOn(tb, cfg, "127.0.0.1:0")
}

func startOn(tb testing.TB, cfg gateway.Config, addr string) *server {
	tb.Helper()
	if cfg.Store == nil {
		cfg.Store = newStore(tb, store.Config{})
	}
	s, err := gateway.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	stopped := false
	stop := func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-served
	}
	tb.Cleanup(func() {
		if err := stop(); err != nil {
			tb.Errorf("Serve: %v", err)
		}
	})
	return &server{Server: s, store: cfg.Store, addr: l.Addr().String(), url: "http://" + l.Addr().String(), stop: stop}
}

func newStore(tb testing.TB, cfg store.Config) *store.Store {
	tb.Helper()
	s, err := store.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func put(tb testing.TB, s *store.Store, key, value string) int64 {
	tb.Helper()
	r, err := s.Put(store.PutOp{Key: []byte(key), Value: []byte(value)})
	if err != nil {
		tb.Fatal(err)
	}
	return r.Revision
}

func within(tb testing.TB) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	tb.Cleanup(cancel)
	return ctx
}

func etcdClient(tb testing.TB, s *server) *clientv3.Client {
	tb.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{s.addr}, DialTimeout: patience})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Close() })
	return c
}

// httpClient returns a client whose connections end with the test.
func httpClient(tb testing.TB) *http.Client {
	tb.Helper()
	transport := &http.Transport{}
	tb.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

// post sends body and returns the status and the body of the response.
func post(tb testing.TB, s *server, path, body string) (status int, response string) {
	tb.Helper()
	r, err := httpClient(tb).Post(s.url+path, "", strings.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		tb.Fatal(err)
	}
	return r.StatusCode, string(b)
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// rawStream is an HTTP watch read off the socket, chunk by chunk.
type rawStream struct {
	tb     testing.TB
	conn   net.Conn
	reader *bufio.Reader
	head   string
}

// watchRaw opens a watch with exactly the given body.
func watchRaw(tb testing.TB, s *server, body string) *rawStream {
	tb.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(conn, "POST /v3/watch HTTP/1.1\r\nContent-Length: %d\r\nHost: %s\r\n"+
		"User-Agent: lua-resty-http/0.16.1 (Lua) ngx_lua/10031\r\n\r\n%s", len(body), s.addr, body)
	return &rawStream{tb: tb, conn: conn, reader: bufio.NewReaderSize(conn, 64<<10)}
}

// readHead reads the head of the response.
func (r *rawStream) readHead() string {
	r.tb.Helper()
	if r.head != "" {
		return r.head
	}
	var head strings.Builder
	for {
		line, err := r.reader.ReadString('\n')
		if err != nil {
			r.tb.Fatalf("reading the head after %q: %v", head.String(), err)
		}
		head.WriteString(line)
		if line == "\r\n" {
			r.head = head.String()
			return r.head
		}
	}
}

// chunk reads one chunk; the last one is "".
func (r *rawStream) chunk() string {
	r.tb.Helper()
	r.readHead()
	var size int
	line, err := r.reader.ReadString('\n')
	if err != nil {
		r.tb.Fatalf("reading a chunk: %v", err)
	}
	if _, err := fmt.Sscanf(line, "%x\r\n", &size); err != nil {
		r.tb.Fatalf("size line %q: %v", line, err)
	}
	data := make([]byte, size+2)
	if _, err := io.ReadFull(r.reader, data); err != nil {
		r.tb.Fatal(err)
	}
	if !bytes.HasSuffix(data, []byte("\r\n")) {
		r.tb.Fatalf("chunk does not end: %q", data)
	}
	return string(data[:size])
}

// frame is a message of a watch over HTTP.
type frame struct {
	Result struct {
		Header struct {
			Revision int64 `json:"revision,string"`
		} `json:"header"`
		WatchID         int64  `json:"watch_id,string"`
		Created         bool   `json:"created"`
		Canceled        bool   `json:"canceled"`
		CancelReason    string `json:"cancel_reason"`
		CompactRevision int64  `json:"compact_revision,string"`
		Events          []struct {
			Type string `json:"type"`
			KV   jsonKV `json:"kv"`
			Prev jsonKV `json:"prev_kv"`
		} `json:"events"`
	} `json:"result"`
}

type jsonKV struct {
	Key            []byte `json:"key"`
	Value          []byte `json:"value"`
	CreateRevision int64  `json:"create_revision,string"`
	ModRevision    int64  `json:"mod_revision,string"`
	Version        int64  `json:"version,string"`
	Lease          int64  `json:"lease,string"`
}

// frame reads one chunk, which has to be one line.
func (r *rawStream) frame() frame {
	r.tb.Helper()
	chunk := r.chunk()
	if strings.Count(chunk, "\n") != 1 || !strings.HasSuffix(chunk, "\n") {
		r.tb.Fatalf("a chunk is not one line: %q", chunk)
	}
	var f frame
	if err := json.Unmarshal([]byte(chunk), &f); err != nil {
		r.tb.Fatalf("%v in %s", err, chunk)
	}
	return f
}

// created reads the first frame of a watch.
func (r *rawStream) created() frame {
	r.tb.Helper()
	f := r.frame()
	if !f.Result.Created || f.Result.Canceled || len(f.Result.Events) > 0 {
		r.tb.Fatalf("first frame is %+v, want created", f)
	}
	return f
}
