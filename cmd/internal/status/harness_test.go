package status

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// port is a server of the port 15020, on another.
type port struct {
	*httptest.Server
	t              *testing.T
	server         *Server
	log            *logBuffer
	registry       *prometheus.Registry
	mu             sync.Mutex
	drained, ended int
	unready        error
}

type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// serve starts it. What c leaves out is as in a pod.
func serve(t *testing.T, c Config) *port {
	t.Helper()
	p := &port{t: t, log: &logBuffer{}, registry: prometheus.NewRegistry()}
	count := func(n *int) func() {
		return func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			*n++
		}
	}
	c.Drain, c.Quit = count(&p.drained), count(&p.ended)
	c.Ready = func(context.Context) error {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.unready
	}
	if c.Gatherer == nil {
		c.Gatherer = p.registry
	}
	c.Registerer = p.registry
	if !c.PodIP.IsValid() {
		c.PodIP = netip.MustParseAddr("127.0.0.1")
	}
	c.Logger = slog.New(slog.NewTextHandler(p.log, nil))
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	p.server = s
	p.Server = httptest.NewServer(s.Handler())
	t.Cleanup(p.Close)
	return p
}

// limit sets how much is read of a source of metrics.
func (p *port) limit(bytes int64) { p.server.merge.limit = bytes }

func portOf(t *testing.T, address string) uint16 {
	t.Helper()
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return a.Port()
}

// portNumber is that of a server's URL or address.
func portNumber(t *testing.T, address string) string {
	t.Helper()
	_, address, found := strings.Cut(address, "://")
	if !found {
		t.Fatalf("%q is no URL", address)
	}
	return strconv.Itoa(int(portOf(t, address)))
}

// request sends one; headers are names and values in turn.
func (p *port) request(method, path string, headers ...string) (status int, header http.Header, body string) {
	p.t.Helper()
	r, err := http.NewRequestWithContext(p.t.Context(), method, p.URL+path, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
		}
		r.Header.Set(headers[i], headers[i+1])
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(r)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return response.StatusCode, response.Header, string(text)
}

func (p *port) get(path string, headers ...string) (status int, body string) {
	p.t.Helper()
	status, _, body = p.request(http.MethodGet, path, headers...)
	return status, body
}
