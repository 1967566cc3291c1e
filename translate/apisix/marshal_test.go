package apisix

import (
	"math"
	"strings"
	"testing"
)

func TestMarshalKeepsRegularExpressionsReadable(t *testing.T) {
	o, err := Marshal(KindRoute, "r.1", Route{
		ID: "r.1", URI: "/*", Priority: 1,
		Vars:    List(Eq("http_x", "a<b>&c"), Absent("http_y")),
		Plugins: Plugins{"b": map[string]any{"y": 1, "x": 2}, "a": map[string]any{}},
	})
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"id":"r.1","uri":"/*","priority":1,"vars":[["http_x","==","a<b>&c"],["http_y","==",null]],"plugins":{"a":{},"b":{"x":2,"y":1}}}`
	if got := string(o.Value); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if o.Key() != "routes/r.1" {
		t.Errorf("key %s", o.Key())
	}
}

func TestMarshalNamesTheObjectAtFault(t *testing.T) {
	_, err := Marshal(KindUpstream, "u.1", map[string]any{"weight": math.NaN()})
	if err == nil || !strings.HasPrefix(err.Error(), "upstreams/u.1: ") {
		t.Errorf("error %v", err)
	}
}

func BenchmarkMarshal(b *testing.B) {
	u := Upstream{ID: "u.80.reviews", Type: "least_conn", Scheme: "http", Labels: map[string]string{"mesh": "istio"}}
	for i := range 10 {
		u.Nodes = append(u.Nodes, Node{Host: "10.0.0.1", Port: 8000 + i, Weight: 1})
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Marshal(KindUpstream, u.ID, &u); err != nil {
			b.Fatal(err)
		}
	}
}
