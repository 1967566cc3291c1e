package iptables

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// perFamily stands in a rule for an address that differs between the families.
const perFamily = "%s"

// builder collects the rules of both families.
type builder struct {
	config *Config
	v4, v6 Rules
}

// Render returns the rules of a valid configuration. They are the ones of istio-iptables in mode REDIRECT, in
// its order: the first match decides.
func Render(c *Config) (v4, v6 Rules) {
	b := &builder{config: c}
	b.excludeInterfaces()
	b.inbound()
	b.outbound()
	if !c.IPv6 {
		b.v6 = nil
	}
	return b.v4, b.v6
}

// both adds a rule to both families; in it, %s is the first or the second of the addresses.
func (b *builder) both(table, chain, spec string, addresses ...string) {
	four, six := spec, spec
	if len(addresses) == 2 {
		four, six = strings.Replace(spec, perFamily, addresses[0], 1), strings.Replace(spec, perFamily, addresses[1], 1)
	}
	b.v4 = append(b.v4, rule{table: table, chain: chain, spec: four})
	b.v6 = append(b.v6, rule{table: table, chain: chain, spec: six})
}

// of adds a rule to the family of an address.
func (b *builder) of(address netip.Addr, r rule) {
	if address.Is4() {
		b.v4 = append(b.v4, r)
	} else {
		b.v6 = append(b.v6, r)
	}
}

func (b *builder) excludeInterfaces() {
	for _, name := range b.config.ExcludedInterfaces {
		b.both(tableNAT, chainPrerouting, "-i "+name+" -j RETURN")
		b.both(tableNAT, chainOutput, "-o "+name+" -j RETURN")
	}
	for _, name := range b.config.VirtualInterfaces {
		r := rule{table: tableNAT, chain: chainPrerouting, first: true, spec: "-i " + name + " -j RETURN"}
		b.v4, b.v6 = append(b.v4, r), append(b.v6, r)
	}
}

func (b *builder) inbound() {
	c := b.config
	if c.DropInvalid {
		b.both(tableMangle, chainPrerouting, "-m conntrack --ctstate INVALID -j "+istioDrop)
		b.both(tableMangle, istioDrop, "-j DROP")
	}
	// Before everything else, so that no setting redirects it.
	b.both(tableNAT, istioInbound, "-p tcp --dport "+number(c.TunnelPort)+" -j RETURN")
	b.both(tableNAT, istioOutTo, "-p tcp -j REDIRECT --to-ports "+number(c.OutboundPort))
	b.both(tableNAT, istioInTo, "-p tcp -j REDIRECT --to-ports "+number(c.InboundPort))
	if len(c.InboundPorts) == 0 {
		return
	}
	b.both(tableNAT, chainPrerouting, "-p tcp -j "+istioInbound)
	if !isAny(c.InboundPorts) {
		for _, port := range c.InboundPorts {
			b.both(tableNAT, istioInbound, "-p tcp --dport "+port+" -j "+istioInTo)
		}
		return
	}
	for _, port := range c.ExcludedInboundPorts {
		b.both(tableNAT, istioInbound, "-p tcp --dport "+port+" -j RETURN")
	}
	b.both(tableNAT, istioInbound, "-p tcp -j "+istioInTo)
}

func (b *builder) outbound() {
	c := b.config
	b.both(tableNAT, chainOutput, "-j "+istioOutput)
	for _, port := range c.ExcludedOutboundPorts {
		b.both(tableNAT, istioOutput, "-p tcp --dport "+port+" -j RETURN")
		b.both(tableNAT, istioOutput, "-p udp --dport "+port+" -j RETURN")
	}
	// The proxy has these addresses when it hands a connection on to the application.
	b.both(tableNAT, istioOutput, "-o lo -s "+perFamily+" -j RETURN", "127.0.0.6/32", "::6/128")
	for _, user := range c.Users {
		b.proxy("--uid-owner "+user, true)
	}
	for _, group := range c.Groups {
		b.proxy("--gid-owner "+group, false)
	}
	b.owners()
	if b.capturesDNS() {
		b.dns()
	}
	b.both(tableNAT, istioOutput, "-d "+perFamily+" -j RETURN", c.Loopback.String(), "::1/128")
	for _, r := range prefixes(c.ExcludedOutboundRanges) {
		b.of(r.Addr(), rule{table: tableNAT, chain: istioOutput, spec: "-d " + r.String() + " -j RETURN"})
	}
	for _, port := range c.OutboundPorts {
		b.both(tableNAT, istioOutput, "-p tcp --dport "+port+" -j "+istioOutTo)
	}
	b.ranges()
}

// proxy says what becomes of connections of the proxy, and of those through the loopback interface.
func (b *builder) proxy(owner string, isUser bool) {
	dns := b.capturesDNS()
	// The application called itself by the address of its service, and the proxy chose this pod: the
	// connection is inbound. The workload's DNS server asks others as itself.
	ports := "! --dport " + number(b.config.TunnelPort)
	if dns && isUser {
		ports = "-m multiport ! --dports 53," + number(b.config.TunnelPort)
	}
	b.both(tableNAT, istioOutput, "-o lo ! -d "+perFamily+" -p tcp "+ports+" -m owner "+owner+" -j "+istioInTo,
		b.config.Loopback.String(), "::1/128")
	// The application calls itself by the address of the pod: not through the proxy, unless loopback
	// addresses are asked for. A DNS server on this host is asked through the workload's.
	if !slices.ContainsFunc(prefixes(b.config.OutboundRanges), func(p netip.Prefix) bool { return p.Addr().IsLoopback() }) {
		spec := "-o lo "
		if dns {
			spec += "-p tcp ! --dport 53 "
		}
		b.both(tableNAT, istioOutput, spec+"-m owner ! "+owner+" -j RETURN")
	}
	// What the proxy sends is never redirected to it.
	b.both(tableNAT, istioOutput, "-m owner "+owner+" -j RETURN")
}

func (b *builder) owners() {
	c := b.config
	if isAny(c.OwnerGroups) {
		for _, group := range c.ExcludedOwnerGroups {
			b.both(tableNAT, istioOutput, "-m owner --gid-owner "+group+" -j RETURN")
		}
		return
	}
	var spec strings.Builder
	for _, group := range c.OwnerGroups {
		spec.WriteString("-m owner ! --gid-owner " + group + " ")
	}
	b.both(tableNAT, istioOutput, spec.String()+"-j RETURN")
}

func (b *builder) ranges() {
	c := b.config
	if isAny(c.OutboundRanges) {
		b.both(tableNAT, istioOutput, "-j "+istioOutTo)
		for _, name := range c.VirtualInterfaces {
			r := rule{table: tableNAT, chain: chainPrerouting, first: true, spec: "-i " + name + " -j " + istioOutTo}
			b.v4, b.v6 = append(b.v4, r), append(b.v6, r)
		}
		return
	}
	for _, r := range prefixes(c.OutboundRanges) {
		for _, name := range c.VirtualInterfaces {
			b.of(r.Addr(), rule{
				table: tableNAT, chain: chainPrerouting, first: true,
				spec: fmt.Sprintf("-i %s -d %s -j %s", name, r, istioOutTo),
			})
		}
		b.of(r.Addr(), rule{table: tableNAT, chain: istioOutput, spec: fmt.Sprintf("-d %s -j %s", r, istioOutTo)})
	}
}

func number(port uint16) string { return strconv.Itoa(int(port)) }

// prefixes are the ranges of a valid list; Any is none of them.
func prefixes(texts []string) (all []netip.Prefix) {
	for _, text := range texts {
		if p, err := netip.ParsePrefix(text); err == nil {
			all = append(all, p)
		}
	}
	return all
}
