package simulation

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"istio.io/istio/pilot/pkg/model"
	"istio.io/istio/pilot/pkg/networking/core"
	"istio.io/istio/pilot/pkg/simulation"
	"istio.io/istio/pilot/test/xds"
)

// What Istio's tables use.
type (
	Call                        = simulation.Call
	CallMode                    = simulation.CallMode
	CustomFilterChainValidation = simulation.CustomFilterChainValidation
	Expect                      = simulation.Expect
	Protocol                    = simulation.Protocol
	Result                      = simulation.Result
	TLSMode                     = simulation.TLSMode
)

// The constants of Istio's package.
const (
	HTTP      = simulation.HTTP
	HTTP2     = simulation.HTTP2
	TCP       = simulation.TCP
	Plaintext = simulation.Plaintext
	TLS       = simulation.TLS
	MTLS      = simulation.MTLS
)

// The variables of Istio's package.
var (
	CallModeGateway  = simulation.CallModeGateway
	CallModeOutbound = simulation.CallModeOutbound
	CallModeInbound  = simulation.CallModeInbound

	ErrNoListener          = simulation.ErrNoListener
	ErrNoFilterChain       = simulation.ErrNoFilterChain
	ErrNoRoute             = simulation.ErrNoRoute
	ErrTLSRedirect         = simulation.ErrTLSRedirect
	ErrNoVirtualHost       = simulation.ErrNoVirtualHost
	ErrMultipleFilterChain = simulation.ErrMultipleFilterChain
	ErrProtocolError       = simulation.ErrProtocolError
	ErrTLSError            = simulation.ErrTLSError
	ErrMTLSError           = simulation.ErrMTLSError
)

// Simulation is what Istio generated for a proxy.
type Simulation struct {
	*simulation.Simulation
	t     *testing.T
	proxy *model.Proxy
}

// NewSimulation generates the configuration of a proxy.
func NewSimulation(t *testing.T, s *xds.FakeDiscoveryServer, proxy *model.Proxy) *Simulation {
	t.Helper()
	return &Simulation{simulation.NewSimulation(t, s, proxy), t, proxy}
}

// NewSimulationFromConfigGen does so without a server.
func NewSimulationFromConfigGen(t *testing.T, s *core.ConfigGenTest, proxy *model.Proxy) *Simulation {
	t.Helper()
	return &Simulation{simulation.NewSimulationFromConfigGen(t, s, proxy), t, proxy}
}

// Recording is a configuration with calls, in the form of a file.
type Recording struct {
	Name string `json:"name"`
	// Router tells a gateway from a sidecar. IPs are its addresses.
	Router    bool       `json:"router"`
	IPs       []string   `json:"ips"`
	Resources []Resource `json:"resources"`
	Calls     []Recorded `json:"calls"`
}

// Resource is an xDS resource.
type Resource struct {
	Name    string `json:"name"`
	TypeURL string `json:"type_url"`
	Value   []byte `json:"value"`
}

// Recorded is a call and where Istio's simulation says it gets.
type Recorded struct {
	Name     string              `json:"name"`
	Address  string              `json:"address"`
	Port     int                 `json:"port"`
	Path     string              `json:"path"`
	Protocol string              `json:"protocol"`
	TLS      string              `json:"tls"`
	ALPN     string              `json:"alpn"`
	SNI      string              `json:"sni"`
	Mode     string              `json:"mode"`
	Headers  map[string][]string `json:"headers"`

	Error       string `json:"error"`
	Listener    string `json:"listener"`
	FilterChain string `json:"filter_chain"`
	VirtualHost string `json:"virtual_host"`
	Route       string `json:"route"`
	Cluster     string `json:"cluster"`
}

// RunExpectations runs Istio's cases, and records them in the directory that SIMULATIONS names.
func (s *Simulation) RunExpectations(cases []Expect) {
	s.t.Helper()
	s.Simulation.RunExpectations(cases)
	dir := os.Getenv("SIMULATIONS")
	if dir == "" {
		return
	}
	out := Recording{Name: s.t.Name(), Router: s.proxy.Type == model.Router, IPs: s.proxy.IPAddresses}
	add := func(name string, m proto.Message) {
		body, err := anypb.New(m)
		if err != nil {
			s.t.Fatal(err)
		}
		out.Resources = append(out.Resources, Resource{name, body.GetTypeUrl(), body.GetValue()})
	}
	for _, l := range s.Listeners {
		add(l.GetName(), l)
	}
	for _, c := range s.Clusters {
		add(c.GetName(), c)
	}
	for _, r := range s.Routes {
		add(r.GetName(), r)
	}
	for _, c := range cases {
		if c.Result.Skip == "" {
			out.Calls = append(out.Calls, s.recorded(c))
		}
	}
	raw, err := json.Marshal(out)
	if err != nil {
		s.t.Fatal(err)
	}
	f, err := os.CreateTemp(dir, "*.json")
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := f.Write(raw); err != nil {
		s.t.Fatal(fmt.Errorf("%s: %w", filepath.Base(f.Name()), err))
	}
	if err := f.Close(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *Simulation) recorded(c Expect) Recorded {
	call, result := c.Call.FillDefaults(), s.Run(c.Call)
	out := Recorded{
		Name: c.Name, Address: call.Address, Port: call.Port, Path: call.Path, Protocol: string(call.Protocol),
		TLS: string(call.TLS), ALPN: call.Alpn, SNI: call.Sni, Mode: string(call.CallMode), Headers: call.Headers,
		Listener: result.ListenerMatched, FilterChain: result.FilterChainMatched, VirtualHost: result.VirtualHostMatched,
		Route: result.RouteMatched, Cluster: result.ClusterMatched,
	}
	if result.Error != nil {
		out.Error = result.Error.Error()
	}
	return out
}
