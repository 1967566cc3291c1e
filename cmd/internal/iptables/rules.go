package iptables

import (
	"slices"
	"strings"
)

// Tables and chains. Those of the kernel are in capitals without the prefix, the others have Istio's names,
// by which they are found again.
const (
	tableMangle = "mangle"
	tableNAT    = "nat"
	tableRaw    = "raw"

	chainPrerouting = "PREROUTING"
	chainOutput     = "OUTPUT"

	prefix         = "ISTIO_"
	istioInbound   = "ISTIO_INBOUND"
	istioInTo      = "ISTIO_IN_REDIRECT"
	istioOutput    = "ISTIO_OUTPUT"
	istioOutputDNS = "ISTIO_OUTPUT_DNS"
	istioOutTo     = "ISTIO_REDIRECT"
	istioDrop      = "ISTIO_DROP"
)

// rule is one line of a table.
type rule struct {
	table, chain string
	first        bool // before those that are there
	spec         string
}

// line is the rule as iptables-restore takes it.
func (r rule) line() string {
	if r.first {
		return "-I " + r.chain + " 1 " + r.spec
	}
	return "-A " + r.chain + " " + r.spec
}

// target is the chain that the rule jumps to, if it is one of ours.
func (r rule) target() string {
	i := strings.LastIndex(r.spec, "-j ")
	if name := r.spec[i+len("-j "):]; i >= 0 && strings.HasPrefix(name, prefix) && !strings.Contains(name, " ") {
		return name
	}
	return ""
}

// Rules are those of one family of addresses, in the order in which they are added.
type Rules []rule

// Restore returns them as input of iptables-restore --noflush, for tables that have none of them yet.
func (r Rules) Restore() string {
	var b strings.Builder
	for _, table := range r.tables() {
		b.WriteString("*" + table + "\n")
		for _, chain := range r.chains(table) {
			b.WriteString("-N " + chain + "\n")
		}
		r.write(&b, table)
		b.WriteString("COMMIT\n")
	}
	return b.String()
}

func (r Rules) write(b *strings.Builder, table string) {
	for _, rule := range r {
		if rule.table == table {
			b.WriteString(rule.line() + "\n")
		}
	}
}

func (r Rules) tables() (tables []string) {
	for _, rule := range r {
		tables = append(tables, rule.table)
	}
	slices.Sort(tables)
	return slices.Compact(tables)
}

// chains returns our chains of a table: those with rules, then those that are only jumped to.
func (r Rules) chains(table string) (chains []string) {
	add := func(chain string) {
		if strings.HasPrefix(chain, prefix) && !slices.Contains(chains, chain) {
			chains = append(chains, chain)
		}
	}
	for _, rule := range r {
		if rule.table == table {
			add(rule.chain)
		}
	}
	for _, rule := range r {
		if rule.table == table {
			add(rule.target())
		}
	}
	return chains
}
