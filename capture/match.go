package capture

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"meshbridge/translate"
)

// Connection is what a filter chain is chosen by.
type Connection struct {
	// Destination is where the connection is going. Source is where it comes from, after a PROXY
	// protocol header, and DirectSource before. They are invalid for Unix domain sockets.
	Destination, Source, DirectSource netip.AddrPort
	// ServerName is TLS's, in lower case; empty without one.
	ServerName string
	// TransportProtocol is "tls" or "raw_buffer".
	TransportProtocol string
	// ApplicationProtocols are in the client's order.
	ApplicationProtocols []string
}

// Matcher chooses the filter chain of a connection by the rules of Envoy's FilterChainMatch. It is
// immutable and safe for concurrent use.
//
// The criteria are looked at one after the other, in the order of the levels below. Each keeps the
// chains that name the most specific value that matches, and chains without the criterion only where
// none does: a chain that is out at one level does not come back when those that are left fail at a
// later one. Where two chains have the same criteria, the first wins.
type Matcher struct {
	ports    map[uint16]*destinationLevel // 0: chains without a destination port
	fallback *translate.FilterChain
}

// The levels of the index. An empty key is that of chains without the criterion.
type (
	destinationLevel = prefixes[*serverNameLevel]
	serverNameLevel  struct {
		exact, suffix map[string]transportLevel // suffix is ".example.com" for "*.example.com"
	}
	transportLevel    = map[string]protocolLevel
	protocolLevel     = map[string]*directSourceLevel
	directSourceLevel = prefixes[*sourceTypeLevel]
	sourceTypeLevel   [3]*sourceLevel // by translate.SourceType
	sourceLevel       = prefixes[map[uint16]*translate.FilterChain]
)

// NewMatcher builds the index of a listener's chains. fallback is what connections get that none of
// them matches; it may be nil.
func NewMatcher(chains []*translate.FilterChain, fallback *translate.FilterChain) *Matcher {
	m := &Matcher{ports: make(map[uint16]*destinationLevel), fallback: fallback}
	for _, chain := range chains {
		m.add(chain)
	}
	return m
}

// add enters a chain below each combination of the values that it lists.
func (m *Matcher) add(chain *translate.FilterChain) {
	match := &chain.Match
	destinations := m.ports[match.DestinationPort]
	if destinations == nil {
		destinations = new(destinationLevel)
		m.ports[match.DestinationPort] = destinations
	}
	for _, destination := range orAnywhere(match.Destinations) {
		names := destinations.at(destination, func() *serverNameLevel {
			return &serverNameLevel{exact: make(map[string]transportLevel), suffix: make(map[string]transportLevel)}
		})
		for _, name := range orNone(match.ServerNames) {
			protocols := child(names.at(name), match.TransportProtocol, func() protocolLevel { return make(protocolLevel) })
			for _, protocol := range orNone(match.ApplicationProtocols) {
				direct := child(protocols, protocol, func() *directSourceLevel { return new(directSourceLevel) })
				for _, source := range orAnywhere(match.DirectSources) {
					direct.at(source, func() *sourceTypeLevel { return new(sourceTypeLevel) }).add(chain)
				}
			}
		}
	}
}

// at returns the level below a server name of a filter chain.
func (l *serverNameLevel) at(name string) transportLevel {
	if suffix, ok := strings.CutPrefix(name, "*"); ok {
		return child(l.suffix, suffix, func() transportLevel { return make(transportLevel) })
	}
	return child(l.exact, name, func() transportLevel { return make(transportLevel) })
}

func (l *sourceTypeLevel) add(chain *translate.FilterChain) {
	match := &chain.Match
	if l[match.SourceType] == nil {
		l[match.SourceType] = new(sourceLevel)
	}
	for _, source := range orAnywhere(match.Sources) {
		ports := l[match.SourceType].at(source, func() map[uint16]*translate.FilterChain {
			return make(map[uint16]*translate.FilterChain)
		})
		sourcePorts := match.SourcePorts
		if len(sourcePorts) == 0 {
			sourcePorts = []uint16{0}
		}
		for _, port := range sourcePorts {
			child(ports, port, func() *translate.FilterChain { return chain })
		}
	}
}

// Match returns the chain of a connection, the fallback where none matches, or nil.
func (m *Matcher) Match(c Connection) *translate.FilterChain {
	if chain := m.match(c); chain != nil {
		return chain
	}
	return m.fallback
}

func (m *Matcher) match(c Connection) *translate.FilterChain {
	destinations := m.ports[c.Destination.Port()]
	if destinations == nil {
		destinations = m.ports[0]
	}
	names := destinations.find(c.Destination.Addr())
	if names == nil {
		return nil
	}
	transports := names.find(c.ServerName)
	protocols, ok := transports[c.TransportProtocol]
	if !ok {
		protocols = transports[""]
	}
	types := protocolsFind(protocols, c.ApplicationProtocols).find(c.DirectSource.Addr())
	if types == nil {
		return nil
	}
	sources := types.find(c)
	ports := sources.find(c.Source.Addr())
	if chain, ok := ports[c.Source.Port()]; ok {
		return chain
	}
	return ports[0]
}

// find returns the level below the most specific server name: the name itself, the longest wildcard,
// or none.
func (l *serverNameLevel) find(name string) transportLevel {
	if below, ok := l.exact[name]; ok {
		return below
	}
	if len(l.suffix) > 0 {
		// The wildcard stands for at least one character.
		for i := 1; i < len(name)-1; i++ {
			if name[i] != '.' {
				continue
			}
			if below, ok := l.suffix[name[i:]]; ok {
				return below
			}
		}
	}
	return l.exact[""]
}

// protocolsFind returns the level below the first of the client's protocols that any chain names.
func protocolsFind(l protocolLevel, protocols []string) *directSourceLevel {
	for _, protocol := range protocols {
		if below, ok := l[protocol]; ok {
			return below
		}
	}
	return l[""]
}

func (l *sourceTypeLevel) find(c Connection) *sourceLevel {
	local, external := l[translate.SourceLocal], l[translate.SourceExternal]
	switch isLocal := isLocal(c); {
	case isLocal && local != nil:
		return local
	case !isLocal && external != nil:
		return external
	default:
		return l[translate.SourceAny]
	}
}

// isLocal tells whether a connection comes from this host, as Envoy sees it.
func isLocal(c Connection) bool {
	source := c.Source.Addr().Unmap()
	return !source.IsValid() || source.IsLoopback() || source == c.Destination.Addr().Unmap()
}

// prefixes is a map by address prefix of which the longest that has an address counts.
type prefixes[T any] struct {
	lengths []int // of the prefixes, those of IPv6 plus ipv6Lengths; longest first
	values  map[netip.Prefix]T
}

// orAnywhere returns the prefixes, or those that have every address.
func orAnywhere(list []netip.Prefix) []netip.Prefix {
	if len(list) > 0 {
		return list
	}
	return []netip.Prefix{
		netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0),
	}
}

// at returns the value of a prefix, which is made where there is none.
func (p *prefixes[T]) at(prefix netip.Prefix, make func() T) T {
	prefix = unmapPrefix(prefix).Masked()
	if p.values == nil {
		p.values = map[netip.Prefix]T{}
	}
	length := prefix.Bits()
	if prefix.Addr().Is6() {
		length += ipv6Lengths
	}
	at, found := slices.BinarySearchFunc(p.lengths, length, func(a, b int) int { return cmp.Compare(b, a) })
	if !found {
		p.lengths = slices.Insert(p.lengths, at, length)
	}
	return child(p.values, prefix, make)
}

// ipv6Lengths sets the lengths of IPv6 prefixes apart from those of IPv4.
const ipv6Lengths = 33

// find returns the value of the longest prefix that has the address. An address that is not valid,
// that of a Unix domain socket, is one that only the whole IPv4 space has, as in Envoy.
func (p *prefixes[T]) find(a netip.Addr) T {
	var none T
	if p == nil {
		return none
	}
	if !a.IsValid() {
		a = netip.AddrFrom4([4]byte{255, 255, 255, 255})
	}
	a = a.Unmap().WithZone("")
	for _, length := range p.lengths {
		if length >= ipv6Lengths != a.Is6() {
			continue
		}
		if a.Is6() {
			length -= ipv6Lengths
		}
		prefix, err := a.Prefix(length)
		if err != nil {
			continue
		}
		if value, ok := p.values[prefix]; ok {
			return value
		}
	}
	return none
}

// unmapPrefix returns an IPv4 prefix for one that is written as IPv4-mapped IPv6.
func unmapPrefix(p netip.Prefix) netip.Prefix {
	const mapped = 96
	if p.Addr().Is4In6() && p.Bits() >= mapped {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mapped)
	}
	return p
}

// child returns the value of a key, which is made where there is none.
func child[K comparable, V any](m map[K]V, key K, make func() V) V {
	value, ok := m[key]
	if !ok {
		value = make()
		m[key] = value
	}
	return value
}

// orNone returns the values, or the empty one for a criterion that is not set.
func orNone(values []string) []string {
	if len(values) > 0 {
		return values
	}
	return []string{""}
}
