package bridge

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"meshbridge/cmd/internal/dns"
	"meshbridge/translate"
	"meshbridge/xds"
	"meshbridge/xds/xdstest"
)

// answering is a resolver that answers when the test says so.
type answering struct {
	wanted  []translate.HostName
	answers dns.Answers
	changes chan struct{}
}

func (a *answering) Resolve(names []translate.HostName) { a.wanted = names }
func (a *answering) Answers() *dns.Answers              { answers := a.answers; return &answers }
func (a *answering) Changed() <-chan struct{}           { return a.changes }

func (a *answering) names() []string {
	var all []string
	for _, n := range a.wanted {
		all = append(all, n.Name)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// answer makes a name resolve to addresses, and drops the names that nobody wants.
func (a *answering) answer(name string, list ...string) {
	next := map[string][]netip.Addr{name: {}}
	for _, wanted := range a.names() {
		if old, ok := a.answers.Addresses[wanted]; ok && wanted != name {
			next[wanted] = old
		}
	}
	for _, text := range list {
		next[name] = append(next[name], netip.MustParseAddr(text))
	}
	a.answers.Addresses = next
	a.changes <- struct{}{}
	synctest.Wait()
}

// dnsBubble is bubble with a mesh in which service 1 has an endpoint with a name.
func dnsBubble(t *testing.T, test func(t *testing.T, p *pipelineTest, a *answering)) {
	t.Helper()
	a := &answering{}
	inside := func() resolver {
		a.changes = make(chan struct{}, 1) // as dns.Resolver has
		return a
	}
	bubbleWith(t, 3, inside, func(t *testing.T, p *pipelineTest) {
		t.Helper()
		p.set(dnsCluster(1, "api.example"))
		test(t, p, a)
	})
}

func dnsCluster(i int, name string) *clusterpb.Cluster {
	c := xdstest.Cluster(i)
	c.ClusterDiscoveryType = &clusterpb.Cluster_Type{Type: clusterpb.Cluster_STRICT_DNS}
	c.EdsClusterConfig = nil
	c.LoadAssignment = &endpointpb.ClusterLoadAssignment{
		ClusterName: c.GetName(),
		Endpoints: []*endpointpb.LocalityLbEndpoints{{LbEndpoints: []*endpointpb.LbEndpoint{{
			HostIdentifier: &endpointpb.LbEndpoint_Endpoint{Endpoint: &endpointpb.Endpoint{Address: &corepb.Address{
				Address: &corepb.Address_SocketAddress{SocketAddress: &corepb.SocketAddress{
					Address: name, PortSpecifier: &corepb.SocketAddress_PortValue{PortValue: 80},
				}},
			}}},
		}}}},
	}
	return c
}

func TestTheFirstWorldHasTheAddressesOfNames(t *testing.T) {
	dnsBubble(t, func(t *testing.T, p *pipelineTest, a *answering) {
		t.Helper()
		p.deliver(nil, nil)
		if got := p.pass(time.Second); got != nil || !slices.Equal(a.names(), []string{"api.example"}) {
			t.Fatalf("resolving %q, committed %q", a.names(), got)
		}
		a.answer("api.example", "192.0.2.1", "192.0.2.2")
		got := p.next()
		if len(got) != 1 || !strings.Contains(strings.Join(got[0], "\n"), `"192.0.2.2"`) {
			t.Errorf("committed %q, want one revision with the addresses", got)
		}
	})
}

func TestTheFirstWorldDoesNotWaitForEverForNames(t *testing.T) {
	dnsBubble(t, func(t *testing.T, p *pipelineTest, a *answering) {
		t.Helper()
		p.deliver(nil, nil)
		if got := p.pass(warmUp - time.Millisecond); got != nil {
			t.Fatalf("committed %q", got)
		}
		got := p.pass(time.Millisecond)
		all := ""
		if len(got) == 1 {
			all = strings.Join(got[0], "\n")
		}
		if !strings.Contains(all, `"host":"api.example"`) || strings.Contains(all, `"nodes":[]`) {
			t.Errorf("committed %q, want the name for APISIX to resolve", got)
		}
		a.answer("api.example", "192.0.2.1")
		if got := p.next(); len(got) != 1 || len(got[0]) != 1 || !strings.Contains(got[0][0], `"192.0.2.1"`) {
			t.Errorf("after the answer: %q", got)
		}
	})
}

func TestAnAnswerIsOneCommitOfTheUpstreamsThatHaveTheName(t *testing.T) {
	dnsBubble(t, func(t *testing.T, p *pipelineTest, a *answering) {
		t.Helper()
		p.set(dnsCluster(2, "api.example"))
		p.deliver(nil, nil)
		a.answer("api.example", "192.0.2.1")
		p.next()
		a.answer("api.example", "192.0.2.1", "192.0.2.2")
		if got := p.next(); len(got) != 1 || len(got[0]) != 2 {
			t.Errorf("committed %q, want one revision of two upstreams", got)
		}
		a.answer("api.example", "192.0.2.1", "192.0.2.2")
		if got := p.pass(time.Minute); got != nil {
			t.Errorf("the same answer again: %q", got)
		}
		a.answer("api.example")
		if got := p.next(); len(got) != 1 || !strings.Contains(got[0][0], `"nodes":[]`) {
			t.Errorf("a name that is gone: %q, want no endpoints, as in Envoy", got)
		}
	})
}

func TestANewClusterWaitsForItsNames(t *testing.T) {
	dnsBubble(t, func(t *testing.T, p *pipelineTest, a *answering) {
		t.Helper()
		p.deliver(nil, nil)
		a.answer("api.example", "192.0.2.1")
		p.next()
		p.deliver(p.set(dnsCluster(2, "new.example")), nil)
		if got := p.pass(time.Second); got != nil {
			t.Fatalf("committed %q before the answer", got)
		}
		a.answer("new.example", "192.0.2.9")
		if got := p.pass(debounceQuiet); len(got) != 1 || !strings.Contains(got[0][0], `"192.0.2.9"`) {
			t.Errorf("committed %q", got)
		}
	})
}

// The old name is still translated until the new cluster is: losing its answer would show.
func TestANameIsWantedUntilTheLastClusterWithItIsTranslated(t *testing.T) {
	dnsBubble(t, func(t *testing.T, p *pipelineTest, a *answering) {
		t.Helper()
		p.deliver(nil, nil)
		a.answer("api.example", "192.0.2.1")
		p.next()
		p.deliver(p.set(dnsCluster(1, "other.example")), nil)
		if got := a.names(); !slices.Equal(got, []string{"api.example", "other.example"}) {
			t.Fatalf("resolving %q while the change waits", got)
		}
		a.answer("other.example", "192.0.2.2")
		got := p.pass(time.Second)
		if len(got) != 1 || !strings.Contains(got[0][0], `"192.0.2.2"`) {
			t.Errorf("committed %q, want the new name's address alone", got)
		}
		if got := a.names(); !slices.Equal(got, []string{"other.example"}) {
			t.Errorf("resolving %q in the end", got)
		}
		gone := []xds.Key{{Type: xds.ClusterType, Name: xdstest.ClusterName(1)}}
		p.snapshot = p.snapshot.With(nil, gone)
		p.deliver(gone, nil)
		p.pass(time.Second)
		if got := a.names(); got != nil {
			t.Errorf("resolving %q for nobody", got)
		}
	})
}
