package dns

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/dns/dnsmessage"
)

func TestMalformedQueriesAreRefused(t *testing.T) {
	good := pack(t, "a.example.", dnsmessage.TypeA, nil)
	with := func(change func(m []byte) []byte) []byte { return change(bytes.Clone(good)) }
	registry := prometheus.NewRegistry()
	s := start(t, Config{Registerer: registry})
	s.SetNames([]Host{{Name: "a.example", Addresses: addrs("10.0.0.1")}})
	for _, test := range []struct {
		name    string
		message []byte
		want    string
	}{
		{"no question", with(func(m []byte) []byte { m[5] = 0; return m[:12] }), "formerr"},
		{"two questions", with(func(m []byte) []byte { m[5] = 2; return m }), "formerr"},
		{"half a question", good[:len(good)-2], "formerr"},
		{"a pointer for a name", with(func(m []byte) []byte { return append(append(m[:12:12], 0xc0, 12), m[len(m)-4:]...) }), "formerr"},
		{"a dot in a label", with(func(m []byte) []byte { m[13+1] = '.'; m[12] = 9; return m }), "formerr"},
		{"missing records", with(func(m []byte) []byte { m[11] = 3; return m }), "formerr"},
		{"an update", with(func(m []byte) []byte { m[2] |= 5 << 3; return m }), "notimp"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, network := range []string{"udp", "tcp"} {
				m := unpack(t, send(t, s, network, test.message))
				if summary(m) != test.want || m.ID != 4711 || !m.Response {
					t.Errorf("%s: %s, id %d", network, summary(m), m.ID)
				}
			}
		})
	}
	if got := queries(t, registry, answeredBad); got != 14 {
		t.Errorf("%v counted", got)
	}
}

// Whoever answers a response can be kept busy for ever by a forged one.
func TestResponsesAreNotAnswered(t *testing.T) {
	s := start(t, Config{})
	s.SetNames([]Host{{Name: "a.example", Addresses: addrs("10.0.0.1")}})
	conn := dialTo(t, s, "udp")
	response := pack(t, "a.example.", dnsmessage.TypeA, nil)
	response[2] |= flagResponse
	for _, message := range [][]byte{response, {}, []byte("short"), make([]byte, 11)} {
		if _, err := conn.Write(message); err != nil {
			t.Fatal(err)
		}
	}
	query := pack(t, "a.example.", dnsmessage.TypeA, nil)
	binary.BigEndian.PutUint16(query, 1)
	if _, err := conn.Write(query); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 512)
	n, err := conn.Read(buffer)
	if err != nil {
		t.Fatal(err)
	}
	if m := unpack(t, buffer[:n]); m.ID != 1 {
		t.Errorf("something else was answered first, with id %d", m.ID)
	}
	over := dialTo(t, s, "tcp")
	if err := writeFramed(over, response); err != nil {
		t.Fatal(err)
	}
	if _, err := readFramed(over); !errors.Is(err, io.EOF) {
		t.Errorf("over TCP: %v", err)
	}
}

func TestQueriesOnOneConnectionAreAnsweredInOrder(t *testing.T) {
	upstream := newNameserver(t)
	s := start(t, Config{Upstreams: to(upstream)})
	s.SetNames(table())
	conn := dialTo(t, s, "tcp")
	names := []string{"reviews.ns1.", "outside.example.", "ratings.ns2."}
	var all []byte
	for i, name := range names {
		query := pack(t, name, dnsmessage.TypeA, nil)
		binary.BigEndian.PutUint16(query, uint16(i))
		all = append(binary.BigEndian.AppendUint16(all, uint16(len(query))), query...)
	}
	for _, b := range all { // in as many segments as possible
		if _, err := conn.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	for i, name := range names {
		response, err := readFramed(conn)
		if err != nil {
			t.Fatal(err)
		}
		if m := unpack(t, response); int(m.ID) != i || m.Questions[0].Name.String() != name || len(m.Answers) != 1 {
			t.Errorf("%d: %v", i, m)
		}
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	s := start(t, Config{MaxConnections: 1})
	s.SetNames(table())
	first := dialTo(t, s, "tcp")
	exchange := func(conn net.Conn) error {
		if err := writeFramed(conn, pack(t, "reviews.ns1.", dnsmessage.TypeA, nil)); err != nil {
			return err
		}
		_, err := readFramed(conn)
		return err
	}
	if err := exchange(first); err != nil {
		t.Fatal(err)
	}
	if err := exchange(dialTo(t, s, "tcp")); err == nil {
		t.Error("a second connection is served")
	}
	if err := exchange(first); err != nil {
		t.Errorf("the first connection suffers: %v", err)
	}
	first.Close()
	deadline := time.Now().Add(patience)
	for exchange(dialTo(t, s, "tcp")) != nil {
		if time.Now().After(deadline) {
			t.Fatal("no connection is served after the first one ended")
		}
	}
}

func TestIPv6AndSeveralAddresses(t *testing.T) {
	sockets, err := listen([]netip.AddrPort{netip.MustParseAddrPort("[::1]:0")})
	if err != nil {
		t.Skip("no IPv6 here:", err)
	}
	sockets[0].close()
	s := start(t, Config{Addresses: []netip.AddrPort{netip.MustParseAddrPort("[::1]:0"), netip.MustParseAddrPort("127.0.0.1:0")}})
	s.SetNames(table())
	if len(s.Addresses()) != 2 || !s.Addresses()[0].Addr().Is6() {
		t.Errorf("addresses %v", s.Addresses())
	}
	if got := ask(t, s, "reviews.ns1.", dnsmessage.TypeA); got != "ok aa: reviews.ns1. A 10.0.0.1" {
		t.Error(got)
	}
}

func TestAnAddressInUseIsNamed(t *testing.T) {
	s := start(t, Config{})
	_, err := New(Config{Addresses: s.Addresses()})
	if err == nil || !strings.Contains(err.Error(), s.Addresses()[0].String()) {
		t.Errorf("error %v", err)
	}
}

func TestConfigurationIsChecked(t *testing.T) {
	for _, config := range []Config{{Addresses: []netip.AddrPort{{}}}, {Upstreams: []netip.AddrPort{{}}}, {Timeout: -1}, {MaxForwarded: -1}} {
		if _, err := New(config); err == nil {
			t.Errorf("no error for %+v", config)
		}
	}
}

// Whatever comes in, what goes out is a well-formed response to it that fits, or nothing.
func FuzzQuery(f *testing.F) {
	for _, host := range []string{"a.example.", "x.wild.example.ns1.svc.cluster.local.", "unknown.", "."} {
		m := dnsmessage.Message{
			Header:    dnsmessage.Header{ID: 1, RecursionDesired: true},
			Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(host), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
		}
		b, _ := m.Pack()
		f.Add(b)
	}
	n := newNames(append(table(), Host{Name: "a.example", Addresses: addrs("10.0.0.1", "fd00::1")}), "ns1", "svc.cluster.local")
	f.Fuzz(func(t *testing.T, message []byte) {
		for _, overUDP := range []bool{true, false} {
			q, fault := parseQuery(message, overUDP)
			var response []byte
			switch {
			case fault == faultSilent:
				continue
			case fault != faultNone:
				response = refuse(message, dnsmessage.RCode(fault))
			default:
				response = q.fail(dnsmessage.RCodeServerFailure)
				if found, alias := n.lookup(q.name, "ns1.svc.cluster.local."); found != nil && (q.kind == dnsmessage.TypeA || q.kind == dnsmessage.TypeAAAA) {
					var err error
					if response, err = q.answer(found, alias); err != nil {
						t.Fatal(err)
					}
				}
				if len(response) > q.limit {
					t.Errorf("%d bytes for a client that takes %d", len(response), q.limit)
				}
				if !q.answeredBy(response, q.id) {
					t.Error("the response is not one to the query")
				}
			}
			var m dnsmessage.Message
			if err := m.Unpack(response); err != nil || !m.Response || m.ID != binary.BigEndian.Uint16(message) {
				t.Errorf("response %x: %v", response, err)
			}
		}
	})
}

// A response is cut at the end of a record, and what is left has as many records as it says.
func FuzzFit(f *testing.F) {
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{Response: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("a.example."), Type: dnsmessage.TypeTXT, Class: dnsmessage.ClassINET}},
	}
	for _, text := range []string{"x", strings.Repeat("y", 200), strings.Repeat("z", 255)} {
		m.Answers = append(m.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Class: dnsmessage.ClassINET},
			Body:   &dnsmessage.TXTResource{TXT: []string{text}},
		})
	}
	b, _ := m.Pack()
	f.Add(b, 512)
	f.Add(b, 40)
	f.Fuzz(func(t *testing.T, response []byte, limit int) {
		limit = max(limit, minUDPSize)
		before := bytes.Clone(response)
		short, err := fit(response, limit)
		if !bytes.Equal(before, response) {
			t.Error("the response itself was changed")
		}
		if err != nil || len(response) <= limit {
			return
		}
		if len(short) > limit {
			t.Errorf("%d bytes for %d", len(short), limit)
		}
		at := headerLength
		for range binary.BigEndian.Uint16(short[questionCount:]) {
			end, err := skipName(short, at)
			if err != nil {
				t.Fatal(err)
			}
			at = end + questionFixed
		}
		last := at
		if err := eachRecord(short, at, func(r record) error { last = r.end; return nil }); err != nil || last != len(short) {
			t.Errorf("%v, records end at %d of %d", err, last, len(short))
		}
	})
}
