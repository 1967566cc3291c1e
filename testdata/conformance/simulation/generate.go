package simulation

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"istio.io/istio/pilot/pkg/model"
)

// What no listener and no filter chain is about.
const (
	anyAddress    = "10.255.0.9"
	anyAddressV6  = "2001:db8:ffff::9"
	unknownPort   = 39999
	unknownServer = "unknown.test"
)

// destination is where a call goes.
type destination struct {
	mode    CallMode
	address string
	port    int
}

// generate asks Istio's simulation about each kind of connection to each destination that the
// configuration knows, and to some that it does not: few of the cases are about filter chains.
func (s *Simulation) generate() {
	destinations, names := map[destination]bool{}, map[string]bool{"": true, unknownServer: true}
	// By the port that chains are for, the certificate by which the simulation tells mutual TLS from other TLS.
	secrets := map[int]string{}
	for _, l := range s.Listeners {
		mode := s.modeOf(l)
		bound := l.GetAddress().GetSocketAddress()
		ports, addresses := []int{int(bound.GetPortValue()), unknownPort}, []string{anyAddress, concrete(bound.GetAddress())}
		if mode == CallModeInbound {
			addresses = append(append(addresses, s.proxy.IPAddresses...), anyAddressV6)
		}
		for _, fc := range l.GetFilterChains() {
			match := fc.GetFilterChainMatch()
			if p := match.GetDestinationPort(); p != nil {
				ports = append(ports, int(p.GetValue()))
				for _, config := range s.tlsOf(fc).GetTlsCertificateSdsSecretConfigs() {
					secrets[int(p.GetValue())] = config.GetName()
				}
			}
			for _, r := range match.GetPrefixRanges() {
				addresses = append(addresses, concrete(r.GetAddressPrefix()))
			}
			for _, name := range match.GetServerNames() {
				suffix, isWildcard := strings.CutPrefix(name, "*")
				if !isWildcard {
					names[name] = true
					continue
				}
				names["www"+suffix], names["two.labels"+suffix], names[strings.TrimPrefix(suffix, ".")] = true, true, true
			}
		}
		for _, address := range addresses {
			for _, port := range ports {
				destinations[destination{mode, address, port}] = true
			}
		}
	}
	inOrder := slices.SortedFunc(maps.Keys(destinations), func(a, b destination) int {
		return cmp.Or(cmp.Compare(a.mode, b.mode), cmp.Compare(a.address, b.address), cmp.Compare(a.port, b.port))
	})
	for _, to := range inOrder {
		for _, call := range callsTo(to, slices.Sorted(maps.Keys(names))) {
			call.MtlsSecretConfigName = secrets[to.port]
			name := fmt.Sprintf("%s %s %s:%d %q", call.TLS, call.Protocol, call.Address, call.Port, call.Sni)
			s.record(name, call, s.Simulation.Run(call)).Generated = true
		}
	}
}

// modeOf returns how calls get to a listener.
func (s *Simulation) modeOf(l *listenerpb.Listener) CallMode {
	switch {
	case s.proxy.Type == model.Router:
		return CallModeGateway
	case l.GetName() == model.VirtualInboundListenerName:
		return CallModeInbound
	default:
		return CallModeOutbound
	}
}

// concrete returns an address for one that is any.
func concrete(address string) string {
	a, err := netip.ParseAddr(address)
	switch {
	case err != nil || a.IsUnspecified() && a.Is4():
		return anyAddress
	case a.IsUnspecified():
		return anyAddressV6
	default:
		return address
	}
}

// callsTo returns a call of each kind: what is plain, and what TLS offers in its protocols and names.
func callsTo(to destination, names []string) []Call {
	var calls []Call
	for _, protocol := range []Protocol{HTTP, HTTP2, TCP} {
		call := Call{Address: to.address, Port: to.port, CallMode: to.mode, Protocol: protocol, TLS: Plaintext}
		call.Headers = http.Header{"Host": {"any"}} // not HostHeader, which would be the server name, too
		calls = append(calls, call)
		for _, mode := range []TLSMode{TLS, MTLS} {
			for _, name := range names {
				call.TLS, call.Sni = mode, name
				calls = append(calls, call)
			}
		}
	}
	return calls
}
