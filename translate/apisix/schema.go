package apisix

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Schemas are the JSON schemas of one APISIX, as its control API serves them at /v1/schema. They
// are immutable and safe for concurrent use.
type Schemas struct {
	objects       map[Kind]*jsonschema.Schema
	plugins       map[string]*jsonschema.Schema
	streamPlugins map[string]*jsonschema.Schema
	notes         []string
}

// ParseSchemas compiles schemas in the form of /v1/schema: {"main": {"route": …, …}, "plugins":
// {name: {"schema": …}}, "stream_plugins": {…}}. A schema of a plugin that does not compile, and a
// pattern in PCRE syntax that cannot be checked, are left unchecked: see [Schemas.Notes].
func ParseSchemas(raw []byte) (*Schemas, error) {
	type pluginSchema struct {
		Schema json.RawMessage `json:"schema"`
	}
	var all struct {
		Main          map[string]json.RawMessage `json:"main"`
		Plugins       map[string]pluginSchema    `json:"plugins"`
		StreamPlugins map[string]pluginSchema    `json:"stream_plugins"`
	}
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, fmt.Errorf("APISIX schemas: %w", err)
	}
	c := newSchemaCompiler()
	s := &Schemas{objects: map[Kind]*jsonschema.Schema{}}
	for name, kind := range map[string]Kind{
		"route":         KindRoute,
		"upstream":      KindUpstream,
		"ssl":           KindSSL,
		"plugin_config": KindPluginConfig,
		"stream_route":  KindStreamRoute,
		"global_rule":   KindGlobalRule,
	} {
		schema, err := c.compile("main/"+name, all.Main[name])
		if err != nil {
			return nil, err
		}
		s.objects[kind] = schema
	}
	compilePlugins := func(group string, plugins map[string]pluginSchema) map[string]*jsonschema.Schema {
		compiled := make(map[string]*jsonschema.Schema, len(plugins))
		for _, name := range slices.Sorted(maps.Keys(plugins)) {
			schema, err := c.compile(group+"/"+name, plugins[name].Schema)
			if err != nil {
				c.note(err.Error() + "; the plugin is not checked")
			}
			compiled[name] = schema
		}
		return compiled
	}
	s.plugins = compilePlugins("plugins", all.Plugins)
	s.streamPlugins = compilePlugins("stream_plugins", all.StreamPlugins)
	s.notes = c.notes
	return s, nil
}

// Notes returns what of the schemas is not checked, and why.
func (s *Schemas) Notes() []string { return slices.Clone(s.notes) }

// Check validates an object against the schema of its kind, and its plugins against theirs, as
// APISIX does on loading it. A plugin without a schema is an error: APISIX would skip it.
func (s *Schemas) Check(o Object) error {
	schema := s.objects[o.Kind]
	if schema == nil {
		return fmt.Errorf("%s: there is no schema of its kind", o.Key())
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(o.Value))
	if err != nil {
		return fmt.Errorf("%s: %w", o.Key(), err)
	}
	var errs []error
	fillDefaults(schema, value)
	if err := schema.Validate(value); err != nil {
		errs = append(errs, fmt.Errorf("%s: %w", o.Key(), err))
	}
	known := s.plugins
	if o.Kind == KindStreamRoute {
		known = s.streamPlugins
	}
	object, _ := value.(map[string]any)
	plugins, _ := object["plugins"].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(plugins)) {
		schema, ok := known[name]
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("%s: plugins.%s: APISIX has no such plugin", o.Key(), name))
		case schema != nil:
			fillDefaults(schema, plugins[name])
			if err := schema.Validate(plugins[name]); err != nil {
				errs = append(errs, fmt.Errorf("%s: plugins.%s: %w", o.Key(), name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// fillDefaults sets missing properties to their defaults, as APISIX's validator does: conditions of a
// schema count on that, such as "if policy is redis" where policy has the default local. Tables are
// left out: Lua has one kind, and an empty list comes as {}.
func fillDefaults(schema *jsonschema.Schema, value any) {
	switch value := value.(type) {
	case map[string]any:
		for name, property := range schema.Properties {
			if child, ok := value[name]; ok {
				fillDefaults(property, child)
				continue
			}
			if property.Default == nil {
				continue
			}
			switch fallback := (*property.Default).(type) {
			case string, bool, json.Number:
				value[name] = fallback
			}
		}
	case []any:
		if items, ok := schema.Items.(*jsonschema.Schema); ok {
			for _, element := range value {
				fillDefaults(items, element)
			}
		}
	}
}

// schemaCompiler compiles schemas that refer to nothing outside themselves.
type schemaCompiler struct {
	*jsonschema.Compiler
	notes []string
}

func newSchemaCompiler() *schemaCompiler {
	c := &schemaCompiler{Compiler: jsonschema.NewCompiler()}
	c.DefaultDraft(jsonschema.Draft7)
	c.AssertFormat()
	c.UseLoader(noLoader{})
	c.UseRegexpEngine(func(pattern string) (jsonschema.Regexp, error) {
		re, err := compilePCRE(pattern, false)
		if errors.Is(err, errPCREOnly) {
			c.note(err.Error() + "; the pattern is not checked")
			return schemaPattern{pattern, nil}, nil
		}
		if err != nil {
			return nil, err
		}
		return schemaPattern{pattern, re}, nil
	})
	return c
}

func (c *schemaCompiler) note(text string) {
	if !slices.Contains(c.notes, text) {
		c.notes = append(c.notes, text)
	}
}

func (c *schemaCompiler) compile(name string, raw json.RawMessage) (*jsonschema.Schema, error) {
	if len(raw) == 0 {
		return nil, fmt.Errorf("APISIX schemas: %s is missing", name)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("APISIX schemas: %s: %w", name, err)
	}
	url := "apisix:///" + name
	if err := c.AddResource(url, document); err != nil {
		return nil, fmt.Errorf("APISIX schemas: %s: %w", name, err)
	}
	schema, err := c.Compile(url)
	if err != nil {
		return nil, fmt.Errorf("APISIX schemas: %s: %w", name, err)
	}
	return schema, nil
}

// noLoader refuses references to other documents: this package does no I/O.
type noLoader struct{}

func (noLoader) Load(url string) (any, error) {
	return nil, fmt.Errorf("reference to %s: schemas must stand alone", url)
}

// schemaPattern is a pattern of a schema; without an expression it takes everything.
type schemaPattern struct {
	pattern string
	re      *pcre
}

func (p schemaPattern) MatchString(s string) bool { return p.re == nil || p.re.match(s) }

func (p schemaPattern) String() string { return p.pattern }
