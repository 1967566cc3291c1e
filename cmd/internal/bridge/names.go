package bridge

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"meshbridge/cmd/internal/dns"
	"meshbridge/translate"
	"meshbridge/xds"
)

// resolver is what the pipeline wants of a *dns.Resolver.
type resolver interface {
	Resolve(names []translate.HostName)
	Answers() *dns.Answers
	Changed() <-chan struct{}
}

// names keeps the names of clusters resolved. It is owned by the pipeline. A name is resolved as soon
// as its cluster has been received, so that the answer is there when the cluster is translated, and
// until what needs it is translated no more.
type names struct {
	resolver resolver // nil leaves all names to APISIX
	answers  *dns.Answers
	// clusters are the names of each cluster; those in loose may have names that only an older version
	// of them has, which may be the one that is translated.
	clusters map[string][]translate.HostName
	loose    map[string]struct{}
	// waitedSince tells of names without an answer when they were first asked for.
	waitedSince map[string]time.Time
	// kept are answers of an earlier process, which count until there are others.
	kept map[string][]netip.Addr
}

func newNames(r resolver) *names {
	return &names{
		resolver: r, answers: &dns.Answers{},
		clusters: map[string][]translate.HostName{}, loose: map[string]struct{}{}, waitedSince: map[string]time.Time{},
	}
}

// changed gets a value when there are new answers; it is nil, hence never ready, without a resolver.
func (n *names) changed() <-chan struct{} {
	if n.resolver == nil {
		return nil
	}
	return n.resolver.Changed()
}

// receiveAll looks for names in all clusters, before the first world.
func (n *names) receiveAll(now time.Time, s *xds.Snapshot) {
	clear(n.clusters)
	for r := range s.All(xds.ClusterType) {
		n.add(r)
	}
	n.resolve(now)
}

// receive looks for names in the clusters that changed.
func (n *names) receive(now time.Time, s *xds.Snapshot, changed []xds.Key) {
	different := false
	for _, k := range changed {
		if k.Type != xds.ClusterType {
			continue
		}
		if len(n.clusters[k.Name]) > 0 {
			n.loose[k.Name] = struct{}{}
		}
		if r := s.Get(k); r != nil && n.add(r) {
			different = true
		}
	}
	if different {
		n.resolve(now)
	}
}

// add adds the names of a cluster, and tells whether there are new ones.
func (n *names) add(r *xds.Resource) (different bool) {
	for _, name := range hostNames(r) {
		if !slices.Contains(n.clusters[r.Name], name) {
			n.clusters[r.Name] = append(n.clusters[r.Name], name)
			different = true
		}
	}
	return different
}

// settle forgets the names of older versions, when the newest of all clusters are translated.
func (n *names) settle(now time.Time, s *xds.Snapshot) {
	if len(n.loose) == 0 {
		return
	}
	for cluster := range n.loose {
		delete(n.clusters, cluster)
		if r := s.Get(xds.Key{Type: xds.ClusterType, Name: cluster}); r != nil {
			n.add(r)
		}
	}
	clear(n.loose)
	n.resolve(now)
}

func hostNames(r *xds.Resource) []translate.HostName {
	c, err := xds.Decode[*clusterpb.Cluster](r)
	if err != nil {
		return nil // package xds has validated it
	}
	return translate.HostNames(c)
}

func (n *names) resolve(now time.Time) {
	if n.resolver == nil {
		return
	}
	var all []translate.HostName
	waited := map[string]time.Time{}
	for _, list := range n.clusters {
		all = append(all, list...)
		for _, name := range list {
			since, old := n.waitedSince[name.Key()]
			if !old {
				since = now
			}
			if !n.answers.Answered(name.Key()) {
				waited[name.Key()] = since
			}
		}
	}
	n.waitedSince = waited
	n.resolver.Resolve(all)
}

// keep takes answers of an earlier process.
func (n *names) keep(answers map[string][]netip.Addr) {
	if n.resolver == nil {
		return
	}
	n.kept = answers
	n.load()
}

// load takes over the newest answers.
func (n *names) load() {
	n.answers = n.resolver.Answers()
	if n.kept != nil {
		good := maps.Clone(n.kept)
		maps.Copy(good, n.answers.Addresses)
		n.answers = &dns.Answers{Addresses: good, Errors: n.answers.Errors}
	}
	for name := range n.waitedSince {
		if n.answers.Answered(name) {
			delete(n.waitedSince, name)
		}
	}
}

// warming returns how long to go on waiting for answers; 0 is no longer.
func (n *names) warming(now time.Time) time.Duration {
	var left time.Duration
	for _, since := range n.waitedSince {
		left = max(left, since.Add(warmUp).Sub(now))
	}
	return left
}
