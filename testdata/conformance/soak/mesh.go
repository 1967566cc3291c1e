package soak

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
)

// Sizes of the mesh.
const (
	services        = 6
	kubernetes      = 4 // of the services; the others are service entries
	backends        = 4 // of each service
	hosts           = 10
	permanentHosts  = 6 // which are there throughout
	tcpPorts        = 2
	firstTCPPort    = 9100
	httpPort        = 8000 // of backends
	tcpPort         = 8001
	edgePort        = 8080 // of the gateway where APISIX listens itself
	innerPort       = 9080 // of the gateway with capture
	visitor         = "bob"
	servicePort     = 80
	serviceTCPPort  = 9000
	maxWeight       = 100
	configNamespace = "default"
)

// rule is a route of a virtual service: to one or two services, for paths and for a visitor.
type rule struct {
	prefix  string // empty is any
	visitor bool
	to      []int // services
	weights []int
}

// site is the configuration of a host; it has no rules while there is none.
type site struct {
	generation int
	rules      []rule
}

// pool is the set of backends that are endpoints of a service.
type pool struct {
	generation int
	members    []int
	// policy is that of a destination rule: it changes what is configured and not who may answer.
	policy int
}

// mesh is what is configured, now and before.
type mesh struct {
	dir    string // of manifests
	random *rand.Rand
	sites  [hosts]history[site]
	pools  [services]history[pool]
	tcp    [tcpPorts]history[int] // service
}

// newMesh writes a first configuration into the directory.
func newMesh(dir string, random *rand.Rand) (*mesh, error) {
	m := &mesh{dir: dir, random: random}
	if err := m.write("00-base.yaml", baseManifest); err != nil {
		return nil, err
	}
	for s := range services {
		if err := m.setPool(s, pool{members: []int{0, 1}}); err != nil {
			return nil, err
		}
	}
	for h := range hosts {
		next := site{generation: 1, rules: m.randomRules()}
		if h >= permanentHosts && h%2 == 0 {
			next = site{}
		}
		if err := m.setSite(h, next); err != nil {
			return nil, err
		}
	}
	for p := range tcpPorts {
		if err := m.setTCP(p, p); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// edit makes one change and says which.
func (m *mesh) edit() (string, error) {
	switch n := m.random.IntN(20); {
	case n < 9:
		s := m.random.IntN(services)
		next := m.pools[s].current()
		next.generation++
		next.members = m.randomMembers()
		return fmt.Sprintf("endpoints of s%d are %v", s, next.members), m.setPool(s, next)
	case n < 11:
		s := m.random.IntN(services)
		next := m.pools[s].current()
		next.policy++
		return fmt.Sprintf("policy %d of s%d", next.policy, s), m.setPool(s, next)
	case n < 13:
		p, to := m.random.IntN(tcpPorts), m.random.IntN(services)
		return fmt.Sprintf("TCP port %d leads to s%d", firstTCPPort+p, to), m.setTCP(p, to)
	default:
		h := m.random.IntN(hosts)
		next := site{generation: m.sites[h].current().generation + 1}
		if h < permanentHosts || len(m.sites[h].current().rules) == 0 || m.random.IntN(2) == 0 {
			next.rules = m.randomRules()
		}
		return fmt.Sprintf("host h%d is at generation %d with %d rules", h, next.generation, len(next.rules)), m.setSite(h, next)
	}
}

// randomMembers is never empty: a service always has an endpoint.
func (m *mesh) randomMembers() []int {
	all := m.random.Perm(backends)
	members := all[:1+m.random.IntN(backends)]
	slices.Sort(members)
	return members
}

func (m *mesh) randomRules() []rule {
	var rules []rule
	for _, prefix := range []string{"/a", "/b"} {
		if m.random.IntN(2) == 0 {
			rules = append(rules, m.randomRule(prefix, false))
		}
	}
	if m.random.IntN(3) == 0 {
		rules = append(rules, m.randomRule("", true))
	}
	m.random.Shuffle(len(rules), func(i, j int) { rules[i], rules[j] = rules[j], rules[i] })
	return append(rules, m.randomRule("", false))
}

func (m *mesh) randomRule(prefix string, visitor bool) rule {
	r := rule{prefix: prefix, visitor: visitor, to: m.random.Perm(services)[:1+m.random.IntN(2)]}
	first := 1 + m.random.IntN(maxWeight-1)
	r.weights = []int{first, maxWeight - first}[:len(r.to)]
	return r
}

func (m *mesh) setSite(h int, s site) error {
	name := fmt.Sprintf("host-h%d.yaml", h)
	return m.sites[h].change(s, func() error {
		if len(s.rules) > 0 {
			return m.write(name, siteManifest(h, s))
		}
		return m.remove(name)
	})
}

func (m *mesh) setPool(s int, p pool) error {
	return m.pools[s].change(p, func() error { return m.write(fmt.Sprintf("service-s%d.yaml", s), serviceManifest(s, p)) })
}

func (m *mesh) setTCP(p, to int) error {
	return m.tcp[p].change(to, func() error { return m.write(fmt.Sprintf("tcp-%d.yaml", p), tcpManifest(p, to)) })
}

// write puts a file in place at once.
func (m *mesh) write(name, text string) error {
	scratch := filepath.Join(m.dir, name+".new")
	if err := os.WriteFile(scratch, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(scratch, filepath.Join(m.dir, name))
}

func (m *mesh) remove(name string) error {
	if err := os.Remove(filepath.Join(m.dir, name)); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}
