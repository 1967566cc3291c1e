package translate

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// chainTable is made of all listeners: what a chain receives depends on the others.
type chainTable struct {
	chains      []*Chain // sorted by Key
	diagnostics []Diagnostic
}

// passage is what happens to connections that no chain of a profile serves.
func passage(p Profile) string {
	if p.Captures() {
		return "are carried without APISIX"
	}
	return "are not served"
}

// assemble makes the chain table; units are sorted by listener name.
func (s *State) assemble(units []*listenerUnit) chainTable {
	var t chainTable
	var notes []note
	for _, u := range units {
		t.diagnostics = append(t.diagnostics, u.diagnostics...)
		notes = append(notes, u.notes...)
	}
	keys := map[string]bool{}
	taken := takenAddresses(units)
	for _, u := range units {
		for _, d := range u.chains {
			c := d.Chain
			c.Key = uniqueKey(keys, d)
			if c.Direction == Outbound && !c.Bound && c.wildcard() {
				c.Excluded = taken[c.Port]
			}
			if c.TLS {
				c.ExcludedServerNames = excludedServerNames(d, u.chains)
			}
			report := s.reporter(&t.diagnostics, "Listener "+u.name, d.field, "")
			shareAt := func(code Code, field string, args ...any) {
				n := note{s.catalogue.diagnostic(code, args...), u.name}
				n.Field = field
				notes = append(notes, n)
			}
			s.settle(&c, d, u.chains, report, shareAt)
			d.settled = &c
			t.chains = append(t.chains, &c)
		}
	}
	slices.SortFunc(t.chains, func(a, b *Chain) int { return strings.Compare(a.Key, b.Key) })
	s.divideServerNames(&t)
	s.refuseAmbiguous(&t)
	t.diagnostics = append(t.diagnostics, mergeNotes(notes)...)
	return t
}

// refuseAmbiguous serves none of several chains that the profile cannot tell apart: requests on one
// would be answered by the routes of another, which may be less strict.
func (s *State) refuseAmbiguous(t *chainTable) {
	same := map[string][]*Chain{}
	for _, c := range t.chains {
		if c.NotServed == "" {
			guard, _, _ := c.guard(s.options.Profile)
			same[fmt.Sprint(guard)] = append(same[fmt.Sprint(guard)], c)
		}
	}
	for _, chains := range same {
		for i, c := range chains {
			if len(chains) == 1 {
				break
			}
			other := chains[(i+1)%len(chains)]
			c.NotServed = "connections cannot be told apart from those of chain " + other.Key
			s.reporter(&t.diagnostics, "Listener "+c.Listener, "", "")("chain_match_unsupported", "", c.NotServed)
		}
	}
}

// takenAddresses returns the addresses that have a listener of their own, by port.
func takenAddresses(units []*listenerUnit) map[int][]netip.Addr {
	taken := map[int][]netip.Addr{}
	for _, u := range units {
		for _, d := range u.chains {
			if d.Direction != Outbound || d.Bound || d.wildcard() {
				continue
			}
			for _, a := range d.addresses() {
				if i, found := slices.BinarySearchFunc(taken[d.Port], a, netip.Addr.Compare); !found {
					taken[d.Port] = slices.Insert(taken[d.Port], i, a)
				}
			}
		}
	}
	return taken
}

// uniqueKey takes the first of the chain's possible keys that is free.
func uniqueKey(taken map[string]bool, d *chainDraft) string {
	key := d.Key
	if taken[key] {
		key += "@" + d.Listener
	}
	if taken[key] {
		key += "#" + shortHash(d.field)
	}
	taken[key] = true
	return key
}

// excludedServerNames returns the server names of the other chains that the chain's own names, or
// having none, cover.
func excludedServerNames(d *chainDraft, siblings []*chainDraft) []string {
	var out []string
	for _, o := range siblings {
		if o == d || !o.TLS {
			continue
		}
		for _, name := range o.ServerNames {
			covered := len(d.ServerNames) == 0 || slices.ContainsFunc(d.ServerNames, func(own string) bool {
				return own != name && strings.HasPrefix(own, "*") && serverNameMatches(own, name)
			})
			if covered && !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
	}
	slices.Sort(out)
	return out
}

// settle decides whether a chain is served, and whether its requests are refused.
func (s *State) settle(c *Chain, d *chainDraft, siblings []*chainDraft, report, shareAt reporter) {
	p := s.options.Profile
	share := func(code Code, args ...any) { shareAt(code, "", args...) }
	restrictions := d.restrictions
	switch {
	case d.broken != "":
		c.NotServed = d.broken
		report(cmp.Or(d.brokenCode, "listener_decode"), "", d.broken)
		return
	case d.proxy != "":
		c.NotServed = "it ends in " + d.proxy
		report("chain_without_proxy", "", d.proxy)
		return
	case !c.HTTP:
		c.NotServed = "it is not HTTP"
		switch {
		case p.Captures(): // capture says what it cannot do
		case d.unclaimed, c.Port == 0, d.field == defaultChainField:
			share("default_chain", passage(p))
		case c.Direction == Inbound && c.TLS && hasPlain(c, siblings, false):
			// The plain chain of the port says it.
		default:
			report("tcp_refused", "", describeListener(c))
		}
		return
	case c.Port == 0 && !p.Captures():
		c.NotServed = "requests to ports without a service " + passage(p)
		share("inbound_passthrough", "get 404")
		return
	}
	guard, ok, why := c.guard(p)
	if f := s.lackedBy(guard); f != 0 {
		c.NotServed = "its connections are not known from others"
		reportTooOld(report, f, "", "")
		return
	}
	if !ok && c.Direction == Inbound && c.TLS && !c.Bound && c.narrowed == "" {
		if hasPlain(c, siblings, true) {
			c.NotServed = why
			report("mesh_tls_not_received", "", c.Port)
			return
		}
		c.plain = true
		if _, ok, why = c.guard(p); ok {
			restrictions = append(slices.Clone(restrictions), restriction{codeUnenforcedMutualTLS, "transport_socket", fmt.Sprintf("port %d", c.Port)})
		}
	}
	if !ok {
		c.NotServed = why
		report("chain_match_unsupported", "", why)
		return
	}
	if c.Bound && !p.Captures() && !p.TerminatesTLS() { // whose ports are those of redirection
		share("listening_port", c.Port)
	}
	if d.ipv6 && !c.Bound && !p.Captures() {
		report("ipv6_not_received", "")
	}
	c.capturedTLS = s.capturesTLS(d)
	if c.TLS && !c.plain && !c.capturedTLS {
		more, notServed := s.certify(c, d.tls, report)
		if notServed != "" {
			c.NotServed = notServed
			return
		}
		restrictions = slices.Concat(restrictions, more)
	}
	access, unenforced := s.compileAccess(c, d, shareAt)
	c.access = access
	c.Denied = s.enforcement(slices.Concat(restrictions, unenforced), "every request of the chain", report)
	if p.Captures() && d.passthrough != "" {
		c.NotServed = "its connections are passed through"
		if c.Direction == Inbound {
			share("inbound_passthrough", "are passed on as they are")
		}
		return
	}
	s.settleCertificate(c, d, shareAt)
}

// hasPlain tells whether a chain for plain connections serves the same port.
func hasPlain(c *Chain, siblings []*chainDraft, http bool) bool {
	return slices.ContainsFunc(siblings, func(o *chainDraft) bool { return o.Port == c.Port && !o.TLS && (o.HTTP || !http) })
}

func describeListener(c *Chain) string {
	if c.Direction == Inbound {
		return fmt.Sprintf("port %d", c.Port)
	}
	return netip.AddrPortFrom(c.Address, uint16(c.Port)).String()
}

// mergeNotes makes one diagnostic of equal notes about several listeners.
func mergeNotes(notes []note) []Diagnostic {
	type group struct {
		Diagnostic
		listeners map[string]bool
	}
	var order []Diagnostic
	groups := map[Diagnostic]*group{}
	for _, n := range notes {
		g := groups[n.Diagnostic]
		if g == nil {
			g = &group{n.Diagnostic, map[string]bool{}}
			g.Resource = "Listener " + n.listener
			groups[n.Diagnostic] = g
			order = append(order, n.Diagnostic)
		}
		g.listeners[n.listener] = true
	}
	out := make([]Diagnostic, len(order))
	for i, key := range order {
		g := groups[key]
		if others := len(g.listeners) - 1; others > 0 {
			g.Message += fmt.Sprintf(" (and the same on %d other listeners)", others)
		}
		out[i] = g.Diagnostic
	}
	return out
}
