package apisix

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// PluginSchemas are those of an APISIX's own schemas that say what users may configure. Each is compiled when
// it is asked for, which takes less than to compile all. They belong to one goroutine.
type PluginSchemas struct {
	compiler *schemaCompiler
	raw      map[string]json.RawMessage // by use and name
	compiled map[string]*jsonschema.Schema
}

// SchemaUse says what a schema is for.
type SchemaUse string

// Uses of schemas.
const (
	// SchemaOfPlugin is that of plugins of routes and global rules, SchemaOfStreamPlugin of stream_routes.
	SchemaOfPlugin       SchemaUse = "schema"
	SchemaOfStreamPlugin SchemaUse = "stream"
	// SchemaOfCredential is that of plugins of consumers that tell who a client is.
	SchemaOfCredential SchemaUse = "consumer_schema"
	SchemaOfMetadata   SchemaUse = "metadata_schema"
	// SchemaOfObject is that of an object without its plugins, by its name in the singular.
	SchemaOfObject SchemaUse = "main"
)

// ParsePluginSchemas reads schemas in the form of the control API's /v1/schema.
func ParsePluginSchemas(raw []byte) (*PluginSchemas, error) {
	var all struct {
		Main          map[string]json.RawMessage            `json:"main"`
		Plugins       map[string]map[string]json.RawMessage `json:"plugins"`
		StreamPlugins map[string]map[string]json.RawMessage `json:"stream_plugins"`
	}
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, fmt.Errorf("APISIX schemas: %w", err)
	}
	s := &PluginSchemas{compiler: newSchemaCompiler(), raw: map[string]json.RawMessage{}, compiled: map[string]*jsonschema.Schema{}}
	for name, schema := range all.Main {
		s.raw[schemaKey(SchemaOfObject, name)] = schema
	}
	for name, uses := range all.Plugins {
		for _, use := range []SchemaUse{SchemaOfPlugin, SchemaOfCredential, SchemaOfMetadata} {
			if schema, ok := uses[string(use)]; ok {
				s.raw[schemaKey(use, name)] = schema
			}
		}
	}
	for name, uses := range all.StreamPlugins {
		s.raw[schemaKey(SchemaOfStreamPlugin, name)] = uses[string(SchemaOfPlugin)]
	}
	if len(s.raw) == 0 {
		return nil, errors.New("APISIX schemas: there are none in this document")
	}
	return s, nil
}

func schemaKey(use SchemaUse, name string) string { return string(use) + "/" + name }

// Check validates a configuration as APISIX does on loading it. known is false where there is no schema, or
// none that can be compiled.
func (s *PluginSchemas) Check(use SchemaUse, name string, config any) (known bool, err error) {
	key := schemaKey(use, name)
	schema, done := s.compiled[key]
	if raw, ok := s.raw[key]; !done && ok {
		if schema, err = s.compiler.compile(key, raw); err != nil {
			schema = nil
		}
		s.compiled[key] = schema
	}
	if schema == nil {
		return false, nil
	}
	// A copy, which gets defaults, with the types that the schema knows.
	data, err := json.Marshal(config)
	if err != nil {
		return true, err
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		return true, err
	}
	fillDefaults(schema, value)
	return true, schema.Validate(value)
}
