package dns

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// Host is an entry of istiod's name table.
type Host struct {
	// Name is the full name, or a wildcard such as "*.example.com".
	Name      string
	Addresses []netip.Addr
	// Kubernetes tells that it is a service of that registry. It is then known, as in a cluster,
	// by shorter names that Shortname and Namespace make.
	Kubernetes           bool
	Shortname, Namespace string
	// Others are more names, of Kubernetes' services only.
	Others []string
}

// addresses are the answers to a name, by family. They are immutable.
type addresses struct {
	v4 [][4]byte
	v6 [][16]byte
}

// names is a name table ready for lookups: by name in lower case with the final dot. It is immutable.
type names map[string]*addresses

// newNames returns the table of the hosts. Where a full name and a shorter one are the same, the full
// one counts; of two shorter ones, that of the host whose full name sorts first.
func newNames(hosts []Host, namespace, domain string) names {
	n := make(names, len(hosts))
	hosts = slices.Clone(hosts)
	slices.SortStableFunc(hosts, func(a, b Host) int { return cmp.Compare(a.Name, b.Name) })
	answers := make([]*addresses, len(hosts))
	for i, h := range hosts {
		if answers[i] = newAddresses(h.Addresses); answers[i] != nil {
			n.add(h.Name, answers[i])
		}
	}
	for i, h := range hosts {
		if answers[i] == nil {
			continue
		}
		for _, name := range h.shorter(namespace, domain) {
			n.add(name, answers[i])
		}
	}
	return n
}

func (n names) add(name string, a *addresses) {
	name = lower(strings.TrimSuffix(name, ".")) + "."
	if _, taken := n[name]; !taken && name != "." {
		n[name] = a
	}
}

func newAddresses(ips []netip.Addr) *addresses {
	a := &addresses{}
	for _, ip := range ips {
		switch ip = ip.Unmap(); {
		case ip.Is4():
			a.v4 = append(a.v4, ip.As4())
		case ip.Is6() && ip.Zone() == "":
			a.v6 = append(a.v6, ip.As16())
		}
	}
	if len(a.v4)+len(a.v6) == 0 {
		return nil // whoever else knows the name may answer it
	}
	return a
}

// shorter returns the names by which a Kubernetes service is known beside the full one: name.namespace,
// name.namespace.svc, and the name alone in its own namespace. Services of other clusters' domains
// have none, for they could not be told from those of this one.
func (h Host) shorter(namespace, domain string) []string {
	if !h.Kubernetes || h.Shortname == "" || domain == "" || !strings.HasSuffix(strings.TrimSuffix(h.Name, "."), "."+domain) {
		return nil
	}
	first, _, _ := strings.Cut(domain, ".")
	list := []string{h.Shortname + "." + h.Namespace, h.Shortname + "." + h.Namespace + "." + first}
	if h.Namespace == namespace {
		list = append(list, h.Shortname)
	}
	return append(list, h.Others...)
}

// lookup returns the answers to a name, in any case and with the final dot; nil if it is not known.
//
// Resolvers first try a name with the domains of their search list, so the first domain is taken off
// a name that is not known with it. The answer is then that of alias, to which the name is said to
// lead (CNAME), and the resolver has it without its other tries.
func (n names) lookup(asked, search string) (found *addresses, alias string) {
	name := lower(asked)
	if a := n[name]; a != nil {
		return a, ""
	}
	if search != "" {
		short, ok := strings.CutSuffix(name, search)
		if ok && strings.HasSuffix(short, ".") && len(short) > 1 && !strings.HasSuffix(short, "."+search) && short != search {
			if a := cmp.Or(n[short], n.wildcard(short)); a != nil {
				return a, asked[:len(short)]
			}
		}
	}
	return n.wildcard(name), ""
}

// wildcard returns the answers of the closest wildcard that covers the name.
func (n names) wildcard(name string) *addresses {
	for {
		_, parent, more := strings.Cut(name, ".")
		if !more || parent == "" {
			return nil
		}
		if a := n["*."+parent]; a != nil {
			return a
		}
		name = parent
	}
}

// lower is for names in DNS, whose case is that of ASCII alone (RFC 4343).
func lower(s string) string {
	for i := range len(s) {
		if c := s[i]; c >= 'A' && c <= 'Z' {
			b := []byte(s)
			for ; i < len(b); i++ {
				if c := b[i]; c >= 'A' && c <= 'Z' {
					b[i] = c + 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}
