package apisixconfig

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"meshbridge/translate/apisix"
)

func mesh() Config {
	return Config{
		Profile: "mesh", Etcd: []string{"http://127.0.0.1:2379"}, Prefix: "/apisix",
		HTTPPort: 15480, HTTPSPort: 15481, FirstStreamPort: 16000, LastStreamPort: 16511,
		OutboundPort: 9080, InboundPort: 9081,
		Status: netip.MustParseAddrPort("127.0.0.1:7085"), Prometheus: netip.MustParseAddrPort("0.0.0.0:15090"),
	}
}

// parsed is what is looked at of a configuration.
type parsed struct {
	Apisix struct {
		NodeListen    []struct{ Port int } `json:"node_listen"`
		ProxyProtocol map[string]int       `json:"proxy_protocol"`
		StreamProxy   struct {
			TCP []struct {
				Addr          string
				ProxyProtocol bool `json:"proxy_protocol"`
			}
		} `json:"stream_proxy"`
		SSL     struct{ Listen []struct{ Port int } }
		Status  struct{ Port int }
		Trusted []string `json:"trusted_addresses"`
	}
	Nginx      map[string]any `json:"nginx_config"`
	Deployment struct {
		Etcd struct {
			Host    []string
			Prefix  string
			Timeout int `json:"health_check_timeout"`
		}
	}
	Plugins       []string
	StreamPlugins []string                  `json:"stream_plugins"`
	PluginAttr    map[string]map[string]any `json:"plugin_attr"`
}

func render(t *testing.T, c Config) parsed {
	t.Helper()
	data, err := Render(c)
	if err != nil {
		t.Fatal(err)
	}
	var p parsed
	if err := yaml.Unmarshal(data, &p); err != nil {
		t.Fatalf("not YAML: %v\n%s", err, data)
	}
	return p
}

func TestMeshListensWhereCaptureConnects(t *testing.T) {
	p := render(t, mesh())
	if p.Apisix.ProxyProtocol["listen_http_port"] != 15480 || p.Apisix.ProxyProtocol["listen_https_port"] != 15481 {
		t.Errorf("proxy_protocol: %v", p.Apisix.ProxyProtocol)
	}
	if s := p.Apisix.StreamProxy.TCP; len(s) != 1 || s[0].Addr != "127.0.0.1:16000-16511" || !s[0].ProxyProtocol {
		t.Errorf("stream_proxy: %v", s)
	}
	if p.Apisix.Status.Port != 7085 {
		t.Errorf("status on %d", p.Apisix.Status.Port)
	}
	if e := p.Deployment.Etcd; !slices.Equal(e.Host, []string{"http://127.0.0.1:2379"}) || e.Prefix != "/apisix" || e.Timeout != 1 {
		t.Errorf("etcd: %+v", e)
	}
	snippet, _ := p.Nginx["http_server_configuration_snippet"].(string)
	if !strings.Contains(snippet, "proxy_bind $meshbridge_source;") || !strings.Contains(snippet, "return 444;") {
		t.Errorf("server snippet: %s", snippet)
	}
	if !strings.Contains(p.Nginx["http_configuration_snippet"].(string), "large_client_header_buffers 4 6k;") {
		t.Error("the request line is not bounded")
	}
	// APISIX does not start where one of its ports is an application's.
	for _, l := range append(p.Apisix.NodeListen, p.Apisix.SSL.Listen...) {
		if l.Port < 15000 {
			t.Errorf("APISIX listens on %d", l.Port)
		}
	}
}

func TestStreamPortsAreListedForVersionsWithoutRanges(t *testing.T) {
	c := mesh()
	c.Version, c.LastStreamPort = apisix.Version{Major: 3, Minor: 16}, 16002
	var got []string
	for _, s := range render(t, c).Apisix.StreamProxy.TCP {
		got = append(got, s.Addr)
	}
	if want := []string{"127.0.0.1:16000", "127.0.0.1:16001", "127.0.0.1:16002"}; !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestThePluginListHasWhatTheVersionHas(t *testing.T) {
	c := mesh()
	c.Plugins = []string{"my-plugin", "cors"}
	p := render(t, c)
	for _, want := range []string{"my-plugin", "proxy-rewrite", "workflow", "key-auth", "acl"} {
		if !slices.Contains(p.Plugins, want) {
			t.Errorf("no %s", want)
		}
	}
	if !slices.IsSorted(p.Plugins) || len(slices.Compact(slices.Clone(p.Plugins))) != len(p.Plugins) {
		t.Error("the list has something twice")
	}
	c.Version = apisix.Version{Major: 3, Minor: 9}
	p = render(t, c)
	if slices.Contains(p.Plugins, "acl") || slices.Contains(p.StreamPlugins, "traffic-split") {
		t.Error("3.9 is told to load plugins that it does not have")
	}
}

func TestDirectAndGatewayListenOnTheirPorts(t *testing.T) {
	c := mesh()
	c.Profile = "direct"
	p := render(t, c)
	if l := p.Apisix.NodeListen; len(l) != 2 || l[0].Port != 9080 || l[1].Port != 9081 {
		t.Errorf("direct: %v", l)
	}
	if p.Apisix.ProxyProtocol != nil || strings.Contains(p.Nginx["http_configuration_snippet"].(string), "tlv") {
		t.Error("direct expects PROXY protocol headers")
	}
	c.Profile, c.GatewayPorts, c.GatewayTLSPorts, c.Edge = "gateway", []uint16{8080}, []uint16{8443}, true
	p = render(t, c)
	if l := p.Apisix.NodeListen; len(l) != 1 || l[0].Port != 8080 {
		t.Errorf("gateway: %v", l)
	}
	if l := p.Apisix.SSL.Listen; len(l) != 1 || l[0].Port != 8443 {
		t.Errorf("gateway, TLS: %v", l)
	}
	if p.Apisix.Trusted != nil {
		t.Errorf("a gateway trusts %v", p.Apisix.Trusted)
	}
}

func TestWhatCannotWorkIsRefused(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"3.9":               func(c *Config) { c.Version = apisix.Version{Major: 3, Minor: 8} },
		"profile":           func(c *Config) { c.Profile = "none" },
		"port 15480":        func(c *Config) { c.HTTPSPort = 15480 },
		"port 16001":        func(c *Config) { c.HTTPPort = 16001 },
		"stream ports":      func(c *Config) { c.FirstStreamPort = 17000 },
		"etcd":              func(c *Config) { c.Etcd = nil },
		"profile gateway":   func(c *Config) { c.Profile = "gateway" },
		"no name of a plug": func(c *Config) { c.Plugins = []string{"a\nb: c"} },
	} {
		c := mesh()
		change(&c)
		if _, err := Render(c); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("want an error with %q, got %v", name, err)
		}
	}
}

// Each plugin that translation has ever emitted for a recording or a case is loaded.
func TestTheListHasWhatTranslationEmits(t *testing.T) {
	var have []string
	for _, p := range plugins {
		have = append(have, p.name)
	}
	files, err := filepath.Glob("../../../testdata/istiod/*/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no goldens: %v", err)
	}
	seen := map[string]bool{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var golden any
		if err := yaml.Unmarshal(data, &golden); err != nil {
			t.Fatal(err)
		}
		for _, name := range pluginNames(golden) {
			seen[name] = true
			if !slices.Contains(have, name) {
				t.Errorf("%s uses %s", file, name)
			}
		}
	}
	if !seen["proxy-rewrite"] {
		t.Errorf("the goldens use only %v", seen)
	}
}

// pluginNames are the keys of everything named plugins.
func pluginNames(v any) (names []string) {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			if m, ok := value.(map[string]any); ok && key == "plugins" {
				for name := range m {
					names = append(names, name)
				}
			}
			names = append(names, pluginNames(value)...)
		}
	case []any:
		for _, item := range v {
			names = append(names, pluginNames(item)...)
		}
	}
	return names
}
