package iptables

import (
	"net/netip"
	"slices"
)

// capturesDNS tells whether any request for a name is redirected.
func (b *builder) capturesDNS() bool {
	return b.config.DNS != nil && (b.config.DNS.Servers == nil || len(b.config.DNS.Servers) > 0)
}

// dns redirects requests for names, over UDP and TCP, to the workload's DNS server. A request and its
// redirected twin would be one and the same to connection tracking, which then loses answers: what the
// workload's DNS server asks, and its answers, are in a zone of their own.
func (b *builder) dns() {
	c := b.config
	port := number(c.DNS.Port)
	all := c.DNS.Servers == nil
	four := slices.ContainsFunc(c.DNS.Servers, netip.Addr.Is4)
	six := slices.ContainsFunc(c.DNS.Servers, netip.Addr.Is6)

	b.both(tableRaw, chainOutput, "-j "+istioOutputDNS)
	jump := rule{table: tableNAT, chain: istioOutput, spec: "-j " + istioOutputDNS}
	if all || four {
		b.v4 = append(b.v4, jump)
	}
	if all || six {
		b.v6 = append(b.v6, jump)
	}
	b.servers(tableNAT, istioOutputDNS, "-p tcp --dport 53", "-d", "-j REDIRECT --to-ports "+port)
	b.servers(tableNAT, istioOutputDNS, "-p udp --dport 53", "-d", "-j REDIRECT --to-port "+port)

	for _, user := range c.Users {
		b.zones("--uid-owner "+user, port)
	}
	for _, group := range c.Groups {
		b.zones("--gid-owner "+group, port)
	}
	jump = rule{table: tableRaw, chain: chainPrerouting, spec: "-j " + istioInbound}
	if all || four {
		b.v4 = append(b.v4, jump)
	}
	if all || six {
		b.v6 = append(b.v6, jump)
	}
	b.servers(tableRaw, istioOutputDNS, "-p udp --dport 53", "-d", "-j CT --zone 2")
	b.servers(tableRaw, istioInbound, "-p udp --sport 53", "-s", "-j CT --zone 1")
}

// zones are for what the workload's DNS server asks, and for what it answers.
func (b *builder) zones(owner, port string) {
	b.both(tableRaw, istioOutputDNS, "-p udp --dport 53 -m owner "+owner+" -j CT --zone 1")
	b.both(tableRaw, istioOutputDNS, "-p udp --sport "+port+" -m owner "+owner+" -j CT --zone 2")
}

// servers adds a rule for each server, or one for all.
func (b *builder) servers(table, chain, match, direction, action string) {
	if b.config.DNS.Servers == nil {
		b.both(table, chain, match+" "+action)
		return
	}
	for _, s := range b.config.DNS.Servers {
		host := netip.PrefixFrom(s, s.BitLen()).String()
		b.of(s, rule{table: table, chain: chain, spec: match + " " + direction + " " + host + " " + action})
	}
}
