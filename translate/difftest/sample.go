package difftest

import (
	"iter"
	"strings"

	"meshbridge/translate/apisix"
)

// Requests returns random requests as APISIX gets them, evenly among the chains, and then some that are
// made for each of the routes.
func (w *World) Requests(random Random, n, forEach int) iter.Seq[apisix.Request] {
	return func(yield func(apisix.Request) bool) {
		for i := range n {
			e := w.entrances[i%len(w.entrances)]
			if !yield(e.pair(e.request(random)).apisix) {
				return
			}
		}
		for _, e := range w.entrances {
			for _, v := range e.words.config.GetVirtualHosts() {
				for i := range len(v.GetRoutes()) * forEach {
					if !yield(e.pair(e.aimedAt(v, v.GetRoutes()[i/forEach]).request(random)).apisix) {
						return
					}
				}
			}
		}
	}
}

// APISIX is the model of APISIX with the translated configuration.
func (w *World) APISIX() *apisix.Evaluator { return w.apisix }

// Destinations are the clusters to one of which APISIX forwards.
func (w *World) Destinations(d apisix.Decision) []string {
	if len(d.Split) == 0 {
		return []string{clusterOf(cluster(d.Upstream))}
	}
	var out []string
	for _, u := range d.Split {
		if u.Weight > 0 {
			out = append(out, clusterOf(w.upstreams[u.UpstreamID]))
		}
	}
	return out
}

// clusterOf is the cluster whose variant the upstream is.
func clusterOf(upstream string) string {
	name, _, _ := strings.Cut(upstream, "~")
	return name
}
