package translate

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"sigs.k8s.io/yaml"

	"meshbridge/translate/apisix"
)

// schemasOfAPISIX returns APISIX's own schemas, or nil where the environment does not name the file
// with them.
var schemasOfAPISIX = sync.OnceValues(func() (*apisix.Schemas, error) {
	path := os.Getenv("APISIX_SCHEMA")
	if path == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return apisix.ParseSchemas(raw)
})

// checkAccepted checks an object with our own rules and, where it is at hand, with APISIX's schema.
func checkAccepted(tb testing.TB, o apisix.Object) {
	tb.Helper()
	if err := apisix.Validate(o, apisix.Version{}); err != nil {
		tb.Errorf("APISIX would refuse %s: %v", o.Redacted().Value, err)
	}
	schemas, err := schemasOfAPISIX()
	if err != nil {
		tb.Fatal(err)
	}
	if schemas == nil {
		return // TestEveryPluginIsCheckedAgainstItsSchema says what is missing
	}
	if err := schemas.Check(o); err != nil {
		tb.Errorf("APISIX's schema refuses %s: %v", o.Redacted().Value, err)
	}
}

// Every plugin that can be emitted is in a recording's golden file or in a case, and each of its
// configurations there passes the plugin's schema, which is one that can be checked.
func TestEveryPluginIsCheckedAgainstItsSchema(t *testing.T) {
	seen := pluginsSeen(t)
	if diff := cmp.Diff(pluginsNamed(t), slices.Sorted(maps.Keys(seen))); diff != "" {
		t.Errorf("plugins (-named in the source +seen in goldens and cases):\n%s", diff)
	}
	schemas, err := schemasOfAPISIX()
	if err != nil {
		t.Fatal(err)
	}
	if schemas == nil {
		t.Skip("APISIX_SCHEMA names no file with the answer of an APISIX 3.18's control API to /v1/schema")
	}
	for _, name := range slices.Sorted(maps.Keys(seen)) {
		for _, note := range schemas.Notes() {
			if strings.Contains(note, "plugins/"+name+":") {
				t.Error(note)
			}
		}
		check := schemas.Check
		if slices.Contains(pluginsNotLoaded(), name) { // our own rules are all of its schema
			check = func(o apisix.Object) error { return apisix.Validate(o, apisix.Version{}) }
		}
		for config, file := range seen[name] {
			o := apisix.Object{Kind: apisix.KindRoute, ID: "r.test", Value: []byte(`{"id":"r.test","uri":"/*","plugins":{"` + name + `":` + config + `}}`)}
			if err := check(o); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
		t.Logf("%s: %d configurations", name, len(seen[name]))
	}
}

// pluginsNotLoaded are those that have no schema in the answer of an APISIX with the default plugins.
func pluginsNotLoaded() []string { return []string{"opentelemetry", "skywalking"} }

// pluginsSeen returns the configurations of each plugin in goldens and cases, with a file of each.
func pluginsSeen(tb testing.TB) map[string]map[string]string {
	tb.Helper()
	seen := map[string]map[string]string{}
	var collect func(file string, v any)
	collect = func(file string, v any) {
		switch v := v.(type) {
		case []any:
			for _, element := range v {
				collect(file, element)
			}
		case map[string]any:
			plugins, _ := v["plugins"].(map[string]any)
			for name, config := range plugins {
				raw, err := json.Marshal(config)
				if err != nil {
					tb.Fatal(err)
				}
				if seen[name] == nil {
					seen[name] = map[string]string{}
				}
				seen[name][string(raw)] = file
			}
			for _, element := range v {
				collect(file, element)
			}
		}
	}
	for _, pattern := range []string{filepath.Join(scenarios, "*", "*.yaml"), "../testdata/cases/*.txtar"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			tb.Fatal(pattern, err)
		}
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				tb.Fatal(err)
			}
			raw := source
			if strings.HasSuffix(file, ".txtar") {
				raw = nil
				for _, f := range txtar.Parse(source).Files {
					if f.Name == "want.yaml" {
						raw = f.Data
					}
				}
			}
			var document any
			if err := yaml.Unmarshal(raw, &document); err != nil {
				tb.Fatalf("%s: %v", file, err)
			}
			collect(file, document)
		}
	}
	return seen
}

// pluginsNamed returns the plugins for which the source has a constant.
func pluginsNamed(tb testing.TB) []string {
	tb.Helper()
	constant := regexp.MustCompile(`(?m)^(?:const|\t)\s*plugin[A-Z]\w*\s*= "([a-z-]+)"`)
	files, err := filepath.Glob("*.go")
	if err != nil {
		tb.Fatal(err)
	}
	var names []string
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			tb.Fatal(err)
		}
		for _, m := range constant.FindAllStringSubmatch(string(source), -1) {
			names = append(names, m[1])
		}
	}
	slices.Sort(names)
	return names
}
