package xds

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/anypb"
)

// response is a response of either protocol variant.
type response struct {
	typeURL   string
	version   string
	nonce     string
	resources []received
	removed   []string
	// controlPlane is what the server says of itself; empty where it does not.
	controlPlane string
	// scope is how much the resources say about those that are not among them.
	scope scope
}

// received is one resource of a response.
type received struct {
	name    string // "" where the protocol does not carry it
	version string
	body    *anypb.Any
}

type scope int

const (
	// partial responses say nothing about what they do not name.
	partial scope = iota
	// baseline is the first response to a delta wildcard subscription on a stream. A server that
	// does not version its resources cannot know what the client holds, so it sends all of them:
	// unversioned ones that are missing are gone. One that does may leave out what the client has.
	baseline
	// full responses hold all resources of the type.
	full
)

// cache is what the client holds and wants. It outlives streams. A response updates it by the
// following steps, whose cost depends on the size of the response, except for full and baseline:
//
//  1. What is byte for byte as before is done. Anything else is decoded and checked.
//  2. References of what changed are counted, giving the names to subscribe to. A resource of a
//     type that is subscribed to by name lives as long as something refers to it: EDS has no
//     removals, and unsubscribing has no answer.
//  3. The next Snapshot is made from the last one and the difference.
type cache struct {
	types    map[string]*cachedType
	snapshot *Snapshot
	pending  keyed[Key]
	rejected keyed[Rejection]
}

type cachedType struct {
	resourceType
	refs   map[string][]Key // by name, what each resource of this type refers to
	wanted map[string]int   // by name, how often resources refer to one of this type
}

func newCache(typeURLs []string) *cache {
	c := &cache{
		types:    make(map[string]*cachedType, len(typeURLs)),
		snapshot: &Snapshot{},
		pending:  keyed[Key]{items: map[Key]Key{}, same: func(a, b Key) bool { return a == b }},
		rejected: keyed[Rejection]{items: map[Key]Rejection{}, same: sameRejection},
	}
	for _, url := range typeURLs {
		t := &cachedType{resourceType: lookupType(url), refs: map[string][]Key{}, wanted: map[string]int{}}
		c.types[url] = t
		if t.wildcard {
			c.pending.set(Key{Type: url}, Key{Type: url})
		}
	}
	return c
}

// outcome is what a response led to.
type outcome struct {
	update Update
	// news tells whether update says anything that the one before did not.
	news bool
	// errors name the resources that are not valid; the response is to be NACKed if there are any.
	errors []error
	// subscriptions are the changes of what is wanted by name.
	subscriptions []subscriptionChange
}

type subscriptionChange struct {
	typeURL     string
	subscribe   []string
	unsubscribe []string
}

// apply takes in a response. Its type must be one of the cache's.
func (c *cache) apply(r response, at time.Time) outcome {
	t := c.types[r.typeURL]
	e := edit{cache: c, at: at, version: r.version, puts: map[string]decoded{}, before: map[Key]bool{}}
	c.pending.delete(Key{Type: t.url})
	if !t.opaque {
		// The place of resources whose name could not be told.
		c.rejected.delete(Key{Type: t.url})
	}

	seen := make(map[string]bool, len(r.resources))
	nameless := false
	var jobs []*job
	for i, resource := range r.resources {
		j := &job{index: i, received: resource}
		name := resource.name
		if name == "" && !t.opaque {
			name = peekName(resource.body)
		}
		j.key = Key{Type: t.url, Name: name}
		switch {
		case name == "" && !t.opaque:
			nameless = true
			jobs = append(jobs, j)
		case !t.wildcard && t.wanted[name] == 0:
			// It was unsubscribed from after the server had sent it.
			continue
		case seen[name]:
			e.reject(j, errors.New("is in the response twice"))
		case !e.same(j):
			jobs = append(jobs, j)
		}
		seen[name] = true
		c.pending.delete(j.key)
	}
	decodeAll(t.resourceType, jobs)
	for _, j := range jobs {
		if j.err != nil {
			e.reject(j, j.err)
			continue
		}
		c.rejected.delete(j.key)
		j.decoded.Received, j.decoded.Response = at, r.version
		e.puts[j.key.Name] = j.decoded
	}

	for _, name := range r.removed {
		switch key := (Key{Type: t.url, Name: name}); {
		case seen[name]:
		case t.kept:
			c.pending.delete(key)
		default:
			e.remove(key)
		}
	}
	// A resource without a readable name may be any of those that seem to be missing.
	if r.scope != partial && !nameless {
		for known := range c.snapshot.All(t.url) {
			if !seen[known.Name] && (r.scope == full || known.Version == "") {
				e.remove(known.Key)
			}
		}
		for key := range c.rejected.items {
			if key.Type == t.url && !seen[key.Name] {
				c.rejected.delete(key)
			}
		}
	}
	return e.finish(t)
}

// edit collects the changes of one response.
type edit struct {
	*cache
	at      time.Time
	version string
	puts    map[string]decoded // of the response's type
	renewed []*Resource        // with the same bytes under another version
	removed []Key
	before  map[Key]bool // of the names whose references changed, whether they were wanted
	errors  []error
}

// same tells whether a resource is byte for byte the one that is held, and takes over its version.
func (e *edit) same(j *job) bool {
	old := e.snapshot.Get(j.key)
	if old == nil || j.body.GetTypeUrl() != j.key.Type || !bytes.Equal(old.Body.GetValue(), j.body.GetValue()) {
		return false
	}
	e.rejected.delete(j.key)
	if j.version != old.Version {
		e.renewed = append(e.renewed, &Resource{
			Key: j.key, Version: j.version, Body: old.Body, Received: old.Received, Response: old.Response,
		})
	}
	return true
}

func (e *edit) reject(j *job, err error) {
	e.errors = append(e.errors, fmt.Errorf("resource %d, %s: %w", j.index, j.key, err))
	e.rejected.set(j.key, Rejection{Key: j.key, Err: err, Received: e.at, Response: e.version})
}

func (e *edit) remove(key Key) {
	e.pending.delete(key)
	e.rejected.delete(key)
	if e.snapshot.Get(key) != nil {
		e.removed = append(e.removed, key)
	}
}

// count adds by to the references to each key.
func (e *edit) count(refs []Key, by int) {
	for _, ref := range refs {
		t := e.types[ref.Type]
		if t == nil || t.wildcard {
			continue
		}
		if _, counted := e.before[ref]; !counted {
			e.before[ref] = t.wanted[ref.Name] > 0
		}
		if t.wanted[ref.Name] += by; t.wanted[ref.Name] == 0 {
			delete(t.wanted, ref.Name)
		}
	}
}

// setRefs replaces what a resource refers to.
func (e *edit) setRefs(t *cachedType, name string, refs []Key) {
	old := t.refs[name]
	e.count(refs, +1)
	e.count(old, -1)
	if len(refs) > 0 {
		t.refs[name] = refs
	} else if len(old) > 0 {
		delete(t.refs, name)
	}
}

func (e *edit) finish(t *cachedType) outcome {
	put := make([]*Resource, 0, len(e.puts))
	changed := make([]Key, 0, len(e.puts)+len(e.removed))
	holds := make([]*decodedMessage, 0, len(e.puts))
	for name, d := range e.puts {
		e.setRefs(t, name, d.refs)
		holds = append(holds, d.message)
		put = append(put, d.Resource)
		changed = append(changed, d.Key)
	}
	for _, key := range e.removed {
		e.setRefs(t, key.Name, nil)
	}
	subscriptions := e.follow()
	changed = sortedKeys(append(changed, e.removed...))
	if len(changed)+len(e.renewed) > 0 {
		e.snapshot = e.snapshot.With(append(put, e.renewed...), e.removed)
	}

	pending, pendingChanged := e.pending.list()
	rejected, rejectedChanged := e.rejected.list()
	return outcome{
		update: Update{
			Snapshot: e.snapshot, Changed: changed, Pending: pending, Rejected: rejected, Received: e.at, holds: holds,
		},
		news:          len(changed) > 0 || pendingChanged || rejectedChanged,
		errors:        e.errors,
		subscriptions: subscriptions,
	}
}

// follow turns changed reference counts into subscriptions and drops what nothing refers to any more.
func (e *edit) follow() []subscriptionChange {
	changes := map[string]*subscriptionChange{}
	for len(e.before) > 0 {
		batch := e.before
		e.before = map[Key]bool{}
		for key, was := range batch {
			t := e.types[key.Type]
			is := t.wanted[key.Name] > 0
			if is == was {
				continue
			}
			change := changes[key.Type]
			if change == nil {
				change = &subscriptionChange{typeURL: key.Type}
				changes[key.Type] = change
			}
			if is {
				change.subscribe = append(change.subscribe, key.Name)
				e.pending.set(key, key)
				continue
			}
			change.unsubscribe = append(change.unsubscribe, key.Name)
			e.remove(key)
			e.setRefs(t, key.Name, nil)
		}
	}
	sorted := make([]subscriptionChange, 0, len(changes))
	for _, url := range slices.Sorted(maps.Keys(changes)) {
		slices.Sort(changes[url].subscribe)
		slices.Sort(changes[url].unsubscribe)
		sorted = append(sorted, *changes[url])
	}
	return sorted
}

// names returns what is subscribed to of a type that is subscribed to by name.
func (t *cachedType) names() []string { return slices.Sorted(maps.Keys(t.wanted)) }

// versions returns the versions of the resources held, by name.
func (c *cache) versions(typeURL string) map[string]string {
	versions := make(map[string]string, c.snapshot.Len(typeURL))
	for r := range c.snapshot.All(typeURL) {
		versions[r.Name] = r.Version
	}
	return versions
}

// rejections returns how many resources of a type are refused.
func (c *cache) rejections(typeURL string) int {
	n := 0
	for key := range c.rejected.items {
		if key.Type == typeURL {
			n++
		}
	}
	return n
}

// keyed is a set that is listed with every Update and changes with few.
type keyed[E any] struct {
	items  map[Key]E
	same   func(a, b E) bool
	dirty  bool
	sorted []E
}

func (k *keyed[E]) set(key Key, item E) {
	k.items[key] = item
	k.dirty = true
}

func (k *keyed[E]) delete(key Key) {
	if _, known := k.items[key]; known {
		delete(k.items, key)
		k.dirty = true
	}
}

// list returns the items by type and name, and whether they differ from the last call's.
func (k *keyed[E]) list() ([]E, bool) {
	if !k.dirty {
		return k.sorted, false
	}
	k.dirty = false
	next := make([]E, 0, len(k.items))
	for _, key := range sortedKeys(slices.Collect(maps.Keys(k.items))) {
		next = append(next, k.items[key])
	}
	if slices.EqualFunc(next, k.sorted, k.same) {
		return k.sorted, false
	}
	k.sorted = next
	return next, true
}
