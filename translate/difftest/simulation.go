package difftest

import (
	"encoding/json"
	"net/netip"

	"google.golang.org/protobuf/types/known/anypb"

	"meshbridge/xds"
)

// Simulation is what Istio generates for one of its own test cases, with calls and what Istio's simulation
// says about them. The conformance module records it.
type Simulation struct {
	Name string `json:"name"`
	// Router tells a gateway from a sidecar. IPs are its addresses.
	Router    bool     `json:"router"`
	IPs       []string `json:"ips"`
	Resources []struct {
		Name    string `json:"name"`
		TypeURL string `json:"type_url"`
		Value   []byte `json:"value"`
	} `json:"resources"`
	Calls []SimulatedCall `json:"calls"`
}

// SimulatedCall is a connection with a request, and where it gets.
type SimulatedCall struct {
	Name string `json:"name"`
	// Generated tells that the call is none of Istio's cases: the conformance module made it up.
	Generated bool `json:"generated"`

	Address  string              `json:"address"`
	Port     int                 `json:"port"`
	Path     string              `json:"path"`
	Protocol string              `json:"protocol"` // "http", "http2" or "tcp"
	TLS      string              `json:"tls"`      // "plaintext", "tls" or "mtls"
	ALPN     string              `json:"alpn"`
	SNI      string              `json:"sni"`
	Mode     string              `json:"mode"` // "outbound", "inbound", "gateway" or empty
	Headers  map[string][]string `json:"headers"`

	// Error is the text of one of the simulation's errors, or empty.
	Error       string `json:"error"`
	Listener    string `json:"listener"`
	FilterChain string `json:"filter_chain"`
	VirtualHost string `json:"virtual_host"`
	Route       string `json:"route"`
	Cluster     string `json:"cluster"`
}

// ReadSimulation reads a recording.
func ReadSimulation(raw []byte) (*Simulation, error) {
	s := new(Simulation)
	if err := json.Unmarshal(raw, s); err != nil {
		return nil, err
	}
	return s, nil
}

// Snapshot returns the configuration.
func (s *Simulation) Snapshot() *xds.Snapshot {
	var resources []*xds.Resource
	for _, r := range s.Resources {
		resources = append(resources, &xds.Resource{
			Key: xds.Key{Type: r.TypeURL, Name: r.Name}, Body: &anypb.Any{TypeUrl: r.TypeURL, Value: r.Value},
		})
	}
	return new(xds.Snapshot).With(resources, nil)
}

// InstanceIPs returns the proxy's addresses.
func (s *Simulation) InstanceIPs() []netip.Addr {
	var list []netip.Addr
	for _, ip := range s.IPs {
		if a, err := netip.ParseAddr(ip); err == nil {
			list = append(list, a)
		}
	}
	return list
}

// Inbound tells whether the call is one to the workload. The others of a sidecar are the workload's,
// whatever their mode is: the default is that of gateways, which Istio's outbound cases often leave.
func (c SimulatedCall) Inbound(router bool) bool {
	return c.Mode == "inbound" || !router && c.Port == 15006 && c.Mode != "outbound" // to the port itself
}
