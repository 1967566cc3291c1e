package translate

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"meshbridge/xds"
)

// captureUnit is capture's part of one listener.
type captureUnit struct {
	listener *Listener
	// source and settled are what it was made of.
	source  *listenerUnit
	settled []settledChain
	// unit has the references to clusters, and diagnostics.
	unit *chainUnit
}

// settledChain is what capture's table takes from the table of chains.
type settledChain struct {
	key, notServed          string
	terminated, capturedTLS bool
}

func (d *chainDraft) settlement() settledChain {
	c := d.settled
	return settledChain{c.Key, c.NotServed, c.Terminated, c.capturedTLS}
}

// current tells whether the unit is what the listener would become now, clusters apart.
func (u *captureUnit) current(l *listenerUnit) bool {
	return u != nil && u.source == l &&
		slices.EqualFunc(u.settled, l.chains, func(was settledChain, d *chainDraft) bool { return was == d.settlement() })
}

// captureUser is the user of clusters that a listener of capture's is. It is the key of no chain.
func captureUser(listener string) string { return keySeparator + listener }

// compileCapture brings capture's table up to date.
func (p *step) compileCapture() {
	s := p.state
	if !s.options.Profile.Captures() {
		return
	}
	names := map[string]bool{}
	for user := range p.chains {
		if name, ok := strings.CutPrefix(user, keySeparator); ok {
			names[name] = true
		}
	}
	if p.listeners || p.recapture {
		for name := range s.listeners {
			if p.recapture || !s.captured[name].current(s.listeners[name]) {
				names[name] = true
			}
		}
		for name := range s.captured {
			if s.listeners[name] == nil {
				names[name] = true
			}
		}
	}
	changed := false
	for _, name := range slices.Sorted(maps.Keys(names)) {
		changed = p.compileCaptured(name) || changed
	}
	if changed {
		p.capture.Listeners = s.Listeners()
	}
}

// compileCaptured compiles one listener and tells whether the table changed.
func (p *step) compileCaptured(name string) bool {
	s := p.state
	old := s.captured[name]
	var next *captureUnit
	if l := s.listeners[name]; l != nil && l.capture != nil {
		next = s.captureListener(l)
	}
	var before, after *chainUnit
	if old != nil {
		before = old.unit
	}
	if next != nil {
		after = next.unit
	}
	p.reference(captureUser(name), before, after)
	p.reported = p.reported || !slices.Equal(before.restDiagnostics(), after.restDiagnostics())
	switch {
	case next == nil:
		delete(s.captured, name)
		return old != nil
	case old != nil && sameTable(old.listener, next.listener):
		next.listener = old.listener
		s.captured[name] = next
		return false
	}
	s.captured[name] = next
	return true
}

func (u *chainUnit) restDiagnostics() []Diagnostic {
	if u == nil {
		return nil
	}
	return u.parts[groupRest].diagnostics
}

func (s *State) captureListener(l *listenerUnit) *captureUnit {
	part := &chainPart{}
	x := &captureCompiler{state: s, listener: l.name, part: part}
	out := *l.capture
	settled := make([]settledChain, len(l.chains))
	for i, d := range l.chains {
		settled[i] = d.settlement()
		chain := x.filterChain(d)
		if d.field == defaultChainField {
			out.DefaultChain = chain
		} else {
			out.Chains = append(out.Chains, chain)
		}
	}
	return &captureUnit{&out, l, settled, &chainUnit{parts: map[string]*chainPart{groupRest: part}}}
}

// Listeners returns capture's table, sorted by Name; nil in profiles without capture.
func (s *State) Listeners() []*Listener {
	if !s.options.Profile.Captures() {
		return nil
	}
	out := make([]*Listener, 0, len(s.captured))
	for _, name := range slices.Sorted(maps.Keys(s.captured)) {
		out = append(out, s.captured[name].listener)
	}
	return out
}

// Overlay returns the endpoints that capture stands for, sorted by Address.
func (s *State) Overlay() []*OverlayEndpoint {
	all := map[netip.Addr]*OverlayEndpoint{}
	for _, u := range s.clusters {
		maps.Copy(all, u.overlay)
	}
	return sortedOverlay(all)
}

func sortedOverlay(endpoints map[netip.Addr]*OverlayEndpoint) []*OverlayEndpoint {
	return slices.SortedFunc(maps.Values(endpoints), func(a, b *OverlayEndpoint) int { return a.Address.Compare(b.Address) })
}

// recaptureSecret marks what a secret is part of.
func (p *step) recaptureSecret(k xds.Key) {
	s := p.state
	p.recapture = true
	for name := range s.secretUsers[k.Name] {
		s.clusters[name].transports = nil
		p.clusters[name] = true
	}
}

// reviseALPN marks the clusters whose TLS depends on whether there is the filter istio.alpn.
func (p *step) reviseALPN() {
	s := p.state
	has := slices.ContainsFunc(s.table.chains, func(c *Chain) bool { return c.overridesALPN })
	if has == s.istioALPN || !s.options.Profile.Overlay() {
		return
	}
	s.istioALPN = has
	p.recapture = true
	for name, u := range s.clusters {
		u.transports = nil
		p.clusters[name] = true
	}
}

// captureOf moves what capture knows of a cluster's endpoints to what it is now.
func (p *step) captureOf(u *clusterUnit, endpoints map[netip.Addr]*OverlayEndpoint, ports map[uint16]bool) {
	c := &p.overlay
	for address, e := range endpoints {
		delete(c.gone, address)
		if old := u.overlay[address]; old != nil && sameTable(old, e) {
			endpoints[address] = old
			continue
		}
		c.put = put(c.put, address, e)
	}
	for address := range u.overlay {
		if endpoints[address] == nil && c.put[address] == nil {
			c.gone = put(c.gone, address, true)
		}
	}
	for port := range ports {
		delete(c.ports, port)
		c.taken = put(c.taken, port, true)
	}
	for port := range u.ports {
		if !ports[port] && !c.taken[port] {
			c.ports = put(c.ports, port, true)
		}
	}
	u.overlay, u.ports = endpoints, ports
}

// overlayChange collects what a step changes.
type overlayChange struct {
	put   map[netip.Addr]*OverlayEndpoint
	gone  map[netip.Addr]bool
	ports map[uint16]bool // that are gone
	taken map[uint16]bool
}

func put[K comparable, V any](m map[K]V, key K, value V) map[K]V {
	if m == nil {
		m = map[K]V{}
	}
	m[key] = value
	return m
}

// result is what the step changed for capture.
func (p *step) captureChange() CaptureChange {
	c := p.capture
	if len(p.overlay.put) > 0 {
		c.Overlay = sortedOverlay(p.overlay.put)
	}
	c.Gone = slices.SortedFunc(maps.Keys(p.overlay.gone), netip.Addr.Compare)
	c.GonePorts = slices.Sorted(maps.Keys(p.overlay.ports))
	return c
}
