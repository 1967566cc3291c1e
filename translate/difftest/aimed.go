package difftest

import (
	"slices"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
)

// RunRoutes gives requests to both sides that are made of what one route mentions, and its virtual host:
// where there are many, hardly a random request has all that one of them asks for. It returns how many
// routes there are, and how many of them Envoy chose for one of the requests.
func (w *World) RunRoutes(random Random, each int, report *Report) (routes, chosen int) {
	for _, e := range w.entrances {
		for _, v := range e.words.config.GetVirtualHosts() {
			for i, r := range v.GetRoutes() {
				routes++
				if w.runRoute(e.aimedAt(v, r), i, random, each, report) {
					chosen++
				}
			}
		}
	}
	return routes, chosen
}

func (w *World) runRoute(e *entrance, index int, random Random, each int, report *Report) (chosen bool) {
	for range each {
		d := w.run(e, e.request(random), report).envoyDecision
		chosen = chosen || d.VirtualHost == e.words.config.GetVirtualHosts()[0].GetName() && d.RouteIndex == index
	}
	return chosen
}

// aimedAt is the entrance with the words of one route.
func (e *entrance) aimedAt(v *routepb.VirtualHost, r *routepb.Route) *entrance {
	only := proto.CloneOf(v)
	only.Routes = []*routepb.Route{r}
	words := &vocabulary{changed: slices.Clone(e.words.changed)}
	words.walk((&routepb.RouteConfiguration{VirtualHosts: []*routepb.VirtualHost{only}}).ProtoReflect())
	words.complete()
	out := *e
	out.words = words
	return &out
}
