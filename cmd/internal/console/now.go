package console

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"time"

	"meshbridge/gateway"
	"meshbridge/translate/apisix"
	"meshbridge/xds"
)

// nowView says how the bridge is.
type nowView struct {
	State    state  `json:"state"`
	Sentence string `json:"sentence"`
	// Stale says that what is served is old, and since when.
	Stale   string         `json:"stale,omitempty"`
	Istiod  *istiodView    `json:"istiod,omitempty"`
	Serving servingView    `json:"serving"`
	Warning severities     `json:"diagnostics"`
	Expiry  []expiry       `json:"expiry"`
	Worker  workerView     `json:"apisix"`
	Watch   []watcherView  `json:"watchers"`
	Process processView    `json:"process"`
	Pending []resourceName `json:"pending"`
}

// istiodView is the other end of the stream.
type istiodView struct {
	Address string `json:"address"`
	controlPlane
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since,omitzero"`
	LastError string    `json:"last_error,omitempty"`
}

// servingView is what APISIX is given.
type servingView struct {
	Revision  int64          `json:"revision"`
	Committed time.Time      `json:"committed,omitzero"`
	Received  time.Time      `json:"received,omitzero"`
	Resources map[string]int `json:"resources"`
	Objects   map[string]int `json:"objects"`
	Rejected  int            `json:"rejected"`
}

// expiry is something that ends.
type expiry struct {
	What string `json:"what"`
	// Detail is whose it is, or what is wrong with it.
	Detail string    `json:"detail,omitempty"`
	Until  time.Time `json:"until,omitzero"`
	// Soon tells that it is over or will be within a tenth of an hour.
	Soon bool `json:"soon"`
}

// workerView is APISIX, as far as the bridge knows it.
type workerView struct {
	// Started tells whether the bridge started it; only then Ready says something.
	Started bool   `json:"started_by_bridge"`
	Ready   bool   `json:"ready"`
	Detail  string `json:"detail,omitempty"`
}

// watcherView is a client of the etcd port that watches.
type watcherView struct {
	Peer     string    `json:"peer"`
	Protocol string    `json:"protocol"`
	Since    time.Time `json:"since"`
	Keys     []string  `json:"keys"`
	Revision int64     `json:"revision"`
	// Behind is how many revisions it has not been sent yet.
	Behind int64 `json:"behind"`
}

// processView is the bridge itself.
type processView struct {
	Version string    `json:"version"`
	Profile string    `json:"profile"`
	APISIX  string    `json:"apisix_version"`
	Node    string    `json:"node,omitempty"`
	Started time.Time `json:"started"`
	Uptime  float64   `json:"uptime_seconds"`
}

// tile is a number with what it counts.
type tile struct {
	Count      int
	Type, What string
}

// Tiles are the numbers of resources, in the order of the way of a request.
func (v nowView) Tiles() []tile {
	names := map[string]string{
		xds.ListenerType: "listener", xds.RouteType: "route configuration", xds.ClusterType: "cluster",
		xds.EndpointType: "load assignment", xds.SecretType: "secret",
	}
	var tiles []tile
	for _, url := range typeOrder() {
		short := xds.ShortType(url)
		if n := v.Serving.Resources[short]; n > 0 && names[url] != "" {
			_, noun, _ := strings.Cut(counted(n, names[url]), " ")
			tiles = append(tiles, tile{n, short, noun})
		}
	}
	return tiles
}

type resourceName struct {
	Type string `json:"type"`
	Name string `json:"name,omitempty"`
}

// shownWatchers bounds the list of watchers: there may be thousands.
const shownWatchers = 100

func (s *Server) now(r *http.Request) (any, error) {
	world, source := s.config.World(), s.sourceStatus()
	current := s.condition(world, source)
	v := nowView{
		State: current.State, Sentence: current.Sentence, Stale: current.Banner,
		Serving: s.serving(world), Warning: countSeverities(world.Diagnostics), Expiry: s.expiries(time.Now()),
		Worker: s.worker(r), Watch: s.watchers(), Pending: []resourceName{},
		Process: processView{
			Version: s.config.Version, Profile: s.config.Profile.Name(), APISIX: s.config.APISIX.String(),
			Node: s.config.Node.GetId(), Started: s.started, Uptime: time.Since(s.started).Seconds(),
		},
	}
	if source != nil {
		v.Istiod = &istiodView{Address: source.Target, controlPlane: parseControlPlane(source.ControlPlane), Connected: source.Connected, Since: source.Since}
		if source.LastError != nil {
			v.Istiod.LastError = source.LastError.Error()
		}
	}
	for _, key := range world.Pending[:min(len(world.Pending), defaultPerPage)] {
		v.Pending = append(v.Pending, resourceName{xds.ShortType(key.Type), key.Name})
	}
	return v, nil
}

func (s *Server) serving(w World) servingView {
	v := servingView{
		Revision: w.Revision, Committed: w.Committed, Received: w.Received, Rejected: len(w.Rejected),
		Resources: map[string]int{}, Objects: map[string]int{},
	}
	for _, t := range w.Snapshot.Types() {
		if n := w.Snapshot.Len(t); n > 0 {
			v.Resources[xds.ShortType(t)] = n
		}
	}
	for _, kind := range kinds() {
		v.Objects[string(kind)] = s.countObjects(kind)
	}
	return v
}

// expiries lists what ends: the workload's certificate and the token that istiod is shown.
func (s *Server) expiries(now time.Time) []expiry {
	list := []expiry{}
	if s.config.Identity != nil {
		e := expiry{What: "workload certificate", Detail: "there is none yet", Soon: true}
		if current := s.config.Identity(); current != nil {
			e = expiry{What: "workload certificate", Detail: current.ID, Until: current.NotAfter, Soon: soon(now, current.NotAfter)}
		}
		list = append(list, e)
	}
	if s.config.TokenFile != "" {
		until, err := xds.TokenExpiry(s.config.TokenFile)
		e := expiry{What: "token for istiod", Detail: s.config.TokenFile, Until: until, Soon: soon(now, until)}
		if err != nil {
			e.Detail, e.Soon = err.Error(), true
		}
		list = append(list, e)
	}
	return list
}

func soon(now, until time.Time) bool { return !until.IsZero() && until.Sub(now) < 6*time.Minute }

func (s *Server) worker(r *http.Request) workerView {
	if s.config.Worker == nil {
		return workerView{Detail: "not started by the bridge; its watches are below"}
	}
	if err := s.config.Worker(r.Context()); err != nil {
		return workerView{Started: true, Detail: err.Error()}
	}
	return workerView{Started: true, Ready: true, Detail: "all workers have their configuration"}
}

// watchers lists who watches, those that lag most in front.
func (s *Server) watchers() []watcherView {
	current := s.config.Store.Stats().Revision
	list := []watcherView{}
	for _, w := range s.config.Watchers() {
		list = append(list, watcherView{w.Peer, w.Protocol, w.Since, clean(w), w.Revision, max(0, current-w.Revision)})
	}
	slices.SortStableFunc(list, func(a, b watcherView) int { return cmp.Compare(b.Behind, a.Behind) })
	return list[:min(len(list), shownWatchers)]
}

// clean makes text of the keys: clients may watch any bytes.
func clean(w gateway.Watcher) []string {
	keys := make([]string, len(w.Keys))
	for i, key := range w.Keys {
		keys[i] = printable(key)
	}
	return keys
}

// kinds are the collections that the bridge writes, in the order in which they are shown.
func kinds() []apisix.Kind {
	return []apisix.Kind{apisix.KindRoute, apisix.KindUpstream, apisix.KindPluginConfig, apisix.KindStreamRoute, apisix.KindSSL}
}
