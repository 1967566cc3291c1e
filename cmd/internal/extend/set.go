package extend

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"meshbridge/translate"
	"meshbridge/translate/apisix"
)

// Config says what extensions are for.
type Config struct {
	// Version is that of APISIX; the zero value is the newest.
	Version apisix.Version
	// Loaded and StreamLoaded are the plugins that APISIX has loaded.
	Loaded, StreamLoaded []string
	// Labels are those of the workload's pod.
	Labels map[string]string
	// Schemas are APISIX's own, in the form of its control API's /v1/schema; nil means the built-in ones.
	Schemas []byte
}

// File is one of the directory.
type File struct {
	// Name is relative to the directory.
	Name string
	Data []byte
}

// Set is what a directory says. It is immutable, and a translate.Extensions.
type Set struct {
	version apisix.Version
	// routes and streams are in the order in which they win.
	routes, streams []*document
	objects         []apisix.Object
	problems        []translate.ExtensionProblem
	// good are the documents in use, by file, in their order: what is served on when a new version of one
	// is refused.
	good map[string][]*document
}

// Load reads files. Where a document of theirs cannot be used, the version that previous, which may be nil, has
// of it is used on.
func Load(c Config, files []File, previous *Set) (*Set, error) {
	schemas, err := openSchemas(&c)
	if err != nil {
		return nil, err
	}
	l := &loader{
		checker:  checker{config: &c, schemas: schemas, globals: map[string]*document{}},
		set:      &Set{version: c.Version, good: map[string][]*document{}},
		previous: previous, seen: map[string]*document{},
	}
	for _, f := range slices.SortedFunc(slices.Values(files), func(a, b File) int { return strings.Compare(a.Name, b.Name) }) {
		l.file(f)
	}
	return l.finish(), nil
}

// loader makes a Set.
type loader struct {
	checker
	set      *Set
	previous *Set
	seen     map[string]*document // by identity
}

func (l *loader) report(code translate.Code, resource string, args ...any) {
	l.set.problems = append(l.set.problems, translate.ExtensionProblem{Code: code, Resource: resource, Args: args})
}

func (l *loader) file(f File) {
	switch path.Ext(f.Name) {
	case ".yaml", ".yml", ".json":
	default:
		l.report(translate.CodeExtensionIgnored, "Extension "+f.Name, "its name ends in none of .yaml, .yml and .json")
		return
	}
	nameless := false // a document of which nobody knows which one it is
	for i, data := range splitDocuments(f.Data) {
		d, err := parseDocument(data)
		if d == nil {
			d = &document{}
		}
		d.file, d.index = f.Name, i+1
		if other := l.seen[d.identity()]; err == nil && other != nil {
			err = fmt.Errorf("has the kind and name of %s", other.place())
			d.Name += fmt.Sprintf("#%d", i+1) // its own last version is not the other's
		}
		if err == nil {
			err = l.checkDocument(d)
		}
		if err == nil {
			l.use(d)
			continue
		}
		nameless = nameless || d.Name == "" || d.Kind == ""
		l.refuse(d, err)
	}
	if nameless && l.previous != nil {
		for _, d := range l.previous.good[f.Name] {
			if l.seen[d.identity()] == nil {
				l.use(d)
			}
		}
	}
}

// use takes a document into the set.
func (l *loader) use(d *document) {
	l.seen[d.identity()] = d
	l.set.good[d.file] = append(l.set.good[d.file], d)
	if d.Kind == "GlobalRule" {
		plugins, _ := pluginsOf(d.Spec)
		for name := range plugins {
			l.globals[name] = d
		}
	}
	for name, why := range d.unchecked {
		l.report(translate.CodeExtensionUnchecked, d.resource(), name, why)
	}
}

// refuse says what happens instead of a document.
func (l *loader) refuse(d *document, why error) {
	reason := strings.ReplaceAll(why.Error(), "\n", "; ")
	if old := l.previous.find(d); old != nil && l.seen[d.identity()] == nil {
		l.use(old)
		l.report(translate.CodeExtensionInvalid, d.resource(), reason, "the version before it is served on")
		return
	}
	if !d.mayRestrict() || !d.WorkloadSelector.selects(l.config.Labels) {
		l.report(translate.CodeExtensionInvalid, d.resource(), reason, "it is left out")
		return
	}
	d.refused = fmt.Sprintf("%s %s (%s)", d.Kind, d.Name, d.place())
	if d.Selector.check(d.Kind) != nil || d.Kind == "GlobalRule" {
		d.Selector = nil
	}
	l.report(translate.CodeExtensionInvalid, d.resource(), reason, "it may be there to restrict access, so that what it selects answers 403")
	if d.Kind == kindStreamPlugins {
		l.set.streams = append(l.set.streams, d)
	} else {
		l.set.routes = append(l.set.routes, d)
	}
}

// resource names the document in diagnostics.
func (d *document) resource() string {
	if d.Kind == "" && d.Name == "" {
		return "Extension " + d.place()
	}
	return fmt.Sprintf("Extension %s (%s %s)", d.place(), d.Kind, d.Name)
}

// mayRestrict tells whether a document may be there to restrict access.
func (d *document) mayRestrict() bool {
	plugins := d.Plugins
	switch d.Kind {
	case kindPlugins, kindStreamPlugins:
	case "GlobalRule":
		plugins, _ = pluginsOf(d.Spec)
	default:
		return false
	}
	for name, config := range plugins {
		if restrictsAccess(name, config) {
			return true
		}
	}
	return false
}

// find returns the version of a document that is in use.
func (s *Set) find(d *document) *document {
	if s == nil || d.Name == "" {
		return nil
	}
	for _, list := range s.good {
		for _, old := range list {
			if old.identity() == d.identity() {
				return old
			}
		}
	}
	return nil
}

func (l *loader) finish() *Set {
	s := l.set
	for _, list := range s.good {
		for _, d := range list {
			switch {
			case !d.WorkloadSelector.selects(l.config.Labels):
			case d.Kind == kindPlugins:
				s.routes = append(s.routes, d)
			case d.Kind == kindStreamPlugins:
				s.streams = append(s.streams, d)
			default:
				s.objects = append(s.objects, d.object)
			}
		}
	}
	slices.SortFunc(s.routes, (*document).before)
	slices.SortFunc(s.streams, (*document).before)
	slices.SortFunc(s.objects, func(a, b apisix.Object) int { return strings.Compare(a.Key(), b.Key()) })
	return s
}

// Unreadable is the set with the problem that its directory cannot be read. A set that has that problem already
// gets another reason.
func (s *Set) Unreadable(directory, reason string) *Set {
	out := *s
	isDirectory := func(p translate.ExtensionProblem) bool { return p.Code == translate.CodeExtensionDirectory }
	out.problems = append(slices.DeleteFunc(slices.Clone(s.problems), isDirectory), translate.ExtensionProblem{
		Code: translate.CodeExtensionDirectory, Resource: "Extension " + directory, Args: []any{reason},
	})
	return &out
}

// Objects implements translate.Extensions.
func (s *Set) Objects() []apisix.Object { return s.objects }

// Problems implements translate.Extensions.
func (s *Set) Problems() []translate.ExtensionProblem { return s.problems }

// Documents implements translate.Extensions.
func (s *Set) Documents() []string {
	var names []string
	for _, d := range slices.Concat(s.routes, s.streams) {
		if d.refused == "" {
			names = append(names, d.label())
		}
	}
	return names
}

// Summary counts what is in use, for logs.
func (s *Set) Summary() (routes, streams, objects, problems int) {
	return len(s.routes), len(s.streams), len(s.objects), len(s.problems)
}

// PluginNames are those that documents of any kind name, whether or not they can be used: what APISIX should load.
func PluginNames(files []File) []string {
	var names []string
	for _, f := range files {
		for _, data := range splitDocuments(f.Data) {
			d, _ := parseDocument(data)
			if d == nil {
				continue
			}
			plugins := d.Plugins
			if plugins == nil {
				plugins, _ = pluginsOf(d.Spec)
			}
			for name := range plugins {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
