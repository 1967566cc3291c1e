package dns

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// server is a DNS server on loopback, over UDP and TCP on one port.
type server struct {
	address string

	mu      sync.Mutex
	zone    map[string][]dnsmessage.Resource       // guarded by mu: by name with the final dot
	codes   map[string]dnsmessage.RCode            // guarded by mu: what is answered instead
	mutate  func(*dnsmessage.Message, string) bool // guarded by mu: may change a response, or suppress it with false
	queries []string                               // guarded by mu: "network type name"
}

func newServer(t *testing.T) *server {
	t.Helper()
	udp, tcp := listen(t)
	s := &server{address: udp.LocalAddr().String(), zone: map[string][]dnsmessage.Resource{}, codes: map[string]dnsmessage.RCode{}}
	var running sync.WaitGroup
	running.Go(func() {
		buffer := make([]byte, 4096)
		for {
			n, from, err := udp.ReadFrom(buffer)
			if err != nil {
				return
			}
			for _, response := range s.respond(t, "udp", buffer[:n]) {
				_, _ = udp.WriteTo(response, from)
			}
		}
	})
	running.Go(func() {
		for {
			conn, err := tcp.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				var length [2]byte
				if _, err := io.ReadFull(conn, length[:]); err != nil {
					return
				}
				query := make([]byte, binary.BigEndian.Uint16(length[:]))
				if _, err := io.ReadFull(conn, query); err != nil {
					return
				}
				for _, response := range s.respond(t, "tcp", query) {
					_, _ = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(response))), response...))
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = udp.Close()
		_ = tcp.Close()
		running.Wait()
	})
	return s
}

// listen finds a port that is free for both.
func listen(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	var err error
	for range 100 {
		udp, failed := net.ListenPacket("udp", "127.0.0.1:0")
		if failed != nil {
			t.Fatal(failed)
		}
		var tcp net.Listener
		if tcp, err = net.Listen("tcp", udp.LocalAddr().String()); err == nil {
			return udp, tcp
		}
		_ = udp.Close()
	}
	t.Fatal(err)
	return nil, nil
}

// respond returns the messages that answer a query, of which there may be none.
func (s *server) respond(t *testing.T, network string, query []byte) [][]byte {
	t.Helper()
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil || len(m.Questions) != 1 {
		t.Errorf("query %x: %v", query, err)
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	q := m.Questions[0]
	name := q.Name.String()
	s.queries = append(s.queries, network+" "+q.Type.String()[len("Type"):]+" "+name)
	m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
	records, exists := s.zone[name]
	for _, r := range records {
		if r.Header.Type == q.Type || r.Header.Type == dnsmessage.TypeCNAME || r.Header.Name != q.Name {
			m.Answers = append(m.Answers, r)
		}
	}
	if !exists {
		m.RCode = dnsmessage.RCodeNameError
	}
	if code, ok := s.codes[name]; ok {
		m.RCode, m.Answers = code, nil
	}
	if s.mutate != nil && !s.mutate(&m, network) {
		return nil
	}
	response, err := m.Pack()
	if err != nil {
		t.Errorf("response to %s: %v", name, err)
		return nil
	}
	return [][]byte{response}
}

// asked returns the queries since it was last called.
func (s *server) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	queries := s.queries
	s.queries = nil
	return queries
}

// set makes the records of a name A and AAAA records of the addresses.
func (s *server) set(name string, ttl uint32, addresses ...string) {
	records := make([]dnsmessage.Resource, 0, len(addresses))
	for _, a := range addresses {
		records = append(records, addressRecord(name, ttl, a))
	}
	s.setRecords(name, records...)
}

func (s *server) setRecords(name string, records ...dnsmessage.Resource) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.zone[name] = records
}

// mutating makes change part of every response from now on.
func (s *server) mutating(change func(m *dnsmessage.Message, network string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mutate = change
}

func (s *server) fail(name string, code dnsmessage.RCode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.codes[name] = code
}

func addressRecord(name string, ttl uint32, address string) dnsmessage.Resource {
	ip := netip.MustParseAddr(address)
	h := dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(name), Class: dnsmessage.ClassINET, TTL: ttl}
	if ip.Is4() {
		h.Type = dnsmessage.TypeA
		return dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: ip.As4()}}
	}
	h.Type = dnsmessage.TypeAAAA
	return dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: ip.As16()}}
}

func alias(name string, ttl uint32, target string) dnsmessage.Resource {
	return dnsmessage.Resource{
		Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(name), Type: dnsmessage.TypeCNAME, Class: dnsmessage.ClassINET, TTL: ttl},
		Body:   &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName(target)},
	}
}
