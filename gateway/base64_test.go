package gateway

import (
	"encoding/base64"
	"testing"

	"pgregory.net/rapid"
)

func TestBase64IsTheStandardOne(t *testing.T) {
	pairs := newBase64Pairs()
	rapid.Check(t, func(t *rapid.T) {
		before := rapid.SliceOfN(rapid.Byte(), 0, 5).Draw(t, "before")
		src := rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "src")
		want := string(before) + base64.StdEncoding.EncodeToString(src)
		if got := string(pairs.append(before, src)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}
