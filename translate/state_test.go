package translate

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"meshbridge/translate/apisix"
	"meshbridge/xds"
)

func newResource(tb testing.TB, name string, m proto.Message) *xds.Resource {
	tb.Helper()
	body, err := anypb.New(m)
	if err != nil {
		tb.Fatal(err)
	}
	return &xds.Resource{Key: xds.Key{Type: body.GetTypeUrl(), Name: name}, Body: body}
}

// objectsOf returns the objects by key.
func objectsOf(s *State) map[string]string {
	out := map[string]string{}
	for o := range s.Objects() {
		out[o.Key()] = string(o.Value)
	}
	return out
}

// anew translates a snapshot from scratch with the priorities of another State.
func anew(tb testing.TB, s *State, snap *xds.Snapshot, in Inputs) *State {
	tb.Helper()
	fresh, err := New(s.options)
	if err != nil {
		tb.Fatal(err)
	}
	for key, u := range s.units {
		fresh.units[key] = &chainUnit{chain: u.chain, priorities: u.priorities}
	}
	fresh.Apply(Input{Snapshot: snap, All: true, Inputs: in})
	return fresh
}

var translatedTypes = []string{xds.ListenerType, xds.RouteType, xds.ClusterType, xds.EndpointType}

// randomEdit returns a snapshot with one to three resources removed, put back or changed.
func randomEdit(tb testing.TB, rng *rand.Rand, full, snap *xds.Snapshot) (*xds.Snapshot, []xds.Key) {
	tb.Helper()
	var put []*xds.Resource
	var remove, changed []xds.Key
	for range 1 + rng.IntN(3) {
		typeURL := pick(rng, translatedTypes...)
		all := slices.Collect(full.All(typeURL))
		if len(all) == 0 {
			continue
		}
		r := pick(rng, all...)
		if slices.Contains(changed, r.Key) {
			continue
		}
		changed = append(changed, r.Key)
		switch {
		case snap.Get(r.Key) == nil:
			put = append(put, r)
		case rng.IntN(3) == 0:
			remove = append(remove, r.Key)
		default:
			put = append(put, randomChange(tb, rng, r))
		}
	}
	return snap.With(put, remove), changed
}

func randomChange(tb testing.TB, rng *rand.Rand, r *xds.Resource) *xds.Resource {
	tb.Helper()
	m, err := r.Message()
	if err != nil {
		tb.Fatal(err)
	}
	m = proto.Clone(m)
	switch m := m.(type) {
	case *routepb.RouteConfiguration:
		one := rng.IntN(2 * len(m.GetVirtualHosts())) // as often, one of them
		for i, v := range m.GetVirtualHosts() {
			if one < len(m.GetVirtualHosts()) && i != one {
				continue
			}
			rng.Shuffle(len(v.GetRoutes()), func(i, j int) { v.Routes[i], v.Routes[j] = v.GetRoutes()[j], v.GetRoutes()[i] })
			if len(v.GetRoutes()) > 0 && rng.IntN(3) == 0 {
				v.Routes = v.GetRoutes()[1:]
			}
		}
		randomVirtualHosts(rng, m)
	case *clusterpb.Cluster:
		m.ConnectTimeout = durationpb.New(time.Duration(1+rng.IntN(3)) * time.Second)
	case *endpointpb.ClusterLoadAssignment:
		if len(m.GetEndpoints()) > 0 {
			m.Endpoints = m.GetEndpoints()[1:]
		}
	}
	return newResource(tb, r.Name, m)
}

// randomVirtualHosts removes a virtual host, moves a domain to another one, or adds one with the same
// name, and sometimes changes what is for all of them.
func randomVirtualHosts(rng *rand.Rand, config *routepb.RouteConfiguration) {
	hosts := config.GetVirtualHosts()
	if len(hosts) < 2 {
		return
	}
	i := rng.IntN(len(hosts) - 1)
	switch rng.IntN(8) {
	case 0:
		config.VirtualHosts = slices.Delete(hosts, i, i+1)
	case 1:
		hosts[i].Domains = append(hosts[i].GetDomains(), hosts[i+1].GetDomains()...)
	case 2:
		twin := proto.CloneOf(hosts[i])
		twin.Domains = []string{"twin.example"}
		config.VirtualHosts = append(config.GetVirtualHosts(), twin)
	case 3:
		config.RequestHeadersToRemove = []string{"x-removed"}
	}
}

// randomInputs are about the scenarios with a ServiceEntry and with a slow start.
func randomInputs(rng *rand.Rand, step int) Inputs {
	const name, cluster = "api.ext.example", "outbound|9080||reviews.default.svc.cluster.local"
	var in Inputs
	if rng.IntN(3) > 0 {
		in.DNS = map[string][]netip.Addr{name: {netip.AddrFrom4([4]byte{192, 0, 2, byte(step)})}}
	}
	if rng.IntN(3) == 0 {
		in.DNSErrors = map[string]string{name: "SERVFAIL"}
	}
	if rng.IntN(3) > 0 {
		in.Ramps = map[string]map[string]float64{cluster: {"10.1.0.15:9080": rng.Float64()}}
	}
	return in
}

// The objects and diagnostics never depend on how the State came to a snapshot, and Results add up
// to the objects.
func TestApplyingStepByStepEqualsTranslatingAtOnce(t *testing.T) {
	for _, sc := range loadScenarios(t) {
		for _, p := range sc.profiles() {
			t.Run(sc.name+"/"+p.Name(), func(t *testing.T) {
				rng := rand.New(rand.NewPCG(7, uint64(len(sc.name))))
				s := translated(t, sc.with(p), sc.snapshot)
				snap := sc.snapshot
				mirror := objectsOf(s)
				var in Inputs
				for step := range 60 {
					next, changed := randomEdit(t, rng, sc.snapshot, snap)
					snap = next
					if rng.IntN(10) == 0 {
						in = randomInputs(rng, step)
					}
					before := s.Diagnostics()
					r := s.Apply(Input{Snapshot: snap, Changed: changed, Inputs: in})
					for _, o := range r.Put {
						if mirror[o.Key()] == string(o.Value) {
							t.Errorf("step %d puts %s, which has not changed", step, o.Key())
						}
						mirror[o.Key()] = string(o.Value)
					}
					for _, key := range r.Delete {
						if _, ok := mirror[key]; !ok {
							t.Errorf("step %d deletes %s, which is not there", step, key)
						}
						delete(mirror, key)
					}
					fresh := anew(t, s, snap, in)
					if diff := cmp.Diff(objectsOf(fresh), objectsOf(s)); diff != "" {
						t.Fatalf("step %d %v (-at once +by steps):\n%s", step, changed, diff)
					}
					if diff := cmp.Diff(objectsOf(s), mirror); diff != "" {
						t.Fatalf("step %d %v (-objects +results):\n%s", step, changed, diff)
					}
					if diff := cmp.Diff(fresh.Diagnostics(), s.Diagnostics()); diff != "" {
						t.Fatalf("step %d %v (-at once +by steps):\n%s", step, changed, diff)
					}
					if r.DiagnosticsChanged == slices.Equal(before, s.Diagnostics()) {
						t.Errorf("step %d: DiagnosticsChanged is %t", step, r.DiagnosticsChanged)
					}
					assertReferencesExist(t, s)
				}
				r := s.Apply(Input{Snapshot: &xds.Snapshot{}, All: true})
				if len(r.Put) > 0 || len(objectsOf(s)) > 0 || len(s.Diagnostics()) > 0 || len(s.clusters) > 0 || len(s.clusterUsers) > 0 || len(s.units) > 0 {
					t.Errorf("an empty world leaves %d objects, %v, %d clusters", len(objectsOf(s)), s.Diagnostics(), len(s.clusters))
				}
				for what, x := range map[string]index{"configs": s.configUsers, "endpoints": s.endpointUsers, "names": s.nameUsers} {
					if len(x) > 0 {
						t.Errorf("an empty world leaves users of %s: %v", what, slices.Collect(maps.Keys(x)))
					}
				}
			})
		}
	}
}

func assertReferencesExist(tb testing.TB, s *State) {
	tb.Helper()
	objects := objectsOf(s)
	e, err := apisix.NewEvaluator(s.Objects(), apisix.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	if refused := e.Refused(); len(refused) > 0 {
		tb.Fatal(refused)
	}
	referenced := map[string]bool{}
	for _, u := range s.units {
		for _, part := range u.parts {
			for _, ref := range part.refs {
				key := "upstreams/" + ref.id()
				referenced[key] = true
				if _, ok := objects[key]; !ok {
					tb.Fatalf("chain %s refers to %s, which does not exist", u.chain.Key, key)
				}
			}
		}
	}
	for o := range s.Objects() {
		if o.Kind == apisix.KindUpstream && !referenced[o.Key()] {
			tb.Fatalf("nothing refers to %s", o.Key())
		}
	}
}

func TestANoOpPushChangesNothing(t *testing.T) {
	for _, sc := range loadScenarios(t) {
		for _, p := range sc.profiles() {
			s := translated(t, sc.with(p), sc.snapshot)
			r := s.Apply(Input{Snapshot: sc.snapshot, All: true})
			if len(r.Put) > 0 || len(r.Delete) > 0 || r.DiagnosticsChanged {
				t.Errorf("%s/%s: %d put, %d deleted, diagnostics changed %t", sc.name, p.Name(), len(r.Put), len(r.Delete), r.DiagnosticsChanged)
			}
		}
	}
}

func TestNewRefusesOptionsThatMakeNoSense(t *testing.T) {
	for name, opts := range map[string]Options{
		"no profile":       {},
		"unknown code":     {Profile: Mesh(), AllowUnenforced: []Code{"unenforced_nothing"}},
		"not a limitation": {Profile: Mesh(), AllowUnenforced: []Code{"tcp_refused"}},
		"equal ports":      {Profile: Direct(9000, 9000)},
		"no port":          {Profile: Direct(70000, 0)},
	} {
		if _, err := New(opts); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// mesh returns a snapshot of n HTTP services on port 80 with one endpoint each.
func mesh(tb testing.TB, n int) *xds.Snapshot {
	tb.Helper()
	config := &routepb.RouteConfiguration{Name: "80", IgnorePortInHostMatching: true}
	var put []*xds.Resource
	for i := range n {
		host := fmt.Sprintf("svc-%d.default.svc.cluster.local", i)
		cluster := "outbound|80||" + host
		config.VirtualHosts = append(config.VirtualHosts, &routepb.VirtualHost{
			Name: host + ":80", Domains: []string{host, fmt.Sprintf("svc-%d", i)},
			Routes: []*routepb.Route{{
				Match: &routepb.RouteMatch{PathSpecifier: &routepb.RouteMatch_Prefix{Prefix: "/"}},
				Action: &routepb.Route_Route{Route: &routepb.RouteAction{
					ClusterSpecifier: &routepb.RouteAction_Cluster{Cluster: cluster},
					Timeout:          &durationpb.Duration{}, // like istiod, which disables it
				}},
			}},
		})
		put = append(put,
			newResource(tb, cluster, &clusterpb.Cluster{Name: cluster, ClusterDiscoveryType: &clusterpb.Cluster_Type{Type: clusterpb.Cluster_EDS}}),
			newResource(tb, cluster, loadOf(cluster, 1)))
	}
	put = append(put, newResource(tb, "80", config), outboundListener(tb, "0.0.0.0", 80, "80"))
	return (&xds.Snapshot{}).With(put, nil)
}
