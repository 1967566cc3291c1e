package console

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"

	"meshbridge/store"
	"meshbridge/translate"
	"meshbridge/translate/apisix"
)

// object is an APISIX object, and what is read from it. It is immutable.
type object struct {
	apisix.Object

	kv       *store.KeyValue
	from     translate.Sources
	name     string
	priority int
	uris     []string // of a route
	refs     []reference
}

// reference is from an object to another one.
type reference struct {
	key    string
	weight int // of a weighted split; 0 where there is none
}

// index finds the objects by what they were made from. It is immutable.
type index struct {
	revision int64
	byKey    map[string]*object
	keys     []string // sorted

	byListener, byRouteConfig, byCluster, bySecret map[string][]*object
	byVirtualHost                                  map[virtualHostKey][]*object
	// evaluator models APISIX with these objects; it is made when it is first needed.
	evaluator func() (*apisix.Evaluator, error)
}

// virtualHostKey names a virtual host as labels do.
type virtualHostKey struct{ config, host string }

// keepIndex is for how long after a page the index is kept: pages are looked at in bursts, and an index is
// larger than what it is about.
const keepIndex = time.Minute

// objectCache has the last index, until nobody looks any more.
type objectCache struct {
	mu     sync.Mutex
	last   *index      // guarded by mu
	expiry *time.Timer // guarded by mu
}

// keep replaces the index. mu is held.
func (c *objectCache) keep(x *index) {
	c.last = x
	if c.expiry == nil {
		c.expiry = time.AfterFunc(keepIndex, c.drop)
	} else {
		c.expiry.Reset(keepIndex)
	}
}

func (c *objectCache) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = nil
}

// index returns the index of what the store holds now. What has not changed since the last one is not read
// again.
func (s *Server) index() (*index, error) {
	prefix := []byte(s.config.Prefix + "/")
	all, err := s.config.Store.Range(prefix, store.Prefix(prefix), store.RangeOptions{})
	if err != nil {
		return nil, err
	}
	s.objects.mu.Lock()
	defer s.objects.mu.Unlock()
	last := s.objects.last
	if last == nil || last.revision != all.Revision {
		next := newIndex(string(prefix), all, last)
		next.evaluator = sync.OnceValues(func() (*apisix.Evaluator, error) {
			return apisix.NewEvaluator(next.all(), apisix.Options{Ask: s.config.Ask})
		})
		last = next
	}
	s.objects.keep(last)
	return last, nil
}

func newIndex(prefix string, all store.RangeResult, last *index) *index {
	x := &index{
		revision: all.Revision, byKey: make(map[string]*object, len(all.KVs)), keys: make([]string, 0, len(all.KVs)),
		byListener: map[string][]*object{}, byRouteConfig: map[string][]*object{}, byCluster: map[string][]*object{},
		bySecret: map[string][]*object{}, byVirtualHost: map[virtualHostKey][]*object{},
	}
	for _, kv := range all.KVs {
		key := strings.TrimPrefix(string(kv.Key), prefix)
		kind, id, ok := apisix.ParseKey(key)
		if !ok || !apisix.OwnedID(id) || !slices.Contains(kinds(), kind) {
			continue // those of others may hold their secrets
		}
		var o *object
		if last != nil && last.byKey[key] != nil && last.byKey[key].kv == kv {
			o = last.byKey[key]
		} else if o = readObject(kind, id, kv); o == nil {
			continue
		}
		x.add(key, o)
	}
	return x
}

func (x *index) add(key string, o *object) {
	x.byKey[key] = o
	x.keys = append(x.keys, key)
	if o.from.Listener != "" {
		x.byListener[o.from.Listener] = append(x.byListener[o.from.Listener], o)
	}
	if o.from.RouteConfig != "" {
		x.byRouteConfig[o.from.RouteConfig] = append(x.byRouteConfig[o.from.RouteConfig], o)
	}
	if o.from.VirtualHost != "" {
		host := virtualHostKey{o.from.RouteConfig, o.from.VirtualHost}
		x.byVirtualHost[host] = append(x.byVirtualHost[host], o)
	}
	if o.from.Cluster != "" {
		x.byCluster[o.from.Cluster] = append(x.byCluster[o.from.Cluster], o)
	}
	for _, name := range o.from.Secrets {
		x.bySecret[name] = append(x.bySecret[name], o)
	}
}

// readObject returns nil for what is not an object of ours.
func readObject(kind apisix.Kind, id string, kv *store.KeyValue) *object {
	o := &object{Object: apisix.Object{Kind: kind, ID: id, Value: kv.Value}, kv: kv}
	var says struct {
		Name, Desc   string
		Labels       map[string]string
		Priority     int
		URI          string
		URIs         []string
		Upstream     string `json:"upstream_id"`
		PluginConfig string `json:"plugin_config_id"`
		Plugins      struct {
			Split struct {
				Rules []struct {
					Upstreams []struct {
						Upstream string `json:"upstream_id"`
						Weight   int
					} `json:"weighted_upstreams"`
				}
			} `json:"traffic-split"`
		}
	}
	if json.Unmarshal(kv.Value, &says) != nil {
		return nil
	}
	o.from = translate.SourcesOf(kind, says.Name, says.Desc, says.Labels)
	o.name, o.priority, o.uris = says.Name, says.Priority, says.URIs
	if says.URI != "" {
		o.uris = []string{says.URI}
	}
	for _, rule := range says.Plugins.Split.Rules {
		for _, u := range rule.Upstreams {
			// An entry without a name is for the upstream of the route itself.
			o.refs = append(o.refs, reference{string(apisix.KindUpstream) + "/" + cmp.Or(u.Upstream, says.Upstream), u.Weight})
		}
	}
	if len(o.refs) == 0 && says.Upstream != "" {
		o.refs = append(o.refs, reference{key: string(apisix.KindUpstream) + "/" + says.Upstream})
	}
	if says.PluginConfig != "" {
		o.refs = append(o.refs, reference{key: string(apisix.KindPluginConfig) + "/" + says.PluginConfig})
	}
	return o
}

// countObjects counts without reading the objects.
func (s *Server) countObjects(kind apisix.Kind) int {
	directory := []byte(s.config.Prefix + "/" + string(kind) + "/")
	first := append(slices.Clone(directory), 0) // after the directory's own key
	all, err := s.config.Store.Range(first, store.Prefix(directory), store.RangeOptions{CountOnly: true})
	if err != nil {
		return 0 // the store has been closed
	}
	return int(all.Count)
}

func (s *Server) countRoutes() int { return s.countObjects(apisix.KindRoute) }

// inOrder sorts objects as people read them: routes by priority, then the rest by collection.
func inOrder(objects []*object) []*object {
	sorted := slices.Clone(objects)
	place := func(o *object) int { return slices.Index(kinds(), o.Kind) }
	slices.SortStableFunc(sorted, func(a, b *object) int {
		return cmp.Or(cmp.Compare(place(a), place(b)), cmp.Compare(b.priority, a.priority), strings.Compare(a.ID, b.ID))
	})
	return slices.Compact(sorted)
}

// withReferences adds the objects that some refer to, each once.
func (x *index) withReferences(objects []*object) []*object {
	all := slices.Clone(objects)
	seen := map[*object]bool{}
	for _, o := range objects {
		seen[o] = true
	}
	for _, o := range objects {
		for _, ref := range o.refs {
			if to := x.byKey[ref.key]; to != nil && !seen[to] {
				seen[to] = true
				all = append(all, to)
			}
		}
	}
	return all
}
