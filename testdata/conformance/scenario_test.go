package conformance

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"meshbridge/testdata/conformance/harness"
)

// scenario is a mesh that a test edits, the istiod that serves it, and the
// bridge that is connected to it and ready.
type scenario struct {
	manifests harness.Manifests
	istiod    *harness.Istiod
	bridge    *harness.Bridge
	fences    int
}

const demo = "demo"

// newScenario starts istiod on a copy of a manifest directory, and a bridge.
func newScenario(t *testing.T, from string, bridgeFlags ...string) *scenario {
	t.Helper()
	s := &scenario{manifests: harness.CopyManifests(t, from)}
	s.writeFence(t)
	s.istiod = harness.StartIstiod(t, binaries.Istiod, s.manifests.Dir)
	s.bridge = harness.StartBridge(t, binaries.Meshbridge, "grpc://"+s.istiod.GRPC, bridgeFlags...)
	s.bridge.WaitReady(t)
	s.istiod.WaitSynced(t)
	return s
}

// writeFence writes a service whose only route carries a number.
func (s *scenario) writeFence(t *testing.T) {
	t.Helper()
	s.manifests.Write(t, "fence.yaml", fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: fence, namespace: default}
spec:
  hosts: [fence.example]
  ports: [{number: 9080, name: http, protocol: HTTP}]
  resolution: STATIC
  endpoints: [{address: 127.0.2.1}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: fence, namespace: default}
spec:
  hosts: [fence.example]
  http:
  - match: [{headers: {x-fence: {exact: %q}}}]
    route: [{destination: {host: fence.example}}]
`, s.mark()))
}

func (s *scenario) mark() string { return fmt.Sprintf("fence-%d-", s.fences) }

// eventsSoFar returns what a watch was told because of everything that has
// happened until now. It changes the fence's route and reads up to that: the
// bridge takes istiod's pushes in order, so nothing older is still to come,
// later phases of a removal excepted. The fence's own events are left out.
func (s *scenario) eventsSoFar(t *testing.T, watch *harness.Watch) []harness.Event {
	t.Helper()
	s.fences++
	s.writeFence(t)
	events := watch.Until(t, "the fence", func(e harness.Event) bool { return strings.Contains(e.Value, s.mark()) })
	return slices.DeleteFunc(events, func(e harness.Event) bool { return strings.Contains(e.Key+e.Value, "fence") })
}

// withoutFence drops what the fence changes from a snapshot.
func withoutFence(s harness.Snapshot) map[string]string {
	values := make(map[string]string, len(s.Objects))
	for key, object := range s.Objects {
		if !strings.Contains(key+object.Value, "fence") {
			values[key] = object.Value
		}
	}
	return values
}

// route is the part of an APISIX route that the tests look at.
type route struct {
	Name       string          `json:"name"`
	Hosts      []string        `json:"hosts"`
	URI        string          `json:"uri"`
	URIs       []string        `json:"uris"`
	Vars       json.RawMessage `json:"vars"`
	Plugins    json.RawMessage `json:"plugins"`
	UpstreamID string          `json:"upstream_id"`
	Priority   int             `json:"priority"`
}

// upstream is the part of an APISIX upstream that the tests look at.
type upstream struct {
	Name  string `json:"name"`
	Nodes []node `json:"nodes"`
}

type node struct {
	Host   string `json:"host"`
	Port   int    `json:"port"`
	Weight int    `json:"weight"`
}

// hosts lists the nodes' addresses, sorted.
func (u upstream) hosts() []string {
	hosts := make([]string, 0, len(u.Nodes))
	for _, n := range u.Nodes {
		hosts = append(hosts, n.Host)
	}
	slices.Sort(hosts)
	return hosts
}

func decode[T any](t *testing.T, value string) T {
	t.Helper()
	var into T
	if err := json.Unmarshal([]byte(value), &into); err != nil {
		t.Fatalf("%v in %s", err, value)
	}
	return into
}

// routesOf returns the keys of the routes that answer for a host, sorted.
func routesOf(t *testing.T, s harness.Snapshot, host string) []string {
	t.Helper()
	var keys []string
	for key, object := range s.Routes() {
		if slices.Contains(decode[route](t, object.Value).Hosts, host) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	if len(keys) == 0 {
		t.Fatalf("no route for host %s among:\n%s", host, dump(s))
	}
	return keys
}

// upstreamsOf returns the keys of the upstreams of a service's clusters, sorted.
func upstreamsOf(t *testing.T, s harness.Snapshot, service string) []string {
	t.Helper()
	var keys []string
	for key, object := range s.Upstreams() {
		if strings.Contains(object.Value, service+".default.svc.cluster.local") {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	if len(keys) == 0 {
		t.Fatalf("no upstream for %s among:\n%s", service, dump(s))
	}
	return keys
}

func dump(s harness.Snapshot) string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(s.Objects)) {
		fmt.Fprintf(&b, "%s %s\n", key, s.Objects[key].Value)
	}
	return b.String()
}

func wantNoEvents(t *testing.T, events []harness.Event) {
	t.Helper()
	if len(events) > 0 {
		t.Errorf("%d events, want none:\n%s", len(events), harness.Describe(events))
	}
}

// wantUnchanged fails when anything but the fence differs.
func wantUnchanged(t *testing.T, before, after harness.Snapshot) {
	t.Helper()
	if diff := cmp.Diff(withoutFence(before), withoutFence(after)); diff != "" {
		t.Errorf("the store changed (-before +after):\n%s", diff)
	}
}
