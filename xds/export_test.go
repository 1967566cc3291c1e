package xds

import (
	"time"

	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// Cache gives tests and benchmarks what a client does with a response, without its network.
type Cache struct {
	cache *cache
	subs  *subscriptions
}

// NewCache returns the state of a delta client on a stream on which it has just asked.
func NewCache() *Cache {
	types := []string{ClusterType, EndpointType, ListenerType, RouteType}
	c := newCache(types)
	s := newSubscriptions(c, map[string]string{}, nil, false)
	s.opening(types)
	return &Cache{c, s}
}

// Receive takes in a delta response.
func (c *Cache) Receive(m *discoverypb.DeltaDiscoveryResponse) Update {
	r := fromDelta(m)
	c.subs.receive(&r)
	o := c.cache.apply(r, time.Now())
	c.subs.answer(r, o.errors)
	for _, change := range o.subscriptions {
		c.subs.change(change)
	}
	return o.update
}
