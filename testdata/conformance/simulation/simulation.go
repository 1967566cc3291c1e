package simulation

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
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

// Simulation is what Istio generated for a proxy. It is recorded in the directory that SIMULATIONS names
// when its test ends.
type Simulation struct {
	*simulation.Simulation
	t     *testing.T
	proxy *model.Proxy
	calls []Recorded
}

// NewSimulation generates the configuration of a proxy.
func NewSimulation(t *testing.T, s *xds.FakeDiscoveryServer, proxy *model.Proxy) *Simulation {
	t.Helper()
	return recorded(t, simulation.NewSimulation(t, s, proxy), proxy)
}

// NewSimulationFromConfigGen does so without a server.
func NewSimulationFromConfigGen(t *testing.T, s *core.ConfigGenTest, proxy *model.Proxy) *Simulation {
	t.Helper()
	return recorded(t, simulation.NewSimulationFromConfigGen(t, s, proxy), proxy)
}

func recorded(t *testing.T, of *simulation.Simulation, proxy *model.Proxy) *Simulation {
	s := &Simulation{Simulation: of, t: t, proxy: proxy}
	t.Cleanup(s.write)
	return s
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
	Name string `json:"name"`
	// Generated tells that the call is none of Istio's cases: see Simulation.generate.
	Generated bool `json:"generated"`

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

// RunExpectations runs Istio's cases.
func (s *Simulation) RunExpectations(cases []Expect) {
	s.t.Helper()
	s.Simulation.RunExpectations(cases)
	for _, c := range cases {
		if c.Result.Skip == "" {
			s.record(c.Name, c.Call, s.Simulation.Run(c.Call))
		}
	}
}

// Run runs a call.
func (s *Simulation) Run(call Call) Result {
	result := s.Simulation.Run(call)
	s.record(fmt.Sprintf("call %d", len(s.calls)), call, result)
	return result
}

func (s *Simulation) record(name string, call Call, result Result) *Recorded {
	call = call.FillDefaults()
	out := Recorded{
		Name: name, Address: call.Address, Port: call.Port, Path: call.Path, Protocol: string(call.Protocol),
		TLS: string(call.TLS), ALPN: call.Alpn, SNI: call.Sni, Mode: string(call.CallMode), Headers: call.Headers,
		Listener: result.ListenerMatched, FilterChain: result.FilterChainMatched, VirtualHost: result.VirtualHostMatched,
		Route: result.RouteMatched, Cluster: result.ClusterMatched,
	}
	if result.Error != nil {
		out.Error = result.Error.Error()
	}
	s.calls = append(s.calls, out)
	return &s.calls[len(s.calls)-1]
}

// write writes the recording.
func (s *Simulation) write() {
	dir := os.Getenv("SIMULATIONS")
	if dir == "" || s.t.Failed() {
		return
	}
	s.generate()
	out := Recording{Name: s.t.Name(), Router: s.proxy.Type == model.Router, IPs: s.proxy.IPAddresses, Calls: s.calls}
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
	for _, secret := range s.secrets() {
		add(secret.GetName(), secret)
	}
	raw, err := json.Marshal(out)
	if err != nil {
		s.t.Fatal(err)
	}
	const longest = 200 // of names of files
	name := strings.ReplaceAll(s.t.Name(), "/", "_")
	f, err := os.CreateTemp(dir, name[:min(len(name), longest)]+"-*.json") // in an order that stays
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
