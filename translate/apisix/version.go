package apisix

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// Version is a minor release of APISIX. Patch releases do not change what meshbridge emits.
// The zero Version stands for the default, see [Version.OrDefault].
type Version struct {
	Major, Minor int
}

// The default version is the release that the evaluator and the validation were measured against.
const defaultMajor, defaultMinor = 3, 18

// ParseVersion parses "3.18" or "3.18.0"; a pre-release suffix of the patch number is ignored.
func ParseVersion(s string) (Version, error) {
	parts := strings.SplitN(strings.TrimPrefix(s, "v"), ".", 3)
	if len(parts) < 2 {
		return Version{}, fmt.Errorf("APISIX version %q: want major.minor, for example 3.18", s)
	}
	major, err := parseVersionNumber(parts[0])
	if err != nil {
		return Version{}, fmt.Errorf("APISIX version %q: major: %w", s, err)
	}
	minor, err := parseVersionNumber(parts[1])
	if err != nil {
		return Version{}, fmt.Errorf("APISIX version %q: minor: %w", s, err)
	}
	if len(parts) == 3 {
		patch, _, _ := strings.Cut(parts[2], "-")
		if _, err := parseVersionNumber(patch); err != nil {
			return Version{}, fmt.Errorf("APISIX version %q: patch: %w", s, err)
		}
	}
	if major == 0 {
		return Version{}, fmt.Errorf("APISIX version %q: there is no release 0.x that meshbridge can serve", s)
	}
	return Version{Major: major, Minor: minor}, nil
}

func parseVersionNumber(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number", s)
	}
	return int(n), nil
}

// OrDefault returns the version itself, or 3.18 where it is zero.
func (v Version) OrDefault() Version {
	if v == (Version{}) {
		return Version{Major: defaultMajor, Minor: defaultMinor}
	}
	return v
}

// Compare orders versions; the zero Version is equal to 3.18.
func (v Version) Compare(w Version) int {
	v, w = v.OrDefault(), w.OrDefault()
	return cmp.Or(cmp.Compare(v.Major, w.Major), cmp.Compare(v.Minor, w.Minor))
}

// AtLeast tells whether the version is major.minor or later.
func (v Version) AtLeast(major, minor int) bool {
	return v.Compare(Version{Major: major, Minor: minor}) >= 0
}

// String returns for example "3.18".
func (v Version) String() string {
	v = v.OrDefault()
	return strconv.Itoa(v.Major) + "." + strconv.Itoa(v.Minor)
}
