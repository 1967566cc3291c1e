package console

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	"meshbridge/translate/apisix"
)

// value draws any JSON value.
func value(depth int) *rapid.Generator[any] {
	scalar := rapid.OneOf(
		rapid.Just[any](nil), rapid.Just[any](true), rapid.Map(rapid.Int32(), func(i int32) any { return float64(i) }),
		rapid.Map(rapid.Float64Range(-1e9, 1e9), func(f float64) any { return f }),
		rapid.Map(rapid.String(), func(s string) any { return strings.ToValidUTF8(s, "?") }),
		rapid.SampledFrom([]any{"1e5s", "10.1.1.1", "0x1f", "no", "a: b", "a #b", "- a", "~", "2024-01-01", "[a]", "a,b", "{x}", "", " a", "a:", "=", "<<", "1_000", "null", "\u0085"}),
	)
	if depth == 0 {
		return scalar
	}
	inner := value(depth - 1)
	key := rapid.Map(rapid.String(), func(s string) string { return strings.ToValidUTF8(s, "?") })
	return rapid.OneOf(scalar,
		rapid.Map(rapid.SliceOfN(inner, 0, 4), func(l []any) any { return l }),
		rapid.Map(rapid.MapOfN(key, inner, 0, 4), func(m map[string]any) any { return m }))
}

func TestYAMLSaysTheSameAsJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text, err := json.Marshal(value(3).Draw(t, "value"))
		if err != nil {
			t.Skip("has no form in JSON:", err)
		}
		tree, err := parseJSON(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if got := string(tree.json()); !sameJSON(t, got, string(text)) {
			t.Fatalf("JSON %s, want %s", got, text)
		}
		var b strings.Builder
		for _, l := range tree.yaml() {
			b.WriteString(l.Text() + "\n")
		}
		back, err := yaml.YAMLToJSON([]byte(b.String()))
		if err != nil || !sameJSON(t, string(back), string(text)) {
			t.Fatalf("%v: YAML\n%s\nis %s, want %s", err, b.String(), back, text)
		}
	})
}

func sameJSON(t *rapid.T, a, b string) bool {
	var x, y any
	if err := json.Unmarshal([]byte(a), &x); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(b), &y); err != nil {
		t.Fatal(err)
	}
	return reflect.DeepEqual(x, y)
}

func TestFieldsOfDiagnosticsAreFound(t *testing.T) {
	tree, err := parseJSON([]byte(`{
	 "name": "l",
	 "virtual_hosts": [{"name": "a.b:80", "routes": [{"name": "x"}, {"name": "y", "route": {"timeout": "1s", "mirrors": [{"cluster": "m.1"}]}}]}],
	 "options": {"envoy.x": {"@type": "t", "deep": 1}},
	 "filter_chains": [
	  {"name": "c", "filters": [{"name": "hcm", "typed_config": {"@type": "type.googleapis.com/x.v3.HttpConnectionManager", "access_log": [],
	    "http_filters": [{"name": "rbac", "typed_config": {"@type": "r", "rules": {"policies": {"p.1": {"a": 1}}}}}]}}]},
	  {"filters": [{"name": "tcp", "typed_config": {"@type": "type.googleapis.com/x.v3.TcpProxy", "cluster": "o"}}]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]string{
		`virtual_hosts["a.b:80"].routes["y"].route.timeout`:        `"1s"`,
		`virtual_hosts["a.b:80"].routes[0]`:                        `{"name":"x"}`,
		`virtual_hosts["a.b:80"].routes["y"].route.mirrors["m.1"]`: `{"cluster":"m.1"}`,
		`virtual_hosts["a.b:80"].routes[0].route`:                  `{"name":"x"}`, // which has none
		`options["envoy.x"].deep`:                                  `1`,
		`filter_chains[1].tcp_proxy.cluster`:                       `"o"`,
		`http_filters["rbac"].rules.policies["p.1"]`:               `{"a":1}`,
		`filters["tcp"].cluster`:                                   `"o"`,
		`filter_chains["c"].http_filters["rbac"].rules`:            `{"policies":{"p.1":{"a":1}}}`,
		`http_connection_manager.access_log`:                       `[]`,
		`gone`:                                                     ``,
		`virtual_hosts["other"].routes`:                            ``,
		``:                                                         ``,
		`virtual_hosts["unfinished`:                                ``,
	} {
		var got strings.Builder
		for _, n := range tree.find(field) {
			got.Write(n.json())
		}
		if got.String() != want {
			t.Errorf("%s: %s, want %s", field, got.String(), want)
		}
	}
}

func FuzzFields(f *testing.F) {
	f.Add(`virtual_hosts["a"].routes[0].route`)
	f.Add(`a[`)
	f.Add(`["`)
	tree, err := parseJSON([]byte(`{"a":[{"name":"x","b":{"c":1}}]}`))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(_ *testing.T, field string) { tree.find(field) })
}

func TestSecretsOfObjectsAreRedacted(t *testing.T) {
	for _, c := range []struct {
		kind       apisix.Kind
		text, want string
	}{
		{apisix.KindSSL, `{"cert":"c","key":"k","keys":["k","k"]}`, `{"cert":"c","key":"[redacted]","keys":["[redacted]","[redacted]"]}`},
		{apisix.KindUpstream, `{"key":"remote_addr","tls":{"client_cert":"c","client_key":"k"}}`, `{"key":"remote_addr","tls":{"client_cert":"c","client_key":"[redacted]"}}`},
		{apisix.KindRoute, `{"plugins":{"x":{"client_secret":"k","n":[{"password":"k"}]}}}`, `{"plugins":{"x":{"client_secret":"[redacted]","n":[{"password":"[redacted]"}]}}}`},
	} {
		tree, err := parseJSON([]byte(c.text))
		if err != nil {
			t.Fatal(err)
		}
		redactObject(c.kind, tree)
		if got := string(tree.json()); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
}

func TestFieldsKeepTheirOrder(t *testing.T) {
	tree, err := parseJSON([]byte(`{"z":1,"name":"n","a":[]}`))
	if err != nil {
		t.Fatal(err)
	}
	if tree.first("name"); !slices.Equal(tree.keys, []string{"name", "z", "a"}) {
		t.Errorf("%q", tree.keys)
	}
}
