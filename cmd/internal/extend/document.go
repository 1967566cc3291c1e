package extend

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"meshbridge/translate/apisix"
)

// Kinds of documents.
const (
	kindPlugins       = "Plugins"
	kindStreamPlugins = "StreamPlugins"
)

// objectKinds are the kinds of documents that are objects of APISIX.
var objectKinds = map[string]apisix.Kind{
	"GlobalRule":     apisix.KindGlobalRule,
	"PluginMetadata": apisix.KindPluginMetadata,
	"Consumer":       apisix.KindConsumer,
	"ConsumerGroup":  apisix.KindConsumerGroup,
	"Proto":          apisix.KindProto,
	"Secret":         apisix.KindSecret,
}

// mergeMode says what becomes of a plugin that a route has already.
type mergeMode string

const (
	mergeAdd     mergeMode = "add"
	mergeMerge   mergeMode = "merge"
	mergeReplace mergeMode = "replace"
)

// document is one of a file. It is immutable once it has been checked.
type document struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
	// WorkloadSelector names the workloads that the document is for; without one, it is for all.
	WorkloadSelector *workloadSelector `json:"workloadSelector,omitempty"`

	// Of Plugins and StreamPlugins.
	Selector *selector                 `json:"selector,omitempty"`
	Priority int                       `json:"priority,omitempty"`
	Merge    mergeMode                 `json:"merge,omitempty"`
	Plugins  map[string]map[string]any `json:"plugins,omitempty"`

	// Spec is the object, without its id, of the other kinds.
	Spec map[string]any `json:"spec,omitempty"`

	// file and index are where the document is, index from 1 on.
	file  string
	index int
	// object is Spec with its id.
	object apisix.Object
	// unchecked are the plugins that there are no schemas of, and why.
	unchecked map[string]string
	// refused tells that there is no version of the document that can be used: what it selects answers 403.
	refused string
}

// identity tells documents apart.
func (d *document) identity() string { return d.Kind + " " + d.Name }

// label is by which a document is known in diagnostics and labels.
func (d *document) label() string { return d.Name }

// place is where the document is.
func (d *document) place() string { return fmt.Sprintf("%s, document %d", d.file, d.index) }

// pluginNames are those of the plugins, in order.
func (d *document) pluginNames() []string { return slices.Sorted(maps.Keys(d.Plugins)) }

// before tells which of two documents wins.
func (d *document) before(o *document) int {
	return cmp.Or(cmp.Compare(o.Priority, d.Priority), strings.Compare(d.file, o.file), cmp.Compare(d.index, o.index))
}

// splitDocuments splits a file at the lines that begin with "---".
func splitDocuments(data []byte) [][]byte {
	var out [][]byte
	var current []byte
	for line := range bytes.Lines(data) {
		if marker, ok := bytes.CutPrefix(line, []byte("---")); ok && len(bytes.TrimLeft(marker[:min(1, len(marker))], " \t\r\n")) == 0 {
			out = append(out, current)
			current = nil
			continue
		}
		current = append(current, line...)
	}
	return slices.DeleteFunc(append(out, current), isBlank)
}

// isBlank tells whether a document has nothing but comments.
func isBlank(data []byte) bool {
	for line := range bytes.Lines(data) {
		if text := bytes.TrimSpace(line); len(text) > 0 && text[0] != '#' {
			return false
		}
	}
	return true
}

// heading is what is read of a document that cannot be decoded.
type heading struct {
	Kind             string            `json:"kind"`
	Name             string            `json:"name"`
	WorkloadSelector *workloadSelector `json:"workloadSelector"`
	Selector         *selector         `json:"selector"`
	Plugins          map[string]any    `json:"plugins"`
}

// parseDocument decodes a document strictly. Where that fails, it returns what can be read nevertheless, or nil.
func parseDocument(data []byte) (*document, error) {
	raw, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return nil, fmt.Errorf("is not YAML: %w", err)
	}
	d := new(document)
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	decoder.UseNumber()
	if err := decoder.Decode(d); err != nil {
		var h heading
		// As far as it goes: an error leaves the rest decoded.
		if other := json.Unmarshal(raw, &h); other != nil && h.Kind == "" {
			return nil, err
		}
		partial := &document{Kind: h.Kind, Name: h.Name, WorkloadSelector: h.WorkloadSelector, Selector: h.Selector, Plugins: map[string]map[string]any{}}
		for name, config := range h.Plugins {
			partial.Plugins[name], _ = config.(map[string]any)
		}
		return partial, err
	}
	d.Merge = cmp.Or(d.Merge, mergeAdd)
	return d, d.check()
}

// check checks what the document says by itself.
func (d *document) check() error {
	_, isObject := objectKinds[d.Kind]
	var errs []error
	require := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	require(isObject || d.Kind == kindPlugins || d.Kind == kindStreamPlugins,
		"kind %q is none of %s, %s, %s", d.Kind, kindPlugins, kindStreamPlugins, strings.Join(slices.Sorted(maps.Keys(objectKinds)), ", "))
	require(d.Name != "", "name is missing")
	require(!strings.ContainsAny(d.Name, " \t\r\n,"), "name %q has white space or a comma", d.Name)
	if d.Kind == kindPlugins || d.Kind == kindStreamPlugins {
		require(len(d.Plugins) > 0, "plugins are missing")
		require(d.Spec == nil, "spec is of other kinds")
		require(slices.Contains([]mergeMode{mergeAdd, mergeMerge, mergeReplace}, d.Merge), "merge %q is none of add, merge, replace", d.Merge)
		for _, name := range d.pluginNames() {
			require(d.Plugins[name] != nil, "plugins.%s is no object; {} has the plugin's defaults", name)
		}
		errs = append(errs, d.Selector.check(d.Kind))
	} else if isObject {
		require(d.Spec != nil, "spec is missing")
		require(d.Selector == nil && d.Plugins == nil && d.Priority == 0 && d.Merge == mergeAdd,
			"selector, priority, merge and plugins are of kind %s; the object of APISIX is in spec", kindPlugins)
	}
	errs = append(errs, d.WorkloadSelector.check())
	return errors.Join(errs...)
}
