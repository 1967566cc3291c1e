package bridge

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	accesslogpb "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	accesslog_filepb "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	tcp_proxypb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
	statspb "istio.io/api/envoy/extensions/stats"

	"meshbridge/capture"
	"meshbridge/cmd/internal/accesslog"
	"meshbridge/xds/xdstest"
)

// passthrough are a listener, and a cluster, for what no service claims.
func passthrough() []proto.Message {
	typed := func(name string, m proto.Message) *listenerpb.Filter {
		return &listenerpb.Filter{Name: name, ConfigType: &listenerpb.Filter_TypedConfig{TypedConfig: xdstest.Any(m)}}
	}
	log := &accesslogpb.AccessLog{Name: "file", ConfigType: &accesslogpb.AccessLog_TypedConfig{TypedConfig: xdstest.Any(&accesslog_filepb.FileAccessLog{
		Path: "/dev/stdout",
		AccessLogFormat: &accesslog_filepb.FileAccessLog_LogFormat{LogFormat: &corepb.SubstitutionFormatString{
			Format: &corepb.SubstitutionFormatString_TextFormatSource{TextFormatSource: &corepb.DataSource{
				Specifier: &corepb.DataSource_InlineString{InlineString: "%UPSTREAM_CLUSTER% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_HOST%\n"},
			}},
		}},
	})}}
	return []proto.Message{
		&listenerpb.Listener{
			Name: "virtualOutbound", TrafficDirection: corepb.TrafficDirection_OUTBOUND, UseOriginalDst: wrapperspb.Bool(true),
			Address: &corepb.Address{Address: &corepb.Address_SocketAddress{SocketAddress: &corepb.SocketAddress{
				Address: "0.0.0.0", PortSpecifier: &corepb.SocketAddress_PortValue{PortValue: 15001},
			}}},
			FilterChains: []*listenerpb.FilterChain{{Name: "virtualOutbound-catchall-tcp", Filters: []*listenerpb.Filter{
				typed("istio.stats", &statspb.PluginConfig{}),
				typed("envoy.filters.network.tcp_proxy", &tcp_proxypb.TcpProxy{
					StatPrefix: "PassthroughCluster", ClusterSpecifier: &tcp_proxypb.TcpProxy_Cluster{Cluster: "PassthroughCluster"},
					AccessLog: []*accesslogpb.AccessLog{log},
				}),
			}}},
		},
		&clusterpb.Cluster{
			Name: "PassthroughCluster", ClusterDiscoveryType: &clusterpb.Cluster_Type{Type: clusterpb.Cluster_ORIGINAL_DST},
			LbPolicy: clusterpb.Cluster_CLUSTER_PROVIDED,
		},
	}
}

// freePort returns a port of this host that nobody has.
func freePort(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// text is a file that is written and read at a time.
type text struct {
	mu sync.Mutex
	b  strings.Builder
}

func (w *text) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *text) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

func TestConnectionsAreInIstiosMetricsAndInAccessLogs(t *testing.T) {
	for name, c := range map[string]struct {
		metrics         RequestMetrics
		logs            bool
		counted, logged bool
	}{
		"as istiod wants it": {RequestMetricsAuto, true, true, true},
		"without metrics":    {RequestMetricsOff, true, false, true},
		"without logs":       {RequestMetricsAuto, false, true, false},
		"without both":       {RequestMetricsOff, false, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			backend, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer backend.Close()
			go func() {
				conn, err := backend.Accept()
				if err == nil {
					_, _ = io.Copy(conn, conn)
					_ = conn.Close()
				}
			}()
			istiod := xdstest.NewServer(t)
			istiod.Set(passthrough()...)
			config := testConfig(istiod)
			config.Node, config.RequestMetrics = xdstest.Node(), c.metrics
			written := new(text)
			if c.logs {
				config.AccessLogs = &accesslog.Config{Stdout: written}
			} else {
				config.Translate.NoAccessLogs = true
			}
			redirected := freePort(t)
			config.Capture = &CaptureConfig{
				Server: capture.Config{
					Outbound: []netip.AddrPort{redirected},
					OriginalDestination: func(net.Conn) (netip.AddrPort, error) {
						return netip.ParseAddrPort(backend.Addr().String())
					},
				},
				FirstStreamPort: 16000, LastStreamPort: 16001, Overlay: netip.MustParsePrefix("127.96.0.0/11"),
			}
			r := startBridge(t, config)
			r.waitReady(t)
			r.client(t).Watch(t.Context(), "/apisix/", clientv3.WithPrefix()) // what capture waits for
			var conn net.Conn
			eventually(t, "the listener", func() bool {
				conn, err = net.Dial("tcp", redirected.String())
				return err == nil
			})
			if _, err := io.WriteString(conn, "hello"); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(conn, make([]byte, 5)); err != nil {
				t.Fatal(err)
			}
			found := false
			_, all := get(t, "http://"+r.address(2)+"/stats/prometheus")
			for line := range strings.Lines(all) {
				found = found || strings.HasPrefix(line, "istio_tcp_sent_bytes_total{") &&
					strings.Contains(line, `destination_service_name="PassthroughCluster"`) && strings.HasSuffix(line, "} 5\n")
			}
			if found != c.counted {
				t.Errorf("the connection is counted: %t; metrics:\n%s", found, all)
			}
			_ = conn.Close()
			r.stop() // which writes what is left
			want := ""
			if c.logged {
				want = "PassthroughCluster - 5 5 " + backend.Addr().String() + "\n"
			}
			if got := written.String(); got != want {
				t.Errorf("the access log has %q, want %q", got, want)
			}
		})
	}
}
