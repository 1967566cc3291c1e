package capture_test

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"meshbridge/capture"
	"meshbridge/translate"
)

// chain returns a filter chain for tests of matching.
func chain(name string, match translate.ChainMatch) *translate.FilterChain {
	return &translate.FilterChain{Name: name, Match: match}
}

func prefixesOf(texts ...string) []netip.Prefix {
	list := make([]netip.Prefix, 0, len(texts))
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

func nameOf(c *translate.FilterChain) string {
	if c == nil {
		return "(none)"
	}
	return c.Name
}

func TestMatchChoosesAsEnvoyDoes(t *testing.T) {
	// The chains of a permissive inbound port, as istiod sends them.
	istio := []string{"istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"}
	inbound := capture.NewMatcher([]*translate.FilterChain{
		chain("blackhole", translate.ChainMatch{DestinationPort: 15006}),
		chain("catchall-mtls", translate.ChainMatch{TransportProtocol: "tls", ApplicationProtocols: istio}),
		chain("catchall-tls", translate.ChainMatch{TransportProtocol: "tls"}),
		chain("catchall-http", translate.ChainMatch{TransportProtocol: "raw_buffer", ApplicationProtocols: []string{"http/1.1", "h2c"}}),
		chain("catchall-raw", translate.ChainMatch{TransportProtocol: "raw_buffer"}),
		chain("9080-mtls", translate.ChainMatch{DestinationPort: 9080, TransportProtocol: "tls", ApplicationProtocols: istio}),
		chain("9080-raw", translate.ChainMatch{DestinationPort: 9080, TransportProtocol: "raw_buffer"}),
		chain("strict", translate.ChainMatch{DestinationPort: 9081, TransportProtocol: "tls"}),
	}, nil)
	gateway := capture.NewMatcher([]*translate.FilterChain{
		chain("exact", translate.ChainMatch{ServerNames: []string{"a.example.com"}}),
		chain("wide", translate.ChainMatch{ServerNames: []string{"*.com"}}),
		chain("narrow", translate.ChainMatch{ServerNames: []string{"*.example.com"}}),
		chain("narrow-h2", translate.ChainMatch{ServerNames: []string{"*.b.example.com"}, ApplicationProtocols: []string{"h2"}}),
	}, chain("default", translate.ChainMatch{}))
	addresses := capture.NewMatcher([]*translate.FilterChain{
		chain("wide", translate.ChainMatch{Destinations: prefixesOf("10.0.0.0/8")}),
		chain("narrow-from-lan", translate.ChainMatch{Destinations: prefixesOf("10.1.0.0/16", "2001:db8::/32"), Sources: prefixesOf("192.168.0.0/16")}),
		chain("narrow-port", translate.ChainMatch{Destinations: prefixesOf("10.1.0.0/16"), Sources: prefixesOf("192.168.0.0/16"), SourcePorts: []uint16{53}}),
		chain("local", translate.ChainMatch{Destinations: prefixesOf("10.9.0.0/16"), SourceType: translate.SourceLocal}),
		chain("external", translate.ChainMatch{Destinations: prefixesOf("10.9.0.0/16"), SourceType: translate.SourceExternal}),
		chain("behind-proxy", translate.ChainMatch{Destinations: prefixesOf("10.8.0.0/16"), DirectSources: prefixesOf("172.16.0.0/12")}),
	}, nil)
	at := netip.MustParseAddrPort

	for _, test := range []struct {
		name    string
		matcher *capture.Matcher
		conn    capture.Connection
		want    string
	}{
		{"mutual TLS of Istio", inbound, capture.Connection{Destination: at("10.0.0.1:9080"), TransportProtocol: "tls", ApplicationProtocols: []string{"istio-http/1.1", "istio", "http/1.1"}}, "9080-mtls"},
		{"plain text", inbound, capture.Connection{Destination: at("10.0.0.1:9080"), TransportProtocol: "raw_buffer", ApplicationProtocols: []string{"http/1.1"}}, "9080-raw"},
		{"other TLS on a port of its own does not reach the catch-all", inbound, capture.Connection{Destination: at("10.0.0.1:9080"), TransportProtocol: "tls", ApplicationProtocols: []string{"h2"}}, "(none)"},
		{"plain text where TLS is required", inbound, capture.Connection{Destination: at("10.0.0.1:9081"), TransportProtocol: "raw_buffer"}, "(none)"},
		{"other TLS elsewhere", inbound, capture.Connection{Destination: at("10.0.0.1:7000"), TransportProtocol: "tls", ApplicationProtocols: []string{"h2"}}, "catchall-tls"},
		{"http/1.0 is not listed", inbound, capture.Connection{Destination: at("10.0.0.1:7000"), TransportProtocol: "raw_buffer", ApplicationProtocols: []string{"http/1.0"}}, "catchall-raw"},
		{"the port itself", inbound, capture.Connection{Destination: at("10.0.0.1:15006"), TransportProtocol: "raw_buffer"}, "blackhole"},

		{"exact name", gateway, capture.Connection{ServerName: "a.example.com", TransportProtocol: "tls"}, "exact"},
		{"longest wildcard", gateway, capture.Connection{ServerName: "c.example.com", TransportProtocol: "tls"}, "narrow"},
		{"any depth", gateway, capture.Connection{ServerName: "d.c.example.com", TransportProtocol: "tls"}, "narrow"},
		{"a wildcard is not its suffix", gateway, capture.Connection{ServerName: "example.com", TransportProtocol: "tls"}, "wide"},
		{"no name", gateway, capture.Connection{TransportProtocol: "tls"}, "default"},
		{"no way back from the longest wildcard", gateway, capture.Connection{ServerName: "x.b.example.com", TransportProtocol: "tls", ApplicationProtocols: []string{"http/1.1"}}, "default"},

		{"longest prefix and its source", addresses, capture.Connection{Destination: at("10.1.2.3:80"), Source: at("192.168.1.1:999")}, "narrow-from-lan"},
		{"IPv4 in IPv6", addresses, capture.Connection{Destination: at("[::ffff:10.1.2.3]:80"), Source: at("[::ffff:192.168.1.1]:999")}, "narrow-from-lan"},
		{"source port", addresses, capture.Connection{Destination: at("10.1.2.3:80"), Source: at("192.168.1.1:53")}, "narrow-port"},
		{"no way back to a shorter prefix", addresses, capture.Connection{Destination: at("10.1.2.3:80"), Source: at("1.2.3.4:999")}, "(none)"},
		{"IPv6", addresses, capture.Connection{Destination: at("[2001:db8::1]:80"), Source: at("192.168.1.1:999")}, "narrow-from-lan"},
		{"own address", addresses, capture.Connection{Destination: at("10.9.0.1:80"), Source: at("10.9.0.1:999")}, "local"},
		{"loopback", addresses, capture.Connection{Destination: at("10.9.0.1:80"), Source: at("127.0.0.6:999")}, "local"},
		{"other host", addresses, capture.Connection{Destination: at("10.9.0.1:80"), Source: at("10.9.0.2:999")}, "external"},
		{"the address before the PROXY protocol", addresses, capture.Connection{Destination: at("10.8.0.1:80"), Source: at("1.1.1.1:1"), DirectSource: at("172.16.0.1:5")}, "behind-proxy"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := nameOf(test.matcher.Match(test.conn)); got != test.want {
				t.Errorf("chain %s, want %s", got, test.want)
			}
		})
	}
}

// criterion reads one rule of FilterChainMatch: how specific the match of a chain is, or -1 where it
// does not match.
type criterion func(m *translate.ChainMatch, c capture.Connection) int

func readPrefix(list []netip.Prefix, a netip.Addr) int {
	if len(list) == 0 {
		return 0
	}
	best := -1
	for _, p := range list {
		if p.Contains(a) {
			best = max(best, p.Bits())
		}
	}
	return best
}

// criteria are in the order of the documentation of FilterChainMatch.
var criteria = []criterion{
	func(m *translate.ChainMatch, c capture.Connection) int {
		switch m.DestinationPort {
		case c.Destination.Port():
			return 1
		case 0:
			return 0
		default:
			return -1
		}
	},
	func(m *translate.ChainMatch, c capture.Connection) int {
		return readPrefix(m.Destinations, c.Destination.Addr())
	},
	func(m *translate.ChainMatch, c capture.Connection) int {
		best := -1
		if len(m.ServerNames) == 0 {
			best = 0
		}
		for _, name := range m.ServerNames {
			if name == c.ServerName {
				return 1000
			}
			if suffix, ok := strings.CutPrefix(name, "*"); ok && strings.HasSuffix(c.ServerName, suffix) && len(c.ServerName) > len(suffix) {
				best = max(best, len(suffix))
			}
		}
		return best
	},
	func(m *translate.ChainMatch, c capture.Connection) int {
		switch m.TransportProtocol {
		case c.TransportProtocol:
			return 1
		case "":
			return 0
		default:
			return -1
		}
	},
	func(m *translate.ChainMatch, c capture.Connection) int {
		if len(m.ApplicationProtocols) == 0 {
			return 0
		}
		for i, protocol := range c.ApplicationProtocols {
			if slices.Contains(m.ApplicationProtocols, protocol) {
				return len(c.ApplicationProtocols) - i
			}
		}
		return -1
	},
	func(m *translate.ChainMatch, c capture.Connection) int {
		return readPrefix(m.DirectSources, c.DirectSource.Addr())
	},
	func(m *translate.ChainMatch, c capture.Connection) int {
		local := c.Source.Addr().IsLoopback() || c.Source.Addr() == c.Destination.Addr()
		switch m.SourceType {
		case translate.SourceAny:
			return 0
		case translate.SourceLocal:
			if local {
				return 1
			}
		case translate.SourceExternal:
			if !local {
				return 1
			}
		}
		return -1
	},
	func(m *translate.ChainMatch, c capture.Connection) int {
		return readPrefix(m.Sources, c.Source.Addr())
	},
	func(m *translate.ChainMatch, c capture.Connection) int {
		switch {
		case len(m.SourcePorts) == 0:
			return 0
		case slices.Contains(m.SourcePorts, c.Source.Port()):
			return 1
		default:
			return -1
		}
	},
}

// readRules is a naive reading of the documentation: each criterion keeps the chains that match it
// most specifically.
func readRules(chains []*translate.FilterChain, c capture.Connection) *translate.FilterChain {
	left := chains
	for _, how := range criteria {
		best, kept := -1, []*translate.FilterChain(nil)
		for _, chain := range left {
			switch specific := how(&chain.Match, c); {
			case specific < 0 || specific < best:
			case specific > best:
				best, kept = specific, []*translate.FilterChain{chain}
			default:
				kept = append(kept, chain)
			}
		}
		left = kept
	}
	if len(left) == 0 {
		return nil
	}
	return left[0]
}

func TestMatchIsTheNaiveReadingOfTheRules(t *testing.T) {
	// Prefixes that have everything are the same as none for the index, and a prefix of length 0 is
	// no more specific than none for the naive reading.
	prefix := rapid.SampledFrom(prefixesOf("0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.1.1/32", "127.0.0.0/8", "2001:db8::/32", "2001:db8:1::/48", "::/0"))
	address := rapid.SampledFrom([]string{"10.0.0.1", "10.1.0.1", "10.1.1.1", "127.0.0.1", "192.168.0.1", "2001:db8::1", "2001:db8:1::1", "2001:db9::1"})
	name := rapid.SampledFrom([]string{"a.com", "b.a.com", "*.a.com", "*.com", "c.b.a.com", "*.b.a.com"})
	protocol := rapid.SampledFrom([]string{"h2", "http/1.1", "istio", "h2c"})
	port := rapid.SampledFrom([]uint16{80, 443})
	match := rapid.Custom(func(t *rapid.T) translate.ChainMatch {
		return translate.ChainMatch{
			DestinationPort:      rapid.SampledFrom([]uint16{0, 0, 80, 443}).Draw(t, "destination port"),
			Destinations:         rapid.SliceOfN(prefix, 0, 2).Draw(t, "destinations"),
			ServerNames:          rapid.SliceOfN(name, 0, 2).Draw(t, "server names"),
			TransportProtocol:    rapid.SampledFrom([]string{"", "", "tls", "raw_buffer"}).Draw(t, "transport"),
			ApplicationProtocols: rapid.SliceOfN(protocol, 0, 2).Draw(t, "protocols"),
			DirectSources:        rapid.SliceOfN(prefix, 0, 2).Draw(t, "direct sources"),
			SourceType:           rapid.SampledFrom([]translate.SourceType{0, 0, 1, 2}).Draw(t, "source type"),
			Sources:              rapid.SliceOfN(prefix, 0, 2).Draw(t, "sources"),
			SourcePorts:          rapid.SliceOfN(port, 0, 1).Draw(t, "source ports"),
		}
	})
	endpoint := rapid.Custom(func(t *rapid.T) netip.AddrPort {
		return netip.AddrPortFrom(netip.MustParseAddr(address.Draw(t, "address")), port.Draw(t, "port"))
	})
	connection := rapid.Custom(func(t *rapid.T) capture.Connection {
		return capture.Connection{
			Destination:          endpoint.Draw(t, "destination"),
			Source:               endpoint.Draw(t, "source"),
			DirectSource:         endpoint.Draw(t, "direct source"),
			ServerName:           rapid.SampledFrom([]string{"", "a.com", "b.a.com", "c.b.a.com", "x.a.com", "x.org", "com"}).Draw(t, "server name"),
			TransportProtocol:    rapid.SampledFrom([]string{"tls", "raw_buffer"}).Draw(t, "transport"),
			ApplicationProtocols: rapid.SliceOfNDistinct(protocol, 0, 3, rapid.ID).Draw(t, "protocols"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		var chains []*translate.FilterChain
		for i, m := range rapid.SliceOfN(match, 0, 8).Draw(t, "chains") {
			chains = append(chains, chain(strconv.Itoa(i), m))
		}
		matcher := capture.NewMatcher(chains, nil)
		for range 8 {
			c := connection.Draw(t, "connection")
			if got, want := nameOf(matcher.Match(c)), nameOf(readRules(chains, c)); got != want {
				t.Fatalf("chain %s, want %s", got, want)
			}
		}
	})
}
