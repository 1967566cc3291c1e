package conformance

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"meshbridge/testdata/conformance/harness"
)

// nameServer is a DNS server on loopback with IPv4 addresses.
type nameServer struct {
	conn net.PacketConn

	mu    sync.Mutex
	names map[string][]string // guarded by mu
}

func startNameServer(t *testing.T) *nameServer {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &nameServer{conn: conn, names: map[string][]string{}}
	var running sync.WaitGroup
	running.Go(s.serve)
	t.Cleanup(func() {
		_ = conn.Close()
		running.Wait()
	})
	return s
}

func (s *nameServer) serve() {
	buffer := make([]byte, 4096)
	for {
		n, from, err := s.conn.ReadFrom(buffer)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(buffer[:n]) != nil || len(m.Questions) != 1 {
			continue
		}
		q := m.Questions[0]
		m.Response, m.Additionals = true, nil
		s.mu.Lock()
		addresses, known := s.names[q.Name.String()]
		s.mu.Unlock()
		if !known {
			m.RCode = dnsmessage.RCodeNameError
		}
		for _, a := range addresses {
			if q.Type == dnsmessage.TypeA {
				m.Answers = append(m.Answers, dnsmessage.Resource{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1},
					Body:   &dnsmessage.AResource{A: netip.MustParseAddr(a).As4()},
				})
			}
		}
		if response, err := m.Pack(); err == nil {
			_, _ = s.conn.WriteTo(response, from)
		}
	}
}

func (s *nameServer) set(name string, addresses ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names[name+"."] = addresses
}

const namedServices = `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: strict, namespace: default}
spec:
  hosts: [strict.example]
  ports: [{number: 9080, name: http, protocol: HTTP}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: rotating, namespace: default}
spec:
  hosts: [rotating.example]
  ports: [{number: 9080, name: http, protocol: HTTP}]
  resolution: DNS_ROUND_ROBIN
`

// upstreamNamed returns the upstream of a host; events and snapshots have it in one form.
func upstreamNamed(t *testing.T, s harness.Snapshot, host string) upstream {
	t.Helper()
	for _, object := range s.Upstreams() {
		if u := decode[upstream](t, object.Value); strings.HasSuffix(u.Name, "||"+host) {
			return u
		}
	}
	t.Fatalf("no upstream of %s among:\n%s", host, dump(s))
	return upstream{}
}

// apisix-mesh-agent and Amesh knew only EDS: services outside the mesh had no endpoints.
func TestNamesOfServiceEntriesAreResolved(t *testing.T) {
	t.Parallel()
	server := startNameServer(t)
	server.set("strict.example", "127.0.3.2", "127.0.3.1")
	s := newScenario(t, demo, "--dns-servers="+server.conn.LocalAddr().String())
	watch := s.bridge.Watch(t, 0)
	isStrict := func(e harness.Event) bool {
		return strings.HasPrefix(e.Key, harness.Prefix+"upstreams/") && strings.Contains(e.Value, "strict.example")
	}

	s.manifests.Write(t, "named.yaml", namedServices)
	events := watch.Until(t, "the upstream of strict.example", isStrict)
	if got := decode[upstream](t, events[len(events)-1].Value).hosts(); !slices.Equal(got, []string{"127.0.3.1", "127.0.3.2"}) {
		t.Errorf("the first version of the upstream has nodes %v, want the addresses", got)
	}
	s.eventsSoFar(t, watch)
	if got := upstreamNamed(t, s.bridge.MustRange(t), "rotating.example").hosts(); !slices.Equal(got, []string{"rotating.example"}) {
		t.Errorf("nodes %v, want the name for APISIX to resolve", got)
	}

	server.set("strict.example", "127.0.3.3")
	events = watch.Until(t, "the new address", isStrict)
	if got := decode[upstream](t, events[len(events)-1].Value).hosts(); len(events) != 1 || !slices.Equal(got, []string{"127.0.3.3"}) {
		t.Errorf("%d events, nodes %v, want one event with the new address:\n%s", len(events), got, harness.Describe(events))
	}
	wantNoEvents(t, s.eventsSoFar(t, watch))

	// A bridge that starts with the names in place has their addresses in its first world.
	restarted := harness.StartBridge(t, binaries.Meshbridge, "grpc://"+s.istiod.GRPC, "--dns-servers="+server.conn.LocalAddr().String())
	restarted.WaitReady(t)
	if got := upstreamNamed(t, restarted.MustRange(t), "strict.example").hosts(); !slices.Equal(got, []string{"127.0.3.3"}) {
		t.Errorf("the first world has nodes %v", got)
	}
}
