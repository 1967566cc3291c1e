package extend

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"meshbridge/translate/apisix"
)

// checker checks documents against what APISIX has and what the mesh allows.
type checker struct {
	config  *Config
	schemas schemas
	// globals are the plugins of global rules, with the document that has them.
	globals map[string]*document
}

// checkDocument checks a document that says by itself what it should.
func (c *checker) checkDocument(d *document) error {
	d.unchecked = map[string]string{}
	switch d.Kind {
	case kindPlugins:
		return c.plugins(d, d.Plugins, c.routePlugin)
	case kindStreamPlugins:
		return c.plugins(d, d.Plugins, c.streamPlugin)
	}
	kind := objectKinds[d.Kind]
	spec := maps.Clone(d.Spec)
	if err := checkID(d, spec); err != nil {
		return err
	}
	if d.Kind == "Consumer" {
		spec["username"] = d.Name
	} else {
		spec["id"] = objectID(d)
	}
	var errs []error
	if name, has := schemaNames[d.Kind]; has {
		if _, err := c.schemas.check(apisix.SchemaOfObject, name, spec); err != nil {
			errs = append(errs, fmt.Errorf("spec: %w", err))
		}
	}
	plugins, err := pluginsOf(spec)
	switch {
	case err != nil:
		return errors.Join(append(errs, err)...)
	case d.Kind == "GlobalRule":
		errs = append(errs, c.plugins(d, plugins, c.globalPlugin))
	case d.Kind == "Consumer" || d.Kind == "ConsumerGroup":
		errs = append(errs, c.plugins(d, plugins, c.consumerPlugin))
	case d.Kind == "PluginMetadata":
		errs = append(errs, c.metadata(d, spec))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	d.object, err = apisix.Marshal(kind, d.Name, spec)
	return err
}

// schemaNames are what APISIX calls the kinds in its schemas.
var schemaNames = map[string]string{
	"GlobalRule": "global_rule", "Consumer": "consumer", "ConsumerGroup": "consumer_group", "Proto": "proto",
}

var (
	patternID       = regexp.MustCompile(`^[a-zA-Z0-9-_.]{1,64}$`)
	patternUsername = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,256}$`)
	patternSecret   = regexp.MustCompile(`^(vault|aws|gcp)/[a-zA-Z0-9-_.]{1,64}$`)
)

// checkID checks that a name can be an id, and that spec has no other one.
func checkID(d *document, spec map[string]any) error {
	pattern := patternID
	own := "id"
	switch d.Kind {
	case "Consumer":
		pattern, own = patternUsername, "username"
	case "Secret":
		pattern = patternSecret
	}
	if !pattern.MatchString(d.Name) {
		return fmt.Errorf("name %q does not match %s", d.Name, pattern)
	}
	if d.Kind == "GlobalRule" && apisix.OwnedID(d.Name) {
		return fmt.Errorf("name %q is of a form that the bridge keeps to itself", d.Name)
	}
	if id, has := spec[own]; has && id != objectID(d) {
		return fmt.Errorf("spec.%s is %v, and the name is %s: leave it out", own, id, d.Name)
	}
	return nil
}

// objectID is the id that an object says itself: of secrets, without the manager.
func objectID(d *document) string {
	if d.Kind == "Secret" {
		_, id, _ := strings.Cut(d.Name, "/")
		return id
	}
	return d.Name
}

// pluginsOf returns the plugins of an object.
func pluginsOf(spec map[string]any) (map[string]map[string]any, error) {
	value, has := spec["plugins"]
	if !has {
		return nil, nil
	}
	all, ok := value.(map[string]any)
	if !ok {
		return nil, errors.New("spec.plugins is no object")
	}
	out := map[string]map[string]any{}
	for name, value := range all {
		if out[name], ok = value.(map[string]any); !ok {
			return nil, fmt.Errorf("spec.plugins.%s is no object", name)
		}
	}
	return out, nil
}

// plugins checks each plugin of a document.
func (c *checker) plugins(d *document, plugins map[string]map[string]any, check func(name string, config map[string]any) (unchecked string, err error)) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(plugins)) {
		unchecked, err := check(name, plugins[name])
		if err != nil {
			errs = append(errs, fmt.Errorf("plugin %s: %w", name, err))
		}
		if unchecked != "" {
			d.unchecked[name] = unchecked
		}
	}
	return errors.Join(errs...)
}

// loaded checks that APISIX has the plugin: it would skip another in silence, and what it is for with it.
func (c *checker) loaded(name string, config map[string]any) (unchecked string, err error) {
	if !slices.Contains(c.config.Loaded, name) {
		return "", errors.New("is not in APISIX's list of plugins: --apisix-plugins adds it, where it is installed, at the next start")
	}
	if err := apisix.ValidateForeignPlugin(name, config, c.config.Version); err != nil {
		return "", plainly(err)
	}
	return c.schemas.check(apisix.SchemaOfPlugin, name, config)
}

// plainly is the error of one plugin without its place, which the caller has.
func plainly(err error) error {
	if field, ok := errors.AsType[*apisix.FieldError](err); ok {
		return fmt.Errorf("%s %s", field.Field, field.Rule)
	}
	return err
}

func (c *checker) routePlugin(name string, config map[string]any) (unchecked string, err error) {
	if unchecked, err = c.loaded(name, config); err != nil {
		return "", err
	}
	if runsEarly(name, config) && changesRequests(name, config) {
		return "", fmt.Errorf("could change requests before rules of access see them: give it a _meta.priority below %d", enforcingPriority)
	}
	return unchecked, nil
}

func (c *checker) streamPlugin(name string, config map[string]any) (unchecked string, err error) {
	if !slices.Contains(c.config.StreamLoaded, name) {
		return "", errors.New("is not in APISIX's list of stream plugins")
	}
	return c.schemas.check(apisix.SchemaOfStreamPlugin, name, config)
}

// globalPlugin checks plugins of global rules, which run before everything that routes have.
func (c *checker) globalPlugin(name string, config map[string]any) (unchecked string, err error) {
	unchecked, err = c.loaded(name, config)
	switch other := c.globals[name]; {
	case err != nil:
		return "", err
	case changesRequests(name, config):
		return "", fmt.Errorf("could change requests before rules of access see them: use kind %s, with or without a selector", kindPlugins)
	case other != nil:
		return "", fmt.Errorf("is in global rule %s, too: APISIX would run neither", other.Name)
	}
	return unchecked, nil
}

// credentialPlugins tell who a consumer is.
var credentialPlugins = []string{"basic-auth", "hmac-auth", "jwe-decrypt", "jwt-auth", "key-auth", "ldap-auth", "wolf-rbac"}

// consumerPlugin checks plugins of consumers and their groups, which replace those of routes.
func (c *checker) consumerPlugin(name string, config map[string]any) (unchecked string, err error) {
	if slices.Contains(credentialPlugins, name) {
		if !slices.Contains(c.config.Loaded, name) {
			return "", errors.New("is not in APISIX's list of plugins")
		}
		return c.schemas.check(apisix.SchemaOfCredential, name, config)
	}
	if unchecked, err = c.loaded(name, config); err != nil {
		return "", err
	}
	switch {
	case enforces(name):
		return "", errors.New("would replace that of routes, by which rules of access are enforced")
	case changesRequests(name, config):
		return "", errors.New("could change requests before all rules of access have seen them")
	}
	return unchecked, nil
}

func (c *checker) metadata(d *document, spec map[string]any) error {
	if !slices.Contains(c.config.Loaded, d.Name) && !slices.Contains(c.config.StreamLoaded, d.Name) {
		return fmt.Errorf("plugin %s is not in APISIX's list of plugins", d.Name)
	}
	metadata := maps.Clone(spec)
	delete(metadata, "id")
	unchecked, err := c.schemas.check(apisix.SchemaOfMetadata, d.Name, metadata)
	if err != nil {
		return fmt.Errorf("spec: %w", err)
	}
	if unchecked != "" {
		d.unchecked[d.Name] = unchecked
	}
	return nil
}

// number reads a number of JSON.
func number(v any) (int, bool) {
	switch v := v.(type) {
	case json.Number:
		n, err := strconv.ParseFloat(v.String(), 64)
		return int(n), err == nil
	case float64:
		return int(v), true
	case int:
		return v, true
	}
	return 0, false
}
