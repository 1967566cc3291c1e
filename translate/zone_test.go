package translate

import (
	"math"
	"strconv"
	"testing"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"pgregory.net/rapid"
)

// With clients spread evenly over the zones, which is what is assumed, every endpoint gets as much as
// any other when each client does its part: that is what zone aware routing promises.
func TestZoneAwareClientsTogetherLoadAllEndpointsAlike(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SliceOfN(rapid.IntRange(1, 9), 2, 6).Draw(t, "endpoints of each zone")
		zones := make([]Locality, len(sizes))
		var endpoints []endpoint
		total := 0
		for i, size := range sizes {
			zones[i] = Locality{Zone: strconv.Itoa(i)}
			l := &endpointpb.LocalityLbEndpoints{Locality: &corepb.Locality{Zone: strconv.Itoa(i)}}
			for range size {
				endpoints = append(endpoints, endpoint{weight: 1, locality: l})
			}
			total += size
		}
		load := map[Locality]float64{}
		for i, own := range zones {
			shares := zoneShares(zonePolicy{enabled: 1}, own, endpoints)
			sum := 0.0
			for zone, share := range shares {
				load[zone] += share / float64(len(zones))
				sum += share
			}
			if math.Abs(sum-1) > 1e-9 {
				t.Fatalf("the shares of a client in zone %d add up to %v: %v", i, sum, shares)
			}
			if alike := float64(sizes[i]) / float64(total); shares[own] < alike {
				t.Errorf("zone %d keeps %v of its requests, less than without zones, %v", i, shares[own], alike)
			}
		}
		for i, zone := range zones {
			if want := float64(sizes[i]) / float64(total); math.Abs(load[zone]-want) > 1e-9 {
				t.Errorf("zone %d gets %v of all requests, want %v", i, load[zone], want)
			}
		}
	})
}

func TestZonesDoNotMatterWithoutEndpointsInTheOwn(t *testing.T) {
	l := func(zone string) *endpointpb.LocalityLbEndpoints {
		return &endpointpb.LocalityLbEndpoints{Locality: &corepb.Locality{Zone: zone}}
	}
	endpoints := []endpoint{{weight: 1, locality: l("a")}, {weight: 1, locality: l("b")}, {weight: 1, locality: l("c"), draining: true}}
	for _, own := range []string{"c", "d"} {
		if got := zoneShares(zonePolicy{enabled: 1}, Locality{Zone: own}, endpoints); got != nil {
			t.Errorf("a client in %s: %v", own, got)
		}
	}
}
