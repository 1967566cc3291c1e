package xds

import (
	"slices"
	"testing"
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

func clusterBody(tb testing.TB, name string) *anypb.Any {
	tb.Helper()
	body, err := anypb.New(&clusterpb.Cluster{Name: name})
	if err != nil {
		tb.Fatal(err)
	}
	return body
}

// A server that versions its resources may leave out of the first response on a stream what the
// client said that it holds. One that does not, like istiod, cannot.
func TestOnlyUnversionedResourcesAreGoneWhenTheFirstResponseLeavesThemOut(t *testing.T) {
	c := newCache([]string{ClusterType})
	o := c.apply(response{typeURL: ClusterType, resources: []received{
		{"versioned", "7", clusterBody(t, "versioned")},
		{"unversioned", "", clusterBody(t, "unversioned")},
		{"resent", "", clusterBody(t, "resent")},
	}}, time.Now())
	if len(o.update.Changed) != 3 {
		t.Fatal(o.update.Changed)
	}
	o = c.apply(response{typeURL: ClusterType, scope: baseline, resources: []received{
		{"resent", "", clusterBody(t, "resent")},
	}}, time.Now())
	if want := []Key{{ClusterType, "unversioned"}}; !slices.Equal(o.update.Changed, want) {
		t.Errorf("changed %v, want %v", o.update.Changed, want)
	}
	if o.update.Snapshot.Get(Key{ClusterType, "versioned"}) == nil {
		t.Error("the versioned cluster is gone")
	}
}

func TestAnotherVersionOfTheSameBytesIsNoChange(t *testing.T) {
	c := newCache([]string{ClusterType})
	in := response{typeURL: ClusterType, resources: []received{{"a", "1", clusterBody(t, "a")}}}
	first := c.apply(in, time.Now()).update.Snapshot
	in.resources = []received{{"a", "2", clusterBody(t, "a")}}
	o := c.apply(in, time.Now())
	if o.news || len(o.update.Changed) > 0 {
		t.Errorf("news of %v", o.update.Changed)
	}
	if got := c.versions(ClusterType)["a"]; got != "2" {
		t.Errorf("version %q is what the server will be told, want 2", got)
	}
	if got := first.Get(Key{ClusterType, "a"}).Version; got != "1" {
		t.Errorf("version %q in a Snapshot that was delivered before", got)
	}
}

func TestAResourceTellsWhenItsBytesCameAndWithWhichResponse(t *testing.T) {
	c := newCache([]string{ClusterType})
	first, second := time.Unix(1, 0), time.Unix(2, 0)
	c.apply(response{typeURL: ClusterType, version: "push-1", resources: []received{
		{"same", "1", clusterBody(t, "same")}, {"bad", "1", clusterBody(t, "bad")},
	}}, first)
	o := c.apply(response{typeURL: ClusterType, version: "push-2", resources: []received{
		{"same", "2", clusterBody(t, "same")}, {"new", "1", clusterBody(t, "new")}, {"bad", "2", clusterBody(t, "other")},
	}}, second)
	for name, want := range map[string]struct {
		at       time.Time
		response string
	}{"same": {first, "push-1"}, "new": {second, "push-2"}, "bad": {first, "push-1"}} {
		r := o.update.Snapshot.Get(Key{ClusterType, name})
		if !r.Received.Equal(want.at) || r.Response != want.response {
			t.Errorf("%s: %s with %q, want %s with %q", name, r.Received, r.Response, want.at, want.response)
		}
	}
	if r := o.update.Rejected; len(r) != 1 || !r[0].Received.Equal(second) || r[0].Response != "push-2" {
		t.Errorf("rejected: %+v", r)
	}
}

func TestTheNameOfADamagedResourceIsReadAsFarAsItGoes(t *testing.T) {
	whole := clusterBody(t, "a").GetValue()
	for name, test := range map[string]struct {
		value []byte
		want  string
	}{
		"whole":                {whole, "a"},
		"damaged after":        {append(slices.Clone(whole), 0xff), "a"},
		"damaged before":       {append([]byte{0xff}, whole...), ""},
		"cut":                  {whole[:len(whole)-1], ""},
		"twice":                {append(slices.Clone(whole), clusterBody(t, "b").GetValue()...), "b"},
		"of another wire type": {[]byte{1 << 3, 1}, ""},
		"empty":                {nil, ""},
	} {
		if got := peekName(&anypb.Any{Value: test.value}); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}
