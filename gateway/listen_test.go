package gateway_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	"meshbridge/gateway"
	"meshbridge/store"
)

// certificate makes a key pair for 127.0.0.1 and the pool that trusts it.
func certificate(tb testing.TB) (tls.Certificate, *x509.CertPool) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "gateway"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		tb.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func TestTLSServesGRPCAndHTTPOnOnePort(t *testing.T) {
	pair, pool := certificate(t)
	s := start(t, gateway.Config{TLS: &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}})
	ctx := within(t)
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{"https://" + s.addr}, DialTimeout: patience, TLS: &tls.Config{RootCAs: pool}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Put(ctx, "/a", "1"); err != nil {
		t.Fatal(err)
	}
	for name, protocols := range map[string][]string{
		"no ALPN, as nginx's Lua": nil,
		"http/1.1":                {"http/1.1"},
		"both, as curl":           {"h2", "http/1.1"},
	} {
		conn, err := tls.Dial("tcp", s.addr, &tls.Config{RootCAs: pool, NextProtos: protocols})
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
		body := `{"create_request":{"key":"L2E=","start_revision":2}}`
		if _, err := io.WriteString(conn, "POST /v3/watch HTTP/1.1\r\nHost: x\r\nContent-Length: 52\r\n\r\n"+body); err != nil {
			t.Fatal(err)
		}
		w := &rawStream{tb: t, conn: conn, reader: bufio.NewReader(conn)}
		w.created()
		if f := w.frame().Result; len(f.Events) != 1 {
			t.Errorf("%s: %+v", name, f)
		}
		_ = conn.Close()
	}
	if r, err := httpClient(t).Get(s.url + "/version"); err == nil {
		_ = r.Body.Close()
		t.Errorf("HTTP in the clear on a TLS port: %s", r.Status)
	}
}

func TestHealthOfBothProtocols(t *testing.T) {
	s := start(t, gateway.Config{})
	conn, err := grpc.NewClient(s.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r, err := grpc_health_v1.NewHealthClient(conn).Check(within(t), &grpc_health_v1.HealthCheckRequest{})
	if err != nil || r.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("gRPC: %v, %v", r, err)
	}
	for path, want := range map[string]string{
		"/health": `{"health":"true","reason":""}`, "/livez": "ok\n", "/readyz": "ok\n",
	} {
		r, err := httpClient(t).Get(s.url + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(r.Body)
		_ = r.Body.Close()
		if string(body) != want || r.StatusCode != http.StatusOK || !strings.HasPrefix(r.Header.Get("Content-Type"), "text/plain") {
			t.Errorf("%s: %d %q %q", path, r.StatusCode, r.Header.Get("Content-Type"), body)
		}
	}
}

func TestMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	s := start(t, gateway.Config{Registerer: registry, Gatherer: registry})
	post(t, s, "/v3/kv/put", `{"key":"L2E="}`)
	post(t, s, "/v3/kv/range", `{"key":"L2E="}`)
	post(t, s, "/v3/kv/range", `{}`)
	if _, err := etcdClient(t, s).Get(within(t), "/a"); err != nil {
		t.Fatal(err)
	}
	w := watchRaw(t, s, `{"create_request":{"key":"L2E=","start_revision":1}}`)
	w.created()
	w.frame()
	if err := s.WaitDelivered(within(t), 2); err != nil {
		t.Fatal(err)
	}
	r, err := httpClient(t).Get(s.url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`meshbridge_gateway_requests_total{code="OK",method="/etcdserverpb.KV/Put",transport="http"} 1`,
		`meshbridge_gateway_requests_total{code="OK",method="/etcdserverpb.KV/Range",transport="grpc"} 1`,
		`meshbridge_gateway_requests_total{code="OK",method="/etcdserverpb.KV/Range",transport="http"} 1`,
		`meshbridge_gateway_requests_total{code="InvalidArgument",method="/etcdserverpb.KV/Range",transport="http"} 1`,
		`meshbridge_gateway_watchers{transport="http"} 1`,
		`meshbridge_gateway_watch_events_total{transport="http"} 1`,
	} {
		if !strings.Contains(string(body), line+"\n") {
			t.Errorf("no %s in\n%s", line, body)
		}
	}
	if _, err := gateway.New(gateway.Config{Store: s.store, Registerer: registry}); err == nil {
		t.Error("the same metrics twice")
	}
	without := start(t, gateway.Config{})
	r, err = httpClient(t).Get(without.url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Body.Close()
	if r.StatusCode != http.StatusNotFound {
		t.Errorf("without a gatherer: %d", r.StatusCode)
	}
}

// A client that connects and says nothing, or half a request, does not hold up the end of the server.
func TestSilentClientsDoNotHoldUpTheEnd(t *testing.T) {
	s := start(t, gateway.Config{})
	for _, said := range []string{"", "P", "PRI * HT", "POST /v3/kv/range HTTP/1.1\r\n"} {
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, said); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
}

func TestServeEndsWithItsListener(t *testing.T) {
	s, err := gateway.New(gateway.Config{Store: newStore(t, store.Config{})})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error)
	go func() { served <- s.Serve(context.Background(), l) }()
	_ = l.Close()
	if err := <-served; err == nil || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("a listener that fails is an error naming it: %v", err)
	}
}
