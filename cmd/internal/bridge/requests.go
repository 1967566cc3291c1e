package bridge

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"log/slog"
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

// RequestMetrics says whose requests are counted.
type RequestMetrics string

// The values of RequestMetrics; the zero value is the first.
const (
	// RequestMetricsAuto counts what istiod asks for: requests on chains with the filter istio.stats.
	RequestMetricsAuto RequestMetrics = "auto"
	// RequestMetricsOn counts all requests.
	RequestMetricsOn RequestMetrics = "on"
	// RequestMetricsOff counts none.
	RequestMetricsOff RequestMetrics = "off"
)

// ParseRequestMetrics returns the value of that name.
func ParseRequestMetrics(name string) (RequestMetrics, error) {
	switch m := RequestMetrics(name); m {
	case RequestMetricsAuto, RequestMetricsOn, RequestMetricsOff:
		return m, nil
	}
	return "", fmt.Errorf("%q: want auto, on or off", name)
}

// reportedAfter is how long an endpoint is known that no upstream leads to. Its address is not given out
// again before.
const reportedAfter = 5 * time.Minute

// requestFeed lets APISIX report requests, as long as there is a chain whose requests are counted or logged. The
// pipeline calls it.
type requestFeed struct {
	rule telemetry.Rule
	mode RequestMetrics
	logs bool // there is what writes access logs
	log  *slog.Logger
	// owned by the pipeline
	object  apisix.Object            // what APISIX was told to run; the zero value is nothing
	logged  []*translate.Chain       // whose logs object is made for
	leaving map[netip.Addr]time.Time // when what capture does not stand for any more is forgotten

	mu      sync.RWMutex
	overlay map[netip.Addr]*translate.OverlayEndpoint // guarded by mu
}

// openRequests makes what counts requests. Reports come in on the internal port.
func (b *Bridge) openRequests() {
	c := b.config
	mode := cmp.Or(c.RequestMetrics, RequestMetricsAuto)
	if b.internal == nil || mode == RequestMetricsOff && b.accessLogs == nil {
		return
	}
	log := logscope.Logger(c.Logger, logscope.Telemetry)
	feed := &requestFeed{
		rule: telemetry.Rule{
			Address: c.Translate.Internal, Profile: c.Translate.Profile,
			Gateway: strings.HasPrefix(c.Node.GetId(), xds.NodeRouter+"~"),
		},
		mode: mode, logs: b.accessLogs != nil, log: log,
		overlay: map[netip.Addr]*translate.OverlayEndpoint{}, leaving: map[netip.Addr]time.Time{},
	}
	b.pipeline.requests = feed
	config := telemetry.Config{
		World: requestWorld{b, feed}, Node: c.Node,
		Always: mode == RequestMetricsOn, Uncounted: mode == RequestMetricsOff,
		Registerer: b.registry, Logger: log,
	}
	if b.accessLogs != nil {
		config.Entries = b.accessLogs
	}
	b.requests = telemetry.New(config)
	b.internal.Handle(telemetry.Path, b.requests)
}

// prepare adds what APISIX is to run to a result, and takes note of what capture stands for; nil does nothing.
func (f *requestFeed) prepare(now time.Time, result *translate.Result, chains []*translate.Chain) {
	if f == nil {
		return
	}
	f.follow(now, &result.Capture)
	wanted := f.mode == RequestMetricsOn
	var logged []*translate.Chain
	for _, c := range chains {
		if !c.HTTP || c.NotServed != "" {
			continue
		}
		wanted = wanted || f.mode == RequestMetricsAuto && c.Stats != nil
		if f.logs && len(c.AccessLogs) > 0 {
			wanted, logged = true, append(logged, c)
		}
	}
	switch had := f.object.ID != ""; {
	case !wanted && had:
		result.Delete = append(result.Delete, f.object.Key())
		f.object, f.logged = apisix.Object{}, nil
	case wanted && (!had || !slices.Equal(logged, f.logged)):
		f.logged = logged
		object, err := f.ruleFor(logged).Object()
		if err != nil {
			f.log.Error("requests are not reported as they should be", slog.Any("error", err)) // cannot happen
		} else if !bytes.Equal(object.Value, f.object.Value) {
			f.object = object
			result.Put = append(result.Put, object)
		}
	}
}

// ruleFor is the rule where the requests of some chains are logged.
func (f *requestFeed) ruleFor(logged []*translate.Chain) telemetry.Rule {
	rule := f.rule
	for _, c := range logged {
		rule.Logged = append(rule.Logged, telemetry.Logged(c.Key, c.AccessLogs))
	}
	return rule
}

// follow takes note of endpoints. Requests to those that are gone may still end, and be reported.
func (f *requestFeed) follow(now time.Time, change *translate.CaptureChange) {
	for _, address := range change.Gone {
		f.leaving[address] = now.Add(reportedAfter)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range change.Overlay {
		delete(f.leaving, e.Address)
		f.overlay[e.Address] = e
	}
	for address, at := range f.leaving {
		if !now.Before(at) {
			delete(f.leaving, address)
			delete(f.overlay, address)
		}
	}
}

// requestWorld is the telemetry.World of the bridge.
type requestWorld struct {
	bridge *Bridge
	feed   *requestFeed
}

func (w requestWorld) Chain(key string) *translate.Chain {
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

func (w requestWorld) Object(kind apisix.Kind, id string) []byte {
	key := w.bridge.config.Prefix + "/" + apisix.Object{Kind: kind, ID: id}.Key()
	found, err := w.bridge.store.Range([]byte(key), nil, store.RangeOptions{})
	if err != nil || len(found.KVs) == 0 {
		return nil
	}
	return found.KVs[0].Value
}

func (w requestWorld) Resource(key xds.Key) *xds.Resource {
	view := w.bridge.pipeline.view.Load()
	if view == nil || key.Name == "" {
		return nil
	}
	return view.Snapshot.Get(key)
}

func (w requestWorld) Overlay(address netip.Addr) *translate.OverlayEndpoint {
	w.feed.mu.RLock()
	defer w.feed.mu.RUnlock()
	return w.feed.overlay[address]
}

func (w requestWorld) Principal() string {
	if w.bridge.identity == nil {
		return ""
	}
	if current := w.bridge.identity.Current(); current != nil {
		return current.ID
	}
	return ""
}

// runRequests keeps what is counted until ctx ends.
func (b *Bridge) runRequests(ctx context.Context) error {
	if b.requests == nil {
		return nil
	}
	return b.requests.Run(ctx)
}
