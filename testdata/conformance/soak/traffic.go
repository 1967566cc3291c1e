package soak

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Traffic: how long a client waits between requests, and for an answer.
const (
	pauseBetween  = 15 * time.Millisecond
	answerTimeout = 30 * time.Second
)

// client sends requests by one side.
type client struct {
	side    *side
	address string // of the gateway for HTTP
	mesh    *mesh
	line    *timeline
	http    *http.Client

	sent, failed atomic.Int64
	mu           sync.Mutex
	slowest      time.Duration // guarded by mu
}

func newClient(s *side, port int, m *mesh, l *timeline) *client {
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	dialer := &net.Dialer{}
	return &client{
		side: s, address: address, mesh: m, line: l,
		http: &http.Client{
			Timeout: answerTimeout,
			Transport: &http.Transport{
				MaxIdleConnsPerHost: 4,
				DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
					return dialer.DialContext(ctx, network, address)
				},
			},
		},
	}
}

// run sends random requests until ctx ends.
func (c *client) run(ctx context.Context, random *rand.Rand) {
	defer c.http.CloseIdleConnections()
	for wait(ctx, time.Duration(random.Int64N(int64(2*pauseBetween)))) {
		r := request{host: random.IntN(hosts), path: []string{"/a/x", "/b", "/c?d=e"}[random.IntN(3)], visitor: random.IntN(3) == 0}
		c.ask(ctx, r, random.IntN(3) == 0)
	}
}

// ask sends a request, and notes what is wrong with the answer. It tells whether anything is.
func (c *client) ask(ctx context.Context, r request, alone bool) bool {
	a := c.send(ctx, r, alone)
	if ctx.Err() != nil {
		return true // it was the end that interrupted it
	}
	c.count(a)
	if wrong := c.mesh.judge(c.side, r, a); wrong != "" {
		c.line.fail("traffic", "%s: %s (asked at %.3fs)", c.side.name, wrong, a.began.Sub(c.line.start).Seconds())
		return false
	}
	return true
}

func (c *client) count(a answer) {
	c.sent.Add(1)
	if a.err != nil || a.status >= http.StatusInternalServerError {
		c.failed.Add(1)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slowest = max(c.slowest, a.ended.Sub(a.began))
}

func (c *client) send(ctx context.Context, r request, alone bool) (a answer) {
	a.began = time.Now()
	defer func() { a.ended = time.Now() }()
	var sent *http.Request
	if sent, a.err = http.NewRequestWithContext(ctx, http.MethodGet, "http://"+hostName(r.host)+r.path, http.NoBody); a.err != nil {
		return a
	}
	sent.Close = alone
	if r.visitor {
		sent.Header.Set("X-Visitor", visitor)
	}
	var response *http.Response
	if response, a.err = c.http.Do(sent); a.err != nil {
		return a
	}
	defer func() { _ = response.Body.Close() }()
	_, a.err = io.Copy(io.Discard, response.Body)
	a.status, a.stamp, a.backend = response.StatusCode, response.Header.Get(stampHeader), response.Header.Get(backendHeader)
	return a
}

// runTCP opens connections to the ports for TCP until ctx ends.
func (c *client) runTCP(ctx context.Context, random *rand.Rand) {
	for wait(ctx, time.Duration(random.Int64N(int64(4*pauseBetween)))) {
		c.askTCP(ctx, random.IntN(tcpPorts))
	}
}

func (c *client) askTCP(ctx context.Context, port int) bool {
	a := c.connect(ctx, port)
	if ctx.Err() != nil {
		return true
	}
	c.count(a)
	if wrong := c.mesh.judgeTCP(c.side, port, a); wrong != "" {
		c.line.fail("traffic", "%s: %s (asked at %.3fs)", c.side.name, wrong, a.began.Sub(c.line.start).Seconds())
		return false
	}
	return true
}

func (c *client) connect(ctx context.Context, port int) (a answer) {
	a.began = time.Now()
	defer func() { a.ended = time.Now() }()
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	var conn net.Conn
	if conn, a.err = (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(firstTCPPort+port))); a.err != nil {
		return a
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if _, a.err = io.WriteString(conn, "hello\n"); a.err != nil {
		return a
	}
	var line string
	if line, a.err = bufio.NewReader(conn).ReadString('\n'); a.err == nil {
		a.backend = line[:len(line)-1]
	}
	return a
}

func (c *client) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprintf("%s: %d requests, of which %d failed while something was away; the slowest took %v",
		c.side.name, c.sent.Load(), c.failed.Load(), c.slowest.Round(time.Millisecond))
}

// wait returns false when ctx ended.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
