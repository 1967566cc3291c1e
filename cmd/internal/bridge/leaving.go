package bridge

import (
	"encoding/json"
	"time"

	"meshbridge/translate"
)

// served is the set of the chains that capture is told of, by their keys; nil without capture.
type served map[string]bool

func servedBy(listeners []*translate.Listener) served {
	s := served{}
	for _, l := range listeners {
		for _, c := range append([]*translate.FilterChain{l.DefaultChain}, l.Chains...) {
			if c != nil {
				s[c.Key] = true
			}
		}
	}
	return s
}

// has tells whether the chain of a route is served, or the route belongs to none.
func (s served) has(route []byte) bool {
	var r struct {
		Vars []json.RawMessage `json:"vars"`
	}
	if s == nil || json.Unmarshal(route, &r) != nil {
		return true
	}
	for _, v := range r.Vars {
		var guard [3]string
		if json.Unmarshal(v, &guard) == nil && guard[0] == translate.ChainVariable && guard[1] == "==" {
			return s[guard[2]]
		}
	}
	return true
}

// leave decides when a route goes that is no longer wanted. Capture is told late that a chain is gone, and
// connections that came by it go on, as Envoy's drain: the routes of such a chain stay for a while. Those
// of a chain that is still there, or again, go with the next change of routes.
func (w *writer) leave(now time.Time, key string) {
	if isStreamRoute(key) || !w.served.has(w.committed[key]) {
		delete(w.routes, key)
		w.garbage[key] = now.Add(garbageAfter)
		return
	}
	w.routes[key] = nil
}

// serve takes the table that capture will be told of. It returns whether routes that are left of a chain
// have to go because the chain is back.
func (w *writer) serve(listeners []*translate.Listener) (changed bool) {
	if listeners == nil {
		return false
	}
	w.served = servedBy(listeners)
	for key := range w.garbage {
		if isRoute(key) && !isStreamRoute(key) && w.served.has(w.committed[key]) {
			delete(w.garbage, key)
			w.routes[key] = nil
			changed = true
		}
	}
	return changed
}
