package translate

import (
	"net/netip"
	"strings"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	carespb "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/cares/v3"
	getaddrinfopb "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/getaddrinfo/v3"
)

// NameServers is who a cluster wants to be asked for its names, and how. The zero value is the host's
// servers.
type NameServers struct {
	// Addresses with ports, separated by spaces, in the order in which they are tried; empty means the
	// host's.
	Addresses string
	// TCP tells that they are asked over TCP only (dns_resolver_options.use_tcp_for_dns_lookups).
	TCP bool
	// NoSearch tells that names are absolute (dns_resolver_options.no_default_search_domain).
	NoSearch bool
}

// Key is the name in Inputs.DNS and Inputs.DNSErrors: the answers of other servers are others.
func (n HostName) Key() string {
	var key strings.Builder
	key.WriteString(n.Name)
	if n.Servers.Addresses != "" {
		key.WriteString(" from " + n.Servers.Addresses)
	}
	if n.Servers.TCP {
		key.WriteString(" over TCP")
	}
	if n.Servers.NoSearch {
		key.WriteString(" without search domains")
	}
	return key.String()
}

// nameServersOf reads what a cluster says about resolvers: in an extension, which has precedence, or, if c
// is not nil, in its own deprecated fields. It reports what has no counterpart.
func nameServersOf(c *clusterpb.Cluster, extension *corepb.TypedExtensionConfig, report reporter) NameServers {
	ignored := func(field string) { report(codeSettingIgnored, field, field) }
	const typed = "typed_dns_resolver_config"
	cares := &carespb.CaresDnsResolverConfig{}
	switch {
	case extension.GetTypedConfig().MessageIs(cares) && extension.GetTypedConfig().UnmarshalTo(cares) == nil:
		reportUnknown(cares, report, typed+".")
		if cares.GetUseResolversAsFallback() {
			ignored(typed + ".use_resolvers_as_fallback")
			cares.Resolvers = nil // the host always has a server
		}
		return nameServers(cares.GetResolvers(), cares.GetDnsResolverOptions(), report, typed+".resolvers", typed+".dns_resolver_options.")
	case extension.GetTypedConfig().MessageIs(&getaddrinfopb.GetAddrInfoDnsResolverConfig{}):
		return NameServers{}
	case extension != nil:
		ignored(typed)
		return NameServers{}
	}
	if config := c.GetDnsResolutionConfig(); config != nil { //nolint:staticcheck // deprecated is not gone
		return nameServers(config.GetResolvers(), config.GetDnsResolverOptions(), report, "dns_resolution_config.resolvers", "dns_resolution_config.dns_resolver_options.")
	}
	options := &corepb.DnsResolverOptions{UseTcpForDnsLookups: c.GetUseTcpForDnsLookups()} //nolint:staticcheck // deprecated is not gone
	return nameServers(c.GetDnsResolvers(), options, report, "dns_resolvers", "")          //nolint:staticcheck // deprecated is not gone
}

// discard is a reporter for what is reported elsewhere.
func discard(Code, string, ...any) {}

func nameServers(resolvers []*corepb.Address, options *corepb.DnsResolverOptions, report reporter, field, optionsPrefix string) NameServers {
	reportUnknown(options, report, optionsPrefix)
	var addresses []string
	for _, a := range resolvers {
		ip, err := netip.ParseAddr(a.GetSocketAddress().GetAddress())
		if err != nil {
			report(codeSettingIgnored, field, "the resolver at "+describeAddress(a))
			continue
		}
		port := uint16(a.GetSocketAddress().GetPortValue())
		if port == 0 {
			port = 53
		}
		addresses = append(addresses, netip.AddrPortFrom(ip, port).String())
	}
	return NameServers{Addresses: strings.Join(addresses, " "), TCP: options.GetUseTcpForDnsLookups(), NoSearch: options.GetNoDefaultSearchDomain()}
}
