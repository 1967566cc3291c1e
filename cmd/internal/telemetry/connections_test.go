package telemetry

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"

	"meshbridge/capture"
	"meshbridge/translate"
	"meshbridge/translate/accesslog"
)

const (
	database   = "outbound|5432||db.data.svc.cluster.local"
	clientID   = "spiffe://cluster.local/ns/shop/sa/client" // of newWorld
	databaseID = "spiffe://cluster.local/ns/data/sa/db"
)

// newTCPWorld is newWorld with a service of TCP.
func newTCPWorld(tb testing.TB, endpoints ...string) *fakeWorld {
	tb.Helper()
	w := newWorld(tb)
	for _, c := range []*translate.Chain{
		{Key: "tcp:db", Listener: "10.96.0.5_5432", Direction: translate.Outbound, Stats: &translate.Stats{Reporter: "source"}},
		{Key: "tcp:any", Listener: "virtualOutbound", Direction: translate.Outbound, Stats: &translate.Stats{Reporter: "source"}},
		{Key: "i:tcp:db", Listener: "virtualInbound", Direction: translate.Inbound, Stats: &translate.Stats{Reporter: "destination"}},
		{Key: "tcp:uncounted", Direction: translate.Outbound},
	} {
		w.chains[c.Key] = c
	}
	w.load(tb, fmt.Sprintf(`
- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: %[1]q
  type: EDS
  alt_stat_name: "outbound|5432||db.data.svc.cluster.local;"
  eds_cluster_config: {eds_config: {ads: {}}}
  metadata: {filter_metadata: {istio: {services: [{host: db.data.svc.cluster.local, name: db, namespace: data}]}}}
- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: inbound|5432||
  type: ORIGINAL_DST
  lb_policy: CLUSTER_PROVIDED
  metadata: {filter_metadata: {istio: {services: [{host: web.shop.svc.cluster.local, name: web, namespace: shop}]}}}
- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: PassthroughCluster
  type: ORIGINAL_DST
  lb_policy: CLUSTER_PROVIDED
- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: BlackHoleCluster
  type: STATIC
`, database))
	w.endpoints(tb, endpoints...)
	return w
}

// endpoints replaces those of the database: 10.0.1.1 and so on, with what istiod says of each workload.
func (w *fakeWorld) endpoints(tb testing.TB, workloads ...string) {
	tb.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "\n- \"@type\": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment\n  cluster_name: %q\n", database)
	for i, workload := range workloads {
		if i == 0 {
			b.WriteString("  endpoints:\n  - lb_endpoints:\n")
		}
		fmt.Fprintf(&b, "    - endpoint: {address: {socket_address: {address: 10.0.1.%d, port_value: 5432}}}\n"+
			"      metadata: {filter_metadata: {istio: {workload: %q}}}\n", i+1, workload)
	}
	w.load(tb, b.String())
}

// secure makes capture stand for an endpoint of the database, whose certificate must be for an identity.
func (w *fakeWorld) secure(endpoint int, identity string) {
	address := netip.AddrFrom4([4]byte{127, 96, 0, byte(endpoint)})
	w.overlay[address] = &translate.OverlayEndpoint{
		Address: address, Cluster: database, TCP: true, Target: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 1, byte(endpoint)}), 5432),
		TLS: &translate.UpstreamTLS{Credential: translate.Credential{Workload: true}, SANs: []translate.SANMatch{{Exact: identity}}},
	}
}

// watched is Connections with the registry of its metrics.
type watched struct {
	*Connections
	counted
}

func newWatched(t *testing.T, w World, entries Entries) watched {
	t.Helper()
	registry := prometheus.NewRegistry()
	x := NewConnections(Config{World: w, Node: node(), Registerer: registry, Entries: entries})
	return watched{x, counted{registry: registry}}
}

// connected is a connection as capture tells of it.
func connected(chain, cluster string, set ...func(*capture.Connected)) *capture.Connected {
	now := time.Now()
	c := &capture.Connected{Chain: chain, Cluster: cluster, Listener: &translate.Listener{Name: "l"}, Started: now, Ended: now.Add(time.Second)}
	for _, f := range set {
		f(c)
	}
	return c
}

// direct makes capture connect to where the client wanted to go.
func direct(c *capture.Connected) { c.Upstream = netip.MustParseAddrPort("10.0.9.9:5432") }

func refused(reason string) func(*capture.Connected) {
	return func(c *capture.Connected) { c.Outcome, c.Reason, c.Detail = "refused", reason, "in words" }
}

func principal(id string) func(*capture.Connected) {
	return func(c *capture.Connected) { c.MutualTLS, c.Principal = id != "", id }
}

func transfer(c *capture.Connected, sent, received int64) {
	c.Sent.Add(sent)
	c.Received.Add(received)
}

func TestAnOutboundConnectionHasTheLabelsOfIstiosClients(t *testing.T) {
	w := newTCPWorld(t, "db;data;db;v3;Kubernetes")
	w.secure(1, databaseID)
	x := newWatched(t, w, nil)
	c := connected("tcp:db", database)
	x.Opened(c)
	transfer(c, 2000, 100)
	x.Closed(c)
	const labels = `connection_security_policy="unknown",destination_app="unknown",destination_canonical_revision="v3",` +
		`destination_canonical_service="db",destination_cluster="Kubernetes",destination_principal="` + databaseID + `",` +
		`destination_service="db.data.svc.cluster.local",destination_service_name="db",destination_service_namespace="data",` +
		`destination_version="unknown",destination_workload="db",destination_workload_namespace="data",` +
		`reporter="source",request_protocol="tcp",response_flags="-",source_app="client",` +
		`source_canonical_revision="v7",source_canonical_service="client",source_cluster="Kubernetes",source_principal="` + clientID + `",` +
		`source_version="v7",source_workload="client",source_workload_namespace="shop"`
	x.compare(t, `
# HELP istio_tcp_connections_closed_total TCP connections that have ended.
# TYPE istio_tcp_connections_closed_total counter
istio_tcp_connections_closed_total{`+labels+`} 1
# HELP istio_tcp_connections_opened_total TCP connections that were opened.
# TYPE istio_tcp_connections_opened_total counter
istio_tcp_connections_opened_total{`+labels+`} 1
# HELP istio_tcp_received_bytes_total Bytes received from clients of TCP connections.
# TYPE istio_tcp_received_bytes_total counter
istio_tcp_received_bytes_total{`+labels+`} 100
# HELP istio_tcp_sent_bytes_total Bytes sent to clients of TCP connections.
# TYPE istio_tcp_sent_bytes_total counter
istio_tcp_sent_bytes_total{`+labels+`} 2000
`, "istio_")
}

func TestAnInboundConnectionHasTheLabelsOfIstiosServers(t *testing.T) {
	x := newWatched(t, newTCPWorld(t), nil)
	own := []string{
		"reporter=destination", "request_protocol=tcp", "response_flags=-", "destination_workload=client", "destination_workload_namespace=shop",
		"destination_service=web.shop.svc.cluster.local", "destination_service_name=web", "destination_service_namespace=shop",
		"source_workload=unknown", "source_app=unknown",
	}
	for _, c := range []struct {
		principal string
		want      []string
	}{
		{"spiffe://cluster.local/ns/front/sa/web", []string{
			"source_principal=spiffe://cluster.local/ns/front/sa/web", "source_workload_namespace=front",
			"destination_principal=" + clientID, "connection_security_policy=mutual_tls",
		}},
		{"", []string{"source_principal=unknown", "source_workload_namespace=unknown", "destination_principal=unknown", "connection_security_policy=none"}},
	} {
		x.Closed(connectedAndOpened(x, "i:tcp:db", "inbound|5432||", principal(c.principal))) // through APISIX
		if n := x.value(t, "istio_tcp_connections_opened_total", append(slices.Clone(own), c.want...)...); n != 1 {
			t.Errorf("principal %q: %v connections have the labels", c.principal, n)
		}
	}
}

// connectedAndOpened is a connection that has opened.
func connectedAndOpened(x watched, chain, cluster string, set ...func(*capture.Connected)) *capture.Connected {
	c := connected(chain, cluster, set...)
	x.Opened(c)
	return c
}

func TestThePeerIsWhatAllEndpointsHaveInCommon(t *testing.T) {
	for name, c := range map[string]struct {
		endpoints  []string
		identities []string // empty is no TLS
		want       []string
	}{
		"replicas": {
			[]string{"db;data;db;v3;Kubernetes", "db;data;db;v3;Kubernetes"},
			[]string{databaseID, databaseID},
			[]string{"destination_workload=db", "destination_canonical_revision=v3", "destination_cluster=Kubernetes", "destination_principal=" + databaseID, "source_principal=" + clientID},
		},
		"two versions": {
			[]string{"db-v3;data;db;v3;Kubernetes", "db-v4;data;db;v4;Kubernetes"},
			[]string{databaseID, databaseID},
			[]string{"destination_workload=unknown", "destination_canonical_service=db", "destination_canonical_revision=latest", "destination_workload_namespace=data", "destination_principal=" + databaseID},
		},
		"two clusters": {
			[]string{"db;data;db;v3;Kubernetes", "db;data;db;v3;other"},
			[]string{databaseID, databaseID},
			[]string{"destination_workload=db", "destination_cluster=unknown"},
		},
		"two accounts": {
			[]string{"db;data;db;v3;Kubernetes", "db;data;db;v3;Kubernetes"},
			[]string{databaseID, databaseID + "2"},
			[]string{"destination_workload=db", "destination_principal=unknown", "source_principal=" + clientID},
		},
		"one without TLS": {
			[]string{"db;data;db;v3;Kubernetes", "db;data;db;v3;Kubernetes"},
			[]string{databaseID, ""},
			[]string{"destination_workload=db", "destination_principal=unknown", "source_principal=unknown"},
		},
		"one that nothing is said of": {
			[]string{"db;data;db;v3;Kubernetes", ""},
			[]string{"", ""},
			[]string{"destination_workload=unknown", "destination_workload_namespace=unknown", "destination_service_namespace=data", "destination_service_name=db"},
		},
		"none": {
			nil, nil,
			[]string{"destination_workload=unknown", "destination_service_name=db", "response_flags=UH"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newTCPWorld(t, c.endpoints...)
			for i, id := range c.identities {
				if id != "" {
					w.secure(i+1, id)
				}
			}
			x := newWatched(t, w, nil)
			x.Closed(connectedAndOpened(x, "tcp:db", database))
			if n := x.value(t, "istio_tcp_connections_closed_total", c.want...); n != 1 {
				x.compare(t, "", "istio_tcp_connections_closed_total")
			}
		})
	}
}

func TestWhatNoServiceClaimsHasIstiosNames(t *testing.T) {
	x := newWatched(t, newTCPWorld(t), nil)
	x.Closed(connectedAndOpened(x, "tcp:any", "PassthroughCluster", direct))
	x.Closed(connected("tcp:any", "BlackHoleCluster", refused(capture.ReasonChain)))
	x.Closed(connectedAndOpened(x, "i:tcp:db", "InboundPassthroughCluster", direct))
	for _, want := range [][]string{
		{"destination_service_name=PassthroughCluster", "destination_service=unknown", "response_flags=-", "reporter=source"},
		{"destination_service_name=BlackHoleCluster", "response_flags=UH", "reporter=source"},
		{"destination_service_name=InboundPassthroughCluster", "destination_service=client", "reporter=destination"},
	} {
		for _, metric := range []string{"opened", "closed"} {
			if n := x.value(t, "istio_tcp_connections_"+metric+"_total", want...); n != 1 {
				t.Errorf("%v %s connections have %v", n, metric, want)
			}
		}
	}
}

func TestResponseFlagsSayWhyAConnectionWasRefused(t *testing.T) {
	x := newWatched(t, newTCPWorld(t, "db;data;db;v3;Kubernetes"), nil)
	for _, c := range []struct{ cluster, reason, flags string }{
		{"PassthroughCluster", "dial", "UF,URX"},
		{"BlackHoleCluster", capture.ReasonChain, "UH"},
		{"outbound|1||gone.default.svc.cluster.local", capture.ReasonChain, "NC"},
		{"", capture.ReasonChain, "-"},
		{"", capture.ReasonPolicy, "-"},
		{"", capture.ReasonTLS, "-"},
	} {
		before := x.value(t, "istio_tcp_connections_closed_total", "response_flags="+c.flags)
		x.Closed(connected("tcp:any", c.cluster, refused(c.reason)))
		if n := x.value(t, "istio_tcp_connections_closed_total", "response_flags="+c.flags) - before; n != 1 {
			t.Errorf("%s of %q does not have the flags %s", c.reason, c.cluster, c.flags)
		}
	}
	if opened := x.value(t, "istio_tcp_connections_opened_total"); opened != 6 {
		t.Errorf("%v have opened; in Envoy all do", opened)
	}
	x.Closed(connected("", "", refused(capture.ReasonNoChain)))
	if n := x.value(t, "istio_tcp_connections_closed_total"); n != 6 {
		t.Error("a connection that no chain takes is counted, which has no rules")
	}
}

func TestAConnectionKeepsItsLabelsWhenEndpointsChange(t *testing.T) {
	w := newTCPWorld(t, "db-v3;data;db;v3;Kubernetes")
	x := newWatched(t, w, nil)
	old := connectedAndOpened(x, "tcp:db", database)
	transfer(old, 10, 1)
	w.endpoints(t, "db-v4;data;db;v4;Kubernetes")
	young := connectedAndOpened(x, "tcp:db", database)
	transfer(old, 10, 1)
	transfer(young, 5, 5)
	delete(w.chains, "tcp:db")
	x.Closed(old)
	x.Closed(young)
	for revision, want := range map[string][4]float64{"v3": {1, 1, 20, 2}, "v4": {1, 1, 5, 5}} {
		got := [4]float64{
			x.value(t, "istio_tcp_connections_opened_total", "destination_canonical_revision="+revision),
			x.value(t, "istio_tcp_connections_closed_total", "destination_canonical_revision="+revision),
			x.value(t, "istio_tcp_sent_bytes_total", "destination_canonical_revision="+revision),
			x.value(t, "istio_tcp_received_bytes_total", "destination_canonical_revision="+revision),
		}
		if got != want {
			t.Errorf("%s: opened, closed, sent and received are %v, want %v", revision, got, want)
		}
	}
	// A chain that is gone is the one that it was; one that never was is nothing.
	x.Closed(connectedAndOpened(x, "tcp:db", database))
	x.Closed(connectedAndOpened(x, "tcp:never", database))
	if n := x.value(t, "istio_tcp_connections_closed_total"); n != 3 {
		t.Errorf("%v connections are counted, want 3", n)
	}
	if n := x.value(t, "meshbridge_connection_unattributed_total"); n != 1 {
		t.Errorf("%v connections are of unknown chains, want 1", n)
	}
}

func TestEveryScrapeHasTheBytesOfOpenConnections(t *testing.T) {
	x := newWatched(t, newTCPWorld(t, "db;data;db;v3;Kubernetes"), nil)
	c := connectedAndOpened(x, "tcp:db", database)
	var sent int64
	for _, more := range []int64{7, 0, 1 << 40} {
		transfer(c, more, 1)
		sent += more
		if got := x.value(t, "istio_tcp_sent_bytes_total"); got != float64(sent) {
			t.Errorf("%v bytes are counted, want %d", got, sent)
		}
	}
	if got := x.value(t, "istio_tcp_received_bytes_total"); got != 3 {
		t.Errorf("%v bytes are counted, want 3", got)
	}
	if opened, closed := x.value(t, "istio_tcp_connections_opened_total"), x.value(t, "istio_tcp_connections_closed_total"); opened != 1 || closed != 0 {
		t.Errorf("%v have opened and %v have closed", opened, closed)
	}
}

func TestWhichConnectionsAreCountedFollowsTheChain(t *testing.T) {
	w := newTCPWorld(t, "db;data;db;v3;Kubernetes")
	x := newWatched(t, w, nil)
	x.Closed(connectedAndOpened(x, "tcp:uncounted", database))
	if n := x.value(t, "istio_tcp_connections_opened_total"); n != 0 {
		t.Error("a chain without the filter is counted")
	}
	if n := len(x.open); n != 0 {
		t.Errorf("%d connections are followed that nobody asks about", n)
	}
	always := NewConnections(Config{World: w, Node: node(), Registerer: prometheus.NewRegistry(), Always: true})
	always.Opened(connected("tcp:uncounted", database))
	if n := len(always.open); n != 1 {
		t.Error("it is not counted where everything is to be")
	}
	never := NewConnections(Config{World: w, Node: node(), Registerer: prometheus.NewRegistry(), Always: true, Uncounted: true})
	never.Opened(connected("tcp:db", database))
	if n := len(never.open); n != 0 {
		t.Error("it is counted where nothing is to be")
	}

	w.chains["tcp:db"].Stats.Metrics = map[string]translate.MetricStats{
		"tcp_sent_bytes_total":     {Drop: true},
		"tcp_received_bytes_total": {Remove: []string{"destination_principal"}, Set: map[string]translate.StatsLabel{"team": {Known: true, Text: "storage"}}},
	}
	x.Closed(connectedAndOpened(x, "tcp:db", database))
	if x.value(t, "istio_tcp_received_bytes_total", "team=storage") != 0 || x.value(t, "istio_tcp_connections_closed_total") != 1 {
		t.Error("it is not counted by the rules")
	}
	x.compare(t, "", "istio_tcp_sent_bytes_total")
}

func TestSeriesOfOpenConnectionsAreNotForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTCPWorld(t, "db;data;db;v3;Kubernetes")
		w.chains["tcp:db"].Stats.Rotation, w.chains["tcp:db"].Stats.Grace = time.Minute, time.Minute
		x := newWatched(t, w, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- x.Run(ctx) }()
		c := connectedAndOpened(x, "tcp:db", database)
		transfer(c, 1, 1)
		time.Sleep(time.Hour) //nolint:forbidigo // the clock of the bubble
		transfer(c, 1, 1)
		if n := x.value(t, "istio_tcp_sent_bytes_total"); n != 2 {
			t.Errorf("%v bytes are counted of an old connection, want 2", n)
		}
		c.Ended = time.Now()
		x.Closed(c)
		time.Sleep(time.Hour) //nolint:forbidigo // as above
		if n := x.value(t, "istio_tcp_connections_opened_total"); n != 0 {
			t.Error("an old series is never forgotten")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestConnectionsAreLogged(t *testing.T) {
	w := newTCPWorld(t, "db;data;db;v3;Kubernetes")
	logs, listenerLogs := []*accesslog.Log{{Path: "/dev/stdout"}}, []*accesslog.Log{{Path: "/dev/stderr"}}
	for _, key := range []string{"tcp:db", "tcp:uncounted", "i:tcp:db"} {
		w.chains[key].AccessLogs = logs
	}
	entries := new(written)
	x := newWatched(t, w, entries)
	start := time.Now()
	source, destination := netip.MustParseAddrPort("10.0.0.9:40000"), netip.MustParseAddrPort("10.96.0.5:5432")
	at := func(c *capture.Connected) {
		c.Source, c.Direct, c.Destination, c.ServerName = source, source, destination, "db.data"
		c.Started, c.Ended = start, start.Add(3*time.Second)
		c.Listener.AccessLogs = listenerLogs
	}
	c := connectedAndOpened(x, "tcp:db", database, at) // which has one endpoint
	if len(entries.entries) != 0 {
		t.Fatal("a connection is logged that has not ended")
	}
	transfer(c, 2000, 100)
	x.Closed(c)
	x.Closed(connectedAndOpened(x, "tcp:uncounted", "PassthroughCluster", at, direct))
	x.Closed(connectedAndOpened(x, "i:tcp:db", "inbound|5432||", at, direct, principal("spiffe://cluster.local/ns/front/sa/web")))
	x.Closed(connected("i:tcp:db", "", at, refused(capture.ReasonPolicy), func(c *capture.Connected) { c.Policy = "ns[shop]-policy[p]-rule[0]" }))
	x.Closed(connected("i:tcp:db", "", at, refused(capture.ReasonPolicy)))
	x.Closed(connected("tcp:db", "PassthroughCluster", at, refused("dial")))
	x.Closed(connected("", "", at, refused(capture.ReasonNoChain)))
	x.Closed(connectedAndOpened(x, "tcp:any", "PassthroughCluster", at, direct)) // has no logs
	w.endpoints(t, "db;data;db;v3;Kubernetes", "db;data;db;v3;Kubernetes")
	x.Closed(connectedAndOpened(x, "tcp:db", database, at))
	x.Closed(connectedAndOpened(x, "i:tcp:db", "inbound|5432||", at)) // through APISIX

	common := accesslog.Entry{
		Start: start, Duration: 3 * time.Second, Listener: "l", Source: source, Direct: source, Destination: destination, ServerName: "db.data",
	}
	entry := func(set func(*accesslog.Entry)) *accesslog.Entry {
		e := common
		set(&e)
		return &e
	}
	upstream := netip.MustParseAddrPort("10.0.9.9:5432")
	want := []*accesslog.Entry{
		entry(func(e *accesslog.Entry) {
			e.Chain, e.Cluster, e.ClusterStat, e.Connection = "tcp:db", database, database+";", 1
			e.Sent, e.Received, e.UpstreamReceived, e.UpstreamSent = 2000, 100, 2000, 100
			e.Upstream = netip.MustParseAddrPort("10.0.1.1:5432")
		}),
		entry(func(e *accesslog.Entry) {
			e.Chain, e.Cluster, e.Upstream, e.Connection = "tcp:uncounted", "PassthroughCluster", upstream, 2
		}),
		entry(func(e *accesslog.Entry) {
			e.Chain, e.Cluster, e.Upstream, e.Connection = "i:tcp:db", "inbound|5432||", upstream, 3
			e.MutualTLS, e.Principal, e.OwnPrincipal = true, "spiffe://cluster.local/ns/front/sa/web", clientID
		}),
		entry(func(e *accesslog.Entry) {
			e.Chain, e.Connection, e.Detail = "i:tcp:db", 4, "rbac_access_denied_matched_policy[ns[shop]-policy[p]-rule[0]]"
		}),
		entry(func(e *accesslog.Entry) {
			e.Chain, e.Connection, e.Detail = "i:tcp:db", 5, "rbac_access_denied_matched_policy[none]"
		}),
		entry(func(e *accesslog.Entry) {
			e.Chain, e.Cluster, e.Connection, e.Flags, e.Detail = "tcp:db", "PassthroughCluster", 6, "UF,URX", "in words"
		}),
		entry(func(e *accesslog.Entry) { e.Connection, e.Flags, e.Detail = 7, "NR", "in words" }),
		entry(func(e *accesslog.Entry) {
			e.Chain, e.Cluster, e.ClusterStat, e.Connection = "tcp:db", database, database+";", 9
		}),
		entry(func(e *accesslog.Entry) {
			e.Chain, e.Cluster, e.Connection, e.Upstream = "i:tcp:db", "inbound|5432||", 10, destination
		}),
	}
	if diff := cmp.Diff(want, entries.entries, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
	for i, got := range entries.logs {
		want := logs
		if entries.entries[i].Flags == "NR" {
			want = listenerLogs
		}
		if !slices.Equal(got, want) {
			t.Errorf("entry %d is for %+v", i, got)
		}
	}
}

func TestClientsThatAreTooManyAreCountedTogether(t *testing.T) {
	x := newWatched(t, newTCPWorld(t), nil)
	const clients = maxSeries + 100
	for i := range clients {
		x.Closed(connectedAndOpened(x, "i:tcp:db", "inbound|5432||", direct, principal(fmt.Sprintf("spiffe://cluster.local/ns/front/sa/%d", i))))
	}
	if n := x.value(t, "istio_tcp_connections_closed_total"); n != clients {
		t.Errorf("%v connections are counted, want %d", n, clients)
	}
	if n := x.value(t, "meshbridge_connection_folded_total"); n != 100 {
		t.Errorf("%v are counted without their clients, want 100", n)
	}
}
