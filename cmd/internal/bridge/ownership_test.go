package bridge

import (
	"testing"

	"meshbridge/gateway"
)

func TestWhoMayWrite(t *testing.T) {
	o := newOwnership("/apisix", nil)
	for _, c := range []struct {
		name  string
		write gateway.Write
		want  gateway.Admission
	}{
		{"put of an id of ours that exists or not", put("/apisix/routes/r.80.reviews.k3v9q2m1x7"), gateway.Denied},
		{"put of an upstream of ours", put("/apisix/upstreams/u.x"), gateway.Denied},
		{"put of a plugin config of ours", put("/apisix/plugin_configs/pc.x"), gateway.Denied},
		{"put of the global rule that reports requests", put("/apisix/global_rules/g.requests"), gateway.Denied},
		{"put of a user's global rule", put("/apisix/global_rules/1"), gateway.Admitted},
		{"put of a user's route", put("/apisix/routes/1"), gateway.Admitted},
		{"put of a user's id that only looks alike", put("/apisix/routes/rest"), gateway.Admitted},
		{"put of an id of our form in another collection", put("/apisix/consumers/r.bob"), gateway.Admitted},
		{"put of a directory, as APISIX's start-up does", put("/apisix/routes/"), gateway.Ignored},
		{"put outside of the prefix", put("/other/routes/r.80"), gateway.Admitted},
		{"delete of an id of ours", del("/apisix/routes/r.80", ""), gateway.Denied},
		{"delete of a user's route", del("/apisix/routes/1", ""), gateway.Admitted},
		{"delete of a directory", del("/apisix/routes/", ""), gateway.Denied},
		{"delete of everything", del("\x00", "\x00"), gateway.Denied},
		{"delete of the prefix", del("/apisix", "/apisiy"), gateway.Denied},
		{"delete from a key on", del("/apisix/routes/1", "\x00"), gateway.Denied},
		{"delete of a range between ours", del("/apisix/routes/1", "/apisix/routes/9"), gateway.Admitted},
		{"delete of another prefix", del("/other", "/otheq"), gateway.Admitted},
	} {
		if got := o.admit(c.write); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestHeldIsWhatTouchesThePrefix(t *testing.T) {
	for _, c := range []struct {
		key, end string
		want     bool
	}{
		{"/apisix", "/apisiy", true}, // APISIX's first range, without a slash
		{"/apisix/", "/apisix0", true},
		{"/apisix/routes/1", "", true},
		{"\x00", "\x00", true},
		{"/apisix/routes", "\x00", true},
		{"/a", "/b", true},
		{"health", "", false}, // etcdctl endpoint health
		{"/registry/", "/registry0", false},
	} {
		if got := underPrefix("/apisix", []byte(c.key), []byte(c.end)); got != c.want {
			t.Errorf("[%q, %q): %v, want %v", c.key, c.end, got, c.want)
		}
	}
}

func put(key string) gateway.Write { return gateway.Write{Key: []byte(key)} }

func del(key, end string) gateway.Write {
	return gateway.Write{Delete: true, Key: []byte(key), End: []byte(end)}
}
