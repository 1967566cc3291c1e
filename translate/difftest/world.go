package difftest

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"meshbridge/translate"
	"meshbridge/translate/apisix"
	"meshbridge/translate/envoytest"
	"meshbridge/xds"
)

// Random is a source of random numbers, such as a *rand.Rand.
type Random interface {
	IntN(n int) int
	Uint32() uint32
}

// clientIdentity is who opens connections of mesh TLS.
const clientIdentity = "spiffe://cluster.local/ns/default/sa/client"

// Variables with the certificate of the client, as capture and APISIX's static configuration have it.
const (
	varClientCertificate  = "proxy_protocol_tlv_0xe2"
	varClientCertificates = "meshbridge_xfcc"
)

// fallbackSNI is what gateways are to be configured with: the server name of clients that ask for none.
const fallbackSNI = "no-sni.mesh"

// World is a configuration as both sides have it.
type World struct {
	name      string
	envoy     *envoytest.Evaluator
	apisix    *apisix.Evaluator
	entrances []*entrance
	unreached int
	// verifies tells that there is somebody who verifies tokens.
	verifies    bool
	diagnostics []translate.Diagnostic
	// upstreams has the names of upstreams by id.
	upstreams map[string]string
}

// entrance is a filter chain, and the connection by which requests get there.
type entrance struct {
	chain      *translate.Chain
	connection envoytest.Connection
	vars       map[string]string
	words      *vocabulary
}

// Asked answers what APISIX asks about tokens.
type Asked func(apisix.AuthRequest) apisix.AuthAnswer

// Verifier makes what answers for the configurations of a translation.
type Verifier func([]*translate.Authentication) Asked

// NewWorld translates a snapshot. name is for messages.
func NewWorld(name string, snap *xds.Snapshot, options translate.Options) (*World, error) {
	return NewWorldWith(name, snap, options, func([]*translate.Authentication) Asked { return nil })
}

// NewWorldWith is NewWorld with somebody who verifies tokens.
func NewWorldWith(name string, snap *xds.Snapshot, options translate.Options, verifier Verifier) (*World, error) {
	state, _, err := translate.Translate(options, snap, translate.Inputs{})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	w := &World{name: name, diagnostics: state.Diagnostics(), upstreams: map[string]string{}}
	if w.envoy, err = envoytest.New(snap); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	ask := verifier(state.Authentications())
	w.verifies = ask != nil
	if w.apisix, err = apisix.NewEvaluator(state.Objects(), apisix.Options{FallbackSNI: fallbackSNI, Ask: ask}); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if refused := w.apisix.Refused(); len(refused) > 0 {
		return nil, fmt.Errorf("%s: %w", name, refused[0])
	}
	for o := range state.Objects() {
		if o.Kind != apisix.KindUpstream {
			continue
		}
		var u apisix.Upstream
		if err := json.Unmarshal(o.Value, &u); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", name, o.Key(), err)
		}
		w.upstreams[o.ID] = u.Name
	}
	for _, c := range state.Chains() {
		if !c.HTTP || c.NotServed != "" || c.Path != "" { // connections of the latter have no address
			continue
		}
		connection := connectionTo(options.Profile, c, options.InstanceIPs)
		vars, err := translate.RequestVars(options.Profile, c, translate.Connection{
			Address: connection.Destination.Addr(), Port: int(connection.Destination.Port()), ServerName: connection.ServerName,
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if identity := options.Profile.PeerIdentity(); identity != "" && c.MeshTLS {
			vars[identity] = clientIdentity
		}
		if options.Profile.Captures() && !c.Terminated && connection.Certificate != nil { // which capture has seen
			vars[varClientCertificate], vars[varClientCertificates] = envoytest.Unpredictable, envoytest.Unpredictable
		}
		reached := w.envoy.Evaluate(envoytest.Request{Connection: connection, Host: "any"})
		if reached.Outcome != envoytest.Closed && (reached.Listener != c.Listener || reached.FilterChain != c.FilterChain) {
			w.unreached++
			continue
		}
		w.entrances = append(w.entrances, &entrance{
			chain: c, connection: connection, vars: vars, words: vocabularyOf(snap, c),
		})
	}
	return w, nil
}

// Served returns how many chains are served and requests can be sent to. Unreached are further ones
// that are served, but for connections with properties that the test does not make up.
func (w *World) Served() (reached, unreached int) { return len(w.entrances), w.unreached }

// connectionTo returns a connection that the chain receives.
func connectionTo(p translate.Profile, c *translate.Chain, instance []netip.Addr) envoytest.Connection {
	out := envoytest.Connection{Source: netip.MustParseAddrPort("10.9.8.7:34567")}
	address, port := c.Address, c.Port
	switch c.Direction {
	case translate.Outbound:
		out.Direction = envoytest.Outbound
	case translate.Inbound:
		out.Direction = envoytest.Inbound
		if len(instance) > 0 {
			address = instance[0]
		}
	case translate.Edge:
	}
	if port == 0 {
		port = 39999 // that no chain has
	}
	for address.IsUnspecified() || !address.IsValid() || slices.Contains(c.Excluded, address) {
		address = netip.MustParseAddr("192.0.2.1")
		for slices.Contains(c.Excluded, address) {
			address = address.Next()
		}
	}
	out.Destination = netip.AddrPortFrom(address, uint16(port))
	// A profile that cannot receive mesh TLS gets plain connections to ports that require it.
	out.TLS = c.TLS && (!c.MeshTLS || p.PeerIdentity() != "")
	if !out.TLS {
		return out
	}
	if len(c.ServerNames) > 0 {
		out.ServerName = strings.Replace(c.ServerNames[0], "*", "any", 1)
	}
	out.ALPN = []string{"h2", "http/1.1"}
	if c.RequireClientCertificate {
		out.Certificate = &envoytest.Certificate{Validated: true}
	}
	if c.MeshTLS {
		out.ALPN = []string{"istio-http/1.1", "istio"}
		out.Certificate = &envoytest.Certificate{URIs: []string{clientIdentity}, Validated: true}
	}
	return out
}

// cluster returns the name of the cluster that an upstream is made of.
func cluster(u *apisix.Upstream) string {
	if u == nil {
		return ""
	}
	return u.Name
}
