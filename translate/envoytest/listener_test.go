package envoytest

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"meshbridge/xds"
)

// load returns an evaluator of resources in YAML.
func load(tb testing.TB, resources string) *Evaluator {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "xds.yaml")
	if err := os.WriteFile(path, []byte(resources), 0o600); err != nil {
		tb.Fatal(err)
	}
	snap, rejected, err := xds.LoadFiles(path)
	if err != nil || len(rejected) > 0 {
		tb.Fatalf("%v, rejected %v", err, rejected)
	}
	e, err := New(snap)
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

const chains = `
- '@type': type.googleapis.com/envoy.config.listener.v3.Listener
  name: l
  use_original_dst: true
  address: {socket_address: {address: 0.0.0.0, port_value: 443}}
  listener_filters:
  - name: tls
    typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}
  - name: http
    typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector}
    filter_disabled: {destination_port_range: {start: 100, end: 101}}
  filter_chains:
  - {name: port, filter_chain_match: {destination_port: 100, transport_protocol: raw_buffer}, filters: &tcp [{name: tcp, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, cluster: c}}]}
  - {name: port-http, filter_chain_match: {destination_port: 100, application_protocols: [http/1.1]}, filters: *tcp}
  - {name: net-8, filter_chain_match: {prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]}, filters: *tcp}
  - {name: net-16, filter_chain_match: {prefix_ranges: [{address_prefix: 10.1.0.0, prefix_len: 16}, {address_prefix: 10.2.0.0, prefix_len: 16}]}, filters: *tcp}
  - {name: net-16-tls, filter_chain_match: {prefix_ranges: [{address_prefix: 10.1.0.0, prefix_len: 16}], transport_protocol: tls}, filters: *tcp}
  - {name: exact, filter_chain_match: {server_names: [a.example.com]}, filters: *tcp}
  - {name: wide, filter_chain_match: {server_names: ["*.example.com", "*.org"]}, filters: *tcp}
  - {name: wide-h2, filter_chain_match: {server_names: ["*.example.com"], application_protocols: [h2]}, filters: *tcp}
  - {name: plain, filter_chain_match: {transport_protocol: raw_buffer}, filters: *tcp}
  - {name: near, filter_chain_match: {transport_protocol: raw_buffer, source_type: SAME_IP_OR_LOOPBACK}, filters: *tcp}
  - {name: from, filter_chain_match: {transport_protocol: raw_buffer, source_prefix_ranges: [{address_prefix: 192.168.0.0, prefix_len: 16}]}, filters: *tcp}
  - {name: from-port, filter_chain_match: {transport_protocol: raw_buffer, source_prefix_ranges: [{address_prefix: 192.168.0.0, prefix_len: 16}], source_ports: [7]}, filters: *tcp}
  default_filter_chain: {name: default, filters: *tcp}
`

// The criteria of Envoy's filter chain match come one after the other, with no way back.
func TestTheMostSpecificFilterChainIsChosen(t *testing.T) {
	e := load(t, chains)
	for _, c := range []struct {
		name string
		conn Connection
		want string
	}{
		{"destination port", Connection{Destination: at("1.1.1.1:100")}, "port"},
		{"a port that has chains, none of which fits", Connection{Destination: at("1.1.1.1:100"), TLS: true}, "default"},
		{"longest prefix", Connection{Destination: at("10.1.1.1:443")}, "net-16"},
		{"shorter prefix", Connection{Destination: at("10.3.1.1:443")}, "net-8"},
		{"prefix, then transport", Connection{Destination: at("10.1.1.1:443"), TLS: true, ServerName: "a.example.com"}, "net-16-tls"},
		{"prefix before server name", Connection{Destination: at("10.2.1.1:443"), TLS: true, ServerName: "a.example.com"}, "net-16"},
		{"exact server name", Connection{Destination: at("1.1.1.1:443"), TLS: true, ServerName: "A.example.com"}, "exact"},
		{"exact name before protocol", Connection{Destination: at("1.1.1.1:443"), TLS: true, ServerName: "a.example.com", ALPN: []string{"h2"}}, "exact"},
		{"wildcard of any depth", Connection{Destination: at("1.1.1.1:443"), TLS: true, ServerName: "x.y.example.com"}, "wide"},
		{"the client's first protocol", Connection{Destination: at("1.1.1.1:443"), TLS: true, ServerName: "b.example.com", ALPN: []string{"foo", "h2"}}, "wide-h2"},
		{"the wildcard's own domain", Connection{Destination: at("1.1.1.1:443"), TLS: true, ServerName: "example.com"}, "default"},
		{"plain", Connection{Destination: at("1.1.1.1:443"), Source: at("2.2.2.2:1")}, "plain"},
		{"from loopback", Connection{Destination: at("1.1.1.1:443"), Source: at("127.0.0.1:1")}, "near"},
		{"source", Connection{Destination: at("1.1.1.1:443"), Source: at("192.168.0.1:1")}, "from"},
		{"source port", Connection{Destination: at("1.1.1.1:443"), Source: at("192.168.0.1:7")}, "from-port"},
	} {
		c.conn.Direction = Outbound
		if got := e.Evaluate(Request{Connection: c.conn}); got.FilterChain != c.want {
			t.Errorf("%s: chain %q, want %q", c.name, got.FilterChain, c.want)
		}
	}
}

func TestTheListenerOfTheVeryAddressIsChosen(t *testing.T) {
	e := load(t, `
- {'@type': type.googleapis.com/envoy.config.listener.v3.Listener, name: wildcard, bind_to_port: false, address: {socket_address: {address: 0.0.0.0, port_value: 80}}, default_filter_chain: {filters: []}}
- {'@type': type.googleapis.com/envoy.config.listener.v3.Listener, name: own, bind_to_port: false, address: {socket_address: {address: 10.0.0.1, port_value: 80}}, default_filter_chain: {filters: []}}
- {'@type': type.googleapis.com/envoy.config.listener.v3.Listener, name: virtual, use_original_dst: true, address: {socket_address: {address: 0.0.0.0, port_value: 15001}}, default_filter_chain: {filters: []}}
- {'@type': type.googleapis.com/envoy.config.listener.v3.Listener, name: inbound, use_original_dst: true, traffic_direction: INBOUND, address: {socket_address: {address: 0.0.0.0, port_value: 15006}}, default_filter_chain: {filters: []}}
- {'@type': type.googleapis.com/envoy.config.listener.v3.Listener, name: edge, address: {socket_address: {address: 0.0.0.0, port_value: 8080}}, default_filter_chain: {filters: []}}
`)
	for _, c := range []struct {
		conn Connection
		want string
	}{
		{Connection{Direction: Outbound, Destination: at("10.0.0.1:80")}, "own"},
		{Connection{Direction: Outbound, Destination: at("10.0.0.2:80")}, "wildcard"},
		{Connection{Direction: Outbound, Destination: at("10.0.0.1:81")}, "virtual"},
		{Connection{Direction: Inbound, Destination: at("10.0.0.1:80")}, "inbound"},
		{Connection{Direction: Edge, Destination: at("10.9.9.9:8080")}, "edge"},
		{Connection{Direction: Edge, Destination: at("10.9.9.9:80")}, ""},
	} {
		if got := e.Evaluate(Request{Connection: c.conn}); got.Listener != c.want {
			t.Errorf("%v: listener %q, want %q", c.conn, got.Listener, c.want)
		}
	}
}

func at(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
