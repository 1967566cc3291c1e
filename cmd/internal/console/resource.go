package console

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"meshbridge/cmd/internal/admin"
	"meshbridge/translate"
	"meshbridge/xds"
)

const (
	// shownLines bounds what is shown of a resource, and shownObjects how many objects are beside it.
	shownLines, shownObjects = 4000, 50
	// shownHosts bounds the list of virtual hosts to choose from.
	shownHosts = 200
)

// resourceView is a resource beside what it became.
type resourceView struct {
	resourceRow
	// Hosts are the virtual hosts of a route configuration to choose from.
	Hosts []hostRow `json:"virtual_hosts,omitempty"`
	More  int       `json:"more_virtual_hosts,omitempty"`
	// Origins are the Istio objects that it was made from.
	Origins []origin `json:"origins"`
	// Resource is as received, without secrets; of a route configuration with the chosen virtual host.
	Resource    json.RawMessage        `json:"resource"`
	Objects     []objectView           `json:"apisix"`
	Page        paging                 `json:"page"`
	Diagnostics []translate.Diagnostic `json:"diagnostics"`

	// Lines are the resource for the page, and General the diagnostics that name no field in it.
	Lines   []markedLine           `json:"-"`
	Cut     int                    `json:"-"`
	General []translate.Diagnostic `json:"-"`
}

type hostRow struct {
	Name        string     `json:"name"`
	Domains     []string   `json:"domains"`
	Routes      int        `json:"routes"`
	Diagnostics severities `json:"diagnostics"`
	Chosen      bool       `json:"chosen"`
}

// markedLine is a line with what is said about what begins there.
type markedLine struct {
	line

	Marks []translate.Diagnostic
	// Worst is the worst severity of them; empty without any.
	Worst translate.Severity
}

// origin is an Istio object.
type origin struct {
	Name string `json:"name"`
	// Command shows it.
	Command string `json:"command,omitempty"`
}

type objectView struct {
	Key    string          `json:"key"`
	Name   string          `json:"name,omitempty"`
	Origin string          `json:"origin,omitempty"`
	Value  json.RawMessage `json:"value"`
	// Revision is that of its last change.
	Revision int64 `json:"mod_revision"`
	// Direct tells what was made from the resource from what that refers to.
	Direct bool   `json:"direct"`
	Lines  []line `json:"-"`
	// Cluster is what an upstream stands for.
	Cluster string `json:"cluster,omitempty"`
}

func (s *Server) resource(r *http.Request) (any, error) {
	f, err := readFilter(r)
	if err != nil {
		return nil, err
	}
	world := s.config.World()
	host := r.URL.Query().Get("virtual_host")
	key, resource := lookUp(world, f.kind, r.URL.Query().Get("name"))
	if resource == nil {
		return nil, problem{http.StatusNotFound, "There is no " + key.String() + " among what is served."}
	}
	x, err := s.index()
	if err != nil {
		return nil, err
	}
	v := &resourceView{
		resourceRow: resourceRow{Type: xds.ShortType(key.Type), Name: key.Name, Received: resource.Received},
		Origins:     []origin{}, Diagnostics: []translate.Diagnostic{},
	}
	for _, rejected := range world.Rejected {
		if rejected.Key == key {
			v.Rejected = rejected.Err.Error()
		}
	}
	body := resource.Body
	if key.Type == xds.RouteType {
		if body, err = v.chooseHost(resource, host, world.Diagnostics, &f); err != nil {
			return nil, err
		}
	}
	if err := v.fill(body, world.Diagnostics); err != nil {
		return nil, err
	}
	v.addObjects(x, s.objectsOf(x, key, v.VirtualHost), &f)
	return v, nil
}

// lookUp finds a resource by its short type.
func lookUp(world World, kind, name string) (xds.Key, *xds.Resource) {
	for _, url := range world.Snapshot.Types() {
		if xds.ShortType(url) == kind {
			key := xds.Key{Type: url, Name: name}
			return key, world.Snapshot.Get(key)
		}
	}
	return xds.Key{Type: kind, Name: name}, nil
}

// chooseHost leaves one virtual host in a route configuration: they may have thousands.
func (v *resourceView) chooseHost(r *xds.Resource, wanted string, all []translate.Diagnostic, f *filter) (*anypb.Any, error) {
	config, err := xds.Decode[*routepb.RouteConfiguration](r)
	if err != nil {
		return nil, err
	}
	of := countByResource(all)
	var chosen *routepb.VirtualHost
	for _, host := range config.GetVirtualHosts() {
		if chosen == nil && (wanted == "" || host.GetName() == wanted) {
			chosen = host
		}
		if !f.finds(append(slices.Clone(host.GetDomains()), host.GetName())...) {
			continue
		}
		if len(v.Hosts) == shownHosts {
			v.More++
			continue
		}
		v.Hosts = append(v.Hosts, hostRow{
			Name: host.GetName(), Domains: host.GetDomains(), Routes: len(host.GetRoutes()),
			Diagnostics: of[diagnosedVirtualHost(config.GetName(), host.GetName())], Chosen: host == chosen,
		})
	}
	if chosen == nil && wanted != "" {
		return nil, problem{http.StatusNotFound, "There is no virtual host " + wanted + " in " + r.String() + "."}
	}
	shown := &routepb.RouteConfiguration{}
	for field, value := range config.ProtoReflect().Range {
		if field.Name() != "virtual_hosts" {
			shown.ProtoReflect().Set(field, value)
		}
	}
	if chosen != nil {
		v.VirtualHost = chosen.GetName()
		shown.VirtualHosts = []*routepb.VirtualHost{chosen}
	}
	return anypb.New(shown)
}

// fill shows the resource and what is said about it.
func (v *resourceView) fill(body *anypb.Any, all []translate.Diagnostic) error {
	text, err := admin.Redacted(body)
	if err != nil {
		return err
	}
	tree, err := parseJSON(text)
	if err != nil {
		return err
	}
	v.Resource = text
	tree.without("@type")
	tree.first("name")
	about := v.Type + " " + v.Name
	for _, d := range all {
		if d.Resource != about {
			continue
		}
		if _, host, ok := virtualHostOf(d); ok && host != v.VirtualHost {
			continue
		}
		i := len(v.Diagnostics)
		v.Diagnostics = append(v.Diagnostics, d)
		v.resourceRow.Diagnostics = v.resourceRow.Diagnostics.plus(d.Severity)
		found := tree.find(d.Field)
		for _, n := range found {
			n.notes = append(n.notes, i)
		}
		if len(found) == 0 {
			v.General = append(v.General, d)
		}
	}
	v.Origins = originsOf(tree, v.Diagnostics)
	v.addLines(tree.yaml())
	return nil
}

func (v *resourceView) addLines(lines []line) {
	v.Cut = max(0, len(lines)-shownLines)
	for _, l := range lines[:len(lines)-v.Cut] {
		m := markedLine{line: l}
		for _, i := range l.Notes {
			d := v.Diagnostics[i]
			if strings.HasSuffix(d.Field, l.Key) {
				d.Field = "" // the line itself
			}
			m.Marks = append(m.Marks, d)
			m.Worst = worse(m.Worst, v.Diagnostics[i].Severity)
		}
		v.Lines = append(v.Lines, m)
	}
}

// worse returns the worse of two severities; one may be none.
func worse(a, b translate.Severity) translate.Severity {
	for _, s := range []translate.Severity{translate.SeverityError, translate.SeverityWarning, translate.SeverityInfo} {
		if a == s || b == s {
			return s
		}
	}
	return ""
}

// originsOf collects the Istio objects that istiod names in metadata, and those of diagnostics.
func originsOf(tree *node, diagnostics []translate.Diagnostic) []origin {
	names := map[string]bool{}
	var walk func(n *node)
	walk = func(n *node) {
		if istio := n.child("filter_metadata"); istio != nil && istio.child("istio") != nil {
			if path := istio.child("istio").child("config").text(); path != "" {
				names[translate.Origin(path)] = true
			}
		}
		for _, value := range n.values {
			walk(value)
		}
	}
	walk(tree)
	for _, d := range diagnostics {
		if d.Origin != "" {
			names[d.Origin] = true
		}
	}
	list := []origin{}
	for name := range names {
		list = append(list, originNamed(name))
	}
	slices.SortFunc(list, func(a, b origin) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// originNamed adds the command that shows an object such as "VirtualService default/reviews".
func originNamed(name string) origin {
	kind, rest, ok := strings.Cut(name, " ")
	namespace, object, named := strings.Cut(rest, "/")
	if !ok || !named {
		return origin{Name: name}
	}
	return origin{name, "kubectl -n " + namespace + " get " + strings.ToLower(kind) + " " + object + " -o yaml"}
}

// addObjects shows a page of the objects, those that the resource became before those that they refer to.
func (v *resourceView) addObjects(x *index, made []*object, f *filter) {
	made = inOrder(made)
	v.resourceRow.Objects = len(made)
	direct := map[*object]bool{}
	for _, o := range made {
		direct[o] = true
	}
	if f.query.Get("per_page") == "" {
		f.perPage = shownObjects
	}
	part, page := pageOf(f, x.withReferences(made))
	v.Page = page
	v.Objects = make([]objectView, 0, len(part))
	for _, o := range part {
		shown := objectView{
			Key: o.Key(), Name: o.name, Origin: o.from.Origin, Revision: o.kv.ModRevision, Direct: direct[o], Cluster: o.from.Cluster,
		}
		if o.from.Secrets != nil {
			shown.Origin = "" // a description that names the secrets
		}
		tree, err := parseJSON(o.Value)
		if err != nil {
			continue // it is what the bridge wrote
		}
		redactObject(o.Kind, tree)
		shown.Value, shown.Lines = tree.json(), tree.yaml()
		v.Objects = append(v.Objects, shown)
	}
}

// When, Count and Severities are what the page says first.
func (v *resourceView) When() time.Time { return v.Received }

// Count is the number of objects that were made from the resource.
func (v *resourceView) Count() int { return v.resourceRow.Objects }

// Severities counts the diagnostics.
func (v *resourceView) Severities() severities { return v.resourceRow.Diagnostics }
