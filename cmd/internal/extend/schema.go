package extend

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"strings"

	"meshbridge/translate/apisix"
)

// builtin has APISIX 3.18's own schemas of plugins, consumers, consumer groups, global rules and protos, as its
// control API serves them at /v1/schema (Apache License 2.0). Plugins whose libraries the build that served
// them did not have are missing. "go test -run TestBuiltinSchemas -schemas FILE" writes it.
//
//go:embed schemas.json.gz
var builtin []byte

// builtinVersion is the release that the schemas are of.
func builtinVersion() apisix.Version { return apisix.Version{}.OrDefault() }

// schemas checks configurations by APISIX's own schemas, where there are any.
type schemas struct {
	*apisix.PluginSchemas
	// why there are none.
	missing string
}

// openSchemas returns the ones that were given, or else the built-in ones for the release that they are of.
func openSchemas(c *Config) (schemas, error) {
	raw := c.Schemas
	if raw == nil {
		if v := c.Version.OrDefault(); v != builtinVersion() {
			return schemas{missing: fmt.Sprintf("the built-in schemas are of APISIX %s, not %s", builtinVersion(), v)}, nil
		}
		r, err := gzip.NewReader(bytes.NewReader(builtin))
		if err != nil {
			return schemas{}, fmt.Errorf("built-in schemas: %w", err)
		}
		if raw, err = io.ReadAll(r); err != nil {
			return schemas{}, fmt.Errorf("built-in schemas: %w", err)
		}
	}
	parsed, err := apisix.ParsePluginSchemas(raw)
	return schemas{parsed, "there is no schema of it"}, err
}

// check returns why a configuration is not checked, empty where it is, and what is wrong with it.
func (s schemas) check(use apisix.SchemaUse, name string, config any) (unchecked string, err error) {
	if s.PluginSchemas == nil {
		return s.missing, nil
	}
	known, err := s.Check(use, name, config)
	if !known {
		return s.missing, nil
	}
	if err != nil {
		return "", oneLine(err)
	}
	return "", nil
}

// oneLine joins the lines of a schema's error, the first of which names the schema alone.
func oneLine(err error) error {
	lines := strings.Split(err.Error(), "\n")
	if len(lines) > 1 {
		lines = lines[1:]
	}
	for i, line := range lines {
		lines[i] = strings.TrimLeft(line, " -")
	}
	return errors.New(strings.Join(lines, "; "))
}
