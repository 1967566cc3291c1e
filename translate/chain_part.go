package translate

import (
	"crypto/sha256"
	"hash"
	"iter"
	"slices"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protowire"

	"meshbridge/translate/apisix"
	"meshbridge/xds"
)

// A route configuration has as many virtual hosts as there are services on a port, and an edit of
// one route brings them all again. What a virtual host with hosts becomes depends on few things
// beside its own bytes, so it is kept, and translated again only where one of them has changed.

// chainPart is what becomes of a virtual host with hosts, or of the rest of a chain. It is not modified
// once it has been published.
type chainPart struct {
	// sum is of everything that the part was made of, but for what comes from other resources; zero
	// where that is not known.
	sum [sha256.Size]byte
	// objects are there until they have been published.
	objects []apisix.Object
	// facts are those that were asked for, refs the upstreams that the routes refer to, and
	// pluginConfigs the ids of plugin_configs; some may be there more than once.
	facts         []knownFacts
	refs          []upstreamRef
	pluginConfigs []string
	diagnostics   []Diagnostic
	// extendedBy names the documents of users that extend routes of the part.
	extendedBy []string
}

// knownFacts are the facts of a cluster as a part was told them.
type knownFacts struct {
	cluster string
	facts   clusterFacts
}

// add appends an element, unless it is the last one.
func add[E comparable](list []E, element E) []E {
	if n := len(list); n > 0 && list[n-1] == element {
		return list
	}
	return append(list, element)
}

// clusters yields the clusters that the part depends on, by reference or for facts, some of them more
// than once, but each time the same.
func (p *chainPart) clusters() iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, known := range p.facts {
			if !yield(known.cluster) {
				return
			}
		}
		for _, ref := range p.refs {
			if !yield(ref.cluster) {
				return
			}
		}
	}
}

// reuse takes a part over from the previous translation, and tells whether it could.
func (x *routeCompiler) reuse(group string, sum [sha256.Size]byte) bool {
	if !x.sameChain || sum == [sha256.Size]byte{} {
		return false
	}
	part := x.previous.parts[group]
	if part == nil || part.sum != sum {
		return false
	}
	for _, known := range part.facts {
		if x.state.clusterFacts(known.cluster) != known.facts {
			return false
		}
	}
	x.unit.parts[group] = part
	x.unit.priorities[group] = x.previous.priorities[group]
	for _, id := range part.pluginConfigs {
		x.emitPluginConfig(id, func() pluginConfigUnit { return x.previous.pluginConfigs[id] })
	}
	return true
}

// partSums sum up what the parts of a chain are made of.
type partSums struct {
	hosts [][]byte
	rest  []byte
	hash  hash.Hash
}

// newPartSums returns nil where there are no bytes to sum up, which is so where the configuration is
// in the listener.
func (s *State) newPartSums(c *Chain, config *routepb.RouteConfiguration) *partSums {
	r := s.snapshot.Get(xds.Key{Type: xds.RouteType, Name: c.RouteConfig})
	if c.Inline || r == nil {
		return nil
	}
	hosts, rest := splitRouteConfig(r.Body.GetValue())
	if len(hosts) != len(config.GetVirtualHosts()) {
		return nil
	}
	if s.extensionSum > 0 {
		rest = protowire.AppendVarint(slices.Clone(rest), s.extensionSum)
	}
	return &partSums{hosts, rest, sha256.New()}
}

// of returns the sum for a placement; zero where there is none.
func (s *partSums) of(p placement) (sum [sha256.Size]byte) {
	if s == nil {
		return sum
	}
	s.hash.Reset()
	var size [4]byte
	write := func(b []byte) {
		s.hash.Write(protowire.AppendFixed32(size[:0], uint32(len(b))))
		s.hash.Write(b)
	}
	write(s.rest)
	write(s.hosts[p.index])
	for _, host := range p.hosts {
		write([]byte(host))
	}
	s.hash.Sum(sum[:0])
	return sum
}

// virtualHosts is the number of the field in a RouteConfiguration.
const virtualHosts protowire.Number = 2

// splitRouteConfig returns the encoded virtual hosts of an encoded RouteConfiguration, and the rest.
func splitRouteConfig(raw []byte) (hosts [][]byte, rest []byte) {
	for len(raw) > 0 {
		number, kind, tag := protowire.ConsumeTag(raw)
		if tag < 0 {
			return nil, nil
		}
		n := protowire.ConsumeFieldValue(number, kind, raw[tag:])
		if n < 0 {
			return nil, nil
		}
		if number == virtualHosts && kind == protowire.BytesType {
			host, _ := protowire.ConsumeBytes(raw[tag:])
			hosts = append(hosts, host)
		} else {
			rest = append(rest, raw[:tag+n]...)
		}
		raw = raw[tag+n:]
	}
	return hosts, rest
}
