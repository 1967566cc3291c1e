package capture_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"meshbridge/capture"
	"meshbridge/identity/identitytest"
	"meshbridge/translate"
)

// observed is an Observer that remembers.
type observed struct {
	mu             sync.Mutex
	opened, closed []*capture.Connected
}

func (o *observed) Opened(c *capture.Connected) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.opened = append(o.opened, c)
}

func (o *observed) Closed(c *capture.Connected) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = append(o.closed, c)
}

// is tells whether so many have opened and closed.
func (o *observed) is(opened, closed int) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.opened) == opened && len(o.closed) == closed
}

// last waits for the first connection that closes.
func (o *observed) last(t *testing.T) *capture.Connected {
	t.Helper()
	eventually(t, func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		return len(o.closed) > 0
	})
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.closed) > 1 || len(o.opened) > 1 {
		t.Fatalf("%d have opened and %d have closed", len(o.opened), len(o.closed))
	}
	return o.closed[0]
}

func TestAConnectionIsObservedFromItsBeginningToItsEnd(t *testing.T) {
	b := serve(t, false, echo)
	o := new(observed)
	l := virtual(translate.Outbound, passthrough(0))
	f := start(t, capture.Config{Observer: o}, l)
	f.sends(b.addr)
	before := time.Now()
	conn := f.dial("virtualoutbound")
	exchange(t, conn, "hello")
	if !o.is(1, 0) {
		t.Fatal("it is not known to be open")
	}
	open := o.opened[0]
	exchange(t, conn, "again")
	eventually(t, func() bool { return open.Sent.Load() == 10 && open.Received.Load() == 10 })
	client := conn.LocalAddr().(*net.TCPAddr).AddrPort()
	_ = conn.Close()
	c := o.last(t)
	if c != open || c.Outcome != "closed" || c.Sent.Load() != 10 || c.Received.Load() != 10 {
		t.Errorf("it ended as %+v", c)
	}
	if c.Started.Before(before) || c.Ended.Before(c.Started) {
		t.Errorf("it lasted from %s to %s", c.Started, c.Ended)
	}
	if c.Listener != l || c.Chain != "passthrough" || c.Cluster != "PassthroughCluster" {
		t.Errorf("it is known as %+v", c)
	}
	if c.Source != client || c.Direct != client || c.Destination != b.addr || c.Upstream != b.addr || c.Local.Addr() != loopback.Addr() || c.Local.Port() == 0 {
		t.Errorf("its addresses are %s, %s, %s, %s, %s", c.Source, c.Direct, c.Destination, c.Upstream, c.Local)
	}
}

func TestBytesThatAreObservedAreThoseOfTheClient(t *testing.T) {
	// Neither the header for APISIX nor TLS is part of them, but what was read to inspect it is.
	text := strings.Repeat("0123456789", 1<<14)
	for name, chain := range map[string]func(*backend) *translate.FilterChain{
		"by an event loop": func(b *backend) *translate.FilterChain { return toPort("tcp", b) },
		"in plain text":    func(b *backend) *translate.FilterChain { return terminating(t, toPort("tcp", b)) },
	} {
		t.Run(name, func(t *testing.T) {
			b := serve(t, true, echo)
			o := new(observed)
			served := chain(b)
			l := bound("tcp", served)
			l.TLSInspector, l.HTTPInspector = &translate.Inspector{}, &translate.Inspector{}
			f := start(t, capture.Config{Observer: o}, l)
			var conn net.Conn
			if served.TLS == nil {
				conn = f.dial("tcp")
			} else {
				client := tls.Client(f.dial("tcp"), &tls.Config{InsecureSkipVerify: true, ServerName: "a.test"})
				defer client.Close()
				conn = client
			}
			exchange(t, conn, "hello")
			exchange(t, conn, text)
			_ = conn.Close()
			c := o.last(t)
			if want := int64(len("hello" + text)); c.Sent.Load() != want || c.Received.Load() != want {
				t.Errorf("%d bytes were sent and %d received, want %d each", c.Sent.Load(), c.Received.Load(), want)
			}
			if c.Upstream.IsValid() || c.Cluster != "tcp" {
				t.Errorf("it went to %s of %s, which APISIX chooses", c.Upstream, c.Cluster)
			}
			if served.TLS != nil && c.ServerName != "a.test" {
				t.Errorf("the server name is %q", c.ServerName)
			}
		})
	}
}

func TestWhyConnectionsAreRefusedIsObserved(t *testing.T) {
	to := func(cluster translate.TCPCluster) *translate.FilterChain {
		return &translate.FilterChain{Key: "tcp", TCP: &translate.TCPProxy{Clusters: []translate.TCPCluster{cluster}}}
	}
	forbidden := passthrough(0)
	forbidden.Policies = []*translate.NetworkPolicy{{}}
	for name, c := range map[string]struct {
		chains                 []*translate.FilterChain
		chain, cluster, reason string
		detail                 string
	}{
		"no chain":           {nil, "", "", capture.ReasonNoChain, ""},
		"the chain":          {[]*translate.FilterChain{{Key: "tcp", Refused: "why"}}, "tcp", "", capture.ReasonChain, "why"},
		"the cluster":        {[]*translate.FilterChain{to(translate.TCPCluster{Name: "black", Refused: "why"})}, "tcp", "black", capture.ReasonChain, `cluster "black": why`},
		"a policy":           {[]*translate.FilterChain{forbidden}, "passthrough", "", capture.ReasonPolicy, "no policy allows it"},
		"nobody is there":    {[]*translate.FilterChain{passthrough(0)}, "passthrough", "PassthroughCluster", "dial", "connection refused"},
		"no TLS":             {[]*translate.FilterChain{terminating(t, passthrough(0))}, "passthrough", "", capture.ReasonTLS, "TLS"},
		"APISIX is not here": {[]*translate.FilterChain{to(translate.TCPCluster{Name: "a", Port: nobody(t).Port()})}, "tcp", "a", "dial", "connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			o := new(observed)
			f := start(t, capture.Config{Observer: o}, virtual(translate.Outbound, c.chains...))
			f.sends(nobody(t))
			eventually(t, func() bool { return f.Addr("virtualoutbound") != nil })
			if conn, err := net.Dial("tcp", f.Addr("virtualoutbound").String()); err == nil { // it may be reset by then
				defer conn.Close()
				_, _ = io.WriteString(conn, "no ClientHello")
			}
			got := o.last(t)
			if !o.is(0, 1) {
				t.Error("it is known to have opened")
			}
			if got.Chain != c.chain || got.Cluster != c.cluster || got.Outcome != "refused" || got.Reason != c.reason || !strings.Contains(got.Detail, c.detail) {
				t.Errorf("it is known as %+v", got)
			}
		})
	}
}

func TestRequestsAreNotObserved(t *testing.T) {
	b := serve(t, true, echo)
	o := new(observed)
	f := start(t, capture.Config{Observer: o, HTTP: b.addr}, bound("http", toHTTP("http")),
		virtual(translate.Inbound, terminating(t, toHTTP("tls"))))
	conn := f.dial("http")
	exchange(t, conn, "hello")
	_ = conn.Close()
	refused := f.dial("virtualinbound")
	_, _ = io.WriteString(refused, "no ClientHello")
	_, _ = io.Copy(io.Discard, refused)
	eventually(t, func() bool { return f.Connections() == 0 })
	if !o.is(0, 0) {
		t.Error("a connection of HTTP is observed")
	}
}

func TestThePeerOfAConnectionIsObserved(t *testing.T) {
	ca := identitytest.NewCA(t, "mesh")
	b := serve(t, false, echo)
	server, client := new(observed), new(observed)
	chain := passthrough(0)
	chain.TLS = inboundChain().TLS
	l := virtual(translate.Inbound, chain)
	l.TLSInspector = &translate.Inspector{}
	far := start(t, capture.Config{Observer: server, Identity: identitytest.NewSource(ca.Identity(t, idB))}, l)
	far.sends(b.addr)
	eventually(t, func() bool { return far.Addr("virtualinbound") != nil })

	toMesh := passthrough(0)
	toMesh.TCP.Clusters[0].OriginalDestination.TLS = &translate.UpstreamTLS{
		Credential: translate.Credential{Workload: true}, Authorities: translate.Credential{Workload: true}, ServerName: "b.test",
	}
	near := start(t, capture.Config{Observer: client, Identity: identitytest.NewSource(ca.Identity(t, idA))}, virtual(translate.Outbound, toMesh))
	near.sends(far.Addr("virtualinbound").(*net.TCPAddr).AddrPort())
	conn := near.dial("virtualoutbound")
	exchange(t, conn, "hello")
	_ = conn.Close()
	if c := client.last(t); c.UpstreamPrincipal != idB || !c.Local.IsValid() || c.Sent.Load() != 5 || c.Received.Load() != 5 {
		t.Errorf("the client's side knows of %+v", c)
	}
	if c := server.last(t); !c.MutualTLS || c.Principal != idA || c.ServerName != "b.test" || c.Sent.Load() != 5 || c.Received.Load() != 5 {
		t.Errorf("the server's side knows of %+v", c)
	}
}

func TestHoweverConnectionsEndIsObservedOnce(t *testing.T) {
	// Of each ending, one that an event loop relays and one that goroutines relay.
	for name, c := range map[string]struct {
		idle time.Duration
		end  func(f *fixture, conns []net.Conn)
		want string
	}{
		"closed": {0, func(_ *fixture, conns []net.Conn) {
			for _, conn := range conns {
				_ = conn.Close()
			}
		}, "closed"},
		"reset": {0, func(_ *fixture, conns []net.Conn) {
			for _, conn := range conns {
				if wrapped, ok := conn.(*tls.Conn); ok {
					conn = wrapped.NetConn()
				}
				_ = conn.(*net.TCPConn).SetLinger(0)
				_ = conn.Close()
			}
		}, "reset"},
		"idle": {50 * time.Millisecond, func(*fixture, []net.Conn) {}, "idle"},
		"the server ends": {0, func(f *fixture, _ []net.Conn) {
			f.stop()
		}, "stopped"},
		"a drain that takes too long": {0, func(f *fixture, _ []net.Conn) {
			ctx, cancel := context.WithCancel(f.t.Context())
			cancel()
			if err := f.Drain(ctx); !errors.Is(err, context.Canceled) {
				f.t.Error(err)
			}
		}, "stopped"},
		"after another process accepts": {0, func(f *fixture, conns []net.Conn) {
			f.Leave()
			for _, conn := range conns {
				exchange(f.t, conn, "more")
				_ = conn.Close()
			}
		}, "closed"},
	} {
		t.Run(name, func(t *testing.T) {
			b := serve(t, false, echo)
			o := new(observed)
			plain := virtual(translate.Inbound, passthrough(c.idle))
			secure := virtual(translate.Outbound, terminating(t, passthrough(c.idle)))
			f := start(t, capture.Config{Observer: o}, plain, secure)
			f.sends(b.addr)
			conns := []net.Conn{f.dial("virtualinbound"), f.dialTLS("virtualoutbound")}
			for _, conn := range conns {
				exchange(t, conn, "hello")
			}
			c.end(f, conns)
			eventually(t, func() bool { return o.is(2, 2) })
			f.stop() // nothing more is told after it
			if !o.is(2, 2) {
				t.Fatal("an end is told twice")
			}
			for _, got := range o.closed {
				if got.Outcome != c.want || got.Received.Load() < 5 || got.Sent.Load() < 5 {
					t.Errorf("it ended as %+v", got)
				}
			}
		})
	}
}

func TestAConnectionThatIsStoppedBeforeItIsOpenIsObservedOnce(t *testing.T) {
	for range 20 {
		o := new(observed)
		b := serve(t, false, echo)
		f := start(t, capture.Config{Observer: o}, virtual(translate.Outbound, terminating(t, passthrough(0))))
		f.sends(b.addr)
		conns := make([]net.Conn, 10)
		for i := range conns {
			conns[i] = f.dial("virtualoutbound")
		}
		var clients sync.WaitGroup
		for _, conn := range conns {
			clients.Go(func() { _ = tls.Client(conn, &tls.Config{InsecureSkipVerify: true}).Handshake() })
		}
		f.stop()
		clients.Wait()
		seen := map[*capture.Connected]int{}
		for _, c := range o.closed {
			if seen[c]++; seen[c] > 1 {
				t.Fatalf("the end of %+v is told twice", c)
			}
		}
		for _, c := range o.opened {
			if seen[c] != 1 {
				t.Fatalf("the end of %+v is not told", c)
			}
		}
	}
}

func TestConnectionsUnderLoadAreObservedExactly(t *testing.T) {
	clients, each := 100, 20
	if raceEnabled {
		clients, each = 20, 10
	}
	b := serve(t, true, echo)
	original := serve(t, false, echo)
	o := new(observed)
	f := start(t, capture.Config{Observer: o}, bound("stream", toPort("stream", b)),
		virtual(translate.Outbound, passthrough(0)), virtual(translate.Inbound, terminating(t, passthrough(0))))
	f.sends(original.addr)
	listeners := []string{"stream", "virtualoutbound", "virtualinbound"}
	want := map[string]int64{}
	var all sync.WaitGroup
	var mu sync.Mutex
	for i := range clients {
		eventually(t, func() bool { return f.Addr(listeners[i%3]) != nil })
		all.Go(func() {
			for j := range each {
				text := strings.Repeat("x", 1+i*j*7)
				conn, err := net.Dial("tcp", f.Addr(listeners[i%3]).String())
				if err != nil {
					t.Error(err)
					return
				}
				if i%3 == 2 {
					conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
				}
				_, err = io.WriteString(conn, text)
				if err == nil {
					_, err = io.ReadFull(conn, make([]byte, len(text)))
				}
				if err != nil {
					t.Error(err)
				}
				_ = conn.Close()
				mu.Lock()
				want[listeners[i%3]] += int64(len(text))
				mu.Unlock()
			}
		})
	}
	all.Wait()
	eventually(t, func() bool { return o.is(clients*each, clients*each) })
	sent, received := map[string]int64{}, map[string]int64{}
	for _, c := range o.closed {
		sent[c.Listener.Name] += c.Sent.Load()
		received[c.Listener.Name] += c.Received.Load()
	}
	for what, got := range map[string]map[string]int64{"sent": sent, "received": received} {
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("bytes %s (-want +got):\n%s", what, diff)
		}
	}
}

func TestAnEarlyAnswerIsObserved(t *testing.T) {
	// The server ends before it has read what the client sends.
	b := serve(t, false, func(_ *bufio.Reader, conn *net.TCPConn) { _, _ = fmt.Fprint(conn, "go away") })
	o := new(observed)
	f := start(t, capture.Config{Observer: o}, virtual(translate.Outbound, passthrough(0)))
	f.sends(b.addr)
	got, err := io.ReadAll(f.dial("virtualoutbound"))
	if err != nil || string(got) != "go away" {
		t.Fatalf("%q, %v", got, err)
	}
	f.stop()
	if c := o.last(t); c.Sent.Load() != int64(len(got)) {
		t.Errorf("%d bytes were sent, want %d", c.Sent.Load(), len(got))
	}
}

var _ capture.Observer = (*observed)(nil)
