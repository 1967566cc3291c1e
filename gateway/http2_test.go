package gateway_test

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"meshbridge/gateway"
)

// overHTTP2 returns a client that speaks nothing but HTTP/2, over TLS, and the server it knows.
func overHTTP2(t *testing.T) (*server, *http.Client, *tls.Config) {
	t.Helper()
	pair, pool := certificate(t)
	s := start(t, gateway.Config{TLS: &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}})
	s.url = "https://" + s.addr
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, Protocols: protocols}
	t.Cleanup(transport.CloseIdleConnections)
	return s, &http.Client{Transport: transport, Timeout: patience}, &tls.Config{RootCAs: pool}
}

func TestJSONOverHTTP2(t *testing.T) {
	s, client, config := overHTTP2(t)
	for _, test := range []struct {
		path, body string
		status     int
		want       string
	}{
		{"/v3/kv/put", `{"key":"L2E="}`, 200, `"revision":"2"`},
		{"/v3/kv/range", `{"key":"L2E="}`, 200, `"count":"1"`},
		{"/v3/kv/range", `{"key":"*"}`, 400, `invalid value for bytes field key`},
		{"/v3/watch", `x`, 400, `{"error":{"grpc_code":3,`},
		{"/v3/lease/keepalive", `{"ID":7}{"ID":8}`, 200, `"ID":"8"`},
		{"/v3/nothing", ``, 404, `Not Found`},
	} {
		r, err := client.Post(s.url+test.path, "", strings.NewReader(test.body))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		_ = r.Body.Close()
		if err != nil || r.ProtoMajor != 2 || r.StatusCode != test.status || !strings.Contains(string(body), test.want) {
			t.Errorf("%s %s: %s %d %s, %v", test.path, test.body, r.Proto, r.StatusCode, body, err)
		}
	}
	grpc, err := clientv3.New(clientv3.Config{Endpoints: []string{s.url}, DialTimeout: patience, TLS: config})
	if err != nil {
		t.Fatal(err)
	}
	defer grpc.Close()
	if r, err := grpc.Get(within(t), "/a"); err != nil || r.Count != 1 {
		t.Errorf("gRPC beside it: %v, %v", r, err)
	}
}

// A watch in HTTP/2 takes requests while it sends events, and ends with the server.
func TestWatchOverHTTP2(t *testing.T) {
	s, client, _ := overHTTP2(t)
	requests, body := io.Pipe()
	call, err := http.NewRequestWithContext(within(t), http.MethodPost, s.url+"/v3/watch", requests)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.WriteString(body, `{"create_request":{"key":"L2E="}}`) }()
	r, err := client.Do(call)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	lines := bufio.NewReader(r.Body)
	next := func() (f frame) {
		t.Helper()
		line, err := lines.ReadString('\n')
		if err == nil {
			err = json.Unmarshal([]byte(line), &f)
		}
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		return f
	}
	if f := next(); !f.Result.Created {
		t.Fatalf("%+v", f)
	}
	put(t, s.store, "/a", "1")
	if f := next(); len(f.Result.Events) != 1 || f.Result.Header.Revision != 2 {
		t.Fatalf("%+v", f)
	}
	if _, err := io.WriteString(body, `{"create_request":{"key":"L2I=","watch_id":5}}{"cancel_request":{"watch_id":0}}`); err != nil {
		t.Fatal(err)
	}
	if f := next(); !f.Result.Created || f.Result.WatchID != 5 {
		t.Fatalf("%+v", f)
	}
	if f := next(); !f.Result.Canceled || f.Result.WatchID != 0 {
		t.Fatalf("%+v", f)
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 {
		t.Errorf("at the end %q, %v", rest, err)
	}
}
