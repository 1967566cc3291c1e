package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"meshbridge/gateway"
	"meshbridge/store"
)

// soon is a time limit that a test waits out.
const soon = 50 * time.Millisecond

// attack is what one bad client does. It calls meanwhile while it is at it.
type attack func(t *testing.T, s *server, meanwhile func())

// A bad client gets an error that names the fault, or is cut off. A good one beside it is served, and
// what the bad one cost is given back.
func TestHostileClients(t *testing.T) {
	for name, test := range map[string]struct {
		limits gateway.Limits
		attack attack
	}{
		"a body announced too large":       {gateway.Limits{}, hugeBody},
		"a body without end":               {gateway.Limits{}, endlessBody},
		"a header without end":             {gateway.Limits{}, endlessHeader},
		"a header that does not come":      {gateway.Limits{HeaderTimeout: soon}, slowHeader},
		"a body that does not come":        {gateway.Limits{BodyTimeout: soon}, slowBody},
		"an idle connection":               {gateway.Limits{IdleTimeout: soon}, idleConnection},
		"an unread range":                  {gateway.Limits{StallTimeout: soon}, unreadRange},
		"an unread watch":                  {gateway.Limits{StallTimeout: soon}, unreadWatch},
		"many watches in a stream":         {gateway.Limits{WatchesPerStream: 100}, manyWatches},
		"many watches in all":              {gateway.Limits{Watches: 100}, manyWatches},
		"many streams":                     {gateway.Limits{Streams: 10}, manyStreams},
		"many connections":                 {gateway.Limits{Connections: 5}, manyConnections},
		"requests that hide others":        {gateway.Limits{}, smuggledRequests},
		"garbage after the HTTP/2 preface": {gateway.Limits{}, garbageFrames},
		"gRPC metadata too large":          {gateway.Limits{}, hugeMetadata},
		"gRPC messages too large":          {gateway.Limits{RequestBytes: 1000}, hugeMessage},
		"streams opened and reset":         {gateway.Limits{}, resetFlood},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, gateway.Config{Limits: test.limits})
			ctx, cancel := context.WithCancel(context.Background())
			ran := make(chan error)
			go func() { ran <- s.store.Run(ctx) }()
			t.Cleanup(func() {
				cancel()
				<-ran
			})
			good, goodHTTP := etcdClient(t, s), httpClient(t)
			meanwhile := func() {
				t.Helper()
				if _, err := good.Get(within(t), "/good"); err != nil {
					t.Errorf("a good client of gRPC: %v", err)
				}
				r, err := goodHTTP.Post(s.url+"/v3/kv/range", "", strings.NewReader(`{"key":"L2dvb2Q="}`))
				if err != nil {
					t.Errorf("a good client of HTTP: %v", err)
					return
				}
				_, _ = io.Copy(io.Discard, r.Body)
				_ = r.Body.Close()
				if r.StatusCode != http.StatusOK {
					t.Errorf("a good client of HTTP: %s", r.Status)
				}
			}
			meanwhile()
			// The first call that is served over gRPC in memory makes the connection for it.
			post(t, s, "/v3/lease/leases", "{}")
			before := consumption()
			t.Run("attack", func(t *testing.T) { test.attack(t, s, meanwhile) })
			eventually(t, func() error {
				now := consumption()
				if now.goroutines > before.goroutines+2 || now.heap > before.heap+8<<20 {
					return fmt.Errorf("was %+v, is %+v", before, now)
				}
				return nil
			})
			meanwhile()
		})
	}
}

// consumed is what clients make the process hold.
type consumed struct {
	goroutines int
	heap       uint64
}

func consumption() consumed {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return consumed{runtime.NumGoroutine(), m.HeapAlloc}
}

// eventually waits until check finds no fault.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.Now().Add(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%v\n%s", err, stacks[:runtime.Stack(stacks, true)])
		}
		<-ticker.C
	}
}

// dial opens a connection and says something, more if it is let.
func dial(t *testing.T, s *server, say string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, say); err != nil {
		t.Fatal(err)
	}
	return conn
}

// wantCutOff reads until the server closes the connection, and returns what came before.
func wantCutOff(t *testing.T, conn net.Conn) string {
	t.Helper()
	said, err := io.ReadAll(conn)
	var network net.Error
	if errors.As(err, &network) && network.Timeout() {
		t.Errorf("not cut off after %.200q", said)
	}
	return string(said)
}

func wantSaid(t *testing.T, said string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(said, want) {
			t.Errorf("no %q in %.500q", want, said)
		}
	}
}

func hugeBody(t *testing.T, s *server, meanwhile func()) {
	t.Helper()
	conn := dial(t, s, "POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: 1099511627776\r\n\r\n{")
	meanwhile()
	wantSaid(t, wantCutOff(t, conn), "429 Too Many Requests", "larger than max (1099511627776 vs.")
}

func endlessBody(t *testing.T, s *server, meanwhile func()) {
	t.Helper()
	conn := dial(t, s, "POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
	meanwhile()
	go func() {
		chunk := "10000\r\n" + strings.Repeat(" ", 1<<16) + "\r\n"
		for {
			if _, err := io.WriteString(conn, chunk); err != nil {
				return
			}
		}
	}()
	r, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusTooManyRequests || !r.Close {
		t.Errorf("%s, close %t", r.Status, r.Close)
	}
}

func endlessHeader(t *testing.T, s *server, meanwhile func()) {
	t.Helper()
	conn := dial(t, s, "POST /v3/kv/put HTTP/1.1\r\nHost: x\r\n")
	meanwhile()
	go func() {
		for {
			if _, err := io.WriteString(conn, "X: "+strings.Repeat("x", 1000)+"\r\n"); err != nil {
				return
			}
		}
	}()
	r, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return // what was not read cuts off the answer
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Error(r.Status)
	}
}

func slowHeader(t *testing.T, s *server, meanwhile func()) {
	t.Helper()
	for _, said := range []string{"", "P", "PRI * HTTP/2.0\r\n", "POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nX-"} {
		conn := dial(t, s, said)
		meanwhile()
		wantCutOff(t, conn)
	}
	pair, _ := certificate(t)
	secure := start(t, gateway.Config{
		TLS:    &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
		Limits: gateway.Limits{HeaderTimeout: soon},
	})
	for _, said := range []string{"", "\x16\x03\x01", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"} {
		wantCutOff(t, dial(t, secure, said))
	}
	_ = secure.stop()
}

func slowBody(t *testing.T, s *server, meanwhile func()) {
	t.Helper()
	conn := dial(t, s, "POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
	meanwhile()
	wantSaid(t, wantCutOff(t, conn), "400 Bad Request", "reading the request", "timeout")
}

func idleConnection(t *testing.T, s *server, meanwhile func()) {
	t.Helper()
	conn := dial(t, s, "GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
	meanwhile()
	wantSaid(t, wantCutOff(t, conn), "200 OK")
}

// fill puts more than what fits into the buffers of a connection.
func fill(t *testing.T, s *server) (total int) {
	t.Helper()
	value := strings.Repeat("x", 1<<20)
	for i := range 32 {
		put(t, s.store, fmt.Sprint("/large/", i), value)
		total += len(value)
	}
	return total
}

func unreadRange(t *testing.T, s *server, meanwhile func()) {
	t.Helper()
	total, goroutines := fill(t, s), runtime.NumGoroutine()
	body := `{"key":"AA==","range_end":"AA=="}`
	conn := dial(t, s, fmt.Sprintf("POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
	meanwhile()
	eventually(t, func() error {
		if now := runtime.NumGoroutine(); now > goroutines {
			return fmt.Errorf("%d goroutines were %d", now, goroutines)
		}
		return nil
	})
	if said := wantCutOff(t, conn); len(said) >= total {
		t.Errorf("got all %d bytes", len(said))
	}
	drop(t, s)
}

func unreadWatch(t *testing.T, s *server, meanwhile func()) {
	t.Helper()
	total := fill(t, s)
	body := `{"create_request":{"key":"AA==","range_end":"AA==","start_revision":1}}`
	conn := dial(t, s, fmt.Sprintf("POST /v3/watch HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
	eventually(t, func() error {
		if n := s.store.Stats().Watchers; n != 1 {
			return fmt.Errorf("%d watches, want the one", n)
		}
		return nil
	})
	meanwhile()
	eventually(t, func() error {
		if n := s.store.Stats().Watchers; n != 0 {
			return fmt.Errorf("%d watches", n)
		}
		return nil
	})
	if said := wantCutOff(t, conn); len(said) >= total {
		t.Errorf("got all %d bytes", len(said))
	}
	drop(t, s)
}

// drop takes out what fill has put in.
func drop(t *testing.T, s *server) {
	t.Helper()
	c := etcdClient(t, s)
	r, err := c.Delete(within(t), "\x00", clientv3.WithFromKey())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Compact(within(t), r.Header.GetRevision()); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

func manyWatches(t *testing.T, s *server, meanwhile func()) {
	t.Helper()
	const asked, served = 1000, 100
	stream := watchRaw(t, s, strings.Repeat(`{"create_request":{"key":"YQ=="}}`, asked))
	refused := 0
	for range asked {
		f := stream.frame().Result
		if f.Canceled {
			if !strings.Contains(f.CancelReason, "too many watches") || f.WatchID != -1 || !f.Created {
				t.Fatalf("%+v", f)
			}
			refused++
		}
	}
	if refused != asked-served {
		t.Errorf("%d of %d refused, want all but %d", refused, asked, served)
	}
	meanwhile()
	_ = stream.conn.Close()
}

func manyStreams(t *testing.T, s *server, meanwhile func()) {
	t.Helper()
	conn, err := grpc.NewClient(s.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	watch := pb.NewWatchClient(conn)
	var end context.CancelFunc
	for range 10 {
		var ctx context.Context
		ctx, end = context.WithCancel(within(t))
		defer end()
		stream, err := watch.Watch(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(create(&pb.WatchCreateRequest{Key: []byte("a")})); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	meanwhile()
	opened := make(chan error)
	go func() {
		stream, err := watch.Watch(within(t))
		if err == nil {
			err = stream.CloseSend()
		}
		opened <- err
	}()
	select {
	case err := <-opened:
		t.Errorf("an eleventh stream: %v", err)
	case <-time.NewTimer(soon).C:
		end()
		if err := <-opened; err != nil {
			t.Errorf("a stream in the place of one that ended: %v", err)
		}
	}
}

func manyConnections(t *testing.T, s *server, meanwhile func()) {
	t.Helper()
	var conns []net.Conn
	for range 10 {
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns = append(conns, conn)
	}
	// The last one was refused, whichever others were.
	last := conns[len(conns)-1]
	_ = last.SetDeadline(time.Now().Add(patience))
	wantCutOff(t, last)
	for _, conn := range conns {
		_ = conn.Close()
	}
	eventually(t, func() error {
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			return err
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(conn, "GET /version HTTP/1.0\r\nHost: x\r\n\r\n"); err != nil {
			return err
		}
		if _, err := bufio.NewReader(conn).ReadString('\n'); err != nil {
			return fmt.Errorf("still refused: %w", err)
		}
		return nil
	})
	meanwhile()
}

func smuggledRequests(t *testing.T, s *server, meanwhile func()) {
	t.Helper()
	const hidden = "POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n\r\n{\"key\":\"L2E=\"}"
	head := "POST /v3/kv/range HTTP/1.1\r\nHost: x\r\n"
	for name, request := range map[string]string{
		"two lengths":             head + "Content-Length: 3\r\nContent-Length: 0\r\n\r\n",
		"a list of lengths":       head + "Content-Length: 3, 0\r\n\r\n",
		"a negative length":       head + "Content-Length: -1\r\n\r\n",
		"a signed length":         head + "Content-Length: +0\r\n\r\n",
		"an unknown encoding":     head + "Transfer-Encoding: xchunked\r\n\r\n",
		"chunked twice":           head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"no size of a chunk":      head + "Transfer-Encoding: chunked\r\n\r\nx\r\n\r\n",
		"a negative size":         head + "Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
		"a space before a colon":  head + "Content-Length : 0\r\n\r\n",
		"a space before a header": "POST /v3/kv/range HTTP/1.1\r\n Host: x\r\n\r\n",
		"a bare carriage return":  head + "X: a\rContent-Length: 0\r\n\r\n",
		"no host":                 "POST /v3/kv/range HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
		"no protocol":             "POST /v3/kv/range\r\n\r\n",
	} {
		conn := dial(t, s, request+hidden)
		if said := wantCutOff(t, conn); !strings.HasPrefix(said, "HTTP/1.1 4") && !strings.HasPrefix(said, "HTTP/1.1 501") || strings.Count(said, "HTTP/1.1") != 1 {
			t.Errorf("%s: %q", name, said)
		}
	}
	if revision := s.store.Revision(); revision != 1 {
		t.Errorf("a hidden request was executed: revision %d", revision)
	}
	meanwhile()
	// Pipelined requests are answered in their order. Of a length and chunks, the chunks count.
	conn := dial(t, s, hidden+head+"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\ne\r\n{\"key\":\"L2E=\"}\r\n0\r\n\r\n"+
		"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	said := wantCutOff(t, conn)
	put, read, version := strings.Index(said, `"revision":"2"`), strings.Index(said, `"count":"1"`), strings.Index(said, "etcdserver")
	if put < 0 || read < put || version < read {
		t.Errorf("pipelined: %q", said)
	}
}

func garbageFrames(t *testing.T, s *server, meanwhile func()) {
	t.Helper()
	const settings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	for _, garbage := range []string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		strings.Repeat("\x00", 100),
		"\xff\xff\xff\x04\x00\x00\x00\x00\x00",                    // settings of 16 MB
		settings + "\x00\x00\x01\x00\x00\x00\x00\x00\x00x",        // data for no stream
		settings + "\x00\x00\x01\x01\x04\x00\x00\x00\x00\x82",     // headers for none
		settings + "\x00\x00\x02\x01\x04\x00\x00\x00\x01\xff\xff", // headers not in HPACK
	} {
		conn := dial(t, s, http2.ClientPreface+garbage)
		meanwhile()
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.CloseWrite()
		}
		wantCutOff(t, conn)
	}
}

func hugeMetadata(t *testing.T, s *server, meanwhile func()) {
	t.Helper()
	conn, err := grpc.NewClient(s.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx := metadata.AppendToOutgoingContext(within(t), "token", strings.Repeat("x", 1<<20))
	_, err = pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte("a")})
	if err == nil || !strings.Contains(err.Error(), "header") {
		t.Errorf("%v", err)
	}
	meanwhile()
}

func hugeMessage(t *testing.T, s *server, meanwhile func()) {
	t.Helper()
	c := etcdClient(t, s)
	for size, want := range map[int]string{
		1000:      "etcdserver: request is too large",
		600 << 10: "larger than max",
	} {
		_, err := pb.NewKVClient(c.ActiveConnection()).Put(within(t), &pb.PutRequest{Key: []byte("a"), Value: bytes.Repeat([]byte("x"), size)})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	meanwhile()
	_ = c.Close()
}

// resetFlood opens streams and resets them as fast as it can, before they are served.
func resetFlood(t *testing.T, s *server, meanwhile func()) {
	t.Helper()
	conn := dial(t, s, http2.ClientPreface)
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	framer := http2.NewFramer(conn, nil)
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	var header bytes.Buffer
	encoder := hpack.NewEncoder(&header)
	for _, field := range [][2]string{
		{":method", "POST"},
		{":scheme", "http"},
		{":path", "/etcdserverpb.Watch/Watch"},
		{":authority", "x"},
		{"content-type", "application/grpc"},
		{"te", "trailers"},
	} {
		if err := encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1], Sensitive: true}); err != nil {
			t.Fatal(err)
		}
	}
	fields := bytes.Clone(header.Bytes())
	for id := uint32(1); id < 10_000; id += 2 {
		err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: fields, EndHeaders: true})
		if err == nil {
			err = framer.WriteRSTStream(id, http2.ErrCodeCancel)
		}
		if err != nil {
			break // cut off, which is fine
		}
		if id%2000 == 1 {
			meanwhile()
		}
	}
	meanwhile()
	_ = conn.Close()
}

// Waiters for a lock are told when the server stops.
func TestLocksEndWithTheServer(t *testing.T) {
	s := start(t, gateway.Config{})
	w := watchRaw(t, s, `{"create_request":{"key":"bA==","range_end":"AA=="}}`)
	w.created()
	post(t, s, "/v3/lock/lock", `{"name":"bA=="}`)
	w.frame()
	answered := make(chan string)
	go func() {
		status, body := post(t, s, "/v3/lock/lock", `{"name":"bA=="}`)
		answered <- fmt.Sprint(status, body)
	}()
	w.frame() // it waits for its turn
	go func() { _ = s.stop() }()
	if got := <-answered; !strings.Contains(got, "server stopped") || !strings.HasPrefix(got, "503") {
		t.Errorf("%s", got)
	}
}

// Numbers and times that make no sense are refused.
func TestNegativeLimits(t *testing.T) {
	for _, limits := range []gateway.Limits{{RequestBytes: -1}, {Watches: -1}, {BodyTimeout: -1}, {KeepaliveInterval: -1}} {
		if _, err := gateway.New(gateway.Config{Store: newStore(t, store.Config{}), Limits: limits}); err == nil {
			t.Errorf("%+v", limits)
		}
	}
}
