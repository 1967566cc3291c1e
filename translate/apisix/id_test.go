package apisix

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestIDIsReadableAndDependsOnTheKeyAlone(t *testing.T) {
	tests := []struct{ kind, readable, want string }{
		{"u", "80.v1.reviews.default.svc.cluster.local", "u.80.v1.reviews.default."},
		{"u", "outbound|80||reviews.default.svc.cluster.local", "u.outbound.80.reviews.default."},
		{"r", "i:9080:tls", "r.i.9080.tls."},
		{"pc", "", "pc._."},
		{"r", "[::1]:80", "r.1.80."},
		{"r", strings.Repeat("a", 100), "r." + strings.Repeat("a", 51) + "."},
	}
	for _, test := range tests {
		got := ID(test.kind, test.readable, "key")
		if readable, hash := got[:len(got)-10], got[len(got)-10:]; readable != test.want || hash != ID("r", "", "key")[4:] {
			t.Errorf("ID(%q, %q) = %q, want %q and the hash of the key", test.kind, test.readable, got, test.want)
		}
	}
	if ID("r", "a", "key") == ID("r", "a", "other key") {
		t.Error("two keys have one id")
	}
}

func TestIDsAreAcceptedAndOwned(t *testing.T) {
	valid := regexp.MustCompile(`^[a-zA-Z0-9-_.]+$`)
	rapid.Check(t, func(t *rapid.T) {
		kind := rapid.SampledFrom([]string{"r", "u", "t", "s", "pc"}).Draw(t, "kind")
		id := ID(kind, rapid.String().Draw(t, "readable"), rapid.String().Draw(t, "key"))
		if len(id) > 64 || !valid.MatchString(id) || !OwnedID(id) || strings.Contains(id, "..") {
			t.Fatalf("ID = %q", id)
		}
	})
}

func TestOwnedIDLeavesOthersAlone(t *testing.T) {
	for _, id := range []string{"", "1", "r", "r.", "x.a", "ru.a", "00000000000000000056", "my.route"} {
		if OwnedID(id) {
			t.Errorf("OwnedID(%q)", id)
		}
	}
}

func TestLabelsAndNamesAreAccepted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.String().Draw(t, "text")
		if value := LabelValue(s); len(value) > 256 || strings.ContainsAny(value, " \t\n\v\f\r") {
			t.Fatalf("LabelValue(%q) = %q", s, value)
		}
		if name := Name(s); len(name) > 256 || !strings.HasPrefix(s, name) {
			t.Fatalf("Name(%q) = %q", s, name)
		}
	})
	if got := Name(strings.Repeat("é", 200)); got != strings.Repeat("é", 128) {
		t.Errorf("Name cuts within a character: %q", got)
	}
	if got := LabelValue("VirtualService default/reviews"); got != "VirtualService_default/reviews" {
		t.Errorf("LabelValue = %q", got)
	}
}
