package translate

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"meshbridge/translate/apisix"
)

// A virtual host is placed up to three ways, because APISIX has no form for all kinds of domains:
// by hosts (exact names and suffix wildcards), by a condition on the host for each prefix wildcard,
// and without any for "*". APISIX tries hosts first, exact before the longest wildcard, as Envoy
// does; the others share the routes without hosts and are ordered by priority.

// placement is one way in which a virtual host receives requests.
type placement struct {
	vhost *routepb.VirtualHost
	// index is that of the virtual host in its route configuration.
	index int
	// hosts is nil in placements without hosts.
	hosts []string
	conds []apisix.Cond
	// suffix tells the placements of a virtual host apart in ids.
	suffix string
}

// validHost tells whether APISIX accepts a host in its canonical form.
func validHost(host string) bool {
	name := strings.TrimPrefix(host, "*")
	if strings.Contains(name, ":") && !strings.HasPrefix(name, "[") {
		return false // an IPv6 address without brackets, which no Host header is
	}
	return name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-._[]:") == "" && !strings.Contains(name, "*")
}

// placeVirtualHosts returns the placements with hosts, one per virtual host, and those without in the
// order in which Envoy would try them.
func placeVirtualHosts(config *routepb.RouteConfiguration, report func(vhost *routepb.VirtualHost) reporter) (hosted, hostless []placement) {
	type prefixPlacement struct {
		placement
		length int
	}
	var prefixes []prefixPlacement
	var rest []placement
	taken := make(map[string]*routepb.VirtualHost, len(config.GetVirtualHosts()))
	for i, v := range config.GetVirtualHosts() {
		var hosts []string
		for _, domain := range v.GetDomains() {
			host, port := cutPort(domain)
			if port != "" && !config.GetIgnorePortInHostMatching() && !slices.Contains(v.GetDomains(), host) {
				report(v)("domain_port", "domains", domain, host)
			}
			host = canonicalHost(host)
			if other := taken[host]; other != nil {
				if other != v { // and not such as "reviews." beside "reviews"
					report(v)("domain_taken", "domains", domain, other.GetName())
				}
				continue
			}
			taken[host] = v
			prefix, wildcard := strings.CutSuffix(host, "*")
			switch {
			case host == "*":
				rest = append(rest, placement{vhost: v, index: i, suffix: "*"})
			case wildcard && !strings.Contains(prefix, "*"):
				prefixes = append(prefixes, prefixPlacement{
					placement{vhost: v, index: i, suffix: host, conds: []apisix.Cond{apisix.Match("host", `\A`+apisix.QuoteRegex(prefix)+`.`)}}, len(prefix),
				})
			case validHost(host):
				hosts = append(hosts, host)
			default:
				report(v)("domain_invalid", "domains", domain)
			}
		}
		if len(hosts) > 0 {
			hosted = append(hosted, placement{vhost: v, index: i, hosts: hosts})
		}
	}
	slices.SortStableFunc(prefixes, func(a, b prefixPlacement) int {
		return cmp.Or(cmp.Compare(b.length, a.length), strings.Compare(a.suffix, b.suffix))
	})
	for _, p := range prefixes {
		hostless = append(hostless, p.placement)
	}
	return hosted, append(hostless, rest...)
}

// cutPort splits "host:port"; the colons of an IPv6 address are no ports.
func cutPort(domain string) (host, port string) {
	i := strings.LastIndexByte(domain, ':')
	if i < 0 || strings.HasSuffix(domain, "]") {
		return domain, ""
	}
	if _, err := netip.ParseAddr(domain); err == nil {
		return domain, ""
	}
	if digits := domain[i+1:]; digits == "" || digits != "*" && strings.Trim(digits, "0123456789") != "" {
		return domain, ""
	}
	return domain[:i], domain[i+1:]
}

// canonicalHost is a domain as nginx's $host has it: in lower case and without a final dot.
func canonicalHost(host string) string {
	return strings.TrimSuffix(strings.ToLower(host), ".")
}
