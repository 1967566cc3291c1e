package translate

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"maps"
	"reflect"
	"slices"
	"strings"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"meshbridge/translate/apisix"
	"meshbridge/xds"
)

// State is a translation that is kept up to date step by step. It does what a step needs and no
// more: an update of one cluster's endpoints costs the same among ten clusters or ten thousand. A
// State belongs to one goroutine.
type State struct {
	// Set once.
	options   Options
	catalogue catalogue
	// upstreamLabels are on every upstream.
	upstreamLabels map[string]string

	inputs   Inputs
	snapshot *xds.Snapshot
	// decoded holds clusters during a step; for longer they would take too much memory.
	decoded map[string]*clusterpb.Cluster

	listeners map[string]*listenerUnit
	table     chainTable
	byKey     map[string]*Chain
	units     map[string]*chainUnit // by chain key
	clusters  map[string]*clusterUnit
	// captured is capture's table, by name of a listener. istioALPN tells that the filter istio.alpn
	// has its say.
	captured  map[string]*captureUnit
	istioALPN bool
	// parsedLogs are access logs by their configuration.
	parsedLogs map[string]parsedLog
	// credentials are the secrets that have arrived, by name.
	credentials map[string]*credential
	// sslDiagnostics are about ssl objects.
	sslDiagnostics []Diagnostic
	// extensionSum tells Inputs.Extensions apart that were given one after the other, and
	// extensionDiagnostics are about documents of theirs.
	extensionSum         uint64
	extensionDiagnostics []Diagnostic
	// peerDiagnostics are about the exchange of metadata with peers.
	peerDiagnostics []Diagnostic

	// Who depends on what.
	configUsers   index // RDS name -> chain keys
	clusterUsers  usage // cluster -> chain keys, counting what asked for its facts or refers to it
	endpointUsers index // EDS service name -> clusters
	nameUsers     index // DNS name -> clusters
	secretUsers   index // secret -> clusters

	objects     *objectSet
	diagnostics []Diagnostic
}

// index maps a name to the set of its users.
type index map[string]map[string]bool

func (x index) add(name, user string) {
	if x[name] == nil {
		x[name] = map[string]bool{}
	}
	x[name][user] = true
}

func (x index) remove(name, user string) {
	delete(x[name], user)
	if len(x[name]) == 0 {
		delete(x, name)
	}
}

// usage maps a name to its users, and to how often they use it.
type usage map[string]map[string]int

func (x usage) add(name, user string) {
	if x[name] == nil {
		x[name] = map[string]int{}
	}
	x[name][user]++
}

func (x usage) remove(name, user string) {
	x[name][user]--
	if x[name][user] == 0 {
		delete(x[name], user)
	}
	if len(x[name]) == 0 {
		delete(x, name)
	}
}

// New returns a State without resources. It fails where the options make no sense.
func New(opts Options) (*State, error) {
	if opts.Profile == nil {
		return nil, errors.New("translate: a profile is required")
	}
	if direct, ok := opts.Profile.(directProfile); ok {
		if err := direct.check(); err != nil {
			return nil, fmt.Errorf("translate: profile direct: %w", err)
		}
	}
	codes := newCatalogue()
	for _, c := range opts.AllowUnenforced {
		if _, known := codes[c]; !known || !isRestrictionCode(c) {
			return nil, fmt.Errorf("translate: %q is no code of an access restriction that could be left unenforced", c)
		}
	}
	s := &State{
		options:       opts,
		catalogue:     codes,
		listeners:     map[string]*listenerUnit{},
		byKey:         map[string]*Chain{},
		units:         map[string]*chainUnit{},
		clusters:      map[string]*clusterUnit{},
		credentials:   map[string]*credential{},
		configUsers:   index{},
		clusterUsers:  usage{},
		endpointUsers: index{},
		nameUsers:     index{},
		secretUsers:   index{},
		captured:      map[string]*captureUnit{},
		parsedLogs:    map[string]parsedLog{},
		objects:       newObjectSet(),
	}
	s.upstreamLabels = s.labels()
	return s, nil
}

// Translate translates a snapshot from scratch, for offline use. It fails only for bad options.
func Translate(opts Options, snap *xds.Snapshot, in Inputs) (*State, Result, error) {
	s, err := New(opts)
	if err != nil {
		return nil, Result{}, err
	}
	return s, s.Apply(Input{Snapshot: snap, All: true, Inputs: in}), nil
}

// Objects yields the objects, sorted by key.
func (s *State) Objects() iter.Seq[apisix.Object] { return s.objects.all() }

// Diagnostics returns what could not be expressed exactly, sorted by CompareDiagnostics and without
// duplicates. The slice must not be modified.
func (s *State) Diagnostics() []Diagnostic { return s.diagnostics }

// Chains returns the chain table, sorted by Key. The slice must not be modified.
func (s *State) Chains() []*Chain { return s.table.chains }

// Apply brings the State to the given snapshot and inputs.
func (s *State) Apply(in Input) Result {
	p := &step{state: s, chains: map[string]bool{}, clusters: map[string]bool{}}
	s.snapshot = in.Snapshot
	s.decoded = map[string]*clusterpb.Cluster{}
	defer func() { s.decoded = nil }()
	s.objects.begin()
	// Where there is capture now, and was not, everything is another.
	all := in.All || (s.inputs.Allocations == nil) != (in.Inputs.Allocations == nil)
	s.inputs.Allocations = in.Inputs.Allocations
	if all {
		p.everything()
	} else {
		for _, k := range in.Changed {
			p.changed(k)
		}
	}
	p.ramps(s.inputs, in.Inputs)
	p.files(s.inputs, in.Inputs, all)
	p.extensions(s.inputs, in.Inputs)
	p.names(in.Inputs)
	if p.listeners {
		p.rebuildTable()
	}
	p.compileChains()
	p.compileCapture()
	p.compileClusters()
	if p.listeners || p.serverNames {
		p.compileSSLs()
	}
	if p.listeners || p.extended {
		p.compilePeers()
	}

	var out Result
	out.Put, out.Delete = s.objects.end()
	out.AuthenticationsChanged = p.listeners
	out.SlowStarts = p.slowStarts
	out.Capture = p.captureChange()
	if p.reported {
		out.DiagnosticsChanged = s.collectDiagnostics()
	}
	return out
}

// step is the work of one Apply.
type step struct {
	state *State
	// listeners tells that the chain table has to be made anew.
	listeners bool
	// serverNames tells that hosts below wildcards of server names may have changed.
	serverNames bool
	// chains and clusters are to be compiled.
	chains, clusters map[string]bool
	reported         bool
	// extended tells that users add other things than before.
	extended   bool
	slowStarts []SlowStart
	// recapture tells that capture's table has to be made anew.
	recapture bool
	capture   CaptureChange
	overlay   overlayChange
}

// everything marks all that is there and all that was.
func (p *step) everything() {
	clear(p.state.listeners)
	clear(p.state.credentials)
	for r := range p.state.snapshot.All(xds.SecretType) {
		p.changed(r.Key)
	}
	for r := range p.state.snapshot.All(xds.ListenerType) {
		p.changed(r.Key)
	}
	p.listeners = true
	for key := range p.state.units {
		p.chains[key] = true
	}
	for name, u := range p.state.clusters {
		p.state.refreshCluster(u)
		p.clusters[name] = true
	}
}

func (p *step) changed(k xds.Key) {
	s := p.state
	switch k.Type {
	case xds.ListenerType:
		p.listeners = true
		if r := s.snapshot.Get(k); r != nil {
			s.listeners[k.Name] = s.parseListener(r)
		} else {
			delete(s.listeners, k.Name)
		}
	case xds.SecretType:
		p.listeners = true // what is there decides which chains are served
		p.recaptureSecret(k)
		if r := s.snapshot.Get(k); r != nil {
			s.credentials[k.Name] = s.parseSecret(r)
		} else {
			delete(s.credentials, k.Name)
		}
	case xds.RouteType:
		maps.Copy(p.chains, s.configUsers[k.Name])
	case xds.ClusterType:
		if u := s.clusters[k.Name]; u != nil {
			p.clusters[k.Name] = true
			if s.refreshCluster(u) {
				for key := range s.clusterUsers[k.Name] {
					p.chains[key] = true
				}
			}
		}
	case xds.EndpointType:
		maps.Copy(p.clusters, s.endpointUsers[k.Name])
	}
}

// names marks the clusters whose names resolve differently.
func (p *step) names(in Inputs) {
	s := p.state
	old := s.inputs
	s.inputs = in
	if sameMap(old.DNS, in.DNS) && sameMap(old.DNSErrors, in.DNSErrors) {
		return // most steps have the maps of the step before
	}
	for name, users := range s.nameUsers {
		was, had := old.DNS[name]
		is, has := in.DNS[name]
		if had != has || !slices.Equal(was, is) || old.DNSErrors[name] != in.DNSErrors[name] {
			maps.Copy(p.clusters, users)
		}
	}
}

// sameMap tells whether two maps are one and the same, which is cheaper than whether they are equal.
func sameMap[K comparable, V any](a, b map[K]V) bool {
	return reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer()
}

func (p *step) rebuildTable() {
	s := p.state
	sorted := slices.SortedFunc(maps.Values(s.listeners), func(a, b *listenerUnit) int { return strings.Compare(a.name, b.name) })
	s.table = s.assemble(sorted)
	p.reported = true
	next := make(map[string]*Chain, len(s.table.chains))
	for _, c := range s.table.chains {
		next[c.Key] = c
		old := s.byKey[c.Key]
		if old == nil || !old.equal(c) {
			p.chains[c.Key] = true
		}
		if old != nil && old.RouteConfig != c.RouteConfig {
			s.configUsers.remove(old.RouteConfig, c.Key)
		}
		if c.HTTP && !c.Inline {
			s.configUsers.add(c.RouteConfig, c.Key)
		} else {
			s.configUsers.remove(c.RouteConfig, c.Key)
		}
	}
	for key, old := range s.byKey {
		if next[key] == nil {
			s.configUsers.remove(old.RouteConfig, key)
			p.chains[key] = true
		}
	}
	s.byKey = next
	p.reviseALPN()
}

// compileChains compiles the marked chains, in the order of their keys so that equal steps do equal
// work, and marks the clusters whose references change.
func (p *step) compileChains() {
	s := p.state
	for _, key := range slices.Sorted(maps.Keys(p.chains)) {
		old := s.units[key]
		var unit *chainUnit
		if c := s.byKey[key]; c != nil && c.NotServed == "" {
			unit = s.compileChain(c, s.routeConfig(c), old)
			s.units[key] = unit
		} else {
			delete(s.units, key)
		}
		if old == nil && unit == nil {
			continue
		}
		p.reported = true
		p.serverNames = p.serverNames || s.byKey[key] != nil && s.byKey[key].Terminated && s.namedByRoutes(s.byKey[key])
		p.reference(key, old, unit)
		p.publish("chain "+key, old, unit)
	}
}

func (s *State) routeConfig(c *Chain) *routepb.RouteConfiguration {
	if c.Inline {
		return c.inline
	}
	return resource[*routepb.RouteConfiguration](s.snapshot, xds.RouteType, c.RouteConfig)
}

// publish replaces the objects of a chain, of those of its parts that are others than before.
func (p *step) publish(owner string, old, unit *chainUnit) {
	s := p.state
	var before, after map[string]*chainPart
	if old != nil {
		before = old.parts
	}
	if unit != nil {
		after = unit.parts
	}
	for group := range before {
		if after[group] == nil {
			s.objects.replace(owner+keySeparator+group, nil)
		}
	}
	for _, group := range slices.Sorted(maps.Keys(after)) {
		part := after[group]
		if part == before[group] {
			continue
		}
		objects := part.objects
		part.objects = nil // the set has them
		for _, collision := range s.objects.replace(owner+keySeparator+group, objects) {
			s.reporter(&part.diagnostics, "RouteConfiguration "+unit.chain.RouteConfig, "", "")("id_collision", "", collision)
		}
	}
}

// compileSSLs publishes the ssl objects. There are as many as a gateway has certificates.
func (p *step) compileSSLs() {
	s := p.state
	objects, diagnostics := s.compileSSLs()
	for _, collision := range s.objects.replace("ssls", objects) {
		s.reporter(&diagnostics, "Secret "+collision, "", "")("id_collision", "", collision)
	}
	for _, name := range slices.Sorted(maps.Keys(s.credentials)) {
		diagnostics = append(diagnostics, s.credentials[name].diagnostics...)
	}
	p.reported = p.reported || !slices.Equal(s.sslDiagnostics, diagnostics)
	s.sslDiagnostics = diagnostics
}

// reference moves a chain's references from what it was to what it is.
func (p *step) reference(key string, old, unit *chainUnit) {
	s := p.state
	var before, after map[string]*chainPart
	if old != nil {
		before = old.parts
	}
	if unit != nil {
		after = unit.parts
	}
	for group, part := range after {
		if part == before[group] {
			continue
		}
		for _, ref := range part.refs {
			if s.cluster(ref.cluster).retain(ref.variant) {
				p.clusters[ref.cluster] = true
			}
		}
		for name := range part.clusters() {
			s.cluster(name)
			s.clusterUsers.add(name, key)
		}
	}
	for group, part := range before {
		if part == after[group] {
			continue
		}
		for _, ref := range part.refs {
			if s.cluster(ref.cluster).release(ref.variant) {
				p.clusters[ref.cluster] = true
			}
		}
		for name := range part.clusters() {
			s.clusterUsers.remove(name, key)
			if s.clusterUsers[name] == nil {
				p.clusters[name] = true // to be dropped
			}
		}
	}
}

func (p *step) compileClusters() {
	s := p.state
	for _, name := range slices.Sorted(maps.Keys(p.clusters)) {
		u := s.clusters[name]
		if u == nil {
			continue
		}
		if s.clusterUsers[name] == nil {
			p.noteSlowStart(u, nil)
			p.captureOf(u, nil, nil)
			s.forgetCluster(u)
			s.objects.replace("cluster "+name, nil)
			p.reported = p.reported || len(u.diagnostics) > 0 || len(u.extendedBy) > 0
			continue
		}
		before, extendedBefore := u.diagnostics, u.extendedBy
		objects, slow, captured := s.compileCluster(u)
		p.noteSlowStart(u, slow)
		p.captureOf(u, captured.endpoints, captured.ports)
		for _, collision := range s.objects.replace("cluster "+name, objects) {
			s.reporter(&u.diagnostics, "Cluster "+name, "", "")("id_collision", "", collision)
		}
		p.reported = p.reported || !slices.Equal(before, u.diagnostics) || !slices.Equal(extendedBefore, u.extendedBy)
	}
}

// resource returns a decoded resource, or nil.
func resource[T interface {
	*routepb.RouteConfiguration | *clusterpb.Cluster | *endpointpb.ClusterLoadAssignment
	xdsMessage
}](snap *xds.Snapshot, typeURL, name string) T {
	r := snap.Get(xds.Key{Type: typeURL, Name: name})
	if r == nil {
		return nil
	}
	m, err := xds.Decode[T](r)
	if err != nil {
		return nil // package xds has validated it
	}
	return m
}

// reporter adds diagnostics about a resource to a list.
func (s *State) reporter(to *[]Diagnostic, resource, prefix, from string) reporter {
	return func(code Code, field string, args ...any) {
		d := s.catalogue.diagnostic(code, args...)
		d.Resource, d.Origin = resource, from
		switch {
		case prefix == "":
			d.Field = field
		case field == "":
			d.Field = prefix
		default:
			d.Field = prefix + "." + field
		}
		*to = append(*to, d)
	}
}

// collectDiagnostics gathers the diagnostics of all parts and tells whether they differ from before.
func (s *State) collectDiagnostics() bool {
	all := slices.Concat(s.table.diagnostics, s.sslDiagnostics, s.extensionDiagnostics, s.peerDiagnostics, s.unusedExtensions())
	for _, u := range s.units {
		for _, part := range u.parts {
			all = append(all, part.diagnostics...)
		}
	}
	for _, u := range s.captured {
		all = append(all, u.unit.restDiagnostics()...)
	}
	for _, u := range s.clusters {
		all = append(all, u.diagnostics...)
	}
	slices.SortFunc(all, func(a, b Diagnostic) int {
		return cmp.Or(CompareDiagnostics(a, b), strings.Compare(a.Origin, b.Origin))
	})
	all = slices.Compact(all)
	if slices.Equal(all, s.diagnostics) {
		return false
	}
	s.diagnostics = all
	return true
}
