package xds

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/anypb"
	"sigs.k8s.io/yaml"
)

// fileContent is what one file says.
type fileContent struct {
	resources []*Resource
	rejected  []Rejection
}

// parseFile reads the resources of one file. An error means that the file as a whole is not
// readable; a resource that is not valid is in rejected and leaves the others alone.
func parseFile(path string, content []byte) (fileContent, error) {
	var c fileContent
	if ext := filepath.Ext(path); ext != ".yaml" && ext != ".yml" {
		return c, c.documents(content)
	}
	documents := yamlDocuments(content)
	if len(documents) == 0 {
		return c, errors.New("is empty")
	}
	for i, document := range documents {
		asJSON, err := yaml.YAMLToJSONStrict(document)
		if err == nil {
			err = c.value(asJSON)
		}
		if err != nil {
			return fileContent{}, fmt.Errorf("document %d: %w", i+1, err)
		}
	}
	return c, nil
}

// yamlDocuments splits at the "---" lines; the YAML package reads the first document only and
// ignores the others. Documents without content are left out. Empty lines in front of a document
// keep its line numbers.
func yamlDocuments(content []byte) [][]byte {
	var documents [][]byte
	var document []byte
	empty, number := true, 0
	end := func() {
		if !empty {
			documents = append(documents, document)
		}
		document, empty = bytes.Repeat([]byte("\n"), number), true
	}
	for line := range bytes.Lines(content) {
		number++
		text := bytes.TrimSpace(line)
		if bytes.Equal(text, []byte("---")) && line[0] == '-' {
			end()
			continue
		}
		document = append(document, line...)
		empty = empty && (len(text) == 0 || text[0] == '#')
	}
	end()
	return documents
}

// documents reads one or more JSON values.
func (c *fileContent) documents(content []byte) error {
	dec := json.NewDecoder(bytes.NewReader(content))
	for n := 0; ; n++ {
		var raw json.RawMessage
		err := dec.Decode(&raw)
		switch {
		case errors.Is(err, io.EOF) && n == 0:
			return errors.New("is empty")
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, io.ErrUnexpectedEOF):
			return fmt.Errorf("%s: ends in the middle of a value", position(content, int64(len(content))))
		case err != nil:
			if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
				return fmt.Errorf("%s: %w", position(content, syntax.Offset), err)
			}
			return err
		}
		start := dec.InputOffset() - int64(len(raw))
		if err := c.value(raw); err != nil {
			return fmt.Errorf("%s: %w", position(content, start+1), err)
		}
	}
}

func position(content []byte, offset int64) string {
	before := content[:min(offset, int64(len(content)))]
	line := 1 + bytes.Count(before, []byte("\n"))
	return fmt.Sprintf("line %d column %d", line, len(before)-1-bytes.LastIndexByte(before, '\n'))
}

// value reads a discovery response (state of the world or delta), a config dump, a resource with
// its @type, or a list of these.
func (c *fileContent) value(raw json.RawMessage) error {
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) == nil && list != nil {
		for i, element := range list {
			if err := c.value(element); err != nil {
				return fmt.Errorf("element %d: %w", i, err)
			}
		}
		return nil
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(raw, &object); err != nil || object == nil {
		return errors.New("is neither an object nor a list")
	}
	switch {
	case object["resources"] != nil || object["versionInfo"] != nil || object["version_info"] != nil:
		return c.response(object)
	case object["configs"] != nil:
		c.dump(object["configs"])
		return nil
	case object["@type"] != nil:
		c.resource(raw, "", "")
		return nil
	default:
		return errors.New("is no discovery response (resources), config dump (configs) or resource (@type)")
	}
}

func (c *fileContent) response(object map[string]json.RawMessage) error {
	var resources []json.RawMessage
	if raw := object["resources"]; raw != nil {
		if err := json.Unmarshal(raw, &resources); err != nil {
			return errors.New("resources is not a list")
		}
	}
	typeURL := text(object, "type_url", "typeUrl")
	for i, raw := range resources {
		var element map[string]json.RawMessage
		if err := json.Unmarshal(raw, &element); err != nil {
			return fmt.Errorf("resources[%d] is not an object", i)
		}
		name, version := "", ""
		if body := element["resource"]; body != nil {
			// A delta response wraps each resource in envoy.service.discovery.v3.Resource.
			name, version = text(element, "name"), text(element, "version")
			raw = body
			element = nil
			if err := json.Unmarshal(raw, &element); err != nil {
				return fmt.Errorf("resources[%d].resource is not an object", i)
			}
		}
		if got := text(element, "@type"); typeURL != "" && got != typeURL {
			c.reject(Key{Type: typeURL, Name: resourceName(element)}, fmt.Errorf("resources[%d] is a %q in a response for %q", i, got, typeURL))
			continue
		}
		c.resource(raw, name, version)
	}
	return nil
}

// dump reads the resources in effect from Envoy's or istiod's config dump: whatever it holds of a
// known type, except for the states in which Envoy keeps what it does not serve.
func (c *fileContent) dump(raw json.RawMessage) {
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) == nil {
		for _, element := range list {
			c.dump(element)
		}
		return
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(raw, &object) != nil {
		return // a number or a text
	}
	if url := text(object, "@type"); url != "" && !lookupType(url).opaque {
		c.resource(raw, "", "")
		return
	}
	for _, key := range slices.Sorted(maps.Keys(object)) {
		switch key {
		case "bootstrap",
			"error_state", "errorState", "draining_state", "drainingState", "warming_state", "warmingState",
			"dynamic_warming_clusters", "dynamicWarmingClusters", "dynamic_warming_secrets", "dynamicWarmingSecrets":
		default:
			c.dump(object[key])
		}
	}
}

func (c *fileContent) resource(raw json.RawMessage, name, version string) {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(raw, &object); err != nil {
		c.reject(Key{}, errors.New("resource is not an object"))
		return
	}
	key := Key{Type: text(object, "@type"), Name: name}
	if key.Name == "" {
		key.Name = resourceName(object)
	}
	body := &anypb.Any{}
	var err error
	if key.Type == NameTableType {
		body, err = nameTableJSON(raw)
	} else {
		err = unmarshalJSON(raw, body)
	}
	if err != nil {
		c.reject(key, err)
		return
	}
	t := lookupType(key.Type)
	if t.opaque {
		name = key.Name
	}
	d, err := t.decode(name, version, body)
	if err != nil {
		c.reject(key, err)
		return
	}
	c.resources = append(c.resources, d.Resource)
}

func (c *fileContent) reject(key Key, err error) {
	c.rejected = append(c.rejected, Rejection{Key: key, Err: err})
}

func resourceName(object map[string]json.RawMessage) string {
	return text(object, "name", "cluster_name", "clusterName")
}

// text returns the first of the named fields that holds a string.
func text(object map[string]json.RawMessage, fields ...string) string {
	for _, f := range fields {
		var s string
		if json.Unmarshal(object[f], &s) == nil && s != "" {
			return s
		}
	}
	return ""
}

func readableExtension(name string) bool {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".json", ".yaml", ".yml":
		return true
	default:
		return false
	}
}
