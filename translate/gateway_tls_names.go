package translate

import (
	"slices"
	"strings"

	"meshbridge/translate/apisix"
)

// anyServerName stands for chains without server names, in a list of names.
const anyServerName = "*"

// serverNames are the names that the chain receives; "*" where it has none of its own.
func (c *Chain) serverNames() []string {
	if len(c.ServerNames) == 0 {
		return []string{anyServerName}
	}
	return c.ServerNames
}

// divideServerNames finds out which of a chain's connections would get the certificate of another
// one, because APISIX chooses that by server name and not by port. Where the two differ in anything,
// the first chain keeps the name and the other one refuses it.
func (s *State) divideServerNames(t *chainTable) {
	type claim struct {
		name  string
		chain *Chain
	}
	var claims []claim
	owners := map[string]*Chain{}
	for _, c := range t.chains {
		if !c.Terminated || c.NotServed != "" {
			continue
		}
		for _, name := range c.serverNames() {
			if owners[strings.ToLower(name)] == nil {
				owners[strings.ToLower(name)] = c
				claims = append(claims, claim{name, c})
			}
		}
	}
	for _, c := range t.chains {
		if !c.Terminated || c.NotServed != "" {
			continue
		}
		report := s.reporter(&t.diagnostics, "Listener "+c.Listener, "", "")
		for _, other := range claims {
			if other.chain == c || !c.receives(other.name) || s.sameTerms(c, other.chain) {
				continue
			}
			c.foreignNames = append(c.foreignNames, other.name)
			report("server_name_conflict", "", other.name, c.Key, other.chain.Key)
		}
		own := slices.DeleteFunc(slices.Clone(c.serverNames()), func(name string) bool { return slices.Contains(c.foreignNames, name) })
		if len(own) == 0 {
			c.NotServed = "its server names have the certificates of other chains"
		}
	}
}

// receives tells whether the chain receives connections for a name of another chain's.
func (c *Chain) receives(name string) bool {
	excluded := func(pattern string) bool { return strings.EqualFold(pattern, name) || serverNameMatches(pattern, name) }
	if slices.ContainsFunc(c.ExcludedServerNames, excluded) {
		return false
	}
	return slices.ContainsFunc(c.serverNames(), func(own string) bool {
		return own == anyServerName || strings.EqualFold(own, name) || strings.HasPrefix(own, "*") && serverNameMatches(own, name)
	})
}

// sameTerms tells whether two chains would share their ssl objects.
func (s *State) sameTerms(a, b *Chain) bool {
	return a.tls.terms(s.certificatesOf(a.tls)) == b.tls.terms(s.certificatesOf(b.tls))
}

// hostsBelow returns the hosts of the chain's routes that a wildcard of its server names covers and
// APISIX's would not, because they have more labels, or because its release has no wildcard for all.
func (s *State) hostsBelow(c *Chain) []string {
	if !s.namedByRoutes(c) {
		return nil
	}
	var out []string
	for _, v := range s.routeConfig(c).GetVirtualHosts() {
		for _, domain := range v.GetDomains() {
			host, _ := cutPort(domain)
			host = canonicalHost(host)
			if host != anyServerName && c.below(host) && !slices.Contains(out, host) {
				out = append(out, host)
			}
		}
	}
	slices.Sort(out)
	return out
}

// namedByRoutes tells whether hosts of the chain's routes are server names of its own.
func (s *State) namedByRoutes(c *Chain) bool {
	if len(c.ServerNames) == 0 {
		return !s.options.APISIXVersion.Has(apisix.FeatureAnySNI)
	}
	return slices.ContainsFunc(c.ServerNames, func(name string) bool { return strings.HasPrefix(name, "*") })
}

// below tells whether a host is one that the chain receives, by a wildcard and with more labels.
func (c *Chain) below(host string) bool {
	taken := func(pattern string) bool { return strings.EqualFold(pattern, host) || serverNameMatches(pattern, host) }
	if slices.ContainsFunc(c.foreignNames, taken) || !c.receives(host) {
		return false
	}
	return len(c.ServerNames) == 0 || slices.ContainsFunc(c.ServerNames, func(pattern string) bool {
		suffix, wildcard := strings.CutPrefix(strings.ToLower(pattern), "*")
		label, covered := strings.CutSuffix(host, suffix)
		return wildcard && covered && strings.Contains(label, ".")
	})
}
