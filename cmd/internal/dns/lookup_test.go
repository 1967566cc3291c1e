package dns

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/dns/dnsmessage"

	"meshbridge/translate"
)

// newClient returns a client that asks the servers, with the rest of resolv.conf.
func newClient(t *testing.T, conf string, servers ...*server) *client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	c := &client{
		resolvConf: watchedFile[settings]{path: path, parse: parseSettings},
		hosts:      watchedFile[map[string][]netip.Addr]{path: path + ".none", parse: parseHosts},
	}
	for _, s := range servers {
		c.servers = append(c.servers, s.address)
	}
	return c
}

func host(name string, v4, v6 bool) translate.HostName {
	return translate.HostName{Name: name, IPv4: v4, IPv6: v6}
}

func addresses(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func wantAnswer(t *testing.T, got answer, ttl time.Duration, want ...string) {
	t.Helper()
	if !slices.Equal(got.addresses, addresses(want...)) || got.ttl != ttl {
		t.Errorf("answer %v for %v, want %v for %v", got.addresses, got.ttl, want, ttl)
	}
}

func TestAnswersAreSortedAndOfTheFamiliesThatAreWanted(t *testing.T) {
	s := newServer(t)
	s.set("api.example.", 30, "192.0.2.9", "2001:db8::1", "192.0.2.1", "192.0.2.9")
	c := newClient(t, "", s)
	for _, test := range []struct {
		v4, v6 bool
		want   []string
	}{
		{true, true, []string{"192.0.2.1", "192.0.2.9", "2001:db8::1"}},
		{true, false, []string{"192.0.2.1", "192.0.2.9"}},
		{false, true, []string{"2001:db8::1"}},
	} {
		got, err := c.lookup(t.Context(), host("api.example", test.v4, test.v6))
		if err != nil {
			t.Fatal(err)
		}
		wantAnswer(t, got, 30*time.Second, test.want...)
	}
}

func TestTheShortestTimeToLiveOnTheWayCounts(t *testing.T) {
	s := newServer(t)
	s.setRecords("www.example.",
		alias("www.example.", 5, "CDN.example."),
		addressRecord("cdn.example.", 60, "192.0.2.1"),
		addressRecord("victim.example.", 1, "192.0.2.66"), // nobody asked for it
	)
	got, err := newClient(t, "", s).lookup(t.Context(), host("www.example", true, false))
	if err != nil {
		t.Fatal(err)
	}
	wantAnswer(t, got, 5*time.Second, "192.0.2.1")
}

// Envoy empties the cluster in these cases, and keeps it in those of the next test.
func TestANameWithoutAddressesIsAnAnswer(t *testing.T) {
	s := newServer(t)
	s.set("empty.example.", 30)
	c := newClient(t, "", s)
	for _, name := range []string{"empty.example", "gone.example"} {
		got, err := c.lookup(t.Context(), host(name, true, true))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		wantAnswer(t, got, 0)
	}
}

func TestServersThatFailAreFailures(t *testing.T) {
	s := newServer(t)
	s.fail("a.example.", dnsmessage.RCodeServerFailure)
	s.fail("b.example.", dnsmessage.RCodeRefused)
	c := newClient(t, "options attempts:2", s)
	for name, why := range map[string]string{"a.example": "SERVFAIL", "b.example": "REFUSED"} {
		_, err := c.lookup(t.Context(), host(name, true, false))
		if want := s.address + ": " + why; err == nil || err.Error() != want {
			t.Errorf("%s: error %v, want %s", name, err, want)
		}
	}
	if queries := s.asked(); len(queries) != 4 {
		t.Errorf("queries %q, want two attempts each", queries)
	}
}

func TestTheNextServerIsAskedWhenOneFails(t *testing.T) {
	bad, good := newServer(t), newServer(t)
	bad.fail("api.example.", dnsmessage.RCodeServerFailure)
	good.set("api.example.", 30, "192.0.2.1")
	got, err := newClient(t, "", bad, good).lookup(t.Context(), host("api.example", true, false))
	if err != nil {
		t.Fatal(err)
	}
	wantAnswer(t, got, 30*time.Second, "192.0.2.1")
}

// A cluster may have servers of its own (typed_dns_resolver_config).
func TestAClusterAsksItsOwnServers(t *testing.T) {
	ours, theirs := newServer(t), newServer(t)
	ours.set("api.example.", 60, "192.0.2.1")
	theirs.set("api.example.", 60, "192.0.2.2")
	theirs.set("api.search.example.", 60, "192.0.2.3")
	c := newClient(t, "search search.example", ours)
	for _, test := range []struct {
		name    string
		servers translate.NameServers
		want    []netip.Addr
	}{
		{"api.example", translate.NameServers{}, addresses("192.0.2.1")},
		{"api.example", translate.NameServers{Addresses: theirs.address}, addresses("192.0.2.2")},
		{"api", translate.NameServers{Addresses: theirs.address}, addresses("192.0.2.3")},
		{"api", translate.NameServers{Addresses: theirs.address, NoSearch: true}, nil},
		{"api.example", translate.NameServers{Addresses: theirs.address, TCP: true}, addresses("192.0.2.2")},
	} {
		before := len(theirs.asked())
		got, err := c.lookup(t.Context(), translate.HostName{Name: test.name, Servers: test.servers, IPv4: true})
		if err != nil || !slices.Equal(got.addresses, test.want) {
			t.Errorf("%s from %+v: got %v, %v, want %v", test.name, test.servers, got.addresses, err, test.want)
		}
		for _, query := range theirs.asked()[before:] {
			if strings.HasPrefix(query, "udp") == test.servers.TCP {
				t.Errorf("%s from %+v: %s", test.name, test.servers, query)
			}
		}
	}
}

func TestOneFamilyIsEnoughWhenTheOtherFails(t *testing.T) {
	s := newServer(t)
	s.set("api.example.", 30, "192.0.2.1")
	s.mutating(func(m *dnsmessage.Message, _ string) bool {
		if m.Questions[0].Type == dnsmessage.TypeAAAA {
			m.RCode = dnsmessage.RCodeServerFailure
		}
		return true
	})
	c := newClient(t, "", s)
	got, err := c.lookup(t.Context(), host("api.example", true, true))
	if err != nil {
		t.Fatal(err)
	}
	wantAnswer(t, got, 30*time.Second, "192.0.2.1")
	s.set("api.example.", 30)
	if _, err := c.lookup(t.Context(), host("api.example", true, true)); err == nil {
		t.Error("no addresses of one family and failure of the other is no answer")
	}
}

func TestWhatDoesNotFitInADatagramComesOverTCP(t *testing.T) {
	s := newServer(t)
	var many []string
	for i := range 200 {
		many = append(many, fmt.Sprintf("198.51.100.%d", i))
	}
	s.set("many.example.", 30, many...)
	s.mutating(func(m *dnsmessage.Message, network string) bool {
		if network == "udp" {
			m.Truncated, m.Answers = true, nil
		}
		return true
	})
	got, err := newClient(t, "", s).lookup(t.Context(), host("many.example", true, false))
	if err != nil || len(got.addresses) != 200 {
		t.Errorf("%d addresses, error %v", len(got.addresses), err)
	}
	if diff := cmp.Diff([]string{"udp A many.example.", "tcp A many.example."}, s.asked()); diff != "" {
		t.Error(diff)
	}
}

func TestResponsesThatDoNotFitTheQuestionAreIgnored(t *testing.T) {
	for name, forge := range map[string]func(*dnsmessage.Message){
		"id":       func(m *dnsmessage.Message) { m.ID++ },
		"question": func(m *dnsmessage.Message) { m.Questions[0].Name = dnsmessage.MustNewName("other.example.") },
		"type":     func(m *dnsmessage.Message) { m.Questions[0].Type = dnsmessage.TypeMX },
		"query":    func(m *dnsmessage.Message) { m.Response = false },
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			s.set("api.example.", 30, "192.0.2.66")
			s.mutating(func(m *dnsmessage.Message, _ string) bool { forge(m); return true })
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if got, err := newClient(t, "", s).lookup(ctx, host("api.example", true, false)); err == nil {
				t.Errorf("took %v for an answer", got.addresses)
			}
		})
	}
}

func TestSearchDomains(t *testing.T) {
	s := newServer(t)
	s.set("api.default.svc.cluster.local.", 30, "10.0.0.1")
	s.set("www.example.com.", 30, "192.0.2.1")
	c := newClient(t, "search default.svc.cluster.local svc.cluster.local\noptions ndots:2", s)
	for _, test := range []struct {
		name    string
		want    []string
		queries []string
	}{
		{"api", []string{"10.0.0.1"}, []string{"api.default.svc.cluster.local."}},
		{"api.default", []string{"10.0.0.1"}, []string{"api.default.default.svc.cluster.local.", "api.default.svc.cluster.local."}},
		{"www.example.com", []string{"192.0.2.1"}, []string{"www.example.com."}},
		{"gone.", nil, []string{"gone."}},
		{"gone", nil, []string{"gone.default.svc.cluster.local.", "gone.svc.cluster.local.", "gone."}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s.asked()
			got, err := c.lookup(t.Context(), host(test.name, true, false))
			if err != nil || !slices.Equal(got.addresses, addresses(test.want...)) {
				t.Errorf("%v, error %v, want %v", got.addresses, err, test.want)
			}
			var want []string
			for _, q := range test.queries {
				want = append(want, "udp A "+q)
			}
			if diff := cmp.Diff(want, s.asked()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The answer of a wider domain must not stand in for one that fails to come.
func TestAFailureEndsTheSearch(t *testing.T) {
	s := newServer(t)
	s.fail("api.prod.example.", dnsmessage.RCodeServerFailure)
	s.set("api.example.", 30, "192.0.2.66")
	c := newClient(t, "search prod.example example", s)
	if got, err := c.lookup(t.Context(), host("api", true, false)); err == nil {
		t.Errorf("found %v", got.addresses)
	}
}

func TestTheHostsFileComesFirstAndIsReadAgain(t *testing.T) {
	s := newServer(t)
	s.set("api.example.", 30, "192.0.2.1")
	c := newClient(t, "", s)
	write := func(text string, age time.Duration) {
		if err := os.WriteFile(c.hosts.path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(c.hosts.path, time.Time{}, time.Now().Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	for i, test := range []struct{ hosts, want string }{
		{"10.9.9.9 API.example api # ours\n::1 localhost\n", "10.9.9.9"},
		{"10.8.8.8 api.example\n", "10.8.8.8"},
		{"# nothing\n", "192.0.2.1"},
	} {
		write(test.hosts, time.Hour-time.Duration(i)*time.Minute)
		got, err := c.lookup(t.Context(), host("api.example", true, false))
		if err != nil || !slices.Equal(got.addresses, addresses(test.want)) {
			t.Errorf("%v, error %v, want %s", got.addresses, err, test.want)
		}
	}
}

func TestSilentServersAreGivenUp(t *testing.T) {
	s := newServer(t)
	s.mutating(func(*dnsmessage.Message, string) bool { return false })
	conf := parseSettings("options timeout:1 attempts:1")
	conf.servers, conf.timeout = []string{s.address}, 20*time.Millisecond
	_, err := conf.ask(t.Context(), "api.example.", dnsmessage.TypeA)
	if want := s.address + ": no answer in time"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestSettings(t *testing.T) {
	got := parseSettings(strings.Join([]string{
		"# comment", "domain old.example", "search a.example. b.example ; the last one counts",
		"nameserver 10.0.0.10", "nameserver fd00::a", "nameserver nonsense",
		"options ndots:5 timeout:2 attempts:9 use-vc unknown ndots:x",
	}, "\n"))
	want := settings{
		servers: []string{"10.0.0.10:53", "[fd00::a]:53"}, search: []string{"a.example", "b.example"},
		ndots: 5, timeout: 2 * time.Second, attempts: maxAttempts, useTCP: true,
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(settings{})); diff != "" {
		t.Error(diff)
	}
	for text, want := range map[string]string{
		"10.0.0.1": "10.0.0.1:53", "10.0.0.1:5353": "10.0.0.1:5353", "[::1]:5353": "[::1]:5353", "::1": "[::1]:53", "[::1]": "[::1]:53",
	} {
		if got, err := ParseServer(text); err != nil || got != want {
			t.Errorf("%s: %s, error %v, want %s", text, got, err, want)
		}
	}
	if got, err := ParseServer("dns.example"); err == nil {
		t.Errorf("dns.example is %s", got)
	}
}

// FuzzParse feeds responses as they might come from anyone.
func FuzzParse(f *testing.F) {
	question := dnsmessage.Question{Name: dnsmessage.MustNewName("api.example."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}
	good := dnsmessage.Message{
		Header: dnsmessage.Header{ID: 7, Response: true}, Questions: []dnsmessage.Question{question},
		Answers: []dnsmessage.Resource{alias("api.example.", 5, "b.example."), addressRecord("b.example.", 60, "192.0.2.1")},
	}
	packed, err := good.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(packed)
	f.Add(packed[:len(packed)-1])
	f.Fuzz(func(t *testing.T, response []byte) {
		found, err := parse(response, 7, question)
		if err != nil && len(found.addresses) > 0 || len(found.addresses) == 0 && found.ttl != 0 {
			t.Errorf("%+v with error %v", found, err)
		}
	})
}
