// Package apisixconfig renders APISIX's static configuration file, config.yaml, for a profile: the ports
// on which capture or iptables reach it, the nginx settings that translation relies on, and where its
// etcd is. Everything else comes from etcd at run time.
package apisixconfig

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"text/template"

	"meshbridge/translate/apisix"
)

// Config says what to render for.
type Config struct {
	// Profile is mesh, direct or gateway.
	Profile string
	// Version is that of APISIX; the zero value is 3.18.
	Version apisix.Version
	// Etcd are the URLs of the bridge, such as http://127.0.0.1:2379, and Prefix its prefix.
	Etcd   []string
	Prefix string
	// HTTPPort and HTTPSPort expect connections with a PROXY protocol header, as do FirstStreamPort
	// to LastStreamPort (mesh).
	HTTPPort, HTTPSPort             uint16
	FirstStreamPort, LastStreamPort uint16
	// OutboundPort and InboundPort are where iptables redirects to (direct).
	OutboundPort, InboundPort uint16
	// GatewayPorts and GatewayTLSPorts are those of the gateway's servers (gateway).
	GatewayPorts, GatewayTLSPorts []uint16
	// Edge tells that clients are outside the mesh, so that what they say in x-forwarded headers is
	// replaced.
	Edge bool
	// Status and Prometheus are the addresses of the readiness and metrics servers.
	Status, Prometheus netip.AddrPort
	// Plugins are to be loaded besides those that the bridge uses and APISIX's defaults.
	Plugins []string
}

//go:embed config.yaml.tmpl
var source string

// Render returns the file.
func Render(c Config) ([]byte, error) {
	c.Version = c.Version.OrDefault()
	if err := c.validate(); err != nil {
		return nil, err
	}
	t, err := template.New("config.yaml").Funcs(template.FuncMap{"quote": quote}).Parse(source)
	if err != nil {
		return nil, fmt.Errorf("apisix configuration: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, view{c}); err != nil {
		return nil, fmt.Errorf("apisix configuration: %w", err)
	}
	return b.Bytes(), nil
}

func (c *Config) validate() error {
	if len(c.Etcd) == 0 {
		return errors.New("apisix configuration: no etcd address")
	}
	switch c.Profile {
	case "mesh":
		if !c.Version.AtLeast(3, 9) {
			return fmt.Errorf("apisix configuration: profile mesh needs APISIX 3.9 or later, for variables with what the PROXY protocol header says; this is %s", c.Version)
		}
		if c.LastStreamPort < c.FirstStreamPort || c.FirstStreamPort == 0 {
			return fmt.Errorf("apisix configuration: stream ports %d-%d: want the lower one first", c.FirstStreamPort, c.LastStreamPort)
		}
	case "direct":
	case "gateway":
		if len(c.GatewayPorts)+len(c.GatewayTLSPorts) == 0 {
			return errors.New("apisix configuration: profile gateway: say on which ports APISIX is to listen")
		}
	default:
		return fmt.Errorf("apisix configuration: unknown profile %q: want mesh, direct or gateway", c.Profile)
	}
	seen := map[uint16]string{}
	for _, p := range c.ports() {
		if other, ok := seen[p.port]; ok {
			return fmt.Errorf("apisix configuration: port %d is both for %s and for %s", p.port, other, p.use)
		}
		seen[p.port] = p.use
	}
	for _, p := range c.Plugins {
		if p == "" || strings.ContainsAny(p, " \t\r\n") {
			return fmt.Errorf("apisix configuration: %q is no name of a plugin", p)
		}
	}
	return nil
}

type usedPort struct {
	port uint16
	use  string
}

// ports lists the ports on which APISIX listens.
func (c *Config) ports() []usedPort {
	ports := []usedPort{{c.Status.Port(), "status"}, {c.Prometheus.Port(), "metrics"}}
	switch c.Profile {
	case "mesh":
		ports = append(ports, usedPort{c.HTTPPort, "HTTP from capture"}, usedPort{c.HTTPSPort, "HTTPS from capture"})
		for p := uint32(c.FirstStreamPort); p <= uint32(c.LastStreamPort); p++ {
			ports = append(ports, usedPort{uint16(p), "TCP from capture"})
		}
	case "direct":
		ports = append(ports, usedPort{c.OutboundPort, "outbound connections"}, usedPort{c.InboundPort, "inbound connections"})
	case "gateway":
		for _, p := range c.GatewayPorts {
			ports = append(ports, usedPort{p, "HTTP"})
		}
		for _, p := range c.GatewayTLSPorts {
			ports = append(ports, usedPort{p, "HTTPS"})
		}
	}
	return ports
}

// view is what the template sees.
type view struct{ Config }

func (v view) Mesh() bool    { return v.Profile == "mesh" }
func (v view) Direct() bool  { return v.Profile == "direct" }
func (v view) Gateway() bool { return v.Profile == "gateway" }

// Streams lists the addresses of the stream ports: a range where APISIX knows ranges.
func (v view) Streams() []string {
	if v.Version.AtLeast(3, 17) {
		return []string{fmt.Sprintf("127.0.0.1:%d-%d", v.FirstStreamPort, v.LastStreamPort)}
	}
	var all []string
	for p := uint32(v.FirstStreamPort); p <= uint32(v.LastStreamPort); p++ {
		all = append(all, fmt.Sprintf("127.0.0.1:%d", p))
	}
	return all
}

// AllPlugins is the union of what the bridge uses, APISIX's defaults and the user's: a list in the
// file replaces APISIX's own.
func (v view) AllPlugins() []string {
	all := slices.Concat(pluginsOf(v.Version), v.Plugins)
	slices.Sort(all)
	return slices.Compact(all)
}

// StreamPlugins are those for TCP.
func (v view) StreamPlugins() []string { return streamPluginsOf(v.Version) }

// quote is a string in YAML, of which JSON is a part.
func quote(v any) (string, error) {
	data, err := json.Marshal(v)
	return string(data), err
}
