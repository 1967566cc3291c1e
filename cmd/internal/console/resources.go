package console

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"time"

	"meshbridge/translate"
	"meshbridge/xds"
)

// virtualHostType is the name of the parts of route configurations in the list, which are looked for as
// resources are.
const virtualHostType = "VirtualHost"

// resourcesView lists what istiod sent.
type resourcesView struct {
	Types     []typeCount   `json:"types"`
	Resources []resourceRow `json:"resources"`
	Page      paging        `json:"page"`
}

type typeCount struct {
	Type  string `json:"type"`
	Count int    `json:"count"`
}

type resourceRow struct {
	Type string `json:"type"`
	// Name is the resource's; of a virtual host, that of its route configuration.
	Name        string     `json:"name"`
	VirtualHost string     `json:"virtual_host,omitempty"`
	Received    time.Time  `json:"received,omitzero"`
	Objects     int        `json:"objects"`
	Diagnostics severities `json:"diagnostics"`
	// Rejected is why the newest version is refused.
	Rejected string `json:"rejected,omitempty"`
}

// Link is the address of the resource's own page.
func (r resourceRow) Link() (string, error) {
	kind := r.Type
	if kind == virtualHostType {
		kind = xds.ShortType(xds.RouteType)
	}
	return linkTo("/resource", "type", kind, "name", r.Name, "virtual_host", r.VirtualHost)
}

func (s *Server) resources(r *http.Request) (any, error) {
	f, err := readFilter(r)
	if err != nil {
		return nil, err
	}
	world := s.config.World()
	x, err := s.index()
	if err != nil {
		return nil, err
	}
	of := countByResource(world.Diagnostics)
	v := resourcesView{Types: []typeCount{}}
	var rows []resourceRow
	urls := slices.SortedFunc(slices.Values(world.Snapshot.Types()), byType)
	for _, url := range urls {
		v.count(xds.ShortType(url), world.Snapshot.Len(url))
		if f.kind == "" || f.kind == xds.ShortType(url) {
			rows = append(rows, s.rowsOf(world, x, url, of, &f)...)
		}
		if url == xds.RouteType {
			v.count(virtualHostType, len(x.byVirtualHost))
			if f.kind == virtualHostType || f.kind == "" && f.search != "" {
				rows = append(rows, virtualHostRows(x, of, &f)...)
			}
		}
	}
	rows = append(rows, rejectedRows(world, &f)...)
	v.Resources, v.Page = pageOf(&f, rows)
	return v, nil
}

func (v *resourcesView) count(kind string, n int) {
	if n > 0 {
		v.Types = append(v.Types, typeCount{kind, n})
	}
}

func (s *Server) rowsOf(world World, x *index, url string, of map[string]severities, f *filter) []resourceRow {
	refused := map[string]string{}
	for _, r := range world.Rejected {
		if r.Type == url {
			refused[r.Name] = r.Err.Error()
		}
	}
	var rows []resourceRow
	for r := range world.Snapshot.All(url) {
		row := resourceRow{
			Type: xds.ShortType(url), Name: r.Name, Received: r.Received,
			Diagnostics: of[r.String()], Objects: len(s.objectsOf(x, r.Key, "")), Rejected: refused[r.Name],
		}
		if f.admits(row) {
			rows = append(rows, row)
		}
	}
	return rows
}

func (f *filter) admits(row resourceRow) bool {
	return (!f.flagged || row.Diagnostics.Flagged() > 0 || row.Rejected != "") && f.finds(row.Name, row.VirtualHost)
}

func virtualHostRows(x *index, of map[string]severities, f *filter) []resourceRow {
	var rows []resourceRow
	for key, objects := range x.byVirtualHost {
		row := resourceRow{
			Type: virtualHostType, Name: key.config, VirtualHost: key.host, Objects: len(objects),
			Diagnostics: of[diagnosedVirtualHost(key.config, key.host)],
		}
		if f.admits(row) {
			rows = append(rows, row)
		}
	}
	slices.SortFunc(rows, func(a, b resourceRow) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.VirtualHost, b.VirtualHost))
	})
	return rows
}

// rejectedRows are those of resources of which no version was good.
func rejectedRows(world World, f *filter) []resourceRow {
	var rows []resourceRow
	for _, r := range world.Rejected {
		row := resourceRow{Type: xds.ShortType(r.Type), Name: r.Name, Received: r.Received, Rejected: r.Err.Error()}
		if world.Snapshot.Get(r.Key) == nil && (f.kind == "" || f.kind == row.Type) && f.admits(row) {
			rows = append(rows, row)
		}
	}
	return rows
}

// objectsOf returns the objects that a resource became.
func (s *Server) objectsOf(x *index, key xds.Key, virtualHost string) []*object {
	version := s.config.APISIX
	switch key.Type {
	case xds.ListenerType:
		return x.byListener[version.LabelValue(key.Name)]
	case xds.RouteType:
		if virtualHost != "" {
			return x.byVirtualHost[virtualHostKey{version.LabelValue(key.Name), version.LabelValue(virtualHost)}]
		}
		return x.byRouteConfig[version.LabelValue(key.Name)]
	case xds.ClusterType, xds.EndpointType:
		return x.byCluster[version.Name(key.Name)]
	case xds.SecretType:
		return x.bySecret[key.Name]
	}
	return nil
}

// countByResource counts diagnostics by their resource; those of virtual hosts by these, as well.
func countByResource(all []translate.Diagnostic) map[string]severities {
	of := map[string]severities{}
	for _, d := range all {
		of[d.Resource] = of[d.Resource].plus(d.Severity)
		if config, host, ok := virtualHostOf(d); ok {
			key := diagnosedVirtualHost(config, host)
			of[key] = of[key].plus(d.Severity)
		}
	}
	return of
}

// virtualHostOf returns the virtual host that a diagnostic is about.
func virtualHostOf(d translate.Diagnostic) (config, host string, ok bool) {
	config, isRoutes := strings.CutPrefix(d.Resource, xds.ShortType(xds.RouteType)+" ")
	rest, isHost := strings.CutPrefix(d.Field, `virtual_hosts["`)
	if !isRoutes || !isHost {
		return "", "", false
	}
	host, _, ok = strings.Cut(rest, `"]`)
	return config, host, ok
}

func diagnosedVirtualHost(config, host string) string {
	return virtualHostType + " " + config + "\x00" + host
}
