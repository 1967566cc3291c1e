package admin_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	adminpb "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"meshbridge/cmd/internal/admin"
	"meshbridge/xds"
)

func TestOnlyThisHostIsAnswered(t *testing.T) {
	b := newBridge()
	handler := admin.Guard(b.Handler())
	for _, test := range []struct {
		name, method, peer, host, site string
		want                           int
	}{
		{"port forward", "GET", "127.0.0.1:1", "localhost:41234", "", 200},
		{"loopback", "GET", "127.0.0.1:1", "127.0.0.1:15000", "", 200},
		{"mapped", "GET", "[::ffff:127.0.0.1]:1", "127.0.0.1:15000", "", 200},
		{"IPv6", "GET", "[::1]:1", "[::1]:15000", "", 200},
		{"no port", "GET", "[::1]:1", "[::1]", "", 200},
		{"HTTP/1.0", "GET", "127.0.0.1:1", "", "", 200},
		{"another host", "GET", "10.0.0.9:1", "127.0.0.1:15000", "", 403},
		{"a name that was made to resolve to loopback", "GET", "127.0.0.1:1", "rebind.example:15000", "", 403},
		{"an address of the pod", "GET", "127.0.0.1:1", "10.0.0.1:15000", "", 403},
		{"a name that begins like it", "GET", "127.0.0.1:1", "localhost.example:15000", "", 403},
		{"a form on a page elsewhere", "POST", "127.0.0.1:1", "127.0.0.1:15000", "cross-site", 403},
		{"a tool", "POST", "127.0.0.1:1", "127.0.0.1:15000", "", 200},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := httptest.NewRequest(test.method, "http://127.0.0.1/reset_counters", http.NoBody)
			if test.method == http.MethodGet {
				r.URL.Path = "/help"
			}
			r.RemoteAddr, r.Host = test.peer, test.host
			if test.site != "" {
				r.Header.Set("Sec-Fetch-Site", test.site)
			}
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, r)
			if w.Code != test.want {
				t.Errorf("%d %s, want %d", w.Code, w.Body, test.want)
			}
		})
	}
}

func TestWhatChangesSomethingWantsPOST(t *testing.T) {
	b := newBridge()
	for _, path := range []string{"/quitquitquit", "/drain_listeners", "/healthcheck/fail", "/healthcheck/ok", "/reset_counters"} {
		if status, body := b.do(http.MethodGet, path); status != http.StatusMethodNotAllowed {
			t.Errorf("GET %s: %d %s", path, status, body)
		}
	}
	if b.ended+b.drained != 0 || b.Failed() {
		t.Error("a GET changed something")
	}
	for _, path := range []string{"/quitquitquit", "/drain_listeners?graceful", "/healthcheck/fail", "/reset_counters"} {
		if status, body := b.do(http.MethodPost, path); status != http.StatusOK || body != "OK\n" {
			t.Errorf("POST %s: %d %s", path, status, body)
		}
	}
	if b.ended != 1 || b.drained != 1 || !b.Failed() {
		t.Errorf("ended %d, drained %d, failed %t", b.ended, b.drained, b.Failed())
	}
}

func TestTheStateIsEnvoys(t *testing.T) {
	b := newBridge()
	want := func(state string, status int) {
		t.Helper()
		if code, body := b.do(http.MethodGet, "/ready"); code != status || body != state+"\n" {
			t.Errorf("/ready: %d %s, want %d %s", code, body, status, state)
		}
		info := decode(t, b.get(t, "/server_info"), &adminpb.ServerInfo{})
		if info.GetState().String() != state {
			t.Errorf("/server_info: %s, want %s", info.GetState(), state)
		}
	}
	want("LIVE", 200)
	b.do(http.MethodPost, "/healthcheck/fail")
	want("DRAINING", 503)
	b.do(http.MethodPost, "/healthcheck/ok")
	b.ready = false
	want("INITIALIZING", 503)
	b.world = admin.World{}
	want("PRE_INITIALIZING", 503)
	info := decode(t, b.get(t, "/server_info"), &adminpb.ServerInfo{})
	if parts := strings.Split(info.GetVersion(), "/"); len(parts) != 5 || parts[1] != "1.2.3" {
		t.Errorf("version %q", info.GetVersion())
	}
	if o := info.GetCommandLineOptions(); o.GetServiceNode() != info.GetNode().GetId() || o.GetLogLevel() != "info" {
		t.Errorf("options %v", o)
	}
}

func TestLevelsOfTheLogAreShownAndChanged(t *testing.T) {
	b := newBridge()
	contains(t, b.get(t, "/logging"), "active loggers:\n", "  xds: info\n")
	if status, _ := b.do(http.MethodGet, "/logging?level=debug"); status != http.StatusMethodNotAllowed {
		t.Errorf("GET changes levels: %d", status)
	}
	for _, step := range []struct {
		query  string
		status int
		has    []string
	}{
		{"", 200, []string{"  xds: info\n"}},
		{"?level=warning", 200, []string{"  xds: warning\n", "  bridge: warning\n"}},
		{"?xds=debug", 200, []string{"  xds: debug\n", "  bridge: warning\n"}},
		{"?paths=dns:trace,etcd:off", 200, []string{"  dns: trace\n", "  etcd: off\n", "  xds: debug\n"}},
		{"?upstream=debug", 400, []string{`unknown logger name "upstream"`, "usage: "}},
		{"?paths=xds:info,upstream:debug", 400, []string{"unknown logger"}},
		{"?level=loud", 400, []string{`"loud"`, "levels: trace debug"}},
		{"?paths=xds", 400, []string{"scope:level"}},
		{"?paths=xds:loud,dns:info", 400, []string{`"loud"`}},
		{"", 200, []string{"  xds: debug\n", "  dns: trace\n"}}, // refused changes change nothing
	} {
		status, body := b.do(http.MethodPost, "/logging"+step.query)
		if status != step.status {
			t.Errorf("%s: %d %s", step.query, status, body)
		}
		contains(t, body, step.has...)
	}
}

func TestStats(t *testing.T) {
	b := newBridge(mesh(t)...)
	contains(t, b.get(t, "/stats"), "server.state: 0\n", "cluster_manager.cds.update_success: 3\n",
		"listener_manager.workers_started: 1\n", "cluster_manager.active_clusters: 2\n", "meshbridge_xds_pushes_total.type.Cluster: 3\n", "idle: 0\n")
	if body := b.get(t, "/stats?usedonly&filter=cds%5C.update"); body != "cluster_manager.cds.update_success: 3\n" {
		t.Errorf("filtered: %q", body)
	}
	if body := b.get(t, "/stats?type=Counters"); strings.Contains(body, "server.state") {
		t.Errorf("gauges among the counters: %s", body)
	}
	var all struct {
		Stats []struct {
			Name  string
			Value float64
		}
	}
	if err := json.Unmarshal([]byte(b.get(t, "/stats?format=json")), &all); err != nil || len(all.Stats) < 10 {
		t.Errorf("%v: %v", err, all)
	}
	for _, path := range []string{"/stats/prometheus", "/stats?format=prometheus"} {
		contains(t, b.get(t, path), `meshbridge_xds_pushes_total{type="Cluster"} 3`)
	}
	for _, path := range []string{"/stats?filter=(", "/stats?format=x"} {
		if status, _ := b.do(http.MethodGet, path); status != http.StatusBadRequest {
			t.Errorf("%s: %d", path, status)
		}
	}
}

func TestHostsOfClusters(t *testing.T) {
	host := func(ip string, health corepb.HealthStatus, weight uint32) *endpointpb.LbEndpoint {
		e := &endpointpb.LbEndpoint{HealthStatus: health, HostIdentifier: &endpointpb.LbEndpoint_Endpoint{Endpoint: &endpointpb.Endpoint{
			Address: &corepb.Address{Address: &corepb.Address_SocketAddress{SocketAddress: &corepb.SocketAddress{
				Address: ip, PortSpecifier: &corepb.SocketAddress_PortValue{PortValue: 8080},
			}}},
		}}}
		if weight > 0 {
			e.LoadBalancingWeight = wrapperspb.UInt32(weight)
		}
		return e
	}
	b := newBridge(
		resource(t, xds.ClusterType, "eds", &clusterpb.Cluster{
			Name: "eds", ClusterDiscoveryType: &clusterpb.Cluster_Type{Type: clusterpb.Cluster_EDS},
			EdsClusterConfig: &clusterpb.Cluster_EdsClusterConfig{ServiceName: "service"},
			CircuitBreakers: &clusterpb.CircuitBreakers{Thresholds: []*clusterpb.CircuitBreakers_Thresholds{
				{MaxConnections: wrapperspb.UInt32(7)},
			}},
		}),
		resource(t, xds.EndpointType, "service", &endpointpb.ClusterLoadAssignment{ClusterName: "service", Endpoints: []*endpointpb.LocalityLbEndpoints{{
			Locality: &corepb.Locality{Region: "r", Zone: "z"}, Priority: 1,
			LbEndpoints: []*endpointpb.LbEndpoint{host("10.0.0.1", 0, 0), host("10.0.0.2", corepb.HealthStatus_UNHEALTHY, 5), host("fd00::1", corepb.HealthStatus_DRAINING, 1)},
		}}}),
		resource(t, xds.ClusterType, "named", &clusterpb.Cluster{
			Name: "named", ClusterDiscoveryType: &clusterpb.Cluster_Type{Type: clusterpb.Cluster_STRICT_DNS},
			LoadAssignment: &endpointpb.ClusterLoadAssignment{Endpoints: []*endpointpb.LocalityLbEndpoints{{
				LbEndpoints: []*endpointpb.LbEndpoint{host("db.example", 0, 0), host("unknown.example", 0, 0)},
			}}},
		}),
	)
	type line struct {
		Cluster, Address, Hostname string
		Health                     corepb.HealthStatus
		Weight                     uint32
	}
	var got []line
	for _, c := range decode(t, b.get(t, "/clusters?format=json"), &adminpb.Clusters{}).GetClusterStatuses() {
		for _, h := range c.GetHostStatuses() {
			got = append(got, line{c.GetName(), h.GetAddress().GetSocketAddress().GetAddress(), h.GetHostname(), h.GetHealthStatus().GetEdsHealthStatus(), h.GetWeight()})
		}
	}
	want := []line{
		{"eds", "10.0.0.1", "", corepb.HealthStatus_HEALTHY, 1},
		{"eds", "10.0.0.2", "", corepb.HealthStatus_UNHEALTHY, 5},
		{"eds", "fd00::1", "", corepb.HealthStatus_DRAINING, 1},
		{"named", "192.0.2.1", "db.example", corepb.HealthStatus_HEALTHY, 1},
		{"named", "192.0.2.2", "db.example", corepb.HealthStatus_HEALTHY, 1},
		{"named", "unknown.example", "unknown.example", corepb.HealthStatus_HEALTHY, 1},
	}
	if len(got) != len(want) {
		t.Fatalf("%v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%v, want %v", got[i], want[i])
		}
	}
	contains(t, b.get(t, "/clusters"), "eds::default_priority::max_connections::7\n", "eds::high_priority::max_retries::3\n",
		"eds::10.0.0.2:8080::health_flags::/failed_eds_health\n", "eds::[fd00::1]:8080::priority::1\n", "eds::10.0.0.1:8080::region::r\n")
}

func TestListenersAndCertificates(t *testing.T) {
	b := newBridge(resource(t, xds.ListenerType, "0.0.0.0_80", &listenerpb.Listener{
		Name: "0.0.0.0_80", Address: &corepb.Address{Address: &corepb.Address_SocketAddress{SocketAddress: &corepb.SocketAddress{
			Address: "0.0.0.0", PortSpecifier: &corepb.SocketAddress_PortValue{PortValue: 80},
		}}},
	}))
	if body := b.get(t, "/listeners"); body != "0.0.0.0_80::0.0.0.0:80\n" {
		t.Errorf("%q", body)
	}
	if n := len(decode(t, b.get(t, "/certs"), &adminpb.Certificates{}).GetCertificates()); n != 0 {
		t.Errorf("%d certificates before there is one", n)
	}
	b.identity, _ = newIdentity(t)
	certificates := decode(t, b.get(t, "/certs"), &adminpb.Certificates{}).GetCertificates()
	if len(certificates) != 1 || len(certificates[0].GetCaCert()) != 1 || len(certificates[0].GetCertChain()) != 1 {
		t.Fatalf("%v", certificates)
	}
	c := certificates[0].GetCertChain()[0]
	if c.GetSerialNumber() != "abc" || c.GetDaysUntilExpiration() != 2 || c.GetSubjectAltNames()[0].GetUri() != "spiffe://cluster.local/ns/default/sa/a" {
		t.Errorf("%v", c)
	}
}

func TestTheRestOfTheAPI(t *testing.T) {
	b := newBridge()
	if m := decode(t, b.get(t, "/memory"), &adminpb.Memory{}); m.GetAllocated() == 0 || m.GetHeapSize() < m.GetAllocated() {
		t.Errorf("memory %v", m)
	}
	contains(t, b.get(t, "/runtime"), `"layers": []`)
	contains(t, b.get(t, "/"), "/config_dump", "/quitquitquit", "(POST)", "/explain")
	for path, want := range map[string]int{"/nonsense": 404, "/contention": 404, "/clusters?format=x": 400, "/listeners?format=x": 400} {
		if status, body := b.do(http.MethodGet, path); status != want {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if status, _ := b.do(http.MethodDelete, "/stats"); status != http.StatusMethodNotAllowed {
		t.Errorf("DELETE: %d", status)
	}
}
