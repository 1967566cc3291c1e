package auth

import (
	"testing"

	"go.etcd.io/etcd/api/v3/authpb"
	"pgregory.net/rapid"
)

// inRange tells whether etcd's range has a key.
func inRange(k, key, end string) bool {
	switch end {
	case "":
		return k == key
	case "\x00":
		return k >= key
	default:
		return k >= key && k < end
	}
}

// A range is covered when each of its keys is in one range that was granted or another. Between the ends
// of ranges all keys are alike, so that a model needs one from each gap.
func TestUnionOfGrantsCoversARange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		letters := []string{"b", "d", "f", "h", "j"}
		probes := []string{"a", "b", "b\x00", "c", "d", "d\x00", "e", "f", "f\x00", "g", "h", "h\x00", "i", "j", "j\x00", "k"}
		type span struct{ key, end string } // both of etcd's
		draw := func(name string) span {
			s := span{rapid.SampledFrom(letters).Draw(t, name+" key"), rapid.SampledFrom(append([]string{"", "\x00"}, letters...)).Draw(t, name+" end")}
			if s.end != "\x00" && s.end <= s.key {
				s.end = ""
			}
			return s
		}
		var granted []*authpb.Permission
		var spans []span
		for range rapid.IntRange(0, 6).Draw(t, "grants") {
			s := draw("grant")
			spans = append(spans, s)
			granted = append(granted, permission(authpb.Permission_WRITE, s.key, s.end))
		}
		request := draw("request")
		want := true
		for _, k := range probes {
			if !inRange(k, request.key, request.end) {
				continue
			}
			covered := false
			for _, s := range spans {
				covered = covered || inRange(k, s.key, s.end)
			}
			want = want && covered
		}
		permissions := newPermissions(granted)
		if got := permissions.write.cover([]byte(request.key), []byte(request.end)); got != want {
			t.Errorf("cover(%q) is %t with %q, want %t", request, got, spans, want)
		}
	})
}
