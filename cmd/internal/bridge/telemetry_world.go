package bridge

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"meshbridge/cmd/internal/logscope"
	"meshbridge/cmd/internal/telemetry"
	"meshbridge/store"
	"meshbridge/translate"
	"meshbridge/translate/apisix"
	"meshbridge/xds"
)

// reportedAfter is how long an endpoint is known that no upstream leads to. Its address is not given out
// again before.
const reportedAfter = 5 * time.Minute

// overlays are the endpoints that capture stands for, for who is told of requests and connections. Requests to
// those that are gone may still end, and be reported.
type overlays struct {
	leaving map[netip.Addr]time.Time // when what capture does not stand for any more is forgotten; the pipeline's

	mu  sync.RWMutex
	all map[netip.Addr]*translate.OverlayEndpoint // guarded by mu
}

func newOverlays() *overlays {
	return &overlays{leaving: map[netip.Addr]time.Time{}, all: map[netip.Addr]*translate.OverlayEndpoint{}}
}

// follow takes note of endpoints. The pipeline calls it, before anything is committed.
func (o *overlays) follow(now time.Time, change *translate.CaptureChange) {
	for _, address := range change.Gone {
		o.leaving[address] = now.Add(reportedAfter)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, e := range change.Overlay {
		delete(o.leaving, e.Address)
		o.all[e.Address] = e
	}
	for address, at := range o.leaving {
		if !now.Before(at) {
			delete(o.leaving, address)
			delete(o.all, address)
		}
	}
}

// telemetryConfig is what requests and connections are counted and logged by.
func (b *Bridge) telemetryConfig() telemetry.Config {
	mode := b.config.RequestMetrics
	c := telemetry.Config{
		World: telemetryWorld{b}, Node: b.config.Node,
		Always: mode == RequestMetricsOn, Uncounted: mode == RequestMetricsOff,
		Registerer: b.registry, Logger: logscope.Logger(b.config.Logger, logscope.Telemetry),
	}
	if b.accessLogs != nil {
		c.Entries = b.accessLogs
	}
	return c
}

// telemetryWorld is the telemetry.World of the bridge.
type telemetryWorld struct{ bridge *Bridge }

func (w telemetryWorld) Chain(key string) *translate.Chain {
	view := w.bridge.pipeline.view.Load()
	if view == nil {
		return nil
	}
	i, found := slices.BinarySearchFunc(view.Chains, key, func(c *translate.Chain, key string) int { return strings.Compare(c.Key, key) })
	if !found {
		return nil
	}
	return view.Chains[i]
}

func (w telemetryWorld) Object(kind apisix.Kind, id string) []byte {
	key := w.bridge.config.Prefix + "/" + apisix.Object{Kind: kind, ID: id}.Key()
	found, err := w.bridge.store.Range([]byte(key), nil, store.RangeOptions{})
	if err != nil || len(found.KVs) == 0 {
		return nil
	}
	return found.KVs[0].Value
}

func (w telemetryWorld) Resource(key xds.Key) *xds.Resource {
	view := w.bridge.pipeline.view.Load()
	if view == nil || key.Name == "" {
		return nil
	}
	return view.Snapshot.Get(key)
}

func (w telemetryWorld) Overlay(address netip.Addr) *translate.OverlayEndpoint {
	o := w.bridge.pipeline.overlays
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.all[address]
}

func (w telemetryWorld) OverlayOf(cluster string) (of []*translate.OverlayEndpoint) {
	o := w.bridge.pipeline.overlays
	o.mu.RLock()
	defer o.mu.RUnlock()
	for _, e := range o.all {
		if e.Cluster == cluster {
			of = append(of, e)
		}
	}
	return of
}

func (w telemetryWorld) Principal() string {
	if w.bridge.identity == nil {
		return ""
	}
	if current := w.bridge.identity.Current(); current != nil {
		return current.ID
	}
	return ""
}
