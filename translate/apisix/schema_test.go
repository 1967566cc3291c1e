package apisix

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func fixtureSchemas(t *testing.T) *Schemas {
	t.Helper()
	raw, err := os.ReadFile("testdata/schema.json")
	if err != nil {
		t.Fatal(err)
	}
	s, err := ParseSchemas(raw)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSchemasCheckObjectsAndTheirPlugins(t *testing.T) {
	s := fixtureSchemas(t)
	for _, test := range []struct {
		kind  Kind
		value string
		// want is what the error says, empty for none.
		want string
	}{
		{KindRoute, `{"id":"r.1","uri":"/*","priority":-1,"remote_addr":"::1","plugins":{"redirect":{"uri":"https://$host"}}}`, ""},
		{KindRoute, `{"id":"r 1","uri":"/*"}`, "/id"},
		{KindRoute, `{"id":"r.1\n","uri":"/*"}`, ""}, // $ of a pattern is PCRE's here too
		{KindRoute, `{"uri":"/*","unknown":1}`, "unknown"},
		{KindRoute, `{"uri":"/*","priority":1.5}`, "/priority"},
		{KindRoute, `{"uri":"/*","remote_addr":"x"}`, "/remote_addr"},
		{KindRoute, `{"uri":"/*","plugins":{"redirect":{"uri":"/"}}}`, "plugins.redirect"},
		{KindRoute, `{"uri":"/*","plugins":{"redirect":{"uri":"/a","regex_uri":[]}}}`, "plugins.redirect"},
		{KindRoute, `{"uri":"/*","plugins":{"redirect":{"policy":"redis"}}}`, "redis_host"}, // and not by default
		{KindRoute, `{"uri":"/*","plugins":{"none":{}}}`, "plugins.none: APISIX has no such plugin"},
		{KindRoute, `{"uri":"/*","plugins":{"tagged":{"tag":"tag=x"},"broken":{"x":1}}}`, ""}, // unchecked, see the notes
		{KindRoute, `{`, "routes/x"},
		{KindUpstream, `{"timeout":0}`, "/timeout"},
		{KindSSL, `{"type":"client"}`, ""},
		{KindSSL, `{"type":"server"}`, "sni"},
		{KindPluginConfig, `{"plugins":{"redirect":{"uri":"/"}}}`, "plugins.redirect"},
		{KindGlobalRule, `{"id":"g.x","plugins":{"redirect":{"uri":"/"}}}`, "plugins.redirect"},
		{KindStreamRoute, `{"plugins":{"limit-conn":{}}}`, "plugins.limit-conn"},
		{KindStreamRoute, `{"plugins":{"redirect":{}}}`, "APISIX has no such plugin"},
		{"services", `{}`, "no schema of its kind"},
	} {
		err := s.Check(Object{test.kind, "x", []byte(test.value)})
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s %s: error %v, want one that says %q", test.kind, test.value, err, test.want)
		}
	}
}

func TestSchemasNoteWhatTheyDoNotCheck(t *testing.T) {
	notes := fixtureSchemas(t).Notes()
	if len(notes) != 2 || !slices.ContainsFunc(notes, func(s string) bool { return strings.Contains(s, "(?!tag=)") }) ||
		!slices.ContainsFunc(notes, func(s string) bool { return strings.Contains(s, "plugins/broken") }) {
		t.Errorf("notes %q", notes)
	}
}

func TestParseSchemasRefusesWhatIsNotTheControlAPIsAnswer(t *testing.T) {
	for _, raw := range []string{"", "[]", `{"main":{}}`, `{"main":{"route":{"$ref":"http://example.com/x"}}}`} {
		if _, err := ParseSchemas([]byte(raw)); err == nil || !strings.HasPrefix(err.Error(), "APISIX schemas: ") {
			t.Errorf("%q: error %v", raw, err)
		}
	}
}

// What our validation takes, the schemas of a real APISIX take as well.
func TestValidObjectsPassTheSchemasOfAPISIX(t *testing.T) {
	path := os.Getenv("APISIX_SCHEMA")
	if path == "" {
		t.Skip("APISIX_SCHEMA names no file with the answer of an APISIX 3.18's control API to /v1/schema")
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	schemas, err := ParseSchemas(raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range slices.Concat(routeCases(), upstreamCases(), pluginCases(), otherCases()) {
		if c.field != "" {
			continue
		}
		if err := schemas.Check(c.object); err != nil {
			t.Errorf("%s: %v", c.object.Value, err)
		}
	}
	for _, name := range KnownPlugins(Version{}) {
		if _, ok := schemas.plugins[name]; !ok && name != "opentelemetry" && name != "skywalking" { // which are not always loaded
			t.Errorf("APISIX has no plugin %s", name)
		}
	}
}
