package dns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/dns/dnsmessage"
	"pgregory.net/rapid"
)

// table has what istiod sends for a pod in the namespace ns1.
func table() []Host {
	service := func(name, namespace string, ips ...string) Host {
		return Host{
			Name: name + "." + namespace + ".svc.cluster.local", Addresses: addrs(ips...),
			Kubernetes: true, Shortname: name, Namespace: namespace,
		}
	}
	alternate := service("alternate", "ns1", "10.0.0.9")
	alternate.Others = []string{"more.example"}
	return []Host{
		service("reviews", "ns1", "10.0.0.1"),
		service("ratings", "ns2", "10.0.0.2", "fd00::2"),
		service("mysql-0.mysql", "ns1", "10.1.0.1"), // a pod of a headless service
		alternate,
		{Name: "remote.ns1.svc.other.domain", Addresses: addrs("10.9.0.1"), Kubernetes: true, Shortname: "remote", Namespace: "ns1"},
		{Name: "api.example.com", Addresses: addrs("240.240.0.1", "2001:2::1")},
		{Name: "six.example.com", Addresses: addrs("2001:2::6")},
		{Name: "*.wild.example", Addresses: addrs("240.240.0.2")},
		{Name: "*.deep.wild.example", Addresses: addrs("240.240.0.3")},
		{Name: "Mixed.Example.COM.", Addresses: addrs("240.240.0.4")},
		{Name: "empty.example.com"},
	}
}

func TestNamesOfTheMesh(t *testing.T) {
	upstream := newNameserver(t)
	upstream.fail(t, dnsmessage.RCodeNameError)
	s := start(t, Config{Upstreams: []netip.AddrPort{upstream.address}})
	s.SetNames(table())
	const a, aaaa = dnsmessage.TypeA, dnsmessage.TypeAAAA
	for _, test := range []struct {
		name string
		kind dnsmessage.Type
		want string
	}{
		// Full names, and the family that there is none of.
		{"reviews.ns1.svc.cluster.local.", a, "ok aa: reviews.ns1.svc.cluster.local. A 10.0.0.1"},
		{"reviews.ns1.svc.cluster.local.", aaaa, "ok aa"},
		{"ratings.ns2.svc.cluster.local.", aaaa, "ok aa: ratings.ns2.svc.cluster.local. AAAA fd00::2"},
		{"api.example.com.", a, "ok aa: api.example.com. A 240.240.0.1"},
		{"api.example.com.", aaaa, "ok aa: api.example.com. AAAA 2001:2::1"},
		{"six.example.com.", a, "ok aa"},
		// Case is the client's.
		{"API.example.COM.", a, "ok aa: API.example.COM. A 240.240.0.1"},
		{"mixed.example.com.", a, "ok aa: mixed.example.com. A 240.240.0.4"},
		// Shorter names of Kubernetes' services.
		{"reviews.", a, "ok aa: reviews. A 10.0.0.1"},
		{"reviews.ns1.", a, "ok aa: reviews.ns1. A 10.0.0.1"},
		{"reviews.ns1.svc.", a, "ok aa: reviews.ns1.svc. A 10.0.0.1"},
		{"ratings.", a, "nxdomain"}, // not of this namespace
		{"ratings.ns2.", a, "ok aa: ratings.ns2. A 10.0.0.2"},
		{"reviews.ns1.svc.cluster.", a, "nxdomain"},
		{"mysql-0.mysql.ns1.svc.", a, "ok aa: mysql-0.mysql.ns1.svc. A 10.1.0.1"},
		{"mysql-0.mysql.", a, "ok aa: mysql-0.mysql. A 10.1.0.1"},
		{"more.example.", a, "ok aa: more.example. A 10.0.0.9"},
		// Another cluster's domain has full names alone.
		{"remote.ns1.svc.other.domain.", a, "ok aa: remote.ns1.svc.other.domain. A 10.9.0.1"},
		{"remote.ns1.", a, "nxdomain"},
		{"remote.", a, "nxdomain"},
		// Wildcards, of which the closest counts.
		{"x.wild.example.", a, "ok aa: x.wild.example. A 240.240.0.2"},
		{"x.y.wild.example.", a, "ok aa: x.y.wild.example. A 240.240.0.2"},
		{"x.deep.wild.example.", a, "ok aa: x.deep.wild.example. A 240.240.0.3"},
		{"wild.example.", a, "nxdomain"},
		// What the resolver tries first.
		{"api.example.com.ns1.svc.cluster.local.", a, "ok aa: api.example.com. A 240.240.0.1 | api.example.com.ns1.svc.cluster.local. CNAME api.example.com."},
		{"Api.example.com.ns1.svc.cluster.local.", aaaa, "ok aa: Api.example.com. AAAA 2001:2::1 | Api.example.com.ns1.svc.cluster.local. CNAME Api.example.com."},
		{"six.example.com.ns1.svc.cluster.local.", a, "ok aa"},
		{"x.wild.example.ns1.svc.cluster.local.", a, "ok aa: x.wild.example. A 240.240.0.2 | x.wild.example.ns1.svc.cluster.local. CNAME x.wild.example."},
		{"ratings.ns2.ns1.svc.cluster.local.", a, "ok aa: ratings.ns2. A 10.0.0.2 | ratings.ns2.ns1.svc.cluster.local. CNAME ratings.ns2."},
		{"reviews.ns1.svc.cluster.local.ns1.svc.cluster.local.", a, "nxdomain"}, // as by Istio's agent
		{"api.example.com.svc.cluster.local.", a, "nxdomain"},
		{"ns1.svc.cluster.local.", a, "nxdomain"},
		// Unknown names, and those without an address.
		{"unknown.example.com.", a, "nxdomain"},
		{"empty.example.com.", a, "nxdomain"},
		{".", a, "nxdomain"},
		// A name that is known exists, whatever nameservers say.
		{"api.example.com.", dnsmessage.TypeTXT, "ok"},
	} {
		if got := ask(t, s, test.name, test.kind); got != test.want {
			t.Errorf("%s %s:\n got %s\nwant %s", test.name, test.kind, got, test.want)
		}
	}
}

func TestFullNamesComeBeforeShorterOnes(t *testing.T) {
	s := start(t, Config{})
	s.SetNames([]Host{
		{Name: "a.ns1.svc.cluster.local", Addresses: addrs("10.0.0.1"), Kubernetes: true, Shortname: "a", Namespace: "ns1"},
		{Name: "a", Addresses: addrs("10.0.0.2")},
	})
	if got := ask(t, s, "a.", dnsmessage.TypeA); got != "ok aa: a. A 10.0.0.2" {
		t.Error(got)
	}
}

func TestATableReplacesTheLast(t *testing.T) {
	upstream := newNameserver(t)
	s := start(t, Config{Upstreams: []netip.AddrPort{upstream.address}})
	// Outside of the mesh, the name may be that of something else.
	if got := ask(t, s, "a.example.", dnsmessage.TypeA); got != "servfail" {
		t.Errorf("before the first table: %s", got)
	}
	if n := len(upstream.asked(t, 0)); n > 0 {
		t.Errorf("%d queries are forwarded before the first table", n)
	}
	s.SetNames([]Host{{Name: "a.example", Addresses: addrs("10.0.0.1")}})
	if got := ask(t, s, "a.example.", dnsmessage.TypeA); got != "ok aa: a.example. A 10.0.0.1" {
		t.Error(got)
	}
	s.SetNames(nil)
	if got := ask(t, s, "a.example.", dnsmessage.TypeA); got != "ok: a.example. TXT upstream" {
		t.Errorf("of a name that is not in the table any more: %s", got)
	}
}

// Clients take the first address.
func TestAddressesTakeTurns(t *testing.T) {
	s := start(t, Config{})
	s.SetNames([]Host{{Name: "headless.example", Addresses: addrs("10.0.0.1", "10.0.0.2", "10.0.0.3")}})
	first := map[string]int{}
	for range 300 {
		m := unpack(t, send(t, s, "udp", pack(t, "headless.example.", dnsmessage.TypeA, nil)))
		if len(m.Answers) != 3 {
			t.Fatalf("%d answers", len(m.Answers))
		}
		if m.Answers[0].Header.TTL != 30 {
			t.Fatalf("time to live %d", m.Answers[0].Header.TTL)
		}
		first[m.Answers[0].Body.GoString()]++
	}
	for ip, n := range first {
		if n < 50 {
			t.Errorf("%s is first %d times of 300", ip, n)
		}
	}
	if len(first) != 3 {
		t.Errorf("first are %v", first)
	}
}

func TestWhatDoesNotFitIsTruncated(t *testing.T) {
	var ips []netip.Addr
	for i := range 1000 {
		ips = append(ips, netip.AddrFrom4([4]byte{10, 0, byte(i / 256), byte(i)}))
	}
	s := start(t, Config{})
	s.SetNames([]Host{{Name: "big.example", Addresses: ips}})
	for _, test := range []struct {
		network string
		limit   int
		edns    bool
	}{{"udp", 512, false}, {"udp", 512, true}, {"udp", 1232, true}, {"udp", 4096, true}} {
		options := edns(test.limit)
		if !test.edns {
			options = nil
		}
		response := send(t, s, test.network, pack(t, "big.example.", dnsmessage.TypeA, options))
		m := unpack(t, response)
		if !m.Truncated || len(response) > test.limit || len(response) < test.limit-64 {
			t.Errorf("%+v: %d bytes, truncated %t", test, len(response), m.Truncated)
		}
	}
	m := unpack(t, send(t, s, "tcp", pack(t, "big.example.", dnsmessage.TypeA, nil)))
	if m.Truncated || len(m.Answers) != 1000 {
		t.Errorf("over TCP %d answers, truncated %t", len(m.Answers), m.Truncated)
	}
}

func TestEDNSIsAnsweredInKind(t *testing.T) {
	s := start(t, Config{})
	s.SetNames([]Host{{Name: "a.example", Addresses: addrs("10.0.0.1")}})
	m := unpack(t, send(t, s, "udp", pack(t, "a.example.", dnsmessage.TypeA, edns(1232))))
	if len(m.Additionals) != 1 || m.Additionals[0].Header.Type != dnsmessage.TypeOPT || !m.Additionals[0].Header.DNSSECAllowed() {
		t.Errorf("additional records %v", m.Additionals)
	}
	m = unpack(t, send(t, s, "udp", pack(t, "a.example.", dnsmessage.TypeA, nil)))
	if len(m.Additionals) != 0 {
		t.Errorf("additional records %v for a client without EDNS", m.Additionals)
	}
	m = unpack(t, send(t, s, "udp", pack(t, "a.example.", dnsmessage.TypeA, func(h *dnsmessage.ResourceHeader) {
		edns(1232)(h)
		h.TTL |= 1 << 16
	})))
	if len(m.Additionals) != 1 || m.Additionals[0].Header.ExtendedRCode(m.RCode) != rcodeBadVersion {
		t.Errorf("a version of the future: %v", m)
	}
}

// A program with Go's resolver sees names as it would with Istio's agent.
func TestAResolverFindsItsNames(t *testing.T) {
	upstream := newNameserver(t)
	upstream.fail(t, dnsmessage.RCodeNameError)
	s := start(t, Config{Upstreams: []netip.AddrPort{upstream.address}})
	s.SetNames(table())
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, s.Addresses()[0].String())
	}}
	for name, want := range map[string][]string{
		"reviews.ns1.svc.cluster.local.":         {"10.0.0.1"},
		"ratings.ns2.":                           {"10.0.0.2", "fd00::2"},
		"api.example.com.ns1.svc.cluster.local.": {"2001:2::1", "240.240.0.1"},
	} {
		got, err := resolver.LookupHost(t.Context(), name)
		slices.Sort(got)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v %s", name, err, diff)
		}
	}
	if _, err := resolver.LookupHost(t.Context(), "unknown.example."); err == nil || !strings.Contains(err.Error(), "no such host") {
		t.Errorf("an unknown name: %v", err)
	}
}

// The closest wildcard counts, found one label after the other.
func TestWildcardsCoverWhatIsBelowThem(t *testing.T) {
	label := rapid.StringMatching(`[a-c]`)
	rapid.Check(t, func(t *rapid.T) {
		hosts := rapid.SliceOfN(rapid.SliceOfN(label, 1, 3), 0, 6).Draw(t, "wildcards")
		var list []Host
		for i, labels := range hosts {
			list = append(list, Host{Name: "*." + strings.Join(labels, "."), Addresses: addrs(fmt.Sprintf("10.0.0.%d", i))})
		}
		n := newNames(list, "ns1", "svc.cluster.local")
		asked := strings.Join(rapid.SliceOfN(label, 1, 5).Draw(t, "name"), ".") + "."
		var want *addresses
		best := 0
		for name, a := range n {
			if suffix := strings.TrimPrefix(name, "*"); len(suffix) > best && strings.HasSuffix(asked, suffix) && len(asked) > len(suffix) {
				want, best = a, len(suffix)
			}
		}
		if got, _ := n.lookup(asked, ""); got != want {
			t.Errorf("%s: %v, want %v", asked, got, want)
		}
	})
}
