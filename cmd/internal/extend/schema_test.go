package extend_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"testing"

	"meshbridge/translate/apisix"
)

// The schemas that are built in can all be compiled. With -schemas, they are written from those of an APISIX.
func TestBuiltinSchemas(t *testing.T) {
	const file = "schemas.json.gz"
	if *schemasFile != "" {
		writeSchemas(t, *schemasFile, file)
	}
	packed, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	schemas, err := apisix.ParsePluginSchemas(raw)
	if err != nil {
		t.Fatal(err)
	}
	var all struct {
		Plugins map[string]json.RawMessage `json:"plugins"`
	}
	if err := json.Unmarshal(raw, &all); err != nil || len(all.Plugins) < 90 {
		t.Fatalf("%d plugins, %v", len(all.Plugins), err)
	}
	for name := range all.Plugins {
		if known, _ := schemas.Check(apisix.SchemaOfPlugin, name, map[string]any{}); !known {
			t.Errorf("the schema of %s cannot be compiled", name)
		}
	}
}

// writeSchemas keeps of an APISIX's schemas what users can configure.
func writeSchemas(t *testing.T, from, to string) {
	t.Helper()
	raw, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	var all struct {
		Main          map[string]json.RawMessage            `json:"main"`
		Plugins       map[string]map[string]json.RawMessage `json:"plugins"`
		StreamPlugins map[string]map[string]json.RawMessage `json:"stream_plugins"`
	}
	if err := json.Unmarshal(raw, &all); err != nil {
		t.Fatal(err)
	}
	keep := func(m map[string]json.RawMessage, names ...string) map[string]json.RawMessage {
		out := map[string]json.RawMessage{}
		for _, name := range names {
			if value, ok := m[name]; ok {
				out[name] = value
			}
		}
		return out
	}
	all.Main = keep(all.Main, "consumer", "consumer_group", "global_rule", "proto")
	for name, uses := range all.Plugins {
		all.Plugins[name] = keep(uses, "schema", "consumer_schema", "metadata_schema")
	}
	delete(all.Plugins, "example-plugin")
	for name, uses := range all.StreamPlugins {
		all.StreamPlugins[name] = keep(uses, "schema")
	}
	data, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	w, _ := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, packed.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}
