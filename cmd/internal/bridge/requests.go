package bridge

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"meshbridge/cmd/internal/telemetry"
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

// requestFeed lets APISIX report requests, as long as there is a chain whose requests are counted or logged. The
// pipeline calls it.
type requestFeed struct {
	rule telemetry.Rule
	mode RequestMetrics
	logs bool // there is what writes access logs
	log  *slog.Logger
	// owned by the pipeline
	object apisix.Object      // what APISIX was told to run; the zero value is nothing
	logged []*translate.Chain // whose logs object is made for
}

// openRequests makes what counts requests. Reports come in on the internal port.
func (b *Bridge) openRequests() {
	c := b.config
	mode := cmp.Or(c.RequestMetrics, RequestMetricsAuto)
	if b.internal == nil || mode == RequestMetricsOff && b.accessLogs == nil {
		return
	}
	config := b.telemetryConfig()
	feed := &requestFeed{
		rule: telemetry.Rule{
			Address: c.Translate.Internal, Profile: c.Translate.Profile,
			Gateway: strings.HasPrefix(c.Node.GetId(), xds.NodeRouter+"~"),
		},
		mode: mode, logs: b.accessLogs != nil, log: config.Logger,
	}
	b.pipeline.requests = feed
	b.requests = telemetry.New(config)
	b.internal.Handle(telemetry.Path, b.requests)
}

// prepare adds what APISIX is to run to a result; nil does nothing.
func (f *requestFeed) prepare(result *translate.Result, chains []*translate.Chain) {
	if f == nil {
		return
	}
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

// runRequests keeps what is counted until ctx ends.
func (b *Bridge) runRequests(ctx context.Context) error {
	if b.requests == nil {
		return nil
	}
	return b.requests.Run(ctx)
}
