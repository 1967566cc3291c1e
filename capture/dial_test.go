package capture

import (
	"net/netip"
	"testing"
)

func TestSourceIsOfTheFamilyOfTheDestination(t *testing.T) {
	t.Parallel()
	v4, v6 := netip.MustParseAddr("127.0.0.6"), netip.MustParseAddr("::6")
	for _, c := range []struct{ to, source, other, want netip.Addr }{
		{netip.MustParseAddr("10.0.0.1"), v4, v6, v4},
		{netip.MustParseAddr("fd00::1"), v4, v6, v6},
		{netip.MustParseAddr("::ffff:10.0.0.1"), v4, v6, v4},
		{netip.MustParseAddr("10.0.0.1"), v6, v4, v4},
		{netip.MustParseAddr("fd00::1"), netip.Addr{}, v6, v6},
		{netip.MustParseAddr("10.0.0.1"), netip.Addr{}, v6, netip.Addr{}},
		{netip.MustParseAddr("10.0.0.1"), v4, netip.Addr{}, v4},
	} {
		if got := sourceFor(c.to, c.source, c.other); got != c.want {
			t.Errorf("to %s from %s or %s: %s, want %s", c.to, c.source, c.other, got, c.want)
		}
	}
}
