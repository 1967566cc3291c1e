package translate

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	dnscommonpb "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/common/dns/v3"
	dnsclusterpb "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"
	"google.golang.org/protobuf/types/known/durationpb"
)

// defaultRefresh is Envoy's dns_refresh_rate.
const defaultRefresh = 5 * time.Second

// HostName is a name that stands for endpoints of a cluster, and how the cluster wants it resolved.
type HostName struct {
	Name string
	// Servers are those that are asked, if not the host's.
	Servers NameServers
	// IPv4 and IPv6 are the kinds of addresses that the cluster may use; at least one is set.
	IPv4, IPv6 bool
	Refresh    Refresh
}

// Refresh says when a name is to be resolved again.
type Refresh struct {
	// Interval is dns_refresh_rate, and follows an answer without a time to live.
	Interval time.Duration
	// RespectTTL makes the smallest time to live of an answer, but at least LeastTTL, the interval.
	RespectTTL bool
	LeastTTL   time.Duration
	// Jitter is the bound, exclusive, of a random time that is added.
	Jitter time.Duration
	// FailureInterval and FailureMax bound the growing interval after failures in a row
	// (dns_failure_refresh_rate). Zero FailureInterval means Interval each time.
	FailureInterval, FailureMax time.Duration
}

// HostNames returns the names that the cluster needs to have resolved for Inputs.DNS, sorted and
// without duplicates. The others are left to APISIX.
func HostNames(c *clusterpb.Cluster) []HostName {
	d := dnsOf(c)
	if !d.resolved() {
		return nil
	}
	var names []HostName
	for _, name := range endpointNames(c.GetLoadAssignment()) {
		names = append(names, HostName{
			Name:    name,
			Servers: d.servers,
			IPv4:    d.family != clusterpb.Cluster_V6_ONLY,
			IPv6:    d.family != clusterpb.Cluster_V4_ONLY,
			Refresh: d.refresh,
		})
	}
	return names
}

// endpointNames returns the addresses of endpoints that are no IP addresses.
func endpointNames(load *endpointpb.ClusterLoadAssignment) []string {
	var names []string
	add := func(target *endpointpb.Endpoint) {
		name := target.GetAddress().GetSocketAddress().GetAddress()
		if _, err := netip.ParseAddr(name); err != nil && isNodeHost(name) {
			names = append(names, name)
		}
	}
	for _, locality := range load.GetEndpoints() {
		for _, e := range locality.GetLbEndpoints() {
			add(e.GetEndpoint())
		}
	}
	for _, target := range load.GetNamedEndpoints() {
		add(target)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// dnsKind tells what a cluster does with the addresses of a name.
type dnsKind int

const (
	noDNS dnsKind = iota
	// strictDNS clusters have an endpoint for each address.
	strictDNS
	// logicalDNS clusters have one endpoint, with the address that comes first.
	logicalDNS
)

// dnsSettings are how a cluster discovers its endpoints by DNS.
type dnsSettings struct {
	kind    dnsKind
	family  clusterpb.Cluster_DnsLookupFamily
	refresh Refresh
	servers NameServers
}

// resolved tells whether addresses come from Inputs.DNS. A LOGICAL_DNS cluster uses one address at a
// time, as APISIX does with a name, so APISIX is given the name, which costs no commit when the answer
// changes. It asks for IPv4 first, though, and its own servers: clusters that must not use that, or have
// servers of their own, need an address.
func (d dnsSettings) resolved() bool {
	return d.kind == strictDNS || d.kind == logicalDNS && (d.family == clusterpb.Cluster_V6_ONLY || d.servers != NameServers{})
}

// dnsOf reads the settings from the cluster or, in their newer form, from its cluster_type.
func dnsOf(c *clusterpb.Cluster) dnsSettings {
	if t := c.GetClusterType(); t != nil {
		config := &dnsclusterpb.DnsCluster{}
		if !t.GetTypedConfig().MessageIs(config) || t.GetTypedConfig().UnmarshalTo(config) != nil {
			return dnsSettings{}
		}
		d := dnsSettingsOf(config)
		d.servers = nameServersOf(nil, config.GetTypedDnsResolverConfig(), discard)
		return d
	}
	d := dnsSettings{family: c.GetDnsLookupFamily()}
	switch c.GetType() {
	case clusterpb.Cluster_STRICT_DNS:
		d.kind = strictDNS
	case clusterpb.Cluster_LOGICAL_DNS:
		d.kind = logicalDNS
	case clusterpb.Cluster_STATIC, clusterpb.Cluster_EDS, clusterpb.Cluster_ORIGINAL_DST:
		return dnsSettings{}
	}
	d.refresh = refreshOfCluster(c)
	d.servers = nameServersOf(c, c.GetTypedDnsResolverConfig(), discard)
	return d
}

// refreshOfCluster reads the deprecated fields, which istiod sends.
func refreshOfCluster(c *clusterpb.Cluster) Refresh {
	failure := c.GetDnsFailureRefreshRate()                                                    //nolint:staticcheck // see above
	r := refreshOf(c.GetDnsRefreshRate(), failure.GetBaseInterval(), failure.GetMaxInterval()) //nolint:staticcheck // see above
	r.RespectTTL = c.GetRespectDnsTtl()                                                        //nolint:staticcheck // see above
	r.Jitter = positive(c.GetDnsJitter())                                                      //nolint:staticcheck // see above
	return r
}

func dnsSettingsOf(c *dnsclusterpb.DnsCluster) dnsSettings {
	d := dnsSettings{kind: strictDNS, family: clusterpb.Cluster_AUTO}
	if c.GetAllAddressesInSingleEndpoint() {
		d.kind = logicalDNS
	}
	switch c.GetDnsLookupFamily() {
	case dnscommonpb.DnsLookupFamily_V4_ONLY:
		d.family = clusterpb.Cluster_V4_ONLY
	case dnscommonpb.DnsLookupFamily_V6_ONLY:
		d.family = clusterpb.Cluster_V6_ONLY
	case dnscommonpb.DnsLookupFamily_V4_PREFERRED:
		d.family = clusterpb.Cluster_V4_PREFERRED
	case dnscommonpb.DnsLookupFamily_ALL:
		d.family = clusterpb.Cluster_ALL
	case dnscommonpb.DnsLookupFamily_UNSPECIFIED, dnscommonpb.DnsLookupFamily_AUTO:
	}
	failure := c.GetDnsFailureRefreshRate()
	d.refresh = refreshOf(c.GetDnsRefreshRate(), failure.GetBaseInterval(), failure.GetMaxInterval())
	d.refresh.RespectTTL = c.GetRespectDnsTtl()
	d.refresh.LeastTTL = positive(c.GetDnsMinRefreshRate())
	d.refresh.Jitter = positive(c.GetDnsJitter())
	return d
}

// refreshOf applies Envoy's defaults: a failure's longest interval is ten times the first.
func refreshOf(interval, failure, failureMax *durationpb.Duration) Refresh {
	r := Refresh{Interval: cmp.Or(positive(interval), defaultRefresh), FailureInterval: positive(failure)}
	if r.FailureInterval > 0 {
		r.FailureMax = max(cmp.Or(positive(failureMax), 10*r.FailureInterval), r.FailureInterval)
	}
	return r
}

// resolve returns the hosts of nodes for an address.
func (r *endpointReader) resolve(address string) []string {
	if ip, err := netip.ParseAddr(address); err == nil {
		return []string{hostOf(ip)}
	}
	d := dnsOf(r.cluster)
	note := func(code Code, args ...any) {
		if r.note != nil {
			r.note(code, "load_assignment.endpoints", args...)
		}
	}
	if !d.resolved() {
		if d.kind == logicalDNS {
			note(codeLogicalDNS, address)
		}
		return []string{address}
	}
	key := HostName{Name: address, Servers: d.servers}.Key()
	answers, known := r.inputs.DNS[key]
	why, failed := r.inputs.DNSErrors[key]
	switch {
	case failed && known:
		note(codeNameNotResolved, address, why, "the addresses of its last answer are kept")
	case failed:
		note(codeNameNotResolved, address, why, "APISIX is left to resolve it, and uses one of its addresses at a time")
	case !known:
		note(codeNameResolvedByAPISIX, address)
	}
	if !known {
		return []string{address}
	}
	answers = ofFamily(answers, d.family)
	if d.kind == logicalDNS {
		answers = answers[:min(len(answers), 1)]
	}
	hosts := make([]string, len(answers))
	for i, a := range answers {
		hosts[i] = hostOf(a)
	}
	return hosts
}

// ofFamily returns the addresses that a cluster asks for.
func ofFamily(addresses []netip.Addr, family clusterpb.Cluster_DnsLookupFamily) []netip.Addr {
	var v4, v6 []netip.Addr
	for _, a := range addresses {
		if a.Unmap().Is4() {
			v4 = append(v4, a)
		} else {
			v6 = append(v6, a)
		}
	}
	switch family {
	case clusterpb.Cluster_V4_ONLY:
		return v4
	case clusterpb.Cluster_V6_ONLY:
		return v6
	case clusterpb.Cluster_V4_PREFERRED:
		if len(v4) > 0 {
			return v4
		}
		return v6
	case clusterpb.Cluster_ALL:
		return slices.Concat(v4, v6)
	case clusterpb.Cluster_AUTO:
	}
	if len(v6) > 0 {
		return v6
	}
	return v4
}

// reportDNS reports what a cluster asks of resolution besides what HostName has.
func reportDNS(c *clusterpb.Cluster, report reporter) {
	if dnsOf(c).kind == noDNS {
		return
	}
	if t := c.GetClusterType(); t != nil {
		config := &dnsclusterpb.DnsCluster{}
		if t.GetTypedConfig().UnmarshalTo(config) == nil { // as in dnsOf
			nameServersOf(nil, config.GetTypedDnsResolverConfig(), report)
		}
		return
	}
	nameServersOf(c, c.GetTypedDnsResolverConfig(), report)
}
