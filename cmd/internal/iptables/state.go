package iptables

import (
	"slices"
	"strings"
)

// state is what iptables-save tells of one family: the lines of each table.
type state map[string][]string

func parseState(saved string) state {
	s := state{}
	table := ""
	for line := range strings.Lines(saved) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "*"):
			table = strings.TrimSpace(line[1:])
			s[table] = nil
		case strings.HasPrefix(line, ":"), strings.HasPrefix(line, "-A "):
			s[table] = append(s[table], line)
		}
	}
	return s
}

// chains returns our chains of a table.
func (s state) chains(table string) (chains []string) {
	for _, line := range s[table] {
		if name, ok := strings.CutPrefix(line, ":"); ok && strings.HasPrefix(name, prefix) {
			name, _, _ = strings.Cut(name, " ")
			chains = append(chains, name)
		}
	}
	return chains
}

// ours returns the rules in chains of the kernel that are ours: those that jump to our chains, and those
// that are among the rules.
func (s state) ours(table string, rules Rules) (specs []string) {
	for _, line := range s[table] {
		spec, ok := strings.CutPrefix(line, "-A ")
		if !ok || strings.HasPrefix(spec, prefix) {
			continue
		}
		jumps := rule{spec: spec}.target() != ""
		if jumps || slices.ContainsFunc(rules, func(r rule) bool { return r.table == table && r.chain+" "+r.spec == spec }) {
			specs = append(specs, spec)
		}
	}
	return specs
}

// replace returns the input of iptables-restore --noflush that takes away what is ours in the state, and
// adds the rules.
func (s state) replace(rules Rules) string {
	return s.change(rules, rules)
}

// remove returns the input that takes away what is ours; rules are those that were added.
func (s state) remove(rules Rules) string {
	return s.change(rules, nil)
}

func (s state) change(old, rules Rules) string {
	tables := rules.tables()
	for table := range s {
		if len(s.chains(table)) > 0 || len(s.ours(table, old)) > 0 {
			tables = append(tables, table)
		}
	}
	slices.Sort(tables)
	var b strings.Builder
	for _, table := range slices.Compact(tables) {
		b.WriteString("*" + table + "\n")
		wanted := rules.chains(table)
		// A chain that is declared is made, or emptied.
		for _, chain := range wanted {
			b.WriteString(":" + chain + " - [0:0]\n")
		}
		for _, spec := range s.ours(table, old) {
			b.WriteString("-D " + spec + "\n")
		}
		stale := slices.DeleteFunc(s.chains(table), func(chain string) bool { return slices.Contains(wanted, chain) })
		for _, action := range []string{"-F ", "-X "} {
			for _, chain := range stale {
				b.WriteString(action + chain + "\n")
			}
		}
		rules.write(&b, table)
		b.WriteString("COMMIT\n")
	}
	return b.String()
}
