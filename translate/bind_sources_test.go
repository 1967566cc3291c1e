package translate

import (
	"net/netip"
	"testing"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// Istio's InboundPassthroughCluster of a dual-stack pod has 127.0.0.6 and ::6.
func TestBindSourcesAreOfBothFamilies(t *testing.T) {
	t.Parallel()
	v4, v6 := netip.MustParseAddr("127.0.0.6"), netip.MustParseAddr("::6")
	for _, c := range []struct {
		first, extra  string
		source, other netip.Addr
	}{
		{"127.0.0.6", "::6", v4, v6},
		{"::6", "127.0.0.6", v6, v4},
		{"127.0.0.6", "", v4, netip.Addr{}},
		{"127.0.0.6", "127.0.0.7", v4, netip.Addr{}},
		{"0.0.0.0", "::6", netip.Addr{}, v6},
		{"", "", netip.Addr{}, netip.Addr{}},
	} {
		bind := &corepb.BindConfig{SourceAddress: &corepb.SocketAddress{Address: c.first}}
		if c.extra != "" {
			bind.ExtraSourceAddresses = []*corepb.ExtraSourceAddress{{Address: &corepb.SocketAddress{Address: c.extra}}}
		}
		source, other := bindSources(&clusterpb.Cluster{UpstreamBindConfig: bind})
		if source != c.source || other != c.other {
			t.Errorf("%q and %q: %v and %v, want %v and %v", c.first, c.extra, source, other, c.source, c.other)
		}
	}
}
