package dns

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long tests wait for what should take milliseconds.
const patience = 20 * time.Second

// start runs a server on a free port. Its search list is that of a pod in the namespace ns1.
func start(t *testing.T, config Config) *Server {
	t.Helper()
	if config.ResolvConf == "" {
		config.ResolvConf = filepath.Join(t.TempDir(), "resolv.conf")
		text := "nameserver 127.0.0.1\nsearch ns1.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"
		if err := os.WriteFile(config.ResolvConf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if config.Addresses == nil {
		config.Addresses = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}
	}
	config.Namespace, config.Domain = "ns1", "ns1.svc.cluster.local"
	s, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return s
}

func addrs(texts ...string) []netip.Addr {
	var list []netip.Addr
	for _, text := range texts {
		list = append(list, netip.MustParseAddr(text))
	}
	return list
}

// pack makes a query.
func pack(t *testing.T, name string, kind dnsmessage.Type, options func(*dnsmessage.ResourceHeader)) []byte {
	t.Helper()
	owner, err := dnsmessage.NewName(name)
	if err != nil {
		t.Fatal(err)
	}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 4711, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: owner, Type: kind, Class: dnsmessage.ClassINET}},
	}
	if options != nil {
		var h dnsmessage.ResourceHeader
		options(&h)
		m.Additionals = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.OPTResource{Options: []dnsmessage.Option{{Code: 10, Data: []byte("cookie!!")}}}}}
	}
	packed, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return packed
}

func edns(size int) func(*dnsmessage.ResourceHeader) {
	return func(h *dnsmessage.ResourceHeader) { _ = h.SetEDNS0(size, dnsmessage.RCodeSuccess, true) }
}

// dialTo opens a connection to the server that does not outlive the test.
func dialTo(t *testing.T, s *Server, network string) net.Conn {
	t.Helper()
	conn, err := net.DialTimeout(network, s.Addresses()[0].String(), patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return conn
}

// send asks the server and returns its response as it is.
func send(t *testing.T, s *Server, network string, message []byte) []byte {
	t.Helper()
	conn := dialTo(t, s, network)
	if network == "tcp" {
		if err := writeFramed(conn, message); err != nil {
			t.Fatal(err)
		}
		response, err := readFramed(conn)
		if err != nil {
			t.Fatal(err)
		}
		return response
	}
	if _, err := conn.Write(message); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, maxMessage)
	n, err := conn.Read(buffer)
	if err != nil {
		t.Fatal(err)
	}
	return buffer[:n]
}

func unpack(t *testing.T, response []byte) dnsmessage.Message {
	t.Helper()
	var m dnsmessage.Message
	if err := m.Unpack(response); err != nil {
		t.Fatalf("the response is malformed: %v", err)
	}
	return m
}

// ask asks over UDP with a small datagram, and returns the response as a line of text.
func ask(t *testing.T, s *Server, name string, kind dnsmessage.Type) string {
	t.Helper()
	return summary(unpack(t, send(t, s, "udp", pack(t, name, kind, nil))))
}

// summary is such as "ok aa: a.example. CNAME b. | b. A 10.0.0.1", with answers in order of their text.
func summary(m dnsmessage.Message) string {
	var b strings.Builder
	b.WriteString(map[dnsmessage.RCode]string{
		dnsmessage.RCodeSuccess: "ok", dnsmessage.RCodeNameError: "nxdomain", dnsmessage.RCodeServerFailure: "servfail",
		dnsmessage.RCodeFormatError: "formerr", dnsmessage.RCodeNotImplemented: "notimp", dnsmessage.RCodeRefused: "refused",
	}[m.RCode])
	if m.Authoritative {
		b.WriteString(" aa")
	}
	if m.Truncated {
		b.WriteString(" tc")
	}
	var lines []string
	for _, a := range m.Answers {
		line := a.Header.Name.String() + " "
		switch r := a.Body.(type) {
		case *dnsmessage.AResource:
			line += "A " + netip.AddrFrom4(r.A).String()
		case *dnsmessage.AAAAResource:
			line += "AAAA " + netip.AddrFrom16(r.AAAA).String()
		case *dnsmessage.CNAMEResource:
			line += "CNAME " + r.CNAME.String()
		case *dnsmessage.TXTResource:
			line += "TXT " + strings.Join(r.TXT, "")
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	if len(lines) > 0 {
		b.WriteString(": " + strings.Join(lines, " | "))
	}
	return b.String()
}

// nameserver is where queries are forwarded to, over UDP and TCP.
type nameserver struct {
	address netip.AddrPort

	mu      sync.Mutex
	reply   func(network string, q dnsmessage.Message) [][]byte // guarded by mu
	queries []string                                            // guarded by mu: "network type name"
	raw     [][]byte                                            // guarded by mu
	more    chan struct{}                                       // guarded by mu: closed with the next query
}

func newNameserver(t *testing.T) *nameserver {
	t.Helper()
	sockets, err := listen([]netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")})
	if err != nil {
		t.Fatal(err)
	}
	socket := sockets[0]
	n := &nameserver{address: socket.address, more: make(chan struct{}), reply: func(_ string, q dnsmessage.Message) [][]byte {
		return [][]byte{answerTo(t, q, "upstream")}
	}}
	var running sync.WaitGroup
	running.Go(func() {
		buffer := make([]byte, maxMessage)
		for {
			k, from, err := socket.udp.ReadFromUDPAddrPort(buffer)
			if err != nil {
				return
			}
			for _, response := range n.respond("udp", buffer[:k]) {
				_, _ = socket.udp.WriteToUDPAddrPort(response, from)
			}
		}
	})
	running.Go(func() {
		for {
			conn, err := socket.tcp.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				message, err := readFramed(conn)
				if err != nil {
					return
				}
				for _, response := range n.respond("tcp", message) {
					_ = writeFramed(conn, response)
				}
				_, _ = io.Copy(io.Discard, conn)
			})
		}
	})
	t.Cleanup(func() {
		socket.close()
		running.Wait()
	})
	return n
}

func (n *nameserver) respond(network string, message []byte) [][]byte {
	var q dnsmessage.Message
	if q.Unpack(message) != nil || len(q.Questions) != 1 {
		return nil
	}
	n.mu.Lock()
	n.queries = append(n.queries, network+" "+strings.TrimPrefix(q.Questions[0].Type.String(), "Type")+" "+q.Questions[0].Name.String())
	n.raw = append(n.raw, bytes.Clone(message))
	close(n.more)
	n.more = make(chan struct{})
	reply := n.reply
	n.mu.Unlock()
	return reply(network, q)
}

func (n *nameserver) set(reply func(network string, q dnsmessage.Message) [][]byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.reply = reply
}

// fail makes the nameserver answer with a code alone.
func (n *nameserver) fail(t *testing.T, code dnsmessage.RCode) {
	t.Helper()
	n.set(func(_ string, q dnsmessage.Message) [][]byte {
		q.Response, q.RCode, q.Additionals = true, code, nil
		return [][]byte{packed(t, q)}
	})
}

func (n *nameserver) silence() { n.set(func(string, dnsmessage.Message) [][]byte { return nil }) }

// asked waits for that many queries and returns them.
func (n *nameserver) asked(t *testing.T, count int) []string {
	t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		n.mu.Lock()
		queries, more := slices.Clone(n.queries), n.more
		n.mu.Unlock()
		if len(queries) >= count {
			return queries
		}
		select {
		case <-more:
		case <-timeout.C:
			t.Fatalf("asked %q, want %d queries", queries, count)
		}
	}
}

func packed(t *testing.T, m dnsmessage.Message) []byte {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Error(err)
	}
	return b
}

// answerTo is a response with one TXT record of that text.
func answerTo(t *testing.T, q dnsmessage.Message, texts ...string) []byte {
	t.Helper()
	q.Response, q.RecursionAvailable = true, true
	for _, text := range texts {
		q.Answers = append(q.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: q.Questions[0].Name, Class: dnsmessage.ClassINET, TTL: 5},
			Body:   &dnsmessage.TXTResource{TXT: []string{text}},
		})
	}
	return packed(t, q)
}

// logbook collects log lines.
type logbook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logbook) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logbook) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// listen opens addresses as New does.
func listen(addresses []netip.AddrPort) ([]*socket, error) {
	c, err := Config{Addresses: addresses}.withDefaults()
	if err != nil {
		return nil, err
	}
	return c.listen()
}
