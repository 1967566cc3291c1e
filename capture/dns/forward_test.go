package dns

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/dns/dnsmessage"
)

func to(servers ...*nameserver) []netip.AddrPort {
	var list []netip.AddrPort
	for _, s := range servers {
		list = append(list, s.address)
	}
	return list
}

// started is a server that has its table, which is empty.
func started(t *testing.T, config Config) *Server {
	t.Helper()
	s := start(t, config)
	s.SetNames(nil)
	return s
}

// unused is an address at which nothing listens.
func unused(t *testing.T) netip.AddrPort {
	t.Helper()
	sockets, err := listen([]netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")})
	if err != nil {
		t.Fatal(err)
	}
	sockets[0].close()
	return sockets[0].address
}

// What is not of the mesh goes through as it is, both ways, but for the id.
func TestOtherQueriesAreForwardedAsTheyAre(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			upstream := newNameserver(t)
			s := started(t, Config{Upstreams: to(upstream)})
			query := pack(t, "Text.example.", dnsmessage.TypeTXT, edns(1232))
			response := send(t, s, network, query)
			m := unpack(t, response)
			if m.ID != 4711 || summary(m) != "ok: Text.example. TXT upstream" {
				t.Errorf("id %d, %s", m.ID, summary(m))
			}
			if len(m.Additionals) != 1 {
				t.Errorf("EDNS is not passed through: %v", m.Additionals)
			}
			if got := upstream.asked(t, 1); got[0] != network+" TXT Text.example." {
				t.Errorf("asked %q", got)
			}
			if diff := cmp.Diff(query[2:], upstream.raw[0][2:]); diff != "" {
				t.Errorf("the query differs: %s", diff)
			}
		})
	}
}

func TestTheNextNameserverIsAskedWhereOneFails(t *testing.T) {
	for _, code := range []dnsmessage.RCode{dnsmessage.RCodeServerFailure, dnsmessage.RCodeRefused, dnsmessage.RCodeNotImplemented} {
		t.Run(code.String(), func(t *testing.T) {
			first, second := newNameserver(t), newNameserver(t)
			first.fail(t, code)
			s := started(t, Config{Upstreams: to(first, second)})
			if got := ask(t, s, "a.example.", dnsmessage.TypeA); got != "ok: a.example. TXT upstream" {
				t.Error(got)
			}
			if n := len(first.asked(t, 1)); n != 1 {
				t.Errorf("the one that fails is asked %d times", n)
			}
		})
	}
	t.Run("nothing listens", func(t *testing.T) {
		for _, network := range []string{"udp", "tcp"} {
			s := started(t, Config{Upstreams: append([]netip.AddrPort{unused(t)}, to(newNameserver(t))...)})
			m := unpack(t, send(t, s, network, pack(t, "a.example.", dnsmessage.TypeA, nil)))
			if summary(m) != "ok: a.example. TXT upstream" {
				t.Errorf("%s: %s", network, summary(m))
			}
		}
	})
	t.Run("silent", func(t *testing.T) {
		first, second := newNameserver(t), newNameserver(t)
		first.silence()
		s := started(t, Config{Upstreams: to(first, second)})
		if got := ask(t, s, "a.example.", dnsmessage.TypeA); got != "ok: a.example. TXT upstream" {
			t.Error(got)
		}
	})
}

// "No such name" is an answer: the next nameserver has no say.
func TestANameThatDoesNotExistIsNotAskedForAgain(t *testing.T) {
	first, second := newNameserver(t), newNameserver(t)
	first.fail(t, dnsmessage.RCodeNameError)
	s := started(t, Config{Upstreams: to(first, second)})
	if got := ask(t, s, "a.example.", dnsmessage.TypeA); got != "nxdomain" {
		t.Error(got)
	}
	if n := len(second.asked(t, 0)); n != 0 {
		t.Errorf("the second is asked %d times", n)
	}
}

func TestNameserversAreAskedAtOnceInParallel(t *testing.T) {
	silent, second, third := newNameserver(t), newNameserver(t), newNameserver(t)
	silent.silence()
	second.fail(t, dnsmessage.RCodeServerFailure)
	s := started(t, Config{Upstreams: to(silent, second, third), Parallel: true})
	if got := ask(t, s, "a.example.", dnsmessage.TypeA); got != "ok: a.example. TXT upstream" {
		t.Error(got)
	}
	silent.asked(t, 1)
	second.asked(t, 1)
}

func TestFailureOfAllNameserversIsTold(t *testing.T) {
	log, registry := &logbook{}, prometheus.NewRegistry()
	silent := newNameserver(t)
	silent.silence()
	nobody := unused(t)
	s := started(t, Config{
		Upstreams: append(to(silent), nobody), Timeout: 50 * time.Millisecond, Logger: log.logger(), Registerer: registry,
	})
	for range 3 {
		if got := ask(t, s, "a.example.", dnsmessage.TypeA); got != "servfail" {
			t.Error(got)
		}
	}
	if strings.Count(log.String(), "could not be forwarded") != 1 {
		t.Errorf("not told once:\n%s", log)
	}
	if got := queries(t, registry, answeredFailed); got != 3 {
		t.Errorf("%v failures counted", got)
	}
}

func TestNameserversThatAllFailAreBelieved(t *testing.T) {
	upstream := newNameserver(t)
	upstream.fail(t, dnsmessage.RCodeRefused)
	s := started(t, Config{Upstreams: to(upstream)})
	if got := ask(t, s, "a.example.", dnsmessage.TypeA); got != "refused" {
		t.Error(got)
	}
}

func TestForgedResponsesAreIgnored(t *testing.T) {
	upstream := newNameserver(t)
	upstream.set(func(_ string, q dnsmessage.Message) [][]byte {
		otherID, otherName, otherType, query := q, q, q, q
		otherID.ID++
		otherName.Questions = []dnsmessage.Question{q.Questions[0]}
		otherName.Questions[0].Name = dnsmessage.MustNewName("b.example.")
		otherType.Questions = []dnsmessage.Question{q.Questions[0]}
		otherType.Questions[0].Type = dnsmessage.TypeMX
		return [][]byte{
			answerTo(t, otherID, "forged"), answerTo(t, otherName, "forged"), answerTo(t, otherType, "forged"),
			packed(t, query),
			{},
			[]byte("?"), make([]byte, 12), answerTo(t, q, "right"),
		}
	})
	s := started(t, Config{Upstreams: to(upstream)})
	if got := ask(t, s, "a.example.", dnsmessage.TypeTXT); got != "ok: a.example. TXT right" {
		t.Error(got)
	}
}

// Some nameservers never send large datagrams, and some applications never use TCP.
func TestATruncatedResponseIsCompletedOverTCP(t *testing.T) {
	upstream := newNameserver(t)
	upstream.set(func(network string, q dnsmessage.Message) [][]byte {
		if network == "udp" {
			q.Truncated = true
			return [][]byte{answerTo(t, q)}
		}
		return [][]byte{answerTo(t, q, strings.Repeat("x", 200), strings.Repeat("y", 200), strings.Repeat("z", 200))}
	})
	s := started(t, Config{Upstreams: to(upstream)})
	m := unpack(t, send(t, s, "udp", pack(t, "a.example.", dnsmessage.TypeTXT, edns(1232))))
	if m.Truncated || len(m.Answers) != 3 {
		t.Errorf("truncated %t, %d answers", m.Truncated, len(m.Answers))
	}
	m = unpack(t, send(t, s, "udp", pack(t, "a.example.", dnsmessage.TypeTXT, edns(600))))
	if !m.Truncated || len(m.Answers) != 2 || len(m.Additionals) != 1 {
		t.Errorf("of what does not fit: truncated %t, %d answers, %d additional", m.Truncated, len(m.Answers), len(m.Additionals))
	}
	m = unpack(t, send(t, s, "udp", pack(t, "a.example.", dnsmessage.TypeTXT, nil)))
	if !m.Truncated {
		t.Error("without EDNS: not truncated")
	}
	if got := len(upstream.asked(t, 5)); got != 5 {
		t.Errorf("%d queries, want one more over TCP for each of the first two", got)
	}
}

func TestALargerResponseThanTheClientTakesIsCut(t *testing.T) {
	upstream := newNameserver(t)
	upstream.set(func(_ string, q dnsmessage.Message) [][]byte {
		return [][]byte{answerTo(t, q, strings.Repeat("x", 250), strings.Repeat("y", 250), strings.Repeat("z", 250))}
	})
	s := started(t, Config{Upstreams: to(upstream)})
	response := send(t, s, "udp", pack(t, "a.example.", dnsmessage.TypeTXT, nil))
	if m := unpack(t, response); !m.Truncated || len(m.Answers) != 1 || len(response) > 512 {
		t.Errorf("%d bytes, truncated %t, %d answers", len(response), m.Truncated, len(m.Answers))
	}
}

func TestQueriesThatWaitAreBounded(t *testing.T) {
	registry := prometheus.NewRegistry()
	upstream := newNameserver(t)
	release := make(chan struct{})
	upstream.set(func(_ string, q dnsmessage.Message) [][]byte {
		<-release
		return [][]byte{answerTo(t, q, "late")}
	})
	s := started(t, Config{Upstreams: to(upstream), MaxForwarded: 1, Timeout: patience, Registerer: registry})
	s.SetNames(table())
	waiting := dialTo(t, s, "udp")
	if _, err := waiting.Write(pack(t, "slow.example.", dnsmessage.TypeTXT, nil)); err != nil {
		t.Fatal(err)
	}
	upstream.asked(t, 1)
	for _, network := range []string{"udp", "tcp"} {
		m := unpack(t, send(t, s, network, pack(t, "b.example.", dnsmessage.TypeTXT, nil)))
		if summary(m) != "servfail" {
			t.Errorf("%s: %s", network, summary(m))
		}
	}
	if got := ask(t, s, "reviews.ns1.", dnsmessage.TypeA); !strings.HasPrefix(got, "ok aa") {
		t.Errorf("a name of the mesh: %s", got)
	}
	if got := queries(t, registry, answeredBusy); got != 2 {
		t.Errorf("%v counted", got)
	}
	close(release)
	buffer := make([]byte, 512)
	n, err := waiting.Read(buffer)
	if err != nil {
		t.Fatal(err)
	}
	if got := summary(unpack(t, buffer[:n])); got != "ok: slow.example. TXT late" {
		t.Error(got)
	}
}

func TestResolvConf(t *testing.T) {
	for _, test := range []struct {
		name, text, servers, search string
	}{
		{"a pod's", "nameserver 10.96.0.10\nsearch ns1.svc.cluster.local svc.cluster.local\noptions ndots:5\n", "[10.96.0.10:53]", "ns1.svc.cluster.local."},
		{"IPv6, comments", "# c\nnameserver fd00::a ; x\nnameserver 10.0.0.1\ndomain Example.COM.\n", "[[fd00::a]:53 10.0.0.1:53]", "example.com."},
		{"the last search counts", "nameserver 1.1.1.1\ndomain a\nsearch b c\n", "[1.1.1.1:53]", "b."},
		{"nothing", "", "[127.0.0.1:53]", ""},
		{"garbage", "nameserver x\nsearch .\n\x00\nnameserver\n", "[127.0.0.1:53]", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := parseResolvers(test.text)
			if got := sprint(r.servers); got != test.servers || r.search != test.search {
				t.Errorf("%s, %q", got, r.search)
			}
		})
	}
}

func sprint(list []netip.AddrPort) string {
	var texts []string
	for _, a := range list {
		texts = append(texts, a.String())
	}
	return "[" + strings.Join(texts, " ") + "]"
}

func TestResolvConfIsReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "resolv.conf")
		put := func(text string) {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		wait := func() { <-time.NewTimer(checkInterval).C }
		put("nameserver 10.0.0.1\n")
		c := &resolvConf{path: path, logger: (&logbook{}).logger(), own: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}}
		if got := sprint(c.get(t.Context()).servers); got != "[10.0.0.1:53]" {
			t.Error(got)
		}
		put("nameserver 10.0.0.22\nnameserver 127.0.0.1\n")
		if got := sprint(c.get(t.Context()).servers); got != "[10.0.0.1:53]" {
			t.Errorf("read for each query: %s", got)
		}
		wait()
		if got := sprint(c.get(t.Context()).servers); got != "[10.0.0.22:53]" {
			t.Errorf("after a change, without ourselves: %s", got)
		}
		os.Remove(path)
		wait()
		if got := sprint(c.get(t.Context()).servers); got != "[10.0.0.22:53]" {
			t.Errorf("without the file: %s", got)
		}
	})
}

// queries returns the metric of what became of queries.
func queries(t *testing.T, registry *prometheus.Registry, answer string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != "meshbridge_capture_dns_queries_total" {
			continue
		}
		for _, m := range family.GetMetric() {
			if m.GetLabel()[0].GetValue() == answer {
				return m.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("no metric for %q", answer)
	return 0
}
