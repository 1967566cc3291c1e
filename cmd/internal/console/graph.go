package console

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"meshbridge/translate"
	"meshbridge/translate/apisix"
)

const (
	// drawnHosts is how many hosts are drawn without one being chosen, drawnNodes bounds a drawing, and
	// drawnEndpoints the endpoints of one cluster in it.
	drawnHosts, drawnNodes, drawnEndpoints = 8, 200, 12
)

// graphView is the way of requests: from listeners by hosts and routes to clusters and endpoints.
type graphView struct {
	// Config and Host are the chosen virtual host.
	Config string `json:"route_configuration,omitempty"`
	Host   string `json:"host,omitempty"`
	// Hosts are those to choose from.
	Hosts []graphHost `json:"hosts"`
	Page  paging      `json:"page"`
	// Outbound is of the chosen host, or of all where there are few; Inbound of the workload's own ports.
	Outbound *graph `json:"outbound,omitempty"`
	Inbound  *graph `json:"inbound,omitempty"`
}

type graphHost struct {
	Config string `json:"route_configuration"`
	Host   string `json:"host"`
	Routes int    `json:"routes"`
}

// graph is drawn from left to right.
type graph struct {
	Nodes []graphNode `json:"nodes"`
	Edges []graphEdge `json:"edges"`
	// Omitted is how many nodes are left out, for a drawing can only be so large.
	Omitted int `json:"omitted,omitempty"`

	at map[string]int // place of each node by its id
}

// Kinds of nodes, which are the columns of a drawing.
const (
	nodeListener = "listener"
	nodeHost     = "host"
	nodeRoute    = "route"
	nodeCluster  = "cluster"
	nodeEndpoint = "endpoint"
)

func columns() []string {
	return []string{nodeListener, nodeHost, nodeRoute, nodeCluster, nodeEndpoint}
}

type graphNode struct {
	ID    string `json:"id"`
	Kind  string `json:"kind"`
	Label string `json:"label"`
	// Detail is a second line: the path of a route, the health of an endpoint.
	Detail string `json:"detail,omitempty"`
	// Bad tells what does not work: a cluster without endpoints, an endpoint that is not healthy.
	Bad  bool   `json:"bad,omitempty"`
	Link string `json:"-"`
}

type graphEdge struct {
	From  string `json:"from"`
	To    string `json:"to"`
	Label string `json:"label,omitempty"`
}

func newGraph() *graph {
	return &graph{Nodes: []graphNode{}, Edges: []graphEdge{}, at: map[string]int{}}
}

// node adds a node once, and tells whether it is there: a drawing is bounded.
func (g *graph) node(n graphNode) bool {
	if _, there := g.at[n.ID]; there {
		return true
	}
	if len(g.Nodes) >= drawnNodes {
		g.Omitted++
		return false
	}
	g.at[n.ID] = len(g.Nodes)
	g.Nodes = append(g.Nodes, n)
	return true
}

func (g *graph) edge(from, to, label string) {
	e := graphEdge{from, to, label}
	if !slices.Contains(g.Edges, e) {
		g.Edges = append(g.Edges, e)
	}
}

func (s *Server) graph(r *http.Request) (any, error) {
	f, err := readFilter(r)
	if err != nil {
		return nil, err
	}
	world := s.config.World()
	x, err := s.index()
	if err != nil {
		return nil, err
	}
	v := graphView{Config: f.query.Get("config"), Host: f.query.Get("host")}
	hosts := outboundHosts(world, x)
	draw := hosts
	if v.Host != "" {
		draw = slices.DeleteFunc(slices.Clone(hosts), func(h graphHost) bool {
			return h.Host != v.Host || v.Config != "" && h.Config != v.Config
		})
		if len(draw) == 0 {
			return nil, problem{http.StatusNotFound, "There is no host " + v.Host + " among the routes."}
		}
	}
	if v.Host != "" || len(hosts) <= drawnHosts {
		v.Outbound = newGraph()
		for _, host := range draw {
			v.Outbound.addHost(world, x, host)
		}
	}
	v.Inbound = inboundGraph(world, s.config.Profile)
	found := slices.DeleteFunc(slices.Clone(hosts), func(h graphHost) bool { return !f.finds(h.Host, h.Config) })
	v.Hosts, v.Page = pageOf(&f, found)
	return s.inFormat(v, f.query.Get("format"))
}

// inFormat returns the view, or its graphs in another form.
func (s *Server) inFormat(v graphView, format string) (any, error) {
	switch format {
	case "":
		return v, nil
	case "dot":
		return document{"text/vnd.graphviz; charset=utf-8", "default-src 'none'", []byte(v.dot())}, nil
	case "mermaid":
		return document{"text/plain; charset=utf-8", "default-src 'none'", []byte(v.mermaid())}, nil
	case "svg":
		return s.svg(v)
	default:
		return nil, problem{http.StatusBadRequest, "format: want dot, mermaid or svg"}
	}
}

// outboundHosts lists the virtual hosts that the workload's own requests may be for, and a gateway's.
func outboundHosts(world World, x *index) []graphHost {
	inbound := map[string]bool{}
	for _, c := range world.Chains {
		if c.Direction == translate.Inbound {
			inbound[c.Listener] = true
		}
	}
	var hosts []graphHost
	for key, objects := range x.byVirtualHost {
		if !inbound[objects[0].from.Listener] {
			hosts = append(hosts, graphHost{key.config, key.host, len(objects)})
		}
	}
	slices.SortFunc(hosts, func(a, b graphHost) int {
		return cmp.Or(strings.Compare(a.Host, b.Host), strings.Compare(a.Config, b.Config))
	})
	return hosts
}

// addHost adds a virtual host with everything that its routes lead to.
func (g *graph) addHost(world World, x *index, host graphHost) {
	hostID := nodeHost + " " + host.Config + " " + host.Host
	link, _ := linkTo("/resource", "type", "RouteConfiguration", "name", host.Config, "virtual_host", host.Host)
	if !g.node(graphNode{ID: hostID, Kind: nodeHost, Label: shortHost(host.Host), Detail: "routes of " + host.Config, Link: link}) {
		return
	}
	for _, o := range inOrder(x.byVirtualHost[virtualHostKey{host.Config, host.Host}]) {
		if o.Kind != apisix.KindRoute {
			continue
		}
		listener := nodeListener + " " + o.from.Listener
		toListener, _ := linkTo("/resource", "type", "Listener", "name", o.from.Listener)
		if g.node(graphNode{ID: listener, Kind: nodeListener, Label: o.from.Listener, Detail: "listener", Link: toListener}) {
			g.edge(listener, hostID, "")
		}
		route := nodeRoute + " " + hostID + " " + o.routeKey()
		if !g.node(graphNode{ID: route, Kind: nodeRoute, Label: o.routeName(), Detail: o.routeDetail(), Link: link + "#" + o.Key()}) {
			continue
		}
		g.edge(hostID, route, "")
		g.addUpstreams(world, x, o, route)
	}
}

// routeName is that of the route in Envoy, which may have become several objects: their names are the chain,
// the virtual host, the route and what tells them apart.
func (o *object) routeName() string {
	parts := strings.Split(o.name, "|")
	if len(parts) < 3 || parts[2] == "" {
		return "(no name)"
	}
	return parts[2]
}

// routeKey tells routes apart. Istio names many of them "default".
func (o *object) routeKey() string {
	name := o.routeName()
	if name == "default" || name == "(no name)" {
		return name + " " + strings.Join(o.uris, " ")
	}
	return name
}

func (o *object) routeDetail() string {
	detail := strings.Join(o.uris, " ")
	if o.from.Origin != "" {
		detail += ", " + o.from.Origin
	}
	return detail
}

func (g *graph) addUpstreams(world World, x *index, o *object, route string) {
	total := 0
	for _, ref := range o.refs {
		total += ref.weight
	}
	for _, ref := range o.refs {
		to := x.byKey[ref.key]
		if to == nil || to.Kind != apisix.KindUpstream {
			continue
		}
		label := ""
		if total > 0 {
			label = strconv.Itoa((ref.weight*100+total/2)/total) + " %"
		}
		if id, ok := g.addCluster(world, to.from.Cluster); ok {
			g.edge(route, id, label)
		}
	}
}

// addCluster adds a cluster with its endpoints.
func (g *graph) addCluster(world World, name string) (id string, ok bool) {
	id = nodeCluster + " " + name
	if _, there := g.at[id]; there {
		return id, true
	}
	c := clusterEndpoints(world.Snapshot, name)
	link, _ := linkTo("/resource", "type", "Cluster", "name", name)
	if !c.known {
		link = ""
	}
	n := graphNode{ID: id, Kind: nodeCluster, Label: readableCluster(name), Detail: c.detail(), Bad: c.bad(), Link: link}
	if !g.node(n) {
		return id, false
	}
	for i, e := range c.endpoints {
		if i == drawnEndpoints {
			more := nodeEndpoint + " more of " + name
			if g.node(graphNode{ID: more, Kind: nodeEndpoint, Label: "and " + strconv.Itoa(len(c.endpoints)-i) + " more", Detail: "endpoints"}) {
				g.edge(id, more, "")
			}
			break
		}
		endpoint := nodeEndpoint + " " + e.address + " " + e.health
		if g.node(graphNode{ID: endpoint, Kind: nodeEndpoint, Label: e.address, Detail: e.health, Bad: !e.healthy}) {
			g.edge(id, endpoint, "")
		}
	}
	return id, true
}

// shortHost leaves out what all hosts of a cluster have in common.
func shortHost(host string) string { return strings.Replace(host, ".svc.cluster.local", "", 1) }

// readableCluster makes "reviews.default v1 :9080" of "outbound|9080|v1|reviews.default.svc.cluster.local".
func readableCluster(name string) string {
	parts := strings.Split(name, "|")
	if len(parts) != 4 {
		return name
	}
	host := cmp.Or(shortHost(parts[3]), "application")
	if parts[2] != "" {
		host += " " + parts[2]
	}
	return host + " :" + parts[1]
}

// inboundGraph has the workload's own ports; nil where there are none.
func inboundGraph(world World, profile translate.Profile) *graph {
	g := newGraph()
	for _, c := range world.Chains {
		// Istio has a chain against loops, which leads nowhere.
		if c.Direction != translate.Inbound || c.Port == 0 || strings.HasSuffix(c.FilterChain, "-blackhole") {
			continue
		}
		how := "TCP"
		if c.HTTP {
			how = "HTTP"
		}
		switch {
		case c.MeshTLS:
			how += ", mesh TLS"
		case c.TLS:
			how += ", TLS"
		}
		port := nodeListener + " " + c.Key
		app := nodeEndpoint + " application " + strconv.Itoa(c.Port)
		link, _ := linkTo("/resource", "type", "Listener", "name", c.Listener)
		refused := true
		switch {
		case len(c.Denied) > 0:
			how += ", answered with 403"
		case c.NotServed != "" && !profile.Captures():
			how += ", not served"
		default:
			refused = false
		}
		if g.node(graphNode{ID: port, Kind: nodeListener, Label: fmt.Sprintf("inbound port %d", c.Port), Detail: how, Bad: refused, Link: link}) &&
			g.node(graphNode{ID: app, Kind: nodeEndpoint, Label: "application", Detail: fmt.Sprintf("port %d", c.Port)}) {
			g.edge(port, app, "")
		}
	}
	if len(g.Nodes) == 0 {
		return nil
	}
	return g
}
