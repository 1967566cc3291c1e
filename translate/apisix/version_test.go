package apisix

import "testing"

func TestParseVersion(t *testing.T) {
	for in, want := range map[string]string{
		"3.18":       "3.18",
		"3.18.0":     "3.18",
		"2.15.3":     "2.15",
		"v3.2.2":     "3.2",
		"3.14.0-rc1": "3.14",
	} {
		got, err := ParseVersion(in)
		if err != nil || got.String() != want {
			t.Errorf("ParseVersion(%q) = %v, %v; want %s", in, got, err, want)
		}
	}
	for _, in := range []string{"", "3", "3.", "3.x", "a.1", "3.1.b", "0.9", "-3.1", "3.1.", "3.18.0.1"} {
		if v, err := ParseVersion(in); err == nil {
			t.Errorf("ParseVersion(%q) = %v, want an error", in, v)
		}
	}
}

func TestVersionsCompareByNumber(t *testing.T) {
	v := func(major, minor int) Version { return Version{major, minor} }
	if !v(3, 18).AtLeast(3, 9) || v(3, 9).AtLeast(3, 18) || !v(4, 0).AtLeast(3, 18) || v(2, 15).AtLeast(3, 0) {
		t.Error("3.9 < 3.18 < 4.0 and 2.15 < 3.0 do not hold")
	}
	if !(Version{}).AtLeast(3, 18) || (Version{}).AtLeast(3, 19) {
		t.Error("the zero version is not 3.18")
	}
}
